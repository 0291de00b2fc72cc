//! What is shown of an enrolment after its token: who waits for approval, and the self-test.

use super::*;
use crate::self_test::SelfTestOutcome;
use crate::view::EnrolmentDecision;

fn waiting(decision: Option<EnrolmentDecision>) -> KnownCluster {
    let pending = PendingEnrolment {
        key_fingerprint: "ab12".into(),
        cluster_uid: "u".into(),
        since: at(0),
        expires_at: at(3600),
        decision,
    };
    KnownCluster { pending_enrolment: Some(pending), ..known("a", None) }
}

#[test]
fn who_waits_for_approval_is_shown_until_a_person_has_decided_or_the_token_ends() {
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.apply(at(0), Change::Cluster(waiting(None)));
    let shown = |fleet: &Fleet| fleet.view().clusters["a"].view.clone();
    assert!(shown(&fleet).message.contains("ab12"), "{}", shown(&fleet).message);
    assert_eq!(fleet.next_wake(), Some(at(3600)));
    fleet.tick(at(3599));
    assert!(shown(&fleet).pending_enrolment.is_some());
    let events = fleet.tick(at(3600));
    assert_eq!((shown(&fleet).pending_enrolment, events.len()), (None, 1));
    assert_eq!(shown(&fleet).message, "waiting for its agent to enrol");
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.apply(at(0), Change::Cluster(waiting(Some(EnrolmentDecision::Approved))));
    assert_eq!(shown(&fleet).message, "waiting for its agent to enrol");
}

#[test]
fn a_failed_self_test_is_in_the_message_of_a_connected_cluster_and_one_that_was_not_run_is_not() {
    let mut fleet = fleet();
    open(&mut fleet, at(1), "i");
    for outcome in SelfTestOutcome::ALL {
        let self_test = Some(SelfTest::new(outcome, "no Argo", at(1)));
        fleet.apply(at(1), Change::Cluster(KnownCluster { self_test, ..known("a", Some("u")) }));
        let message = &fleet.view().clusters["a"].view.message;
        let expected = match outcome {
            SelfTestOutcome::Failed | SelfTestOutcome::TimedOut => "enrolled, and its self-test failed: no Argo",
            SelfTestOutcome::Succeeded | SelfTestOutcome::NotRun | SelfTestOutcome::Unknown => "",
        };
        assert_eq!(message, expected, "{outcome:?}");
    }
}
