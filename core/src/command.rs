//! What people ask of a cluster through the hub: run a check now, pause checks or remedies, resume them. Whether an agent
//! obeys is said by its own configuration ([`Obedience`]), which the hub cannot change; what is paused is a value
//! ([`Pauses`]) that the agent keeps on its disk.
//!
//! A pause is asked for in seconds and kept as an instant of the agent's clock: the hub's clock decides nothing here.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::run::{RunKind, clean_message};

/// Pauses that an agent keeps at once.
pub const MAX_PAUSES: usize = 256;
/// Runs that an agent starts by command within [`RUNS_WINDOW`].
pub const MAX_RUNS: usize = 30;
/// See [`MAX_RUNS`].
pub const RUNS_WINDOW: Duration = Duration::from_secs(60);
/// Bytes of a reason or a name of who asked.
pub const MAX_REASON_BYTES: usize = 512;

/// What a pause is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The checks: neither they nor their remedies are started.
    Checks,
    /// The remedies alone: the checks go on.
    Remedies,
}

impl Subject {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Checks => "checks",
            Subject::Remedies => "remedies",
        }
    }

    /// Whether a pause of it keeps runs of this kind from starting.
    fn stops(self, kind: RunKind) -> bool {
        match (self, kind) {
            (Subject::Checks, _) | (Subject::Remedies, RunKind::Remedy) => true,
            (Subject::Remedies, RunKind::HealthCheck) => false,
        }
    }
}

/// Which checks of a cluster are meant: all, those of a namespace, or one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// Only in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this one; never without a namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Scope {
    /// Whether a check is meant.
    pub fn covers(&self, namespace: &str, name: &str) -> bool {
        let same = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|wanted| wanted == given);
        same(&self.namespace, namespace) && same(&self.name, name)
    }

    /// Whether everything that the other one means is meant.
    pub fn contains(&self, other: &Scope) -> bool {
        let wider = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || ours == theirs;
        wider(&self.namespace, &other.namespace) && wider(&self.name, &other.name)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, "check {namespace}/{name}"),
            (Some(namespace), None) => write!(f, "namespace {namespace}"),
            (None, _) => f.write_str("the whole cluster"),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// One run out of schedule, of one check.
    RunNow,
    /// Nothing is started for a time.
    Pause {
        /// Of what.
        subject: Subject,
        /// How long, from when the agent hears of it.
        seconds: u64,
        /// Why, in a person's words.
        reason: String,
        /// Who asked: name of the API token.
        by: String,
    },
    /// Pauses end.
    Resume {
        /// Of what.
        subject: Subject,
    },
    /// The agent tests whether its cluster can run a check; what came of it is no answer, but follows by itself.
    SelfTest,
}

/// A command to one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Drawn by the hub. The same one again is the same command: it changes nothing.
    pub id: String,
    /// For which checks.
    pub scope: Scope,
    /// What is asked.
    pub order: Order,
}

/// Who refused a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The hub: it was not sent.
    Hub,
    /// The agent's configuration, which the hub cannot change.
    Policy,
    /// The agent: it makes no sense there, or is too much.
    Agent,
    /// The API server of the cluster.
    Kubernetes,
}

impl Layer {
    /// Every layer.
    pub const ALL: [Layer; 4] = [Layer::Hub, Layer::Policy, Layer::Agent, Layer::Kubernetes];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Hub => "hub",
            Layer::Policy => "policy",
            Layer::Agent => "agent",
            Layer::Kubernetes => "kubernetes",
        }
    }
}

/// Why a command is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Who says so.
    pub layer: Layer,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

