//! Serves an axum router over HTTP/1.1 and HTTP/2, on TLS or on plain TCP.
//!
//! Unlike `axum::serve` it ends: a connection that still streams (server-sent events) is cut a while after the stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Extension};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tls::TlsIncoming;

/// Connections at the same time; further callers wait.
const MAX_CONNECTIONS: usize = 1024;
/// Time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests at the same time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// A peer that leaves a ping unanswered for so long is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Time that open requests have after the stop.
const DRAIN: Duration = Duration::from_secs(3);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves over TLS until `stop`. Handlers find the peer's address as `Extension<ConnectInfo<SocketAddr>>`.
///
/// # Errors
/// None: it ends when it is asked to.
pub async fn serve_tls(mut incoming: TlsIncoming, router: Router, stop: CancellationToken) -> io::Result<()> {
    let server = Server::new(router, stop.clone());
    loop {
        let place = server.place().await;
        let accepted = tokio::select! {
            accepted = incoming.accept() => accepted,
            () = stop.cancelled() => None,
        };
        let Some((stream, peer)) = accepted else { return server.drain().await };
        server.serve(stream, peer, place);
    }
}

/// Serves over plain TCP until `stop`.
///
/// # Errors
/// None: it ends when it is asked to.
pub async fn serve_plain(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let server = Server::new(router, stop.clone());
    loop {
        let place = server.place().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return server.drain().await,
        };
        match accepted {
            Ok((stream, peer)) => server.serve(stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Place = Option<tokio::sync::OwnedSemaphorePermit>;

struct Server {
    router: Router,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Server {
    fn new(router: Router, stop: CancellationToken) -> Server {
        Server { router, stop, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), connections: TaskTracker::new() }
    }

    /// A place for a connection; waits for one, but not longer than the server runs.
    async fn place(&self) -> Place {
        tokio::select! {
            place = Arc::clone(&self.places).acquire_owned() => place.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    fn serve<Io>(&self, io: Io, peer: SocketAddr, place: Place)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.router.clone().layer(Extension(ConnectInfo(peer)));
        let stop = self.stop.clone();
        self.connections.spawn(async move {
            let _place = place;
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
            builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE);
            builder.http2().max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD_BYTES as u32);
            let connection =
                builder.serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service));
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, %peer, "connection ended badly");
            }
        });
    }

    async fn drain(&self) -> io::Result<()> {
        self.connections.close();
        self.connections.wait().await;
        Ok(())
    }
}
