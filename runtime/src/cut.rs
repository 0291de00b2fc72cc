//! A connection that can be ended from outside. HTTP/2 has no other way to be rid of a peer that answers every ping and
//! takes nothing of what is sent to it: what is queued for it waits for as long as the connection lasts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// More bytes than the pings of a minute and their answers have. A peer that goes on taking so many takes what it is sent, be
/// it one large frame over a slow link.
const MOVED: u64 = 1024;

/// How many bytes a connection has taken. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<AtomicU64>);

/// Whether a connection goes on taking what is sent.
#[derive(Debug)]
pub struct Progress {
    written: Written,
    seen: u64,
}

impl Progress {
    /// Of the connection that counts in `written`.
    pub fn new(written: Written) -> Progress {
        Progress { written, seen: 0 }
    }

    /// Whether it has taken more than pings since this was true for the last time.
    pub fn moved(&mut self) -> bool {
        let written = self.written.0.load(Ordering::Relaxed);
        let moved = written - self.seen >= MOVED;
        if moved {
            self.seen = written;
        }
        moved
    }
}

/// Carries bytes until its token is cancelled, which it also is when this is dropped.
#[derive(Debug)]
pub struct Cuttable<Io> {
    io: Io,
    written: Written,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _over: DropGuard,
}

impl<Io> Cuttable<Io> {
    /// `cut` ends this connection and no other; what it takes is counted in `written`.
    pub fn new(io: Io, cut: CancellationToken, written: Written) -> Cuttable<Io> {
        Cuttable { io, written, cut: Box::pin(cut.clone().cancelled_owned()), _over: cut.drop_guard() }
    }

    /// What carries the bytes.
    pub fn get_ref(&self) -> &Io {
        &self.io
    }

    fn count(&self, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &taken {
            self.written.0.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        taken
    }

    /// The task that reads and writes is woken by the end, whichever of both it waits for.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Cuttable<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Cuttable<Io> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        let taken = Pin::new(&mut self.io).poll_write(context, bytes);
        self.count(taken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        let taken = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.count(taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
