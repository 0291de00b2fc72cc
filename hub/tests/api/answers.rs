//! The form of every answer: errors, headers, ETags, pages, server-sent events.

use super::*;

#[tokio::test]
async fn every_error_is_a_problem_that_says_what_is_wrong() {
    let hub = Hub::start().await;
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let mut long = definition("d", "prod");
    long["spec"]["template"]["spec"]["text"] = json!("x".repeat(300 * 1024));
    let mut unknown = definition("d", "prod");
    unknown["spec"]["clusterSelector"] = json!({"matchLabel": {}});
    let mut invalid = definition("d", "prod");
    invalid["spec"]["template"]["metadata"]["namespace"] = json!("Upper");
    for (method, path, body, status, detail) in [
        (&get, "/api/v1/nothing", None, 404, "/api/v1/nothing"),
        (&get, "/api", None, 404, "/api"),
        (&Method::DELETE, "/api/v1/fleet", None, 405, "Allow"),
        (&get, "/api/v1/clusters/none", None, 404, "there is no cluster none"),
        (&get, "/api/v1/clusters/east/checks/health/none", None, 404, "no check none in namespace health"),
        (&get, "/api/v1/clusters/none/checks/health/dns", None, 404, "there is no cluster none"),
        (&get, "/api/v1/definitions/none", None, 404, "there is no definition none"),
        (&get, "/api/v1/checks?status=Bad", None, 400, "status: unknown variant `Bad`, expected one of `Failed`"),
        (&get, "/api/v1/checks?clustr=east", None, 400, "unknown field `clustr`, expected one of `cluster`"),
        (&get, "/api/v1/incidents?kind=Both", None, 400, "unknown variant `Both`"),
        (&get, "/api/v1/incidents?limit=0", None, 400, "must be a whole number from 1 to 1000"),
        (&put, "/api/v1/windows/a", Some(json!({"name": "b"})), 422, "name must be \"a\", as in the path"),
        (&put, "/api/v1/windows/a", Some(json!({"name": "a"})), 422, "give from and to, or cron and durationSeconds"),
        (&put, "/api/v1/windows/a", Some(json!({"name": "a", "corn": ""})), 422, "unknown field `corn`"),
        (&Method::DELETE, "/api/v1/windows/none", None, 404, "there is no window none"),
        (
            &put,
            "/api/v1/clusters/east/checks/health/none/acknowledgement",
            Some(json!({"expiresInSeconds": 60})),
            404,
            "no check none",
        ),
        (
            &put,
            "/api/v1/clusters/east/checks/health/dns/acknowledgement",
            Some(json!({"expiresInSeconds": 0})),
            422,
            "expiresInSeconds must be from 1 to 2678400",
        ),
        (&get, "/metrics?cluster=none", None, 404, "there is no cluster none"),
        (&get, "/metrics?clusters=east", None, 400, "unknown field `clusters`"),
        (&get, "/metrics?only=hub&cluster=east", None, 400, "only=hub goes with no other part"),
        (&get, "/federate", None, 400, "match[]: give 1 to 100 selectors"),
        (&get, "/federate?match[]=up&x=1", None, 400, "unknown field `x`, expected `match[]`"),
        (&get, "/federate?match[]=sum(up)", None, 400, "match[]: \"sum(up)\": '{' is expected before"),
        (&get, "/api/v1/uptime?window=91d", None, 400, "window: must be a number of hours or days from 1h to 90d"),
        (&get, "/api/v1/uptime?by=region", None, 400, "by: must be check, cluster, fleet or label.KEY"),
        (&get, "/api/v1/uptime?selector=a%20b", None, 400, "selector: the key in"),
        (&get, "/api/v1/runs?limit=0", None, 400, "limit: must be a whole number from 1 to 1000"),
        (&get, "/api/v1/runs?limit=1001", None, 400, "limit: must be a whole number from 1 to 1000"),
        (&get, "/api/v1/runs?before=x", None, 400, "before: must be a whole number"),
        (&get, "/api/v1/runs?kind=other", None, 400, "kind: unknown variant `other`"),
        (&post, "/api/v1/clusters", Some(json!({"name": 5})), 422, "name: invalid type"),
        (&post, "/api/v1/clusters", Some(json!({"nam": "x"})), 422, "unknown field `nam`"),
        (&post, "/api/v1/clusters", Some(json!({"name": "Upper"})), 422, "name"),
        (&post, "/api/v1/clusters", Some(json!({"name": "a", "labels": {"a b": ""}})), 422, "labels[a b]"),
        (&Method::PATCH, "/api/v1/clusters/east", Some(json!({"labels": {"a": "b c"}})), 422, "labels[a]"),
        (&Method::PATCH, "/api/v1/clusters/none", Some(json!({})), 404, "cluster none"),
        (&Method::DELETE, "/api/v1/clusters/none", None, 404, "cluster none"),
        (&Method::DELETE, "/api/v1/definitions/none", None, 404, "definition none"),
        (&put, "/api/v1/definitions/d", None, 415, "application/json or application/yaml"),
        (&put, "/api/v1/definitions/other", Some(definition("d", "prod")), 422, "metadata.name"),
        (&put, "/api/v1/definitions/d", Some(unknown), 422, "spec.clusterSelector.matchLabel: unknown field"),
        (&put, "/api/v1/definitions/d", Some(invalid), 422, "spec.template.metadata.namespace: must be"),
        (&put, "/api/v1/definitions/d", Some(long), 413, "262144 are allowed"),
        (&put, "/api/v1/definitions/d", Some(json!("x".repeat(2 << 20))), 413, "length limit"),
        (&post, "/api/v1/definitions/preview", Some(json!({})), 422, "missing field `apiVersion`"),
    ] {
        let answer = hub.call(method.clone(), path, ADMIN, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        let said = answer.problem();
        assert!(said.contains(detail), "{method} {path}: {said}");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    }
    let bad = Request::post("/api/v1/clusters").header(header::AUTHORIZATION, format!("Bearer {ADMIN}"));
    let bad = bad.header(header::CONTENT_TYPE, "application/json").body(Body::from("{\"name\": ")).unwrap();
    let answer = hub.send(bad).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.problem().contains("line 1"), "{}", answer.text);
}

