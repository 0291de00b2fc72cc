//! A network in memory. It can stop carrying for a while, and it can be cut: then it loses what it carries without a word,
//! and neither end hears of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use active_monitor_runtime::cut::{Cuttable, Written};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::ca::AgentIdentity;

/// What the network does with the bytes of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Up,
    /// They wait.
    Held,
    /// The connections that there are carry no more, ever, and there are no new ones.
    Cut,
}

/// The hub's end of a connection. Who calls is known, since there is no TLS to tell it.
pub(super) struct Wire {
    stream: Cuttable<DuplexStream>,
    identity: AgentIdentity,
    cut: CancellationToken,
    written: Written,
}

/// Tells whether the hub still has its end.
pub(super) struct Open(CancellationToken);

impl Open {
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_cancelled()
    }
}

/// A connection: the agent's end, the hub's, and whether that is open.
pub(super) fn connection(identity: AgentIdentity, weather: &watch::Receiver<Weather>) -> (DuplexStream, Wire, Open) {
    let (near, near_wire) = duplex(1 << 16);
    let (far_wire, far) = duplex(1 << 16);
    let (near_read, near_write) = tokio::io::split(near_wire);
    let (far_read, far_write) = tokio::io::split(far_wire);
    tokio::spawn(carry(near_read, far_write, weather.clone()));
    tokio::spawn(carry(far_read, near_write, weather.clone()));
    let cut = CancellationToken::new();
    let written = Written::default();
    let stream = Cuttable::new(far, cut.clone(), written.clone());
    let wire = Wire { stream, identity, cut: cut.clone(), written };
    (near, wire, Open(cut))
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut weather: watch::Receiver<Weather>,
) {
    let mut held = weather.clone();
    let pump = async {
        let mut bytes = vec![0; 4096];
        while let Ok(count) = from.read(&mut bytes).await {
            let carried = held.wait_for(|weather| *weather != Weather::Held).await.is_ok();
            if count == 0 || !carried || to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    let cut = async { drop(weather.wait_for(|weather| *weather == Weather::Cut).await) };
    tokio::select! {
        biased;
        () = cut => {}
        () = pump => return,
    }
    // Only silence tells the ends.
    std::future::pending().await
}

impl Connected for Wire {
    type ConnectInfo = (AgentIdentity, CancellationToken, Written);

    fn connect_info(&self) -> Self::ConnectInfo {
        (self.identity.clone(), self.cut.clone(), self.written.clone())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
