//! Sources elsewhere: files and URLs, one whose server goes, ones that ask for too much, and ones of ten megabytes. Each
//! that is bad is one clear error of its check, and others go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use axum::http::{StatusCode, Uri};
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

/// A good workflow.
const GOOD: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  entrypoint: wait\n  templates:\n  - name: wait\n    \
    suspend: {duration: \"1s\"}\n";

/// A good workflow, but for its size.
fn source() -> String {
    let mut text = String::from(GOOD);
    while text.len() < BYTES {
        text.push_str("# and so on, and so on, and so on, and so on, and so on, and so on, and so on\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_elsewhere_run_and_bad_ones_are_one_clear_error_of_their_check() {
    let name = "sources_elsewhere_run_and_bad_ones_are_one_clear_error_of_their_check";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let is_away = Arc::new(AtomicBool::new(false));
    let url = serve(cluster, &is_away).await.expect("server");
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

    a_copy_stands_in_for_a_server_that_is_away(cluster, &agent, &url, &is_away).await;
    what_asks_for_too_much_is_refused(cluster, &agent, &sources).await;
    refused_by_the_api_server(cluster).await;
    let checks =
        [("file", "{file: {path: large.yaml}}".to_owned()), ("url", format!("{{url: {{path: '{url}/large.yaml'}}}}"))];
    for (name, source) in &checks {
        let text = check_of(&format!("large-{name}"), "repeatAfterSec: 3600", source);
        cluster.apply_yaml(&text).await.expect("the check is small");
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
    let runs = |made: &str| made.starts_with("health/good-") || made.starts_with("health/elsewhere-");
    assert!(made.iter().all(|made| runs(&made.workflow)), "{made:?}");
    assert!(agent.process.pid().is_some(), "the agent lives");
}

fn check_of(name: &str, every: &str, source: &str) -> String {
    let text = check(name, every, &[]);
    let (head, _) = text.split_once("      source:").expect("source");
    format!("{head}      source: {source}\n")
}

async fn a_copy_stands_in_for_a_server_that_is_away(cluster: &Cluster, agent: &Agent, url: &str, is_away: &AtomicBool) {
    let source = format!("{{url: {{path: '{url}/good.yaml'}}}}");
    cluster.apply_yaml(&check_of("elsewhere", "repeatAfterSec: 3", &source)).await.expect("check");
    status(cluster, agent, "elsewhere", |status| status["successCount"].is_u64()).await;
    is_away.store(true, Ordering::Relaxed);
    let warning = wait::until("a run of the copy", PATIENCE, || async {
        let workflows = cluster.workflows("health").await?;
        let mut warnings = workflows
            .iter()
            .filter_map(|made| made["metadata"]["annotations"]["activemonitor.keikoproj.io/warning"].as_str());
        Ok(warnings.next().map(str::to_owned))
    });
    let warning = warning.await.expect("a run of the copy");
    assert!(warning.starts_with("ran the copy that was fetched at ") && warning.contains("503"), "{warning}");
    let runs = status(cluster, agent, "elsewhere", |_| true).await["successCount"].as_u64();
    status(cluster, agent, "elsewhere", |status| status["successCount"].as_u64() > runs).await;
    is_away.store(false, Ordering::Relaxed);
}

/// The policy holds for what comes from elsewhere as for what is inline.
async fn what_asks_for_too_much_is_refused(cluster: &Cluster, agent: &Agent, sources: &std::path::Path) {
    let text = GOOD.replace("spec:\n", "spec:\n  volumes: [{name: root, hostPath: {path: /}}]\n");
    std::fs::write(sources.join("host.yaml"), text).expect("file");
    cluster.apply_yaml(&check_of("host", "repeatAfterSec: 3600", "{file: {path: host.yaml}}")).await.expect("check");
    let status = status(cluster, agent, "host", |status| status["status"] == "Failed").await;
    let message = status["errorMessage"].as_str().unwrap_or_default();
    assert!(message.contains("hostPath"), "{message}");
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

/// A server on loopback that has both sources while it is not away; gives its address.
async fn serve(cluster: &Cluster, is_away: &Arc<AtomicBool>) -> anyhow::Result<String> {
    let files = cluster.pki.server("sources", &["127.0.0.1"])?;
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    let (large, is_away) = (source(), Arc::clone(is_away));
    let answer = move |uri: Uri| {
        let text = if uri.path() == "/large.yaml" { large.clone() } else { GOOD.to_owned() };
        let status = if is_away.load(Ordering::Relaxed) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        std::future::ready((status, text))
    };
    let router = axum::Router::new().fallback(answer);
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
