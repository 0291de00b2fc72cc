//! The way to the cluster of a kubeconfig: straight, or through the HTTP proxy that the kubeconfig names, else the
//! environment, as kubectl goes. kube could do it with a feature, and would then compare `NO_PROXY` with the proxy's own
//! address.

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use super::DoctorError;
use crate::args::DoctorArgs;

/// A client, and the proxy that it asks, without its password.
pub(super) struct Way {
    pub(super) client: Client,
    pub(super) proxy: Option<String>,
}

pub(super) async fn connect(args: &DoctorArgs) -> Result<Way, DoctorError> {
    let file = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let file = file.map_err(DoctorError::Kubeconfig)?;
    let named = named_proxy(&file, args.context.as_ref());
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(file, &options).await.map_err(DoctorError::Kubeconfig)?;
    config.proxy_url = None;
    match chosen(&config, named)? {
        Some(proxy) => through(config, &proxy),
        None => Ok(Way { client: Client::try_from(config).map_err(DoctorError::Client)?, proxy: None }),
    }
}

/// The `proxy-url` of the context's cluster.
fn named_proxy(file: &Kubeconfig, context: Option<&String>) -> Option<String> {
    let context = context.or(file.current_context.as_ref())?;
    let context = file.contexts.iter().find(|named| named.name == *context)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The proxy to ask; `NO_PROXY` is of the environment's own, and what is on this machine needs none of these.
fn chosen(config: &Config, named: Option<String>) -> Result<Option<Intercept>, DoctorError> {
    let is_named = named.is_some();
    let proxies = match named {
        Some(url) => Matcher::builder().all(url).build(),
        None if is_here(config) => return Ok(None),
        None => of_environment(),
    };
    let proxy = proxies.intercept(&config.cluster_url);
    let is_refused = match &proxy {
        Some(proxy) => proxy.uri().scheme_str() != Some("http"),
        None => is_named,
    };
    if is_refused {
        let proxy = proxy.as_ref().map_or_else(|| "of the kubeconfig".to_owned(), name);
        return Err(DoctorError::Proxy { proxy });
    }
    Ok(proxy)
}

/// As kubectl reads it, which knows no `ALL_PROXY`.
fn of_environment() -> Matcher {
    let value = |name: &str| std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).unwrap_or_default();
    Matcher::builder().http(value("HTTP_PROXY")).https(value("HTTPS_PROXY")).no(value("NO_PROXY")).build()
}

fn is_here(config: &Config) -> bool {
    let host = config.cluster_url.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Its address; a password is no part of it.
fn name(proxy: &Intercept) -> String {
    proxy.uri().to_string().trim_end_matches('/').to_owned()
}

/// As kube makes its client, behind a tunnel: TLS is with the API server itself.
fn through(config: Config, proxy: &Intercept) -> Result<Way, DoctorError> {
    let mut tunnel = Tunnel::new(proxy.uri().clone(), HttpConnector::new());
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    let connector = config.rustls_https_connector_with_connector(tunnel).map_err(DoctorError::Client)?;
    let http: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(DoctorError::Client)?)
        .layer(config.extra_headers_layer().map_err(DoctorError::Client)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Way { client: ClientBuilder::new(service, config.default_namespace).build(), proxy: Some(name(proxy)) })
}
