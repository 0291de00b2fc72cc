//! How an enrolment goes on after its token: a person approves it or not, the agent connects, the cluster tests itself.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::view::{
    Action, ClusterStatus, ClusterView, CommandOutcome, CommandRequest, EnrolmentDecision, EnrolmentKey,
    PendingEnrolment,
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::args::{DecideArgs, Format};
use crate::client::Client;
use crate::output::{self, Text, Tone};
use crate::{Error, Exit, Streams, World};

/// Between two questions to the hub how far it is.
const POLL: Duration = Duration::from_secs(1);
/// A self-test takes a minute at most, and its words a moment more.
const TEST_SECONDS: u64 = 90;

/// Where an enrolment stands.
#[derive(Debug, PartialEq, Eq)]
struct Stage {
    /// Whether the cluster passed its self-test; absent while that is to be waited for.
    passed: Option<bool>,
    /// For people.
    says: String,
}

/// Where it stands; a self-test that is `before` is an old one.
fn stage(name: &str, view: Option<&ClusterView>, before: Option<&SelfTest>) -> Stage {
    let goes_on = |says: String| Stage { passed: None, says };
    let Some(view) = view else { return Stage { passed: Some(false), says: "was removed".to_owned() } };
    match view.pending_enrolment.as_ref().map(|pending| (pending.decision, &pending.key_fingerprint)) {
        Some((None, key)) => {
            return goes_on(format!("an agent waits for `fleetcheck cluster approve {name}`; its key is {key}"));
        }
        Some((Some(EnrolmentDecision::Denied), key)) => {
            return Stage { passed: Some(false), says: format!("the key {key} was denied") };
        }
        Some((Some(EnrolmentDecision::Approved), _)) => {
            return goes_on("approved; its agent asks again soon".to_owned());
        }
        None => {}
    }
    match (&view.self_test, view.status) {
        (Some(ended), _) if before != Some(ended) => Stage { passed: Some(ended.passed()), says: in_words(ended) },
        (_, ClusterStatus::Connected) => goes_on("connected; its self-test runs".to_owned()),
        (_, ClusterStatus::Pending) => goes_on("waits for its agent".to_owned()),
        (_, status @ (ClusterStatus::Reconnecting | ClusterStatus::Unreachable)) => goes_on(status.as_str().to_owned()),
    }
}

fn in_words(SelfTest { outcome, message, at: _ }: &SelfTest) -> String {
    let what = match outcome {
        SelfTestOutcome::Succeeded => "enrolled, and its self-test passed",
        SelfTestOutcome::Failed => "enrolled, and its self-test failed",
        SelfTestOutcome::TimedOut => "enrolled, and its self-test timed out",
        SelfTestOutcome::NotRun => "enrolled, and its self-test was not run",
        SelfTestOutcome::Unknown => "enrolled; whether it can run a check is unknown",
    };
    format!("{what}: {}", output::printable(message))
}

/// Waits until each cluster has tested itself, and says on the way how far they are. Exit code 1 where one did not pass.
pub(super) async fn wait(
    hub: &Client,
    names: &[String],
    before: Option<&SelfTest>,
    seconds: u64,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut told = BTreeMap::<&String, String>::new();
    loop {
        let views: BTreeMap<String, ClusterView> =
            hub.clusters().await?.into_iter().map(|view| (view.name.clone(), view)).collect();
        let mut all = Some(true);
        for name in names {
            let Stage { passed, says } = stage(name, views.get(name), before);
            if told.get(name) != Some(&says) {
                writeln!(streams.err, "cluster {name}: {says}")?;
                told.insert(name, says);
            }
            all = all.and_then(|all| Some(all & passed?));
        }
        match all {
            Some(true) => return Ok(Exit::Fine),
            Some(false) => return Ok(Exit::Found),
            None if Instant::now() >= deadline => {
                writeln!(streams.err, "not all have tested themselves within {seconds} s")?;
                return Ok(Exit::Found);
            }
            None => sleep_until(deadline.min(Instant::now() + POLL)).await,
        }
    }
}

/// Has a cluster test itself now.
pub(super) async fn test(hub: &Client, name: &str, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let before = hub.cluster(name).await?.self_test;
    let request = CommandRequest {
        action: Action::Test,
        subject: None,
        clusters: vec![name.to_owned()],
        labels: BTreeMap::new(),
        all_clusters: false,
        namespace: None,
        check: None,
        seconds: None,
        reason: String::new(),
    };
    let results = hub.command(&request).await?.results;
    if let Some(result) = results.iter().find(|result| result.outcome != CommandOutcome::Delivered) {
        let (outcome, message) = (result.outcome.as_str(), output::printable(&result.message));
        writeln!(streams.err, "cluster {name}: {outcome}: {message}")?;
        return Ok(Exit::Found);
    }
    wait(hub, &[name.to_owned()], before.as_ref(), TEST_SECONDS, streams).await
}

