//! What is kept of an enrolment after its token.

use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::view::{EnrolmentDecision, PendingEnrolment};
use active_monitor_hub::store::{ClusterRecord, EnrolmentToken};

use crate::backends::Backend;
use crate::samples::{at, cluster, key};

pub(super) async fn who_waits_goes_with_the_token_and_a_self_test_with_the_enrolment(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    store.put_cluster(&cluster("a")).await.unwrap();
    let token = |id: u8, second| EnrolmentToken { hash: [id; 32], expires_at: at(second), spent_by: None };
    let waits = |key: &str, expires_at| PendingEnrolment {
        key_fingerprint: key.into(),
        cluster_uid: "u".into(),
        since: at(0),
        expires_at,
        decision: Some(EnrolmentDecision::Approved),
    };
    let kept = async || {
        let ClusterRecord { self_test, pending_enrolment, .. } = store.clusters().await.unwrap().remove(0);
        (self_test, pending_enrolment)
    };
    let passed = SelfTest::new(SelfTestOutcome::Succeeded, "ran", at(5));
    store.put_self_test("a", &passed).await.unwrap();
    store.put_enrolment_token("a", &token(1, 10)).await.unwrap();
    store.put_pending_enrolment("a", &waits("old", at(9))).await.unwrap();
    assert_eq!(kept().await, (Some(passed.clone()), None), "with another token nobody waits");
    store.put_pending_enrolment("a", &waits("new", at(10))).await.unwrap();
    store.put_cluster(&cluster("a")).await.unwrap();
    assert_eq!(kept().await, (Some(passed.clone()), Some(waits("new", at(10)))));
    store.put_enrolment_token("a", &token(2, 20)).await.unwrap();
    assert_eq!(kept().await, (Some(passed.clone()), None));
    store.put_pending_enrolment("a", &waits("new", at(20))).await.unwrap();
    store.spend_enrolment_token("a", [2; 32], &key(1), "u").await.unwrap();
    assert_eq!(kept().await, (None, None), "a new enrolment begins anew");
    store.put_self_test("a", &passed).await.unwrap();
    store.unbind_cluster("a", at(30)).await.unwrap();
    assert_eq!(kept().await, (None, None));
    open.close().await;
}
