//! The link to the hub: enrols where needed, keeps one session open, renews the certificate. The decisions are the state
//! machine's (`core::session::agent`); this is its sockets, clocks and dice.
//!
//! A hub that is away is normal: the agent goes on, the journal fills, and the link dials with growing pauses. Each
//! failure is logged when it begins, with what to do about it, and when it is over.

pub(crate) mod dial;
mod drive;
mod failure;
mod mark;
mod proxy;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::command::{Answer, Command};
use active_monitor_core::policy::PolicySetting;
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::agent::MAX_COMMANDS;
use active_monitor_core::session::frame::{Definition, DefinitionStatus};
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::drive::Driver;
use self::failure::Failures;
use crate::enrol::{self, EnrolError, Identity, Token};
use crate::journal::Journal;
use crate::states::States;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Answers to definitions that wait for the link; there is one for each set and change of its results.
const STATUSES_QUEUED: usize = 16;

/// What the link needs to know.
#[derive(Clone)]
pub struct LinkConfig {
    /// `host:port` of the hub's agents' listener.
    pub hub_address: String,
    /// `host:port` of the hub's enrolment listener.
    pub enrolment_address: String,
    /// One-time token; not needed where an identity is stored. Never logged.
    pub token: Option<String>,
    /// Its folder `identity` holds key and certificate.
    pub state_dir: PathBuf,
    /// `metadata.uid` of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// gitVersion of the API server.
    pub kubernetes_version: String,
    /// What the cluster lets the hub do, for the hub to show.
    pub policy: Vec<PolicySetting>,
}

/// A set of definitions that the hub wants in this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedDefinitions {
    /// To be given back with the statuses. Grows.
    pub nonce: u64,
    /// The complete set: what is missing here and was made from a definition is to go.
    pub definitions: Vec<Definition>,
}

/// The rest of the agent's ends of the link.
pub struct Link {
    /// The latest definitions; `None` until the hub has sent some. They come again with each session.
    pub definitions: watch::Receiver<Option<PushedDefinitions>>,
    /// What became of them: nonce and one status for each; again when that changes. What concerns an older set or a
    /// session that is over is ignored.
    pub statuses: mpsc::Sender<(u64, Vec<DefinitionStatus>)>,
    /// What people ask through the hub; each is to be answered once.
    pub commands: mpsc::Receiver<Command>,
    /// What became of that. What concerns a session that is over is ignored.
    pub answers: mpsc::Sender<Answer>,
    /// What came of self-tests; goes to the hub in this session or the next.
    pub self_tests: mpsc::Sender<SelfTest>,
    /// Why there is no certificate yet, where a person has to approve it.
    pub waiting: watch::Receiver<Option<String>>,
    /// Whether the hub has taken the session in.
    pub connected: watch::Receiver<bool>,
    /// The name in the certificate; `None` until there is one.
    pub cluster: watch::Receiver<Option<String>>,
}

/// The link's ends of [`Link`].
struct Ends {
    definitions: watch::Sender<Option<PushedDefinitions>>,
    statuses: mpsc::Receiver<(u64, Vec<DefinitionStatus>)>,
    commands: mpsc::Sender<Command>,
    answers: mpsc::Receiver<Answer>,
    self_tests: mpsc::Receiver<SelfTest>,
    waiting: watch::Sender<Option<String>>,
    connected: watch::Sender<bool>,
    cluster: watch::Sender<Option<String>>,
}

/// Starts the link. Its task ends when `cancel` says so, and never by itself.
pub fn start(
    config: LinkConfig,
    journal: Journal,
    states: States,
    cancel: CancellationToken,
) -> (Link, JoinHandle<()>) {
    let (definitions, definitions_rx) = watch::channel(None);
    let (statuses_tx, statuses) = mpsc::channel(STATUSES_QUEUED);
    let (commands, commands_rx) = mpsc::channel(MAX_COMMANDS);
    let (answers_tx, answers) = mpsc::channel(MAX_COMMANDS);
    let (self_tests_tx, self_tests) = mpsc::channel(1);
    let (waiting, waiting_rx) = watch::channel(None);
    let (connected, connected_rx) = watch::channel(false);
    let (cluster, cluster_rx) = watch::channel(None);
    let ends = Ends { definitions, statuses, commands, answers, self_tests, waiting, connected, cluster };
    let link = Link {
        definitions: definitions_rx,
        statuses: statuses_tx,
        commands: commands_rx,
        answers: answers_tx,
        self_tests: self_tests_tx,
        waiting: waiting_rx,
        connected: connected_rx,
        cluster: cluster_rx,
    };
    let task = tokio::spawn(async move {
        let work = run(config, journal, states, ends);
        cancel.run_until_cancelled(work).await;
    });
    (link, task)
}

async fn run(config: LinkConfig, journal: Journal, states: States, ends: Ends) {
    let (identity, unused) = obtain_identity(&config, &ends.waiting).await;
    let ready = |identity: &Identity| {
        tracing::info!(cluster = identity.cluster(), certificate_ends = %identity.not_after(), "identity ready");
        Some(identity.cluster().to_owned())
    };
    ends.cluster.send_replace(ready(&identity));
    let drive = |identity: Identity, ends: Ends| {
        let identity = Arc::new(ArcSwap::from_pointee(identity));
        Driver::new(config.clone(), drive::dial_network(), identity, journal.clone(), states.clone(), ends)
    };
    let waiting = ends.waiting.clone();
    let mut driver = drive(identity, ends);
    if let Some(token) = unused {
        let enrolled = tokio::select! {
            never = driver.run() => match never {},
            enrolled = enrol_later(&config, &token, &waiting) => enrolled,
        };
        let ends = driver.end();
        ends.cluster.send_replace(ready(&enrolled));
        driver = drive(enrolled, ends);
    }
    match driver.run().await {}
}

