//! `fleetcheck doctor`: what would happen in a cluster if the agent ran its HealthChecks. Reads the cluster with a
//! kubeconfig, changes nothing, and asks no hub.

mod ceiling;
mod facts;
mod judge;

use std::io;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::Serialize;

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
    let facts = runtime.block_on(async { facts::read(connect(args).await?).await })?;
    let (numbers, findings) = judge::judge((world.now)(), &facts);
    let report = Report { context: args.context.clone().unwrap_or_default(), numbers, findings };
    output::show(format, world, streams, &report, |world, streams| table(&report, world, streams))?;
    let worst = report.findings.iter().map(|finding| finding.verdict).max();
    Ok(if worst.is_none_or(|worst| worst < Verdict::Warn) { Exit::Fine } else { Exit::Found })
}

async fn connect(args: &DoctorArgs) -> Result<Client, DoctorError> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(DoctorError::Kubeconfig)?;
            kube::Config::from_custom_kubeconfig(file, &options).await
        }
        None => kube::Config::from_kubeconfig(&options).await,
    };
    Client::try_from(config.map_err(DoctorError::Kubeconfig)?).map_err(DoctorError::Client)
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