impl Refusal {
    /// A refusal; the reason is for people.
    pub fn new(layer: Layer, reason: impl Into<String>) -> Refusal {
        Refusal { layer, reason: reason.into() }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the command.
    pub id: String,
    /// What was done, for people; or why nothing was.
    pub verdict: Result<String, Refusal>,
}

/// A kind of command that an agent obeys or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Order::RunNow`].
    RunNow,
    /// [`Order::Pause`] of checks.
    Pause,
    /// [`Order::Pause`] of remedies.
    PauseRemedies,
    /// [`Order::SelfTest`].
    SelfTest,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::RunNow, Kind::Pause, Kind::PauseRemedies, Kind::SelfTest];

    /// As in the agent's configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::RunNow => "run-now",
            Kind::Pause => "pause",
            Kind::PauseRemedies => "pause-remedies",
            Kind::SelfTest => "self-test",
        }
    }
}

/// Which commands an agent obeys: its own configuration. There is none that starts a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obedience {
    /// The kinds that are obeyed.
    pub kinds: Vec<Kind>,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Obedience {
    /// Whether the command may be obeyed. What a pause made, [`Order::Resume`] may always end.
    ///
    /// # Errors
    /// What is not allowed, and what is.
    pub fn admit(&self, order: &Order) -> Result<(), Refusal> {
        let kind = match order {
            Order::RunNow => Kind::RunNow,
            Order::Pause { subject: Subject::Checks, .. } => Kind::Pause,
            Order::Pause { subject: Subject::Remedies, .. } => Kind::PauseRemedies,
            Order::SelfTest => Kind::SelfTest,
            Order::Resume { .. } => return Ok(()),
        };
        if !self.kinds.contains(&kind) {
            let obeyed: Vec<&str> = self.kinds.iter().map(|kind| kind.as_str()).collect();
            let obeyed = if obeyed.is_empty() { "none".to_owned() } else { obeyed.join(", ") };
            let reason = format!("this cluster does not obey {}; obeyed are: {obeyed}", kind.as_str());
            return Err(Refusal::new(Layer::Policy, reason));
        }
        let longest = self.longest_pause.as_secs();
        match order {
            Order::Pause { seconds, .. } if *seconds == 0 || *seconds > longest => {
                let reason = format!("a pause of {seconds} s: this cluster takes 1 to {longest} s");
                Err(Refusal::new(Layer::Policy, reason))
            }
            Order::Pause { .. } | Order::RunNow | Order::Resume { .. } | Order::SelfTest => Ok(()),
        }
    }
}

/// A pause as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Of the command.
    pub id: String,
    /// What is paused.
    pub subject: Subject,
    /// For which checks.
    #[serde(flatten)]
    pub scope: Scope,
    /// When it ends, by the agent's clock.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub by: String,
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Pause { id: _, subject, scope, until, reason, by } = self;
        write!(f, "{} of {scope} paused until {until:.0} by {by}", subject.as_str())?;
        if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
    }
}

/// The pauses of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses(Vec<Pause>);

impl Pauses {
    /// Takes up a pause. One of the same subject and scope is replaced; one that came before, by its id, stays as it is.
    ///
    /// # Errors
    /// There are too many.
    pub fn put(&mut self, now: Timestamp, command: &Command) -> Result<(), Refusal> {
        let Order::Pause { subject, seconds, reason, by } = &command.order else { return Ok(()) };
        self.expire(now);
        if self.0.iter().any(|pause| pause.id == command.id) {
            return Ok(());
        }
        self.0.retain(|pause| pause.subject != *subject || pause.scope != command.scope);
        if self.0.len() >= MAX_PAUSES {
            let reason =
                format!("{MAX_PAUSES} pauses are in force, which is the most: resume some, or pause a namespace");
            return Err(Refusal::new(Layer::Agent, reason));
        }
        let until = now.saturating_add(Duration::from_secs(*seconds)).unwrap_or(Timestamp::MAX);
        let short = |text: &str| clean_message(&text[..text.floor_char_boundary(MAX_REASON_BYTES)]);
        self.0.push(Pause {
            id: command.id.clone(),
            subject: *subject,
            scope: command.scope.clone(),
            until,
            reason: short(reason),
            by: short(by),
        });
        Ok(())
    }

