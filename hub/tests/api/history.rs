//! What is read: states, uptime, changes, incidents, what a restored hub lacks.

use super::*;

#[tokio::test]
async fn what_is_stored_is_shown() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/api/v1/me").await.json(), json!({"name": "viewer", "role": "viewer"}));
    let fleet = hub.get("/api/v1/fleet").await.json();
    assert_eq!((&fleet["clusters"]["Unreachable"], &fleet["checks"]["Failed"]), (&json!(0), &json!(0)), "{fleet}");
    let clusters = hub.get("/api/v1/clusters").await.json();
    assert_eq!(clusters["items"][0], hub.get("/api/v1/clusters/east").await.json());
    assert_eq!(clusters["items"][0]["labels"], json!({"env": "prod"}));
    let names = |answer: &Answer| -> Vec<String> {
        answer.json()["items"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("", vec!["dns", "web"]),
        ("?cluster=east&namespace=health", vec!["dns", "web"]),
        ("?name=web", vec!["web"]),
        ("?cluster=west", vec![]),
        ("?status=Succeeded", vec![]),
        ("?namespace=other", vec![]),
    ] {
        assert_eq!(names(&hub.get(&format!("/api/v1/checks{query}")).await), expected, "{query}");
    }
    let check = hub.get("/api/v1/clusters/east/checks/health/dns").await.json();
    assert_eq!((&check["cluster"], &check["uid"]), (&json!("east"), &json!("uid-dns")));
    assert_eq!((&check["health"]["recent"], &check["health"]["flapping"]), (&json!("SFSFSFS"), &json!(true)));

    let first = hub.get("/api/v1/runs?limit=2").await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["items"][0]["name"], "web");
    let second = hub.get(&format!("/api/v1/runs?limit=2&before={}", first["next"])).await.json();
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
    let failed = hub.get("/api/v1/runs?cluster=east&name=dns&outcome=Failed&kind=healthCheck").await.json();
    assert_eq!(
        (&failed["items"][0]["reason"], failed["items"].as_array().unwrap().len()),
        (&json!("WorkflowFailed"), 1)
    );

    let metrics = hub.get("/metrics").await;
    assert!(metrics.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let line = "activemonitor_check_healthy{cluster=\"east\",namespace=\"health\",healthcheck_name=\"dns\"} 0\n";
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert!(!metrics.text.contains("healthcheck_success_count{"), "{}", metrics.text);
}

#[tokio::test]
async fn a_central_prometheus_finds_every_part_of_the_fleet_once() {
    let hub = Hub::start().await;
    hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "west", "labels": {"a.b/c-d": "x"}}))).await;
    let mut ask = request(Method::GET, "/api/v1/sd/prometheus", VIEWER, None);
    ask.headers_mut().insert(header::HOST, "hub.example.com:8443".parse().unwrap());
    let groups = hub.send(ask).await;
    assert_eq!(groups.headers[header::CONTENT_TYPE], "application/json");
    let groups = groups.json();
    let target = json!(["hub.example.com:8443"]);
    let fixed = |mut labels: Value| {
        labels["__scheme__"] = json!("https");
        labels["__metrics_path__"] = json!("/metrics");
        json!({"targets": target, "labels": labels})
    };
    let cluster = |name: &str, label: &str, value: &str| {
        let mut labels = json!({"cluster": name, "__param_cluster": name, "__meta_activemonitor_cluster": name});
        labels[label] = json!(value);
        fixed(labels)
    };
    let expected = json!([
        cluster("east", "__meta_activemonitor_label_env", "prod"),
        cluster("west", "__meta_activemonitor_label_a_b_c_d", "x"),
        fixed(json!({"__param_only": "hub"})),
    ]);
    assert_eq!(groups, expected);
    assert_eq!(hub.get("/api/v1/sd/prometheus").await.status, StatusCode::UNPROCESSABLE_ENTITY, "no Host");

    let names = |answer: &Answer| -> Vec<String> {
        let lines = answer.text.lines().filter(|line| line.starts_with("activemonitor_cluster_reachable{"));
        lines.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(names(&hub.get("/metrics").await), ["east", "west"]);
    let east = hub.get("/metrics?cluster=east").await;
    assert!(names(&east) == ["east"] && !east.text.contains("process_"), "{}", east.text);
    assert_eq!(names(&hub.get("/metrics?selector=env%20in%20(prod,dev)").await), ["east"]);
    assert_eq!(names(&hub.get("/metrics?selector=!env").await), ["west"]);
    let own = hub.get("/metrics?only=hub").await;
    assert!(names(&own).is_empty() && own.text.contains("process_start_time_seconds"), "{}", own.text);
    let query = "match[]=activemonitor_cluster_reachable%7Bcluster%3D%22west%22%7D&match[]=nothing";
    let federated = hub.get(&format!("/federate?{query}")).await;
    assert!(federated.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let lines: Vec<_> = federated.text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["activemonitor_cluster_reachable{cluster=\"west\"} 0"]);
}

