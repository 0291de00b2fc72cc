//! An HTTP proxy that makes tunnels (CONNECT) to places that only it knows, and to no others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// `host:port` as it is asked for, and where that is.
type Places = Arc<[(String, String)]>;

/// A running proxy; it takes nobody any more when this is dropped.
pub struct TunnelProxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for TunnelProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TunnelProxy {
    /// Starts a proxy that knows these places.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(places: &[(&str, &str)]) -> anyhow::Result<TunnelProxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let (address, asked) = (listener.local_addr()?, Arc::default());
        let places: Places = places.iter().map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect();
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, places.clone(), Arc::clone(&seen)));
            }
        });
        Ok(TunnelProxy { address, asked, task })
    }

    /// The first lines of what it was asked so far, each once.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().clone();
        asked.sort();
        asked.dedup();
        asked
    }
}

async fn tunnel(client: TcpStream, places: Places, asked: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let request = head.first().cloned().unwrap_or_default();
    asked.lock().push(request.clone());
    let place = places.iter().find(|(name, _)| request == format!("CONNECT {name} HTTP/1.1"));
    let Some((_, place)) = place else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    };
    let mut server = TcpStream::connect(place).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}