    /// Ends every pause of the subject within the scope; says how many those were.
    ///
    /// # Errors
    /// There was none; or a wider one goes on.
    pub fn lift(&mut self, now: Timestamp, subject: Subject, scope: &Scope) -> Result<usize, Refusal> {
        self.expire(now);
        let before = self.0.len();
        self.0.retain(|pause| pause.subject != subject || !scope.contains(&pause.scope));
        let wider = self.0.iter().find(|pause| pause.subject == subject && pause.scope.contains(scope));
        match (before - self.0.len(), wider) {
            (_, Some(wider)) => Err(Refusal::new(Layer::Agent, format!("a wider pause goes on: {wider}"))),
            (0, None) => Err(Refusal::new(Layer::Agent, format!("no pause of {} of {scope}", subject.as_str()))),
            (lifted, None) => Ok(lifted),
        }
    }

    /// Forgets what has ended.
    pub fn expire(&mut self, now: Timestamp) {
        self.0.retain(|pause| pause.until > now);
    }

    /// The pauses in force that concern a check.
    pub fn of(&self, now: Timestamp, namespace: &str, name: &str) -> Vec<Pause> {
        let in_force = self.0.iter().filter(|pause| pause.until > now && pause.scope.covers(namespace, name));
        in_force.cloned().collect()
    }
}

/// Of these pauses, the one that keeps runs of this kind from starting, and does so the longest.
pub fn stopping(pauses: &[Pause], kind: RunKind) -> Option<&Pause> {
    pauses.iter().filter(|pause| pause.subject.stops(kind)).max_by_key(|pause| pause.until)
}

/// The runs by command of the last minute: a hub must not start more than a person would.
#[derive(Clone, Debug, Default)]
pub struct Runs(VecDeque<Timestamp>);