fn close_to(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() < expected.abs().max(1.0) * 0.01)
}

#[tokio::test]
async fn uptime_is_summed_up_by_check_cluster_and_label() {
    use CheckStatus::{Failed, Overdue, Stale, Succeeded};
    let hub = Hub::start().await;
    let minutes_ago = |minutes: i64| Timestamp::now() - SignedDuration::from_mins(minutes);
    let steps = [
        ("east", "dns", 120, Some(Succeeded)),
        ("east", "dns", 30, Some(Failed)),
        ("east", "dns", 20, Some(Succeeded)),
        ("east", "web", 120, Some(Succeeded)),
        // Runs that did not happen.
        ("east", "web", 6, Some(Overdue)),
        ("gone", "dns", 40, Some(Stale)),
        ("gone", "dns", 10, None),
    ];
    let steps = steps.map(|(cluster, name, ago, status)| {
        let key = CheckKey { cluster: cluster.into(), namespace: "health".into(), name: name.into() };
        (key, Transition { at: minutes_ago(ago), status, maintenance: false })
    });
    let life = Life { from: minutes_ago(121), to: Timestamp::now() };
    hub.store.record_transitions(life, steps.to_vec()).await.unwrap();

    let page = hub.get("/api/v1/uptime?window=1h").await.json();
    assert_eq!(page["total"], 3, "{page:#}");
    let of = |page: &Value, n: usize| -> (String, Value) {
        let item = &page["items"][n];
        let text = |key: &str| item[key].as_str().unwrap_or("-").to_owned();
        (format!("{}/{}", text("cluster"), text("name")), item.clone())
    };
    let (dns, item) = of(&page, 0);
    assert_eq!((dns.as_str(), &item["outages"], &item["checks"]), ("east/dns", &json!(1), &json!(1)));
    assert!(close_to(&item["ratio"], 50.0 / 60.0) && close_to(&item["downSeconds"], 600.0), "{item}");
    let (web, item) = of(&page, 1);
    assert_eq!((web.as_str(), &item["outages"]), ("east/web", &json!(1)));
    assert!(close_to(&item["ratio"], 54.0 / 60.0), "{item}");
    let (gone, item) = of(&page, 2);
    assert_eq!((gone.as_str(), &item["ratio"]), ("gone/dns", &Value::Null));
    assert!(close_to(&item["unknownSeconds"], 1800.0), "what nobody knew is neither up nor down: {item}");

    // An hour at 75 % may be down for 15 minutes; what nobody knew of a check has no budget.
    let page = hub.get("/api/v1/uptime?window=1h&objective=75").await.json();
    let budgets: Vec<_> = (0..3).map(|n| page["items"][n]["budget"].clone()).collect();
    assert!(close_to(&budgets[0]["seconds"], 900.0) && close_to(&budgets[0]["leftSeconds"], 300.0), "{page:#}");
    assert!(close_to(&budgets[1]["leftSeconds"], 900.0 - 360.0) && budgets[2].is_null(), "{page:#}");
    let rolled = hub.get("/api/v1/uptime?window=1h&by=cluster&objective=90").await.json();
    assert!(close_to(&rolled["items"][0]["budget"]["leftSeconds"], 720.0 - 960.0), "overspent: {rolled:#}");
    let bad = hub.get("/api/v1/uptime?objective=100").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.json()["detail"].as_str().unwrap().contains("objective"), "{}", bad.json());

    // One check alone, from the middle of its failure on: the same walk by another query.
    let one = hub.get("/api/v1/uptime?window=1h&cluster=east&namespace=health&name=dns").await.json();
    assert_eq!((&one["total"], &one["items"][0]["outages"]), (&json!(1), &json!(1)));
    assert!(close_to(&one["items"][0]["ratio"], 50.0 / 60.0), "{one}");
    let rolled = hub.get("/api/v1/uptime?window=1h&by=cluster").await.json();
    assert_eq!((of(&rolled, 0).0.as_str(), &rolled["items"][0]["checks"]), ("east/-", &json!(2)));
    assert!(close_to(&rolled["items"][0]["ratio"], 104.0 / 120.0), "{rolled}");
    let rolled = hub.get("/api/v1/uptime?window=1h&by=label.env").await.json();
    let labels = [&rolled["items"][0]["label"], &rolled["items"][1]["label"]];
    assert_eq!((labels, &rolled["total"]), ([&json!("prod"), &json!("")], &json!(2)));
    let fleet = hub.get("/api/v1/uptime?window=1h&by=fleet&selector=env%3Dprod").await.json();
    assert_eq!((&fleet["total"], &fleet["items"][0]["checks"]), (&json!(1), &json!(2)));
    assert_eq!(hub.get("/api/v1/uptime?selector=env%3Ddev").await.json()["total"], 0);
    let limited = hub.get("/api/v1/uptime?window=1h&limit=1").await.json();
    assert_eq!((limited["items"].as_array().unwrap().len(), &limited["total"]), (1, &json!(3)));
}

