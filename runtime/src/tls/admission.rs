//! Who gets a connection of a listener: the bounds, what is counted where they refuse, and the connection that holds a
//! place until it is dropped.
//!
//! A handshake waits for a place, for two seconds at most: then the longest one gives way. A connection too many is closed,
//! since its caller dials again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, Opts};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

use super::HANDSHAKE_TIMEOUT;
use crate::cut::{Cuttable, Written};

/// Handshakes at the same time.
pub const MAX_HANDSHAKES: usize = 256;
/// What a handshake has before it gives way to another: an honest one takes milliseconds, also when a fleet comes back at
/// once and as many as there may be share a processor.
const HANDSHAKE_SHARE: Duration = Duration::from_secs(2);
/// The first bytes that a caller must send in time after its handshake: the preface of HTTP/2, or as much of a request.
const FIRST_BYTES: usize = 24;

/// Bounds on the connections of a listener that are through their handshake.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All of them.
    pub connections: usize,
    /// Those of one client certificate; without one, of one address.
    pub per_caller: usize,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It spoke no TLS that is taken here, or showed no certificate that is.
    Handshake,
    /// Its handshake, or its first bytes behind it, did not come in time.
    Slow,
    /// Its handshake gave way to a newer one.
    Displaced,
    /// The listener has as many as it takes.
    Full,
    /// The caller has as many as one may have.
    Caller,
    /// The system gave no descriptor for it. Its caller waits; what is counted are tries.
    System,
}

impl Refused {
    const ALL: [Refused; 6] =
        [Refused::Handshake, Refused::Slow, Refused::Displaced, Refused::Full, Refused::Caller, Refused::System];

    fn as_str(self) -> &'static str {
        match self {
            Refused::Handshake => "handshake",
            Refused::Slow => "slow",
            Refused::Displaced => "displaced",
            Refused::Full => "full",
            Refused::Caller => "caller",
            Refused::System => "system",
        }
    }
}

/// Counts refused connections by listener and reason. Clones count together.
#[derive(Clone, Debug)]
pub struct Refusals(IntCounterVec);

impl Refusals {
    /// Counters of this name.
    ///
    /// # Errors
    /// The name is wrong.
    pub fn new(name: &str) -> Result<Refusals, prometheus::Error> {
        let opts = Opts::new(name, "Connections that were refused, by listener and reason.");
        Ok(Refusals(IntCounterVec::new(opts, &["listener", "reason"])?))
    }

    /// To be registered where it shall be seen.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.0.clone())
    }

    /// How many a listener refused for this reason.
    pub fn total(&self, listener: &str, refused: Refused) -> u64 {
        self.0.with_label_values(&[listener, refused.as_str()]).get()
    }

    fn count(&self, listener: &str, refused: Refused) {
        self.0.with_label_values(&[listener, refused.as_str()]).inc();
    }
}

/// One listener's bounds and what they let in.
#[derive(Debug)]
pub(super) struct Gate {
    listener: &'static str,
    limits: Limits,
    refusals: Refusals,
    state: Mutex<State>,
    /// A handshake is done.
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they began, and when that was.
    handshakes: BTreeMap<u64, (Instant, CancellationToken)>,
    begun: u64,
    connections: usize,
    callers: HashMap<Caller, usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Certificate(CertificateDer<'static>),
    Address(IpAddr),
}

impl Gate {
    pub(super) fn new(listener: &'static str, limits: Limits, refusals: Refusals) -> Gate {
        for refused in Refused::ALL {
            // There from the start: a counter that appears with its first count would hide it from `rate()`.
            refusals.0.with_label_values(&[listener, refused.as_str()]);
        }
        Gate { listener, limits, refusals, state: Mutex::default(), done: Notify::new() }
    }

    pub(super) fn count(&self, refused: Refused) {
        self.refusals.count(self.listener, refused);
    }

    /// Takes a handshake in. Where there are too many it waits: until one is done, or the longest has had its share.
    pub(super) async fn begin(self: &Arc<Gate>) -> Handshake {
        loop {
            let share_ends = match self.try_begin() {
                Ok(handshake) => return handshake,
                Err(share_ends) => share_ends,
            };
            tokio::select! {
                () = self.done.notified() => {}
                () = tokio::time::sleep_until(share_ends) => {}
            }
        }
    }

    fn try_begin(self: &Arc<Gate>) -> Result<Handshake, Instant> {
        let (now, displaced) = (Instant::now(), CancellationToken::new());
        let mut state = self.lock();
        if state.handshakes.len() >= MAX_HANDSHAKES
            && let Some(longest) = state.handshakes.first_entry()
        {
            let share_ends = longest.get().0 + HANDSHAKE_SHARE;
            if now < share_ends {
                return Err(share_ends);
            }
            longest.remove().1.cancel();
        }
        state.begun += 1;
        let number = state.begun;
        state.handshakes.insert(number, (now, displaced.clone()));
        drop(state);
        Ok(Handshake { gate: Arc::clone(self), number, displaced })
    }

    /// A place for a connection through its handshake.
    fn admit(self: &Arc<Gate>, caller: Caller) -> Result<Place, Refused> {
        let mut state = self.lock();
        if state.connections >= self.limits.connections {
            return Err(Refused::Full);
        }
        let own = state.callers.entry(caller.clone()).or_default();
        if *own >= self.limits.per_caller {
            return Err(Refused::Caller);
        }
        *own += 1;
        state.connections += 1;
        drop(state);
        Ok(Place { gate: Arc::clone(self), caller })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handshake under way.
pub(super) struct Handshake {
    gate: Arc<Gate>,
    number: u64,
    /// Set when it has to give way.
    pub(super) displaced: CancellationToken,
}

impl Handshake {
    /// It is done: a connection, if there is a place for it.
    pub(super) fn done(self, stream: TlsStream<TcpStream>, address: IpAddr) -> Result<Connection, Refused> {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let caller = match certificate {
            Some(leaf) => Caller::Certificate(leaf.clone().into_owned()),
            None => Caller::Address(address),
        };
        let place = self.gate.admit(caller)?;
        let late = Box::pin(tokio::time::sleep_until(Instant::now() + HANDSHAKE_TIMEOUT));
        let cut = CancellationToken::new();
        let written = Written::default();
        let stream = Cuttable::new(stream, cut.clone(), written.clone());
        Ok(Connection { stream, cut, written, silent: Some(Silent { missing: FIRST_BYTES, late }), place })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.gate.lock().handshakes.remove(&self.number);
        self.gate.done.notify_one();
    }
}

#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    caller: Caller,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.connections -= 1;
        if let Some(own) = state.callers.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                state.callers.remove(&self.caller);
            }
        }
    }
}

/// A connection through its handshake. It has its place until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: Cuttable<TlsStream<TcpStream>>,
    cut: CancellationToken,
    written: Written,
    /// Until the first bytes are here.
    silent: Option<Silent>,
    place: Place,
}

#[derive(Debug)]
struct Silent {
    missing: usize,
    late: Pin<Box<Sleep>>,
}

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who is at the other end.
    pub tls: TlsConnectInfo<TcpConnectInfo>,
    /// Ends the connection, and is cancelled once it has ended.
    pub cut: CancellationToken,
    /// What the connection has taken.
    pub written: Written,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { tls: self.stream.get_ref().connect_info(), cut: self.cut.clone(), written: self.written.clone() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Connection { silent, place, .. } = &mut *self;
        let Some(Silent { missing, late }) = silent else { return read };
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            *silent = None;
        } else if read.is_pending() && late.as_mut().poll(context).is_ready() {
            place.gate.count(Refused::Slow);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
