//! That a store came back from the past, and what Git owns.

use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::view::Restore;

use crate::backends::Backend;
use crate::samples::at;

pub(crate) async fn a_restore_waits_for_its_confirmation_and_marks_only_grow(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    let restore = |second, reason: &str| Restore { noticed_at: at(second), reason: reason.into() };
    assert_eq!(store.restore().await.unwrap(), None);
    store.put_restore(&restore(1, "first")).await.unwrap();
    store.put_restore(&restore(2, "second")).await.unwrap();
    assert_eq!(store.restore().await.unwrap(), Some(restore(1, "first")));
    assert_eq!(store.mark("c1").await.unwrap(), 0);
    store.put_mark("c1", 7).await.unwrap();
    store.put_mark("c1", 5).await.unwrap();
    assert_eq!((store.mark("c1").await.unwrap(), store.mark("c2").await.unwrap()), (7, 0));
    store.confirm_restore(at(3)).await.unwrap();
    assert_eq!(store.restore().await.unwrap(), None);
    let confirmed = u64::try_from(at(3).as_millisecond()).unwrap();
    assert_eq!(store.mark("c1").await.unwrap(), confirmed, "what was given before was confirmed with it");
    store.put_restore(&restore(4, "again")).await.unwrap();
    assert_eq!(store.restore().await.unwrap(), Some(restore(4, "again")));
    assert_eq!(store.secret("marks", [1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(store.secret("marks", [2; 32]).await.unwrap(), [1; 32], "it is kept");
}

pub(crate) async fn what_git_owns_is_one_thing(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    let owned = |file: &str| -> Ownership {
        let object = serde_json::json!({"kind": "FleetHealthCheck", "name": "dns", "file": file, "labels": []});
        serde_json::from_value(serde_json::json!({ "objects": [object] })).unwrap()
    };
    assert_eq!(store.ownership().await.unwrap(), None);
    for file in ["a.yaml", "b.yaml"] {
        store.put_ownership(Some(&owned(file))).await.unwrap();
        assert_eq!(store.ownership().await.unwrap(), Some(owned(file)));
    }
    store.put_ownership(None).await.unwrap();
    assert_eq!(store.ownership().await.unwrap(), None);
}