impl Runs {
    /// Counts a run.
    ///
    /// # Errors
    /// There were too many.
    pub fn count(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let window = now.saturating_sub(RUNS_WINDOW).unwrap_or(Timestamp::MIN);
        // A time that is yet to come is one of a clock that was put back.
        self.0.retain(|at| *at > window && *at <= now);
        if self.0.len() >= MAX_RUNS {
            let reason =
                format!("{MAX_RUNS} runs were asked for within {} s, which is the most", RUNS_WINDOW.as_secs());
            return Err(Refusal::new(Layer::Policy, reason));
        }
        self.0.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn scope(namespace: &str, name: &str) -> Scope {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Scope { namespace: some(namespace), name: some(name) }
    }

    fn pause(id: &str, subject: Subject, scope: Scope, seconds: u64) -> Command {
        let order = Order::Pause { subject, seconds, reason: "release".into(), by: "ann".into() };
        Command { id: id.into(), scope, order }
    }

    #[test]
    fn only_what_the_cluster_obeys_is_admitted_and_a_refusal_says_what_is() {
        let obedience = Obedience { kinds: vec![Kind::RunNow], longest_pause: Duration::from_secs(60) };
        assert_eq!(obedience.admit(&Order::RunNow), Ok(()));
        assert_eq!(obedience.admit(&Order::Resume { subject: Subject::Checks }), Ok(()));
        for subject in [Subject::Checks, Subject::Remedies] {
            let refusal = obedience.admit(&pause("1", subject, Scope::default(), 1).order).unwrap_err();
            assert_eq!(refusal.layer, Layer::Policy);
            assert!(refusal.reason.contains("obeyed are: run-now"), "{refusal}");
        }
        let nothing = Obedience { kinds: vec![], ..obedience };
        assert!(nothing.admit(&Order::RunNow).unwrap_err().reason.contains("obeyed are: none"));
        let all = Obedience { kinds: Kind::ALL.to_vec(), ..nothing };
        for (seconds, is_admitted) in [(0, false), (1, true), (60, true), (61, false), (u64::MAX, false)] {
            let admitted = all.admit(&pause("1", Subject::Remedies, Scope::default(), seconds).order);
            assert_eq!(admitted.is_ok(), is_admitted, "{seconds}");
        }
    }

    #[test]
    fn a_pause_ends_at_its_time_and_covers_what_it_says() {
        let mut pauses = Pauses::default();
        pauses.put(at(0), &pause("1", Subject::Checks, scope("a", ""), 10)).unwrap();
        pauses.put(at(0), &pause("2", Subject::Remedies, Scope::default(), 20)).unwrap();
        let stops = |now, namespace, kind| {
            let of = pauses.of(at(now), namespace, "dns");
            stopping(&of, kind).map(|pause| pause.id.clone())
        };
        assert_eq!(stops(9, "a", RunKind::HealthCheck).as_deref(), Some("1"));
        assert_eq!(stops(9, "b", RunKind::HealthCheck), None);
        assert_eq!(stops(9, "a", RunKind::Remedy).as_deref(), Some("2"), "the one that lasts");
        assert_eq!(stops(10, "a", RunKind::HealthCheck), None);
        assert_eq!(stops(19, "b", RunKind::Remedy).as_deref(), Some("2"));
        assert_eq!(stops(20, "b", RunKind::Remedy), None);
    }

    #[test]
    fn the_same_command_again_does_not_make_a_pause_longer() {
        let mut pauses = Pauses::default();
        let first = pause("1", Subject::Checks, Scope::default(), 10);
        pauses.put(at(0), &first).unwrap();
        pauses.put(at(5), &first).unwrap();
        assert_eq!(pauses.of(at(5), "a", "b")[0].until, at(10));
        pauses.put(at(5), &pause("2", Subject::Checks, Scope::default(), 3)).unwrap();
        let kept = pauses.of(at(5), "a", "b");
        assert_eq!((kept.len(), kept[0].until), (1, at(8)), "another one of the same scope takes its place");
    }

    #[test]
    fn what_is_lifted_is_within_the_scope_and_a_wider_pause_is_said() {
        let mut pauses = Pauses::default();
        pauses.put(at(0), &pause("1", Subject::Checks, scope("a", "dns"), 10)).unwrap();
        pauses.put(at(0), &pause("2", Subject::Checks, scope("a", ""), 10)).unwrap();
        let refusal = pauses.lift(at(1), Subject::Checks, &scope("a", "dns")).unwrap_err();
        assert!(refusal.reason.contains("wider") && refusal.reason.contains("namespace a"), "{refusal}");
        assert!(pauses.lift(at(1), Subject::Remedies, &Scope::default()).unwrap_err().reason.contains("no pause"));
        pauses.put(at(1), &pause("3", Subject::Checks, scope("a", "dns"), 10)).unwrap();
        assert_eq!(pauses.lift(at(1), Subject::Checks, &Scope::default()), Ok(2));
        assert_eq!(pauses, Pauses::default());
    }

    #[test]
    fn pauses_and_runs_are_bounded() {
        let mut pauses = Pauses::default();
        for n in 0..MAX_PAUSES {
            pauses.put(at(0), &pause(&n.to_string(), Subject::Checks, scope("a", &n.to_string()), 10)).unwrap();
        }
        let one_more = pause("more", Subject::Checks, Scope::default(), 10);
        assert_eq!(pauses.put(at(0), &one_more).unwrap_err().layer, Layer::Agent);
        pauses.put(at(10), &one_more).unwrap();
        let mut runs = Runs::default();
        for _ in 0..MAX_RUNS {
            runs.count(at(100)).unwrap();
        }
        assert_eq!(runs.count(at(159)).unwrap_err().layer, Layer::Policy);
        runs.count(at(160)).unwrap();
    }

    #[test]
    fn texts_are_cut_and_cannot_steer_a_terminal() {
        let mut pauses = Pauses::default();
        let reason = format!("\u{1b}[31m{}", "ä".repeat(MAX_REASON_BYTES));
        let order = Order::Pause { subject: Subject::Checks, seconds: 9, reason, by: "x\ny".into() };
        pauses.put(at(0), &Command { id: "1".into(), scope: Scope::default(), order }).unwrap();
        let kept = &pauses.of(at(0), "a", "b")[0];
        assert!(kept.reason.len() <= MAX_REASON_BYTES && !kept.reason.contains('\u{1b}'), "{kept:?}");
    }
}
