//! The way to the hub: straight, or through the HTTP proxy that the environment names.

use std::io;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::net::TcpStream;
use tower::Service;

/// Opens a TCP connection to `host:port`. A proxy for it is asked for a tunnel (HTTP CONNECT), so that TLS is with the hub
/// all the same.
///
/// # Errors
/// The hub or the proxy cannot be reached, the proxy refuses, or it is none that speaks plain HTTP.
pub(super) async fn connect(address: &str, proxies: &Matcher) -> io::Result<TcpStream> {
    let hub: Uri = format!("https://{address}").parse().map_err(io::Error::other)?;
    let Some(proxy) = proxies.intercept(&hub) else { return TcpStream::connect(address).await };
    let mut tunnel = Tunnel::new(proxy.uri().clone(), HttpConnector::new());
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    let host = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
    let refused = |error| io::Error::other(format!("no tunnel through the proxy {host}: {error}"));
    tunnel.call(hub).await.map(hyper_util::rt::TokioIo::into_inner).map_err(refused)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// A hub that says one word.
    async fn hub() -> String {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"hub").await.unwrap();
            }
        });
        address
    }

    /// A proxy that takes one tunnel and gives what it was asked, or answers with this status.
    async fn proxy(status: &'static str) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let (listener, address) = listener().await;
        let asked = tokio::spawn(async move {
            let mut client = BufReader::new(listener.accept().await.unwrap().0);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                client.read_line(&mut line).await.unwrap();
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_owned());
            }
            client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            if status.starts_with("200") {
                let target = head[0].split(' ').nth(1).unwrap();
                let mut hub = TcpStream::connect(target).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut hub).await;
            }
            head
        });
        (address, asked)
    }

    async fn said(mut stream: TcpStream) -> String {
        let mut word = String::new();
        stream.read_to_string(&mut word).await.unwrap();
        word
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel_with_its_credentials() {
        let (hub, (proxy, asked)) = (hub().await, proxy("200 OK").await);
        let proxies = Matcher::builder().https(format!("http://agent:secret@{proxy}")).build();
        assert_eq!(said(connect(&hub, &proxies).await.unwrap()).await, "hub");
        let head = asked.await.unwrap();
        assert_eq!(head[0], format!("CONNECT {hub} HTTP/1.1"));
        let credentials = "proxy-authorization: basic ywdlbnq6c2vjcmv0";
        assert!(head.iter().any(|line| line.to_lowercase() == credentials), "{head:?}");
    }

    #[tokio::test]
    async fn a_hub_that_needs_no_proxy_is_dialled_itself() {
        let hub = hub().await;
        let proxies = Matcher::builder().https("http://127.0.0.1:1").no("127.0.0.1").build();
        assert_eq!(said(connect(&hub, &proxies).await.unwrap()).await, "hub");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
        let (hub, (proxy, _)) = (hub().await, proxy("403 Forbidden").await);
        let proxies = Matcher::builder().https(format!("http://agent:secret@{proxy}")).build();
        let error = connect(&hub, &proxies).await.unwrap_err().to_string();
        assert!(error.contains(&proxy) && !error.contains("secret"), "{error}");
    }
}
