//! `fleetcheck doctor`: what would happen in a cluster if the agent ran its HealthChecks. Reads the cluster with a
//! kubeconfig, changes nothing, and asks no hub.

mod ceiling;
mod connect;
mod facts;
mod judge;

use std::io;

use kube::config::KubeconfigError;
use serde::Serialize;

use self::connect::{Way, connect};
use self::facts::Facts;
use self::judge::{Numbers, Verdict};
use crate::args::{DoctorArgs, Format};
use crate::output::{Rows, Text, Tone};
use crate::{Error, Exit, Streams, World, output};

/// Why a cluster could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoctorError {
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
    #[error("cannot make a client for the cluster")]
    Client(#[source] kube::Error),
    #[error(
        "cannot ask the proxy {proxy}: only one that speaks plain HTTP (http://) can be asked for a tunnel; name such a one, or \
         take it away for this API server with NO_PROXY or in the kubeconfig"
    )]
    Proxy { proxy: String },
    #[error("through the proxy {proxy}, which the kubeconfig or the environment names")]
    Through { proxy: String, source: Box<DoctorError> },
    #[error("cannot read {what}")]
    Read { what: &'static str, source: kube::Error },
    #[error("the API server did not answer within {seconds} s")]
    Timeout { seconds: u64 },
    #[error("cannot start the network runtime")]
    Runtime(#[source] io::Error),
}

/// What is said of a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The kubeconfig's context; empty for its current one.
    context: String,
    numbers: Numbers,
    /// In the order in which they are looked at.
    findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    verdict: Verdict,
    /// What was looked at: `argo`, `crd`, `check health/dns`, ...
    what: String,
    /// What it is like, and what to do about it.
    message: String,
}

pub(super) fn run(args: &DoctorArgs, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DoctorError::Runtime)?;
    let facts = runtime.block_on(look(args))?;
    let (numbers, findings) = judge::judge((world.now)(), &facts);
    let report = Report { context: args.context.clone().unwrap_or_default(), numbers, findings };
    output::show(format, world, streams, &report, |world, streams| table(&report, world, streams))?;
    let worst = report.findings.iter().map(|finding| finding.verdict).max();
    Ok(if worst.is_none_or(|worst| worst < Verdict::Warn) { Exit::Fine } else { Exit::Found })
}

async fn look(args: &DoctorArgs) -> Result<Facts, DoctorError> {
    let Way { client, proxy } = connect(args).await?;
    let facts = facts::read(client).await;
    match proxy {
        Some(proxy) => facts.map_err(|source| DoctorError::Through { proxy, source: Box::new(source) }),
        None => facts,
    }
}

fn table(report: &Report, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
    let mut rows = Rows::new(["RESULT", "WHAT", "SAYS"], world.colour);
    for Finding { verdict, what, message } in &report.findings {
        let tone = match verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Note => Tone::Plain,
            Verdict::Warn => Tone::Doubtful,
            Verdict::Bad => Tone::Bad,
        };
        rows.add([Text::toned(verdict.as_str(), tone), what.into(), message.into()]);
    }
    rows.write(streams.out)
}
