//! What people write: clusters, definitions, windows, acknowledgements, commands; and what is Git's.

use super::*;

#[tokio::test]
async fn windows_and_acknowledgements_are_kept_over_a_restart() {
    let hub = Hub::start().await;
    let window = json!({"name": "patch-day", "selector": "env=prod", "check": "dns", "cron": "* * * * *",
        "timeZone": "Europe/Berlin", "durationSeconds": 3600, "comment": "kernel"});
    let put = |name: &'static str, body: Value| hub.call(Method::PUT, name, OPERATOR, Some(body));
    let made = put("/api/v1/windows/patch-day", window.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(put("/api/v1/windows/patch-day", window.clone()).await.status, StatusCode::OK);
    let listed = hub.get("/api/v1/windows").await.json();
    assert_eq!((&listed["items"][0]["cron"], &listed["items"][1]), (&window["cron"], &Value::Null));
    assert!(listed["items"][0]["openUntil"].is_string(), "{listed}");
    let (dns, web) = ("/api/v1/clusters/east/checks/health/dns", "/api/v1/clusters/east/checks/health/web");
    assert_eq!(hub.get(dns).await.json()["care"], json!({"maintenance": "patch-day"}));
    assert_eq!(hub.get(web).await.json()["care"], Value::Null);

    let known = json!({"comment": "ticket 7", "expiresInSeconds": 3600});
    let acknowledged = put("/api/v1/clusters/east/checks/health/web/acknowledgement", known).await;
    assert_eq!(acknowledged.status, StatusCode::OK, "{}", acknowledged.text);
    let care = acknowledged.json()["care"]["acknowledgement"].clone();
    assert_eq!((&care["by"], &care["comment"]), (&json!("operator"), &json!("ticket 7")));
    let metrics = hub.get("/metrics?cluster=east").await.text;
    for (family, name, value) in [("maintenance", "dns", 1), ("maintenance", "web", 0), ("acknowledged", "web", 1)] {
        let line = format!(
            "activemonitor_check_{family}{{cluster=\"east\",namespace=\"health\",healthcheck_name=\"{name}\"}} {value}\n"
        );
        assert!(metrics.contains(&line), "{line}");
    }

    let hub = hub.restart().await;
    assert_eq!(hub.get(web).await.json()["care"]["acknowledgement"], care);
    assert_eq!(hub.get(dns).await.json()["care"]["maintenance"], "patch-day");
    let delete = |path: &'static str| hub.call(Method::DELETE, path, OPERATOR, None);
    let ack = "/api/v1/clusters/east/checks/health/web/acknowledgement";
    assert_eq!(delete(ack).await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete(ack).await.problem(), "east/health/web is not acknowledged");
    assert_eq!(delete("/api/v1/windows/patch-day").await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete("/api/v1/windows/patch-day").await.problem(), "there is no window patch-day");
    for path in [dns, web] {
        assert_eq!(hub.get(path).await.json()["care"], Value::Null);
    }
    let log = hub.store.audit_log(10).await.unwrap();
    let lines: Vec<_> = log.iter().map(|line| (line.action.as_str(), line.object.as_str())).collect();
    assert_eq!(
        lines,
        [
            ("window.delete", "patch-day"),
            ("check.unacknowledge", "east/health/web"),
            ("check.acknowledge", "east/health/web"),
            ("window.put", "patch-day"),
            ("window.put", "patch-day")
        ]
    );
}

#[tokio::test]
async fn clusters_are_added_changed_and_removed() {
    let hub = Hub::start().await;
    let body = json!({"name": "west", "labels": {"env": "dev"}, "annotations": {"a": "b"}});
    let added = hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(body)).await;
    assert_eq!(
        (added.status, &added.headers[header::LOCATION]),
        (StatusCode::CREATED, &"/api/v1/clusters/west".parse().unwrap())
    );
    let token = added.json()["token"].as_str().unwrap().to_owned();
    let fingerprint = hub.get("/api/v1/ca").await.json()["fingerprint"].as_str().unwrap().to_owned();
    assert!(token.starts_with("west.") && token.ends_with(&format!(".{fingerprint}")), "{token}");
    assert_eq!(hub.get("/api/v1/clusters/west").await.json()["status"], "Pending");
    let taken = hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "east"}))).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    taken.problem();

    let patch = json!({"labels": {"env": null, "tier": "1"}, "annotations": {"c": "d"}});
    let patched = hub.call(Method::PATCH, "/api/v1/clusters/west", OPERATOR, Some(patch)).await;
    let cluster = patched.json();
    assert_eq!((&cluster["labels"], &cluster["annotations"]), (&json!({"tier": "1"}), &json!({"a": "b", "c": "d"})));
    assert_eq!(hub.call(Method::DELETE, "/api/v1/clusters/west", ADMIN, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(hub.get("/api/v1/clusters/west").await.status, StatusCode::NOT_FOUND);

    let log = hub.store.audit_log(10).await.unwrap();
    let lines: Vec<_> = log.iter().map(|e| (e.who.as_str(), e.action.as_str(), e.object.as_str())).collect();
    assert_eq!(
        lines,
        [("admin", "cluster.remove", "west"), ("operator", "cluster.patch", "west"), ("admin", "cluster.add", "west")]
    );
    assert!(!format!("{log:?}").contains(&token));
}

#[tokio::test]
async fn definitions_are_previewed_put_read_and_deleted() {
    let hub = Hub::start().await;
    let preview = |body: Value| hub.call(Method::POST, "/api/v1/definitions/preview", VIEWER, Some(body));
    assert_eq!(
        preview(definition("dns", "prod")).await.json(),
        json!({"clusters": [{"cluster": "east", "change": "create"}]})
    );
    assert_eq!(hub.get("/api/v1/definitions").await.json(), json!({"items": []}));

    let yaml = "
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata: {name: dns}
spec:
  clusterSelector: {matchLabels: {env: prod}}
  template: {metadata: {namespace: health}, spec: {text: '${cluster.annotations.url}'}}
";
    let put = Request::put("/api/v1/definitions/dns").header(header::AUTHORIZATION, format!("Bearer {OPERATOR}"));
    let put = put.header(header::CONTENT_TYPE, "application/yaml").body(Body::from(yaml)).unwrap();
    let answer = hub.send(put).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let view = answer.json();
    assert_eq!((&view["generation"], &view["definition"]), (&json!(1), &definition("dns", "prod")));
    assert_eq!(view["clusters"][0]["cluster"], "east");
    assert_eq!(hub.get("/api/v1/definitions/dns").await.json(), view);
    assert_eq!(hub.get("/api/v1/definitions").await.json(), json!({"items": [view]}));
    assert_eq!(hub.get("/api/v1/fleet").await.json()["definitions"], 1);

    let mut changed = definition("dns", "prod");
    changed["spec"]["template"]["spec"]["text"] = json!("${cluster.annotations.none}");
    let previewed = preview(changed.clone()).await.json();
    assert_eq!(previewed["current"], definition("dns", "prod"));
    assert_eq!(previewed["clusters"][0]["change"], "unchanged");
    assert!(previewed["clusters"][0]["message"].as_str().unwrap().contains("no annotation \"none\""), "{previewed}");
    assert_eq!(preview(definition("dns", "prod")).await.json()["clusters"][0]["change"], "unchanged");
    assert_eq!(preview(definition("dns", "dev")).await.json()["clusters"][0]["change"], "withdraw");
    let replaced = hub.call(Method::PUT, "/api/v1/definitions/dns", OPERATOR, Some(changed)).await;
    assert_eq!((replaced.status, &replaced.json()["generation"]), (StatusCode::OK, &json!(2)));
    assert!(replaced.json()["clusters"][0]["message"].as_str().unwrap().contains("none"), "{}", replaced.text);

    let deleted = hub.call(Method::DELETE, "/api/v1/definitions/dns", OPERATOR, None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(hub.get("/api/v1/definitions/dns").await.status, StatusCode::NOT_FOUND);
    let log = hub.store.audit_log(10).await.unwrap();
    let actions: Vec<_> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["definition.delete", "definition.put", "definition.put"]);
}

#[tokio::test]
async fn a_command_has_a_result_for_each_cluster_and_stands_in_the_audit_log() {
    let hub = Hub::start().await;
    let west = json!({"name": "west", "labels": {"env": "prod"}});
    hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(west)).await;
    let give = async |body: Value| hub.call(Method::POST, "/api/v1/commands", OPERATOR, Some(body)).await;
    let pause =
        json!({"action": "pause", "subject": "remedies", "labels": {"env": "prod"}, "seconds": 7200, "reason": "x"});
    let report = give(pause).await.json();
    assert_eq!(report["command"], "pause remedies of the whole cluster for 7200 s: x");
    let results: Vec<_> =
        report["results"].as_array().unwrap().iter().map(|r| (&r["cluster"], &r["outcome"])).collect();
    assert_eq!(results, [(&json!("east"), &json!("Unreachable")), (&json!("west"), &json!("Unreachable"))]);
    let log = hub.store.audit_log(3).await.unwrap();
    assert!(log.iter().all(|entry| entry.who == "operator"));
    let lines: Vec<_> = log.iter().map(|entry| format!("{} {}", entry.action, entry.object)).collect();
    assert!(lines[2] == "command.pause pause remedies of the whole cluster for 7200 s: x; in east, west", "{lines:?}");
    for cluster in ["east", "west"] {
        let said = format!("command.pause.result {cluster}: ");
        assert!(lines.iter().any(|line| line.starts_with(&said) && line.contains("Unreachable")), "{lines:?}");
    }
    for (body, says) in [
        (json!({"action": "resume", "clusters": ["north"]}), "no cluster north"),
        (json!({"action": "resume", "labels": {"env": "dev"}}), "no cluster has them"),
        (json!({"action": "resume"}), "clusters"),
        (json!({"action": "pause", "allClusters": true}), "seconds"),
    ] {
        let answer = give(body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
        assert!(answer.problem().contains(says), "{}", answer.text);
    }
    assert_eq!(hub.store.audit_log(10).await.unwrap().len(), 4, "what is not valid is not given");
}

#[tokio::test]
async fn what_is_gits_is_changed_in_git_and_nowhere_else() {
    let owned = |kind: &str, name: &str, labels: &[&str]| json!({"kind": kind, "name": name, "file": "fleet/a.yaml", "labels": labels});
    let hub = Hub::start().await;
    let ownership = json!({"objects": [
        owned("FleetHealthCheck", "dns", &[]), owned("MaintenanceWindow", "night", &[]), owned("FleetCluster", "east", &["env"]),
    ]});
    let ownership = serde_json::from_value(ownership).unwrap();
    hub.store.put_ownership(Some(&ownership)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub =
        hub.restart_with(SourceArgs { git_folder: Some(folder.path().to_owned()), ..SourceArgs::default() }).await;
    let definition = json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck", "metadata": {"name": "dns"},
        "spec": {"clusterSelector": {}, "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60}}},
    });
    let window = json!({"name": "night", "cron": "0 3 * * *", "durationSeconds": 60});
    for (method, path, body) in [
        (Method::PUT, "/api/v1/definitions/dns", Some(definition)),
        (Method::DELETE, "/api/v1/definitions/dns", None),
        (Method::PUT, "/api/v1/windows/night", Some(window)),
        (Method::DELETE, "/api/v1/windows/night", None),
        (Method::PATCH, "/api/v1/clusters/east", Some(json!({"labels": {"env": "test"}}))),
        (Method::PATCH, "/api/v1/clusters/east", Some(json!({"labels": {"env": null}}))),
    ] {
        let answer = hub.call(method.clone(), path, OPERATOR, body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{method} {path}: {}", answer.text);
        assert!(answer.text.contains("is Git's: change fleet/a.yaml in the repository"), "{}", answer.text);
    }
    let free = hub.call(Method::PATCH, "/api/v1/clusters/east", OPERATOR, Some(json!({"labels": {"tier": "a"}}))).await;
    assert_eq!(free.status, StatusCode::OK, "{}", free.text);
    let sources: Value = serde_json::from_str(&hub.get("/api/v1/sources").await.text).unwrap();
    assert_eq!(sources["items"][0]["state"], "Pending");
    assert_eq!(sources["items"][0]["objects"][0]["file"], "fleet/a.yaml");
}
