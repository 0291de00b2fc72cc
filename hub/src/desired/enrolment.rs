//! How an enrolment goes on after its token: a person's approval, where the hub takes one, and the self-test at its end.

use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::view::{EnrolmentDecision, PendingEnrolment};
use jiff::Timestamp;

use super::{ChangeError, Desired, FleetHandle, not_found};
use crate::clock;
use crate::store::AuditEntry;

/// A key that asks to enrol.
#[derive(Debug)]
pub(crate) struct Asks {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// What people shall see of it.
    pub(crate) pending: PendingEnrolment,
}

/// A self-test that has ended.
#[derive(Debug)]
pub(crate) struct Tested {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// The enrolment, by when it was, that the session goes by: what an earlier one says is of another cluster.
    pub(crate) enrolled: Option<Timestamp>,
    /// What came of it.
    pub(crate) self_test: SelfTest,
}

impl Desired {
    /// Whoever asked first with the present token: this key, or another one. One waits for a cluster, so there are no more
    /// of them than clusters.
    pub(super) async fn ask_approval(
        &mut self,
        asks: Asks,
        fleet: &FleetHandle,
    ) -> Result<PendingEnrolment, ChangeError> {
        let Asks { cluster, pending } = asks;
        let record = self.records.get(&cluster).ok_or_else(|| not_found("cluster", &cluster))?;
        if let Some(first) = record.pending_enrolment.clone().filter(|first| first.expires_at == pending.expires_at) {
            return Ok(first);
        }
        // In the audit log first, as what is decided upon it: who fails here asks again, and is noted again.
        let object = format!("{cluster}: the key {} waits for approval", pending.key_fingerprint);
        self.note("enrolment", "cluster.pending", object).await?;
        self.keep_pending(&cluster, &pending, fleet).await?;
        tracing::info!(cluster, key_fingerprint = pending.key_fingerprint, "an enrolment waits for approval");
        Ok(pending)
    }

    /// A person decides upon the key that waits. In the audit log first: the agent may ask at any moment.
    pub(super) async fn decide(
        &mut self,
        cluster: &str,
        key_fingerprint: &str,
        decision: EnrolmentDecision,
        who: &str,
        fleet: &FleetHandle,
    ) -> Result<(), ChangeError> {
        let record = self.records.get(cluster).ok_or_else(|| not_found("cluster", cluster))?;
        let now = clock::now();
        let pending = record.pending_enrolment.clone().filter(|pending| pending.expires_at > now);
        let pending = judge(cluster, pending, key_fingerprint, decision)?;
        let action = match decision {
            EnrolmentDecision::Approved => "cluster.approve",
            EnrolmentDecision::Denied => "cluster.deny",
        };
        let object = format!("{cluster}: the key {key_fingerprint}");
        self.note(who, action, object.clone()).await?;
        self.keep_pending(cluster, &pending, fleet).await?;
        tracing::info!(who, action, object, "changed");
        Ok(())
    }

    async fn keep_pending(
        &mut self,
        cluster: &str,
        pending: &PendingEnrolment,
        fleet: &FleetHandle,
    ) -> Result<(), ChangeError> {
        self.store.put_pending_enrolment(cluster, pending).await.map_err(ChangeError::Store)?;
        let Some(record) = self.records.get_mut(cluster) else { return Err(not_found("cluster", cluster)) };
        record.pending_enrolment = Some(pending.clone());
        let record = record.clone();
        self.publish_record(&record, fleet).await;
        Ok(())
    }

    /// Keeps what came of a self-test. The same excuse again is no news.
    pub(super) async fn self_tested(&mut self, tested: Tested, fleet: &FleetHandle) -> Result<(), ChangeError> {
        let Tested { cluster, enrolled, self_test } = tested;
        let record = self.records.get_mut(&cluster).ok_or_else(|| not_found("cluster", &cluster))?;
        if record.valid_from != enrolled
            || record.self_test.as_ref().is_some_and(|before| is_no_news(before, &self_test))
        {
            return Ok(());
        }
        self.store.put_self_test(&cluster, &self_test).await.map_err(ChangeError::Store)?;
        record.self_test = Some(self_test.clone());
        let record = record.clone();
        self.publish_record(&record, fleet).await;
        let SelfTest { outcome, message, at: _ } = self_test;
        tracing::info!(cluster, outcome = outcome.as_str(), reason = message, "self-test");
        self.note("agent", "cluster.self-test", format!("{cluster}: {}: {message}", outcome.as_str())).await
    }

