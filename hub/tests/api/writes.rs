//! Who writes says what he has read: `If-Match` and `If-None-Match`. And whose it is, where it is Git's.

use active_monitor_hub::source::SourceArgs;
use active_monitor_hub::store::Store;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{Answer, Hub, OPERATOR, definition, request};

impl Hub {
    async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        condition: Option<(HeaderName, &str)>,
    ) -> Answer {
        let mut request = request(method, path, OPERATOR, body);
        request.headers_mut().extend(condition.map(|(name, value)| (Some(name), value.parse().unwrap())));
        self.send(request).await
    }

    async fn tag(&self, path: &str) -> String {
        tag(&self.get(path).await.headers)
    }
}

/// The part that a write is judged by.
fn version(tag: &str) -> &str {
    tag.split('.').next().unwrap()
}

fn tag(headers: &HeaderMap) -> String {
    headers[header::ETAG].to_str().unwrap().to_owned()
}

/// Paths, and two states of what is there.
fn things() -> [(&'static str, [Value; 2]); 2] {
    let window = |seconds: u64| json!({"name": "night", "cron": "@daily", "durationSeconds": seconds});
    [
        ("/api/v1/definitions/dns", [definition("dns", "dev"), definition("dns", "test")]),
        ("/api/v1/windows/night", [window(60), window(120)]),
    ]
}

#[tokio::test]
async fn who_writes_over_what_he_has_not_read_is_told_and_nothing_changes() {
    let hub = Hub::start().await;
    for (path, [first, second]) in things() {
        let put = async |body: &Value, condition| hub.write(Method::PUT, path, Some(body.clone()), condition).await;
        let matches = |tag| Some((header::IF_MATCH, tag));
        let absent = || Some((header::IF_NONE_MATCH, "*"));
        assert_eq!(put(&first, matches("*")).await.status, StatusCode::PRECONDITION_FAILED, "there is none yet");
        let created = put(&first, absent()).await;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
        let again = put(&second, absent()).await;
        assert_eq!(again.status, StatusCode::PRECONDITION_FAILED);
        assert!(again.problem().contains("is there, and was expected not to be"), "{}", again.text);

        // Two people read the same, and both write.
        let read = hub.tag(path).await;
        assert_eq!(
            version(&read),
            version(&tag(&created.headers)),
            "an answer to a write has the tag of what it wrote"
        );
        let one = put(&second, matches(&read)).await;
        assert_eq!(one.status, StatusCode::OK, "{}", one.text);
        let other = put(&first, matches(&read)).await;
        assert_eq!(other.status, StatusCode::PRECONDITION_FAILED);
        assert!(other.problem().ends_with("was changed meanwhile: read it again, and give the ETag of that answer"));
        assert_eq!(version(&hub.tag(path).await), version(&tag(&one.headers)));
        let delete = async |condition| hub.write(Method::DELETE, path, None, condition).await;
        assert_eq!(delete(matches(&read)).await.status, StatusCode::PRECONDITION_FAILED);
        assert_eq!(hub.get(path).await.status, StatusCode::OK);

        for wrong in ["x", "\"a", ""] {
            let answer = put(&first, matches(wrong)).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
            assert!(answer.problem().starts_with("If-Match: must be"), "{}", answer.text);
        }
        // Who says nothing writes as before.
        assert_eq!(put(&first, None).await.status, StatusCode::OK);
        let newest = hub.tag(path).await;
        assert_eq!(delete(matches(&newest)).await.status, StatusCode::NO_CONTENT);
        assert_eq!(delete(matches(&newest)).await.status, StatusCode::NOT_FOUND);
    }
    let absent = hub.get("/api/v1/windows/none").await;
    assert_eq!((absent.status, absent.problem().as_str()), (StatusCode::NOT_FOUND, "there is no window none"));
}

#[tokio::test]
async fn labels_are_changed_as_they_were_read_whatever_the_agent_says_meanwhile() {
    let hub = Hub::start().await;
    let path = "/api/v1/clusters/east";
    let patch = async |labels: Value, tag: &str| {
        let body = Some(json!({"labels": labels}));
        hub.write(Method::PATCH, path, body, Some((header::IF_MATCH, tag))).await
    };
    let read = hub.tag(path).await;
    // What the answer says else is after the dot.
    let of_another_time = format!("{}.00\"", version(&read));
    let one = patch(json!({"tier": "a"}), &of_another_time).await;
    assert_eq!(one.status, StatusCode::OK, "{}", one.text);
    let other = patch(json!({"tier": "b"}), &read).await;
    assert_eq!(other.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(hub.get(path).await.json()["labels"]["tier"], "a");
    assert_eq!(patch(json!({"tier": "b"}), &hub.tag(path).await).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_gits_says_where_it_is_written() {
    let hub = Hub::start().await;
    for (path, [body, _]) in things() {
        hub.write(Method::PUT, path, Some(body), None).await;
        let (folder, _) = path.rsplit_once('/').unwrap();
        let other = if folder.ends_with("windows") {
            json!({"name": "own", "cron": "@daily", "durationSeconds": 60})
        } else {
            definition("own", "dev")
        };
        assert_eq!(
            hub.write(Method::PUT, &format!("{folder}/own"), Some(other), None).await.status,
            StatusCode::CREATED
        );
    }
    let owned = |kind: &str, name: &str| json!({"kind": kind, "name": name, "file": format!("fleet/{name}.yaml")});
    let objects = [owned("FleetHealthCheck", "dns"), owned("MaintenanceWindow", "night")];
    let ownership = serde_json::from_value(json!({"revision": "0a1b2c3", "objects": objects})).unwrap();
    hub.store.put_ownership(Some(&ownership)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub =
        hub.restart_with(SourceArgs { git_folder: Some(folder.path().to_owned()), ..SourceArgs::default() }).await;
    for (path, name) in [("/api/v1/definitions", "dns"), ("/api/v1/windows", "night")] {
        let git = json!({"file": format!("fleet/{name}.yaml"), "revision": "0a1b2c3"});
        assert_eq!(hub.get(&format!("{path}/{name}")).await.json()["git"], git);
        let list = hub.get(path).await.json();
        let of = |name: &str| {
            list["items"].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap()["git"].clone()
        };
        assert_eq!((of(name), of("own")), (git, Value::Null), "{list}");
    }
}

#[tokio::test]
async fn what_is_a_resources_says_so_and_is_nobody_elses_until_its_namespace_is_not_followed() {
    let hub = Hub::start().await;
    let path = "/api/v1/definitions/tls";
    assert_eq!(hub.write(Method::PUT, path, Some(definition("tls", "dev")), None).await.status, StatusCode::CREATED);
    let resource = json!({"kind": "FleetHealthCheck", "name": "tls", "file": "fleet/tls"});
    let ownership = serde_json::from_value(json!({"objects": [], "resources": [resource]})).unwrap();
    hub.store.put_ownership(Some(&ownership)).await.unwrap();
    let following =
        |namespace: &str| SourceArgs { resources_namespace: Some(namespace.into()), ..SourceArgs::default() };
    let hub = hub.restart_with(following("fleet")).await;
    assert_eq!(hub.get(path).await.json()["resource"], "fleet/tls");
    assert_eq!(hub.get("/api/v1/definitions").await.json()["items"][0]["resource"], "fleet/tls");
    for (method, body) in [(Method::PUT, Some(definition("tls", "prod"))), (Method::DELETE, None)] {
        let answer = hub.write(method, path, body, None).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
        let text = "the FleetHealthCheck tls is a resource's: change fleet/tls in the hub's own cluster";
        assert!(answer.text.contains(text), "{}", answer.text);
    }
    let hub = hub.restart_with(following("elsewhere")).await;
    assert_eq!(hub.get(path).await.json().get("resource"), None);
    assert_eq!(hub.write(Method::DELETE, path, None, None).await.status, StatusCode::NO_CONTENT);
}