/// Reads server-sent events: the fields `id`, `event` and `data` of each.
struct Events(axum::body::BodyDataStream, String);

impl Events {
    async fn open(hub: &Hub, last_id: Option<&str>) -> Events {
        let mut request = request(Method::GET, "/api/v1/events", VIEWER, None);
        if let Some(id) = last_id {
            request.headers_mut().insert("last-event-id", id.parse().unwrap());
        }
        let response = hub.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Events(response.into_body().into_data_stream(), String::new())
    }

    async fn next(&mut self) -> (String, String, Value) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.map(str::to_owned)
                };
                let found = (field("id"), field("event"), field("data"));
                self.1 = rest.to_owned();
                if let (Some(id), Some(tag), Some(data)) = found {
                    return (id, tag, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = tokio::time::timeout_at(deadline, self.0.next()).await.expect("an event in time");
            self.1.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_change_is_an_event_and_a_listener_goes_on_where_it_was() {
    let hub = Hub::start().await;
    let mut events = Events::open(&hub, None).await;
    let (_, tag, data) = events.next().await;
    assert_eq!((tag.as_str(), data), ("reset", json!({"type": "reset"})));

    hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "west"}))).await;
    let (id, tag, data) = events.next().await;
    assert_eq!((tag.as_str(), &data["type"], &data["name"]), ("cluster", &json!("cluster"), &json!("west")));

    drop(events);
    hub.call(Method::PUT, "/api/v1/definitions/d", OPERATOR, Some(definition("d", "none"))).await;
    let mut events = Events::open(&hub, Some(&id)).await;
    let data = loop {
        let (_, tag, data) = events.next().await;
        match tag.as_str() {
            "definition" => break data,
            other => assert_eq!(other, "cluster"),
        }
    };
    assert_eq!(data["name"], "d");
    assert_eq!(Events::open(&hub, Some("1-1")).await.next().await.1, "reset");

    hub.tasks.stop();
    let rest = async { while events.0.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), rest).await.expect("the stream ends with the hub");
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_protect_a_browser() {
    let hub = Hub::start().await;
    for path in ["/", "/api/v1/fleet", "/api/v1/nothing", "/metrics"] {
        let answer = hub.get(path).await;
        assert!(answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'"));
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    assert!(hub.get("/").await.text.contains("<title>"));
}

#[tokio::test]
async fn lists_come_in_pages_and_by_labels() {
    let hub = Hub::start().await;
    for name in ["west", "north"] {
        let body = json!({"name": name, "labels": {"env": "dev"}});
        hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(body)).await;
    }
    let pages = async |path: &str, key: &str| {
        let (mut names, mut next) = (Vec::new(), String::new());
        for _ in 0..20 {
            let page = hub.call(Method::GET, &format!("{path}limit=1{next}"), ADMIN, None).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 1, "{page}");
            names.extend(items.iter().map(|item| item[key].as_str().unwrap().to_owned()));
            let Some(mark) = page["next"].as_str() else { return names };
            next = if path.contains("audit") { format!("&before={mark}") } else { format!("&after={mark}") };
        }
        panic!("{path} has no end: {names:?}");
    };
    assert_eq!(pages("/api/v1/clusters?", "name").await, ["east", "north", "west"]);
    assert_eq!(pages("/api/v1/clusters?selector=env%3Ddev&", "name").await, ["north", "west"]);
    assert_eq!(pages("/api/v1/clusters?status=Unreachable&", "name").await, Vec::<String>::new());
    assert_eq!(pages("/api/v1/checks?", "name").await, ["dns", "web"]);
    assert_eq!(pages("/api/v1/checks?selector=env%3Ddev&", "name").await, Vec::<String>::new());
    for name in ["dns", "tls", "web"] {
        hub.call(Method::PUT, &format!("/api/v1/definitions/{name}"), ADMIN, Some(definition(name, "prod"))).await;
    }
    assert_eq!(pages("/api/v1/definitions?", "name").await, ["dns", "tls", "web"]);
    assert_eq!(pages("/api/v1/audit?action=cluster.&", "object").await, ["north", "west"]);
    assert_eq!(pages("/api/v1/audit?action=cluster.&who=admin&", "object").await.len(), 2);
    assert_eq!(pages("/api/v1/audit?who=nobody&", "object").await.len(), 0);
    // Without a limit it is a page too.
    let names = |prefix: &str| (0..1001).map(|n| format!("{prefix}{n:04}")).collect::<Vec<_>>();
    for name in names("c") {
        let record = ClusterRecord { name, created_at: time(0), ..ClusterRecord::default() };
        hub.store.put_cluster(&record).await.unwrap();
    }
    let many = names("k").iter().map(|name| (check(name), Health::default())).collect();
    hub.store.save_check_states("east", many, Vec::new()).await.unwrap();
    let hub = hub.restart().await;
    for (path, total) in [("/api/v1/clusters", 1004), ("/api/v1/checks", 1003)] {
        let first = hub.get(path).await.json();
        let rest = hub.get(&format!("{path}?after={}", first["next"].as_str().unwrap())).await.json();
        let count = |page: &Value| page["items"].as_array().unwrap().len();
        assert_eq!((count(&first), count(&rest), &rest["next"]), (1000, total - 1000, &Value::Null), "{path}");
    }
    for query in [
        "checks?limit=0",
        "checks?limit=10001",
        "checks?after=x",
        "clusters?selector=%3D",
        "audit?limit=0",
        "definitions?limit=0",
        "definitions?page=2",
    ] {
        let answer = hub.call(Method::GET, &format!("/api/v1/{query}"), ADMIN, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        answer.problem();
    }
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let hub = Hub::start().await;
    let ask = async |path: &str, tag: Option<&http::HeaderValue>| {
        let mut request = request(Method::GET, path, VIEWER, None);
        tag.map(|tag| request.headers_mut().insert(header::IF_NONE_MATCH, tag.clone()));
        hub.send(request).await
    };
    for path in ["/api/v1/definitions", "/api/v1/clusters/east", "/api/v1/runs?limit=2"] {
        let first = ask(path, None).await;
        let tag = first.headers[header::ETAG].clone();
        let again = ask(path, Some(&tag)).await;
        assert_eq!((again.status, again.text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{path}");
        assert_eq!(again.headers[header::ETAG], tag);
    }
    let before = ask("/api/v1/definitions", None).await;
    hub.call(Method::PUT, "/api/v1/definitions/dns", OPERATOR, Some(definition("dns", "prod"))).await;
    let after = ask("/api/v1/definitions", Some(&before.headers[header::ETAG])).await;
    assert_eq!(after.status, StatusCode::OK);
    assert!(after.text.contains("dns") && after.headers[header::ETAG] != before.headers[header::ETAG]);
    let wrong = ask("/api/v1/clusters/none", Some(&http::HeaderValue::from_static("*"))).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND, "an error is always sent");
}
