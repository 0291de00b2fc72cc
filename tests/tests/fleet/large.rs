//! Sources of ten megabytes: inline, as a file, at a URL. Each is one clear error of its check, and others go on.

use std::net::SocketAddr;
use std::sync::Arc;

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{PATIENCE, check, created_workflows, waiting_check};

const BYTES: usize = 10 * 1024 * 1024;

/// A good workflow, but for its size.
fn source() -> String {
    let mut text = String::from(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  entrypoint: wait\n  templates:\n  - name: wait\n    \
         suspend: {duration: \"1s\"}\n",
    );
    while text.len() < BYTES {
        text.push_str("# and so on, and so on, and so on, and so on, and so on, and so on, and so on\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_ten_megabytes_is_one_clear_error_of_its_check() {
    let name = "a_source_of_ten_megabytes_is_one_clear_error_of_its_check";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let url = serve(cluster).await.expect("server");
    let sources = cluster.dir.join("sources");
    std::fs::create_dir(&sources).expect("folder");
    std::fs::write(sources.join("large.yaml"), source()).expect("file");
    let args = [
        format!("--source-dir={}", sources.display()),
        "--source-allow-cidr=127.0.0.1/32".to_owned(),
        format!("--source-ca-file={}", cluster.ca_file.display()),
    ];
    let agent = Agent::start_with(cluster, "large", None, &args.each_ref().map(String::as_str)).await.expect("agent");
    cluster.apply_yaml(&waiting_check("good", "repeatAfterSec: 3")).await.expect("good check");

    refused_by_the_api_server(cluster).await;
    let checks = [("file", "{file: {path: large.yaml}}".to_owned()), ("url", format!("{{url: {{path: '{url}'}}}}"))];
    for (name, source) in &checks {
        let text = check(&format!("large-{name}"), "repeatAfterSec: 3600", &[]);
        let (head, _) = text.split_once("      source:").expect("source");
        cluster.apply_yaml(&format!("{head}      source: {source}\n")).await.expect("the check is small");
    }
    for (name, _) in &checks {
        let status = status(cluster, &agent, &format!("large-{name}"), |status| status["status"] == "Failed").await;
        let message = status["errorMessage"].as_str().unwrap_or_default();
        assert!(message.contains("it is larger than 1048576 bytes"), "{name}: {message}");
        println!("{name}: {message}");
    }
    let runs = status(cluster, &agent, "good", |status| status["successCount"].is_u64()).await["successCount"].as_u64();
    status(cluster, &agent, "good", |status| status["successCount"].as_u64() >= runs.map(|runs| runs + 2)).await;
    for (name, _) in &checks {
        let name = format!("large-{name}");
        let status = status(cluster, &agent, &name, |_| true).await;
        assert_eq!(
            (status["failedCount"].as_u64(), status["totalHealthCheckRuns"].as_u64()),
            (Some(1), Some(1)),
            "{status}"
        );
        let told = events(cluster, &name).await;
        assert_eq!(told, ["Failed"], "{name}: one error");
    }
    let made = created_workflows(cluster);
    assert!(made.iter().all(|made| made.workflow.starts_with("health/good-")), "{made:?}");
    assert!(agent.process.pid().is_some(), "the agent lives");
}

/// It takes no request of more than 3 MiB: the author hears of it, and the agent never does.
async fn refused_by_the_api_server(cluster: &Cluster) {
    let text = check("large-inline", "repeatAfterSec: 3600", &[]);
    let (head, _) = text.split_once("        inline:").expect("source");
    let inline = serde_json::to_string(&source()).expect("text");
    let text = format!("{head}        inline: {inline}\n");
    for how in [&["apply", "--server-side", "-f", "-"][..], &["apply", "-f", "-"], &["create", "-f", "-"]] {
        let error = cluster.kubectl_as(&cluster.kubeconfig, how, &text).await.expect_err("it is too large");
        let error = format!("{error:#}");
        println!("kubectl {}: {error:.300}", how.join(" "));
        assert!(error.to_lowercase().contains("too large") || error.contains("Too long"), "{how:?}: {error:.500}");
    }
    assert!(cluster.health_check("health", "large-inline").await.is_err(), "nothing is stored");
}

async fn status(cluster: &Cluster, agent: &Agent, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let what = format!("status of {name}");
    let found = wait::until(&what, PATIENCE, || async {
        let status = cluster.health_check("health", name).await?["status"].take();
        anyhow::ensure!(is(&status), "{status}");
        Ok(Some(status))
    });
    found.await.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()))
}

/// The reasons of the events that were told of a check.
async fn events(cluster: &Cluster, name: &str) -> Vec<String> {
    let events = cluster.get("/apis/events.k8s.io/v1/namespaces/health/events").await.expect("events");
    let of_check = events["items"].as_array().into_iter().flatten().filter(|event| event["regarding"]["name"] == name);
    of_check.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A server on loopback that answers with the source, whatever is asked; gives its address.
async fn serve(cluster: &Cluster) -> anyhow::Result<String> {
    let files = cluster.pki.server("sources", &["127.0.0.1"])?;
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}/large.yaml", listener.local_addr()?);
    let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    let answer = source();
    let router = axum::Router::new().fallback(move || std::future::ready(answer.clone()));
    tokio::spawn(async move {
        let _ends_with_the_test = axum::serve(listener, router).await;
    });
    Ok(url)
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