    async fn note(&self, who: &str, action: &str, object: String) -> Result<(), ChangeError> {
        let entry = AuditEntry { at: clock::now(), who: who.to_owned(), action: action.to_owned(), object };
        self.store.audit(&entry).await.map_err(ChangeError::Store)
    }
}

/// The enrolment as it is once decided upon. The same decision again is none of its own.
fn judge(
    cluster: &str,
    pending: Option<PendingEnrolment>,
    key_fingerprint: &str,
    decision: EnrolmentDecision,
) -> Result<PendingEnrolment, ChangeError> {
    let Some(pending) = pending else {
        return Err(ChangeError::Conflict(format!("no agent waits for approval as {cluster}")));
    };
    if pending.key_fingerprint != key_fingerprint {
        let waits = &pending.key_fingerprint;
        return Err(ChangeError::Conflict(format!("keyFingerprint: the key that waits as {cluster} is {waits}")));
    }
    match pending.decision {
        // Nobody else may use a token that was denied: that is what a new one is for.
        Some(EnrolmentDecision::Denied) if decision == EnrolmentDecision::Approved => Err(ChangeError::Conflict(
            format!("the enrolment was denied; `fleetcheck cluster token {cluster}` makes a new token"),
        )),
        _ => Ok(PendingEnrolment { decision: Some(decision), ..pending }),
    }
}

fn is_no_news(before: &SelfTest, after: &SelfTest) -> bool {
    let is_excuse = match after.outcome {
        SelfTestOutcome::NotRun | SelfTestOutcome::Unknown => true,
        SelfTestOutcome::Succeeded | SelfTestOutcome::Failed | SelfTestOutcome::TimedOut => false,
    };
    let is_same = (before.outcome, &before.message) == (after.outcome, &after.message);
    // That it could not be tried again does not unsay a failure.
    is_excuse && (is_same || (before.failed() && after.outcome == SelfTestOutcome::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_about_the_key_that_was_seen_and_a_denial_is_final() {
        let waits = PendingEnrolment {
            key_fingerprint: "aa".into(),
            cluster_uid: "uid".into(),
            since: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::MAX,
            decision: None,
        };
        let decided =
            |pending: &PendingEnrolment, key: &str, decision| judge("eu", Some(pending.clone()), key, decision);
        let approved = decided(&waits, "aa", EnrolmentDecision::Approved).unwrap();
        assert_eq!(approved.decision, Some(EnrolmentDecision::Approved));
        let denied = decided(&approved, "aa", EnrolmentDecision::Denied).unwrap();
        for (refused, says) in [
            (decided(&waits, "bb", EnrolmentDecision::Approved), "the key that waits as eu is aa"),
            (decided(&denied, "aa", EnrolmentDecision::Approved), "fleetcheck cluster token eu"),
            (judge("eu", None, "aa", EnrolmentDecision::Denied), "no agent waits"),
        ] {
            assert!(refused.unwrap_err().to_string().contains(says), "{says}");
        }
    }

    #[test]
    fn an_excuse_is_news_once_and_a_result_always() {
        let test = |outcome, message: &str| SelfTest::new(outcome, message, Timestamp::UNIX_EPOCH);
        let excuse = test(SelfTestOutcome::NotRun, "observes");
        assert!(is_no_news(&excuse, &excuse));
        assert!(!is_no_news(&excuse, &test(SelfTestOutcome::NotRun, "not obeyed")));
        let passed = test(SelfTestOutcome::Succeeded, "");
        assert!(!is_no_news(&passed, &passed) && !is_no_news(&passed, &excuse));
    }
}