/// A new identity for a token whose enrolment was not answered at the start, beside the session of the stored one. Tries
/// until it is answered; where the answer is no, the stored one stays.
async fn enrol_later(config: &LinkConfig, token: &Token, waiting: &watch::Sender<Option<String>>) -> Identity {
    let dir = config.state_dir.join("identity");
    let mut failures = Failures::new("enrolment");
    let mut wait = FIRST_RETRY;
    loop {
        tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
        wait = (wait * 2).min(MAX_RETRY);
        let enrolled = enrol::enrol(&config.enrolment_address, token, &config.cluster_uid, &dir).await;
        waiting.send_replace(enrolled.as_ref().err().and_then(waits_for));
        match enrolled {
            Ok(identity) => {
                failures.over();
                return identity;
            }
            Err(EnrolError::Refused(status)) => {
                tracing::warn!(reason = status.message(), "token refused, going on with the stored identity");
                return std::future::pending().await;
            }
            Err(error) => failures.failed(&error, next_step(&error)),
        }
    }
}

/// The stored identity, or a new one where there is a token that it was not made with; and that token, where it is still
/// to be used. Tries until it has one.
async fn obtain_identity(config: &LinkConfig, waiting: &watch::Sender<Option<String>>) -> (Identity, Option<Token>) {
    let dir = config.state_dir.join("identity");
    let mut failures = Failures::new("enrolment");
    let mut wait = FIRST_RETRY;
    loop {
        let tried = try_identity(config, &dir).await;
        waiting.send_replace(tried.as_ref().err().and_then(waits_for));
        match tried {
            Ok(identity) => {
                failures.over();
                return identity;
            }
            Err(error) => failures.failed(&error, next_step(&error)),
        }
        tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
        wait = (wait * 2).min(MAX_RETRY);
    }
}

async fn try_identity(config: &LinkConfig, dir: &std::path::Path) -> Result<(Identity, Option<Token>), EnrolError> {
    let stored = Identity::load(dir).unwrap_or_else(|error| {
        tracing::error!(error = %failure::chain(&error), "stored identity not usable");
        None
    });
    let token = config.token.as_deref().map(Token::parse).transpose();
    let (stored, token) = match (stored, token) {
        (Some(stored), Ok(None) | Err(_)) => return Ok((stored, None)),
        (None, Ok(None)) => return Err(EnrolError::NoToken),
        (None, Err(error)) => return Err(EnrolError::Token(error)),
        (stored, Ok(Some(token))) => (stored, token),
    };
    if let Some(stored) = stored.as_ref().filter(|stored| stored.token_digest() == token.digest()) {
        return Ok((stored.clone(), None));
    }
    match (enrol::enrol(&config.enrolment_address, &token, &config.cluster_uid, dir).await, stored) {
        // A token that was spent, beside an identity that may well be good: the session will tell.
        (Err(EnrolError::Refused(status)), Some(stored)) => {
            tracing::warn!(reason = status.message(), "token refused, going on with the stored identity");
            Ok((stored, None))
        }
        // Nobody answered, or nobody has approved it yet: the sessions' listener may be there all the same.
        (Err(error @ (EnrolError::Dial { .. } | EnrolError::Call(_) | EnrolError::Waiting(_))), Some(stored)) => {
            let error = failure::chain(&error);
            tracing::warn!(error, "token not used yet, going on with the stored identity and trying again");
            Ok((stored, Some(token)))
        }
        (result, _) => result.map(|identity| (identity, None)),
    }
}

/// What a person shall know at `/readyz` while an enrolment waits for approval.
fn waits_for(error: &EnrolError) -> Option<String> {
    match error {
        EnrolError::Waiting(key) => Some(format!("waiting for approval of the key {key}")),
        EnrolError::NoToken
        | EnrolError::Token(_)
        | EnrolError::Dial { .. }
        | EnrolError::Refused(_)
        | EnrolError::Call(_)
        | EnrolError::Key(_)
        | EnrolError::Identity(_)
        | EnrolError::Interrupted => None,
    }
}

fn next_step(error: &EnrolError) -> &'static str {
    match error {
        EnrolError::NoToken | EnrolError::Token(_) | EnrolError::Refused(_) => {
            "run `fleetcheck cluster add`, or `fleetcheck cluster token` for one that is there, and give the agent the token"
        }
        EnrolError::Dial { .. } => {
            "check the enrolment address, the network, and that the token is of this hub; trying again"
        }
        EnrolError::Call(_) => "see the hub's log; trying again",
        EnrolError::Waiting(_) => {
            "compare the fingerprint with `fleetcheck cluster list`, then run `fleetcheck cluster approve`; asking again"
        }
        EnrolError::Key(_) | EnrolError::Identity(_) | EnrolError::Interrupted => {
            "check the state directory; trying again"
        }
    }
}

#[cfg(test)]
mod tests;
