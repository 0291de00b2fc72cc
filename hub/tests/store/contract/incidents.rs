//! Incidents.

use std::sync::Arc;

use active_monitor_core::view::{Closed, Incident, IncidentKind};
use active_monitor_hub::store::{Expired, IncidentQuery};

use crate::backends::Backend;
use crate::samples::at;

fn incident(id: &str, kind: IncidentKind, first_seen: i64) -> Arc<Incident> {
    let json = serde_json::json!({
        "id": id, "kind": kind.as_str(), "subject": format!("check/health/{id}"), "title": "x", "widespread": false,
        "silenced": false, "flapping": false, "firstSeen": at(first_seen), "lastChange": at(first_seen),
        "counts": {"failing": 1, "healthy": 0, "unknown": 0, "failingInScope": 1, "inScope": 1}
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

fn closed(incident: &Incident, second: i64) -> Arc<Incident> {
    Arc::new(Incident { closed_at: Some(at(second)), closed: Some(Closed::Recovered), ..incident.clone() })
}

pub(crate) async fn an_incident_is_one_row_from_its_beginning_to_its_end(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    let (dns, east) = (incident("a", IncidentKind::Check, 1), incident("b", IncidentKind::Unreachable, 2));
    store.put_incidents(&[dns.clone(), east.clone()]).await.unwrap();
    store.put_incidents(&[closed(&dns, 60)]).await.unwrap();
    assert_eq!(store.open_incidents().await.unwrap(), [Incident::clone(&east)]);
    // It comes back under its id: that is another row.
    let again = incident("a", IncidentKind::Check, 100);
    store.put_incidents(std::slice::from_ref(&again)).await.unwrap();
    assert_eq!(store.open_incidents().await.unwrap().len(), 2);

    let query = IncidentQuery { limit: 2, ..IncidentQuery::default() };
    let first = store.incidents(&query).await.unwrap();
    assert_eq!(first.items, [Incident::clone(&again), Incident::clone(&east)]);
    let rest = store.incidents(&IncidentQuery { before: first.next, ..query }).await.unwrap();
    assert_eq!((rest.items, rest.next), (vec![Incident::clone(&closed(&dns, 60))], None));
    let of_kind = IncidentQuery { kind: Some(IncidentKind::Unreachable), ..query };
    assert_eq!(store.incidents(&of_kind).await.unwrap().items, [Incident::clone(&east)]);

    // Open ones are not too old, however long ago they began.
    assert_eq!(store.prune(Expired::Incidents, at(1000), 10).await.unwrap(), 1);
    assert_eq!(store.open_incidents().await.unwrap().len(), 2);
}