#[tokio::test]
async fn viewers_see_what_changed_page_by_page_and_nothing_of_tokens() {
    let hub = Hub::start().await;
    for (method, path, token, body) in [
        (Method::POST, "/api/v1/tokens", ADMIN, Some(json!({"name": "new-one", "role": "viewer"}))),
        (Method::PATCH, "/api/v1/clusters/east", OPERATOR, Some(json!({"labels": {"region": "eu"}}))),
        (Method::PUT, "/api/v1/definitions/dns", OPERATOR, Some(definition("dns", "prod"))),
        (Method::POST, "/api/v1/commands", OPERATOR, Some(json!({"action": "resume", "clusters": ["east"]}))),
        (Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "west"}))),
    ] {
        let answer = hub.call(method, path, token, body).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let key = CheckKey { cluster: "east".into(), namespace: "health".into(), name: "dns".into() };
    let failed = Transition { at: Timestamp::now(), status: Some(CheckStatus::Failed), maintenance: false };
    let life = Life { from: time(0), to: Timestamp::now() };
    hub.store.record_transitions(life, vec![(key, failed)]).await.unwrap();

    let all = hub.get("/api/v1/changes").await;
    assert!(!all.text.contains("new-one") && !all.text.contains("amf_"), "{}", all.text);
    let seen = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        items.map(|item| format!("{} {} {}", text(item, "kind"), text(item, "action"), text(item, "who"))).collect()
    };
    let expected = [
        "status  ",
        "cluster cluster.add admin",
        "command command.resume.result operator",
        "command command.resume operator",
        "definition definition.put operator",
        "cluster cluster.patch operator",
    ];
    assert_eq!(seen(&all.json()), expected);
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let page = hub.get(&format!("/api/v1/changes?limit=1{next}")).await.json();
        paged.extend(seen(&page));
        let Some(before) = page["next"].as_str() else { break };
        next = format!("&before={before}");
    }
    assert_eq!(paged, expected);

    let of = async |query: &str| seen(&hub.get(&format!("/api/v1/changes?{query}")).await.json());
    assert_eq!(of("kind=definition").await, ["definition definition.put operator"]);
    assert_eq!(of("kind=status&cluster=west").await, Vec::<String>::new());
    assert_eq!(of("cluster=west").await.len(), 3, "its own, and what is of no one cluster");
    assert_eq!(of("to=2001-01-01T00:00:00Z").await, Vec::<String>::new());
    for query in ["before=5", "limit=0", "from=yesterday", "kind=token", "since=1"] {
        let answer = hub.get(&format!("/api/v1/changes?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        answer.problem();
    }
}

#[tokio::test]
async fn open_incidents_are_kept_over_a_restart_and_closed_ones_are_the_history() {
    let hub = Hub::start().await;
    let incident = |id: &str, closed_at: Value| -> active_monitor_core::view::Incident {
        let json = json!({
            "id": id, "kind": "Check", "subject": format!("check/health/{id}"), "title": id, "widespread": false,
            "silenced": false, "flapping": false, "firstSeen": time(100), "lastChange": time(100), "closedAt": closed_at,
            "counts": {"failing": 150, "healthy": 0, "unknown": 0, "failingInScope": 150, "inScope": 150},
            "members": (0..150).map(|n| json!({"cluster": format!("c{n:03}"), "status": "Failed"})).collect::<Vec<_>>(),
        });
        serde_json::from_value(json).unwrap()
    };
    let stored = [Arc::new(incident("dns", Value::Null)), Arc::new(incident("web", json!(time(200))))];
    hub.store.put_incidents(&stored).await.unwrap();
    let hub = hub.restart().await;
    let open = hub.get("/api/v1/incidents").await.json();
    let items = open["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["id"], &items[0]["firstSeen"]), (1, &json!("dns"), &json!(time(100))));
    assert!(items[0]["members"].as_array().unwrap().len() <= 100);
    assert_eq!(hub.get("/api/v1/incidents?kind=Unreachable").await.json()["items"], json!([]));
    let first = hub.get("/api/v1/incidents?all=true&limit=1").await.json();
    assert_eq!(first["items"][0]["id"], "web");
    let rest = hub.get(&format!("/api/v1/incidents?all=true&before={}", first["next"])).await.json();
    assert_eq!((&rest["items"][0]["id"], rest.get("next")), (&json!("dns"), None));
}

#[tokio::test]
async fn a_hub_from_the_past_says_what_it_lacks_and_an_admin_confirms_it() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/api/v1/restore").await.json(), json!({"differences": []}));
    let restore = Restore { noticed_at: time(400), reason: "it was restored from a backup".to_owned() };
    hub.store.put_restore(&restore).await.unwrap();
    let mut newer = check("dns");
    newer.definition = Some(DefinitionRef { name: "dns".to_owned(), generation: 5 });
    hub.store.save_check_states("east", vec![(newer, Health::default())], Vec::new()).await.unwrap();
    let hub = hub.restart().await;
    let told = hub.get("/api/v1/restore").await.json();
    assert_eq!(told["restore"]["reason"], restore.reason);
    assert_eq!(
        told["differences"],
        json!([{"definition": "dns", "newestGeneration": 5, "clusters": ["east"]}]),
        "the hub does not know the definition"
    );
    assert_eq!(hub.get("/api/v1/fleet").await.json()["restore"], told["restore"]);
    let confirm = async |token| hub.call(Method::POST, "/api/v1/restore/confirm", token, None).await.status;
    assert_eq!(confirm(OPERATOR).await, StatusCode::FORBIDDEN);
    assert_eq!(confirm(ADMIN).await, StatusCode::OK);
    assert_eq!(confirm(ADMIN).await, StatusCode::CONFLICT);
    assert!(hub.get("/api/v1/fleet").await.json()["restore"].is_null());
    let log = hub.call(Method::GET, "/api/v1/audit", ADMIN, None).await.json();
    assert_eq!(log["items"][0]["action"], "restore.confirm");
}