/// Approves the agent that waits, or denies it.
pub(super) async fn decide(
    hub: &Client,
    DecideArgs { name, key }: DecideArgs,
    decision: EnrolmentDecision,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let waits = match key {
        Some(key) => Some(key),
        None => hub.cluster(&name).await?.pending_enrolment.map(|pending| pending.key_fingerprint),
    };
    // Where none waits, the hub says so.
    let key_fingerprint = waits.unwrap_or_default();
    let view =
        hub.decide_enrolment(&name, decision, &EnrolmentKey { key_fingerprint: key_fingerprint.clone() }).await?;
    output::show(format, world, streams, &view, |_, streams| {
        match decision {
            EnrolmentDecision::Approved => writeln!(
                streams.out,
                "cluster {name}: the key {key_fingerprint} is approved; its agent gets its certificate when it asks again, \
                 within a minute"
            )?,
            EnrolmentDecision::Denied => writeln!(
                streams.out,
                "cluster {name}: the key {key_fingerprint} is denied, and so is whoever else has its token; \
                 `fleetcheck cluster token {name}` makes a new one"
            )?,
        }
        Ok(())
    })?;
    Ok(Exit::Fine)
}

/// The self-test of a cluster as a cell of a table. Where none is known, it is unknown.
pub(super) fn cell(view: &ClusterView) -> Text {
    match view.self_test.as_ref().map(|test| test.outcome) {
        Some(SelfTestOutcome::Succeeded) => Text::toned("passed", Tone::Good),
        Some(SelfTestOutcome::Failed) => Text::toned("failed", Tone::Bad),
        Some(SelfTestOutcome::TimedOut) => Text::toned("timed out", Tone::Bad),
        Some(SelfTestOutcome::NotRun) => Text::toned("not run", Tone::Doubtful),
        None if view.status == ClusterStatus::Pending => Text::from(""),
        Some(SelfTestOutcome::Unknown) | None => Text::toned("unknown", Tone::Doubtful),
    }
}

/// Below the table of clusters: who waits for approval, and which self-tests did not pass.
pub(super) fn notes(clusters: &[ClusterView], now: Timestamp, streams: &mut Streams<'_>) -> Result<(), Error> {
    for view in clusters {
        let name = &view.name;
        if let Some(PendingEnrolment { key_fingerprint, since, expires_at, decision: None, .. }) =
            &view.pending_enrolment
        {
            let (since, left) = (output::age(now, Some(*since)), output::until(now, Some(*expires_at)));
            writeln!(
                streams.out,
                "\n{name} waits for approval since {since}; its token ends {left}. The key of its agent:"
            )?;
            writeln!(streams.out, "  {}", output::printable(key_fingerprint))?;
            writeln!(streams.out, "Compare it with the agent's log, then: fleetcheck cluster approve {name}")?;
        }
        if let Some(test) = view.self_test.as_ref().filter(|test| !test.passed()) {
            let age = output::age(now, Some(test.at));
            writeln!(streams.out, "\n{name}, {age} ago: {}", in_words(test))?;
            writeln!(streams.out, "To test it again: fleetcheck cluster test {name}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(status: ClusterStatus, outcome: Option<SelfTestOutcome>) -> ClusterView {
        let view = serde_json::json!({
            "name": "east", "status": status, "backlog": 0, "droppedReports": 0, "clockSkewMs": 0, "checks": {},
            "selfTest": outcome.map(|outcome| SelfTest::new(outcome, "why", Timestamp::UNIX_EPOCH)),
        });
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn only_a_self_test_that_is_new_ends_the_wait_and_only_one_that_passed_ends_it_well() {
        let passed = |view: &ClusterView, before: Option<&SelfTest>| stage("east", Some(view), before).passed;
        for outcome in SelfTestOutcome::ALL {
            let ended = view(ClusterStatus::Connected, Some(outcome));
            assert_eq!(passed(&ended, None), Some(outcome == SelfTestOutcome::Succeeded), "{outcome:?}");
            assert_eq!(passed(&ended, ended.self_test.as_ref()), None, "an old one");
        }
        for status in ClusterStatus::ALL {
            assert_eq!(passed(&view(status, None), None), None, "{status:?}");
        }
        assert_eq!(stage("east", None, None).passed, Some(false), "removed");
    }

    #[test]
    fn an_approval_is_waited_for_and_a_denial_is_not() {
        let mut waits = view(ClusterStatus::Pending, None);
        for (decision, passed, says) in [
            (None, None, "fleetcheck cluster approve east`; its key is aa"),
            (Some(EnrolmentDecision::Approved), None, "approved"),
            (Some(EnrolmentDecision::Denied), Some(false), "denied"),
        ] {
            waits.pending_enrolment = Some(PendingEnrolment {
                key_fingerprint: "aa".into(),
                cluster_uid: "u".into(),
                since: Timestamp::UNIX_EPOCH,
                expires_at: Timestamp::MAX,
                decision,
            });
            let stage = stage("east", Some(&waits), None);
            assert_eq!(stage.passed, passed);
            assert!(stage.says.contains(says), "{}", stage.says);
        }
    }
}
