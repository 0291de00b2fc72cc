//! Who may do what: roles, tokens, logins, approvals, the CA.

use super::*;

#[tokio::test]
async fn each_call_needs_its_role() {
    let hub = Hub::start().await;
    let (get, post, put, patch, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let calls = [
        (&get, "/api/v1/me", None, VIEWER),
        (&get, "/api/v1/fleet", None, VIEWER),
        (&get, "/api/v1/clusters", None, VIEWER),
        (&get, "/api/v1/clusters/east", None, VIEWER),
        (&get, "/api/v1/checks", None, VIEWER),
        (&get, "/api/v1/clusters/east/checks/health/dns", None, VIEWER),
        (&get, "/api/v1/incidents", None, VIEWER),
        (&get, "/api/v1/windows", None, VIEWER),
        (&put, "/api/v1/windows/w", Some(json!({"name": "w", "cron": "@daily", "durationSeconds": 60})), OPERATOR),
        (
            &put,
            "/api/v1/clusters/east/checks/health/dns/acknowledgement",
            Some(json!({"expiresInSeconds": 60})),
            OPERATOR,
        ),
        (&get, "/api/v1/runs", None, VIEWER),
        (&get, "/api/v1/uptime", None, VIEWER),
        (&get, "/api/v1/changes", None, VIEWER),
        (&get, "/api/v1/definitions", None, VIEWER),
        (&get, "/api/v1/definitions/kept", None, VIEWER),
        (&post, "/api/v1/definitions/preview", Some(definition("x", "prod")), VIEWER),
        (&post, "/api/v1/routes/preview", Some(json!({"text": "routes: []"})), VIEWER),
        (&get, "/metrics", None, VIEWER),
        (&get, "/federate?match[]=up", None, VIEWER),
        (&patch, "/api/v1/clusters/east", Some(json!({"labels": {"a": "b"}})), OPERATOR),
        (&put, "/api/v1/definitions/kept", Some(definition("kept", "dev")), OPERATOR),
        (&delete, "/api/v1/definitions/gone", None, OPERATOR),
        (&post, "/api/v1/commands", Some(json!({"action": "resume", "clusters": ["east"]})), OPERATOR),
        (&post, "/api/v1/clusters", Some(json!({"name": "new"})), ADMIN),
        (&delete, "/api/v1/clusters/gone", None, ADMIN),
        (&post, "/api/v1/clusters/east/token", None, ADMIN),
        (&post, "/api/v1/clusters/east/rebind", None, ADMIN),
        (&get, "/api/v1/tokens", None, ADMIN),
        (&post, "/api/v1/tokens", Some(json!({"name": "new", "role": "viewer"})), ADMIN),
        (&get, "/api/v1/windows/w", None, VIEWER),
        (&get, "/api/v1/audit", None, ADMIN),
    ];
    let rank = |token: &str| [VIEWER, OPERATOR, ADMIN].iter().position(|t| *t == token);
    for name in ["kept", "gone"] {
        let path = format!("/api/v1/definitions/{name}");
        let answer = hub.call(Method::PUT, &path, ADMIN, Some(definition(name, "dev"))).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    }
    for (method, path, body, needed) in calls {
        for token in ["", "amf_wrong", VIEWER, OPERATOR, ADMIN] {
            hub.call(Method::PUT, "/api/v1/definitions/gone", ADMIN, Some(definition("gone", "dev"))).await;
            hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "gone"}))).await;
            let answer = hub.call(method.clone(), path, token, body.clone()).await;
            let context = format!("{method} {path} {token}: {} {}", answer.status, answer.text);
            if rank(token).is_none() {
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{context}");
                assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
                answer.problem();
            } else if rank(token) < rank(needed) {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{context}");
                answer.problem();
            } else {
                assert!(answer.status.is_success(), "{context}");
            }
        }
    }
    let open = hub.call(Method::GET, "/api/v1/openapi.json", "", None).await;
    assert_eq!((open.status, open.json()["openapi"].as_str()), (StatusCode::OK, Some("3.1.0")));
    for token in ["", "amf_wrong"] {
        assert_eq!(hub.call(Method::GET, "/api/v1/events", token, None).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn an_admin_decides_upon_the_key_that_waits_and_upon_no_other() {
    let hub = Hub::start().await;
    let approve = async |token: &str, path: &str, key: &str| {
        let path = format!("/api/v1/clusters/{path}");
        hub.call(Method::POST, &path, token, Some(json!({"keyFingerprint": key}))).await
    };
    for path in ["east/approve", "east/deny"] {
        assert_eq!(approve(OPERATOR, path, "ab").await.status, StatusCode::FORBIDDEN);
        let none = approve(ADMIN, path, "ab").await;
        assert_eq!(
            (none.status, none.problem().as_str()),
            (StatusCode::CONFLICT, "no agent waits for approval as east")
        );
    }
    assert_eq!(approve(ADMIN, "none/approve", "ab").await.status, StatusCode::NOT_FOUND);
    let pending = PendingEnrolment {
        key_fingerprint: "ab".into(),
        cluster_uid: "uid-east".into(),
        since: time(0),
        expires_at: Timestamp::from_microsecond(Timestamp::now().as_microsecond() + 60_000_000).unwrap(),
        decision: None,
    };
    let token = EnrolmentToken { hash: [1; 32], expires_at: pending.expires_at, spent_by: None };
    hub.store.put_enrolment_token("east", &token).await.unwrap();
    hub.store.put_pending_enrolment("east", &pending).await.unwrap();
    let hub = hub.restart().await;
    let answer =
        hub.call(Method::POST, "/api/v1/clusters/east/approve", ADMIN, Some(json!({"keyFingerprint": "cd"}))).await;
    assert_eq!(answer.problem(), "keyFingerprint: the key that waits as east is ab");
    let answer =
        hub.call(Method::POST, "/api/v1/clusters/east/approve", ADMIN, Some(json!({"keyFingerprint": "ab"}))).await;
    assert_eq!(answer.json()["pendingEnrolment"]["decision"], "Approved", "{}", answer.text);
    let log = hub.call(Method::GET, "/api/v1/audit", ADMIN, None).await.json();
    assert_eq!(
        (&log["items"][0]["action"], &log["items"][0]["object"]),
        (&json!("cluster.approve"), &json!("east: the key ab"))
    );
}

fn login(token: &str) -> Request<Body> {
    request(Method::POST, "/api/v1/login", "", Some(json!({"token": token})))
}

#[tokio::test]
async fn the_dashboard_logs_in_by_a_cookie_that_no_other_page_can_use() {
    let hub = Hub::start().await;
    let answer = hub.send(login(ADMIN)).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"name": "admin", "role": "admin"})));
    let set = answer.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap().to_owned();
    let with_cookie = |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(path).header(header::COOKIE, &cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(hub.send(with_cookie(Method::GET, "/api/v1/me", &[])).await.json()["role"], "admin");
    let own = [("host", "hub:8443"), ("origin", "https://hub:8443")];
    let foreign = [("host", "hub:8443"), ("origin", "https://evil")];
    let path = "/api/v1/definitions/none";
    for (headers, expected) in [(&[][..], 403), (&foreign[..], 403), (&own[..], 404)] {
        let answer = hub.send(with_cookie(Method::DELETE, path, headers)).await;
        assert_eq!(answer.status.as_u16(), expected, "{headers:?}");
        answer.problem();
    }
    assert_eq!(hub.send(with_cookie(Method::POST, "/api/v1/logout", &foreign)).await.status, StatusCode::FORBIDDEN);
    let out = hub.send(with_cookie(Method::POST, "/api/v1/logout", &own)).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().starts_with("amf_token=;"), "{:?}", out.headers);

    let mut statuses = Vec::new();
    for _ in 0..11 {
        statuses.push(hub.send(login("amf_guess")).await.status.as_u16());
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429]].concat());
    let waits = hub.send(login(ADMIN)).await;
    assert!(waits.headers.contains_key(header::RETRY_AFTER));
    waits.problem();
}

#[tokio::test]
async fn tokens_are_made_listed_and_deleted_while_the_hub_runs_and_the_audit_log_says_by_whom() {
    let hub = Hub::start().await;
    let add = |name: &str, role: &str| json!({"name": name, "role": role});
    let made = hub.call(Method::POST, "/api/v1/tokens", ADMIN, Some(add("grafana", "viewer"))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(hub.call(Method::GET, "/api/v1/me", &token, None).await.json()["name"], "grafana");
    let list = hub.call(Method::GET, "/api/v1/tokens", ADMIN, None).await;
    assert!(list.text.contains("grafana") && !list.text.contains("hash") && !list.text.contains(&token));
    for (name, says) in [("a b", "name must have"), ("", "name must have")] {
        let wrong = hub.call(Method::POST, "/api/v1/tokens", ADMIN, Some(add(name, "viewer"))).await;
        assert!(wrong.problem().contains(says), "{}", wrong.text);
    }
    let last = hub.call(Method::DELETE, "/api/v1/tokens/admin", ADMIN, None).await;
    assert_eq!(last.status, StatusCode::CONFLICT, "{}", last.text);
    let last = hub.call(Method::POST, "/api/v1/tokens", ADMIN, Some(add("admin", "viewer"))).await;
    assert_eq!(last.status, StatusCode::CONFLICT, "{}", last.text);
    assert_eq!(hub.call(Method::DELETE, "/api/v1/tokens/none", ADMIN, None).await.status, StatusCode::NOT_FOUND);
    let gone = hub.call(Method::DELETE, "/api/v1/tokens/grafana", ADMIN, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(hub.call(Method::GET, "/api/v1/me", &token, None).await.status, StatusCode::UNAUTHORIZED, "at once");
    for path in ["/api/v1/clusters/east/token", "/api/v1/clusters/east/rebind"] {
        let answer = hub.call(Method::POST, path, ADMIN, None).await;
        assert!(answer.json()["token"].as_str().unwrap().starts_with("east."), "{}", answer.text);
    }
    let log = hub.call(Method::GET, "/api/v1/audit?limit=4", ADMIN, None).await.json();
    let lines: Vec<_> = log["items"].as_array().unwrap().iter().collect();
    let shown: Vec<_> =
        lines.iter().map(|line| format!("{} {} {}", line["who"], line["action"], line["object"])).collect();
    assert_eq!(
        shown,
        [
            "\"admin\" \"cluster.rebind\" \"east\"",
            "\"admin\" \"cluster.token\" \"east\"",
            "\"admin\" \"token.delete\" \"grafana\"",
            "\"admin\" \"token.create\" \"grafana (viewer)\"",
        ]
    );
}

#[tokio::test]
async fn who_calls_too_often_waits_is_counted_and_disturbs_nobody() {
    let hub = Hub::start().await;
    let mut refused = None;
    for _ in 0..4000 {
        let answer = hub.get("/api/v1/me").await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a limit");
    assert_eq!(
        (refused.status, refused.headers[header::RETRY_AFTER].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "1")
    );
    assert!(refused.problem().starts_with("too many calls with this token"));
    let other = hub.call(Method::GET, "/metrics", ADMIN, None).await;
    let count = other.text.lines().find_map(|line| line.strip_prefix("activemonitor_hub_calls_limited_total "));
    assert_eq!(count, Some("1"));
}

#[tokio::test]
async fn a_deleted_token_ends_soon() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/api/v1/me").await.status, StatusCode::OK);
    hub.store.delete_api_token("viewer").await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while hub.get("/api/v1/me").await.status != StatusCode::UNAUTHORIZED {
        assert!(tokio::time::Instant::now() < deadline, "the token still works");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_ca_is_changed_stage_by_stage_by_admins() {
    let hub = Hub::start().await;
    let stable = hub.get("/api/v1/ca").await.json();
    assert_eq!(stable["stage"], "Stable");
    assert_eq!(stable["bundle"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 1);
    let roll = async |token: &'static str, from: &'static str| {
        hub.call(Method::POST, "/api/v1/ca/roll", token, Some(json!({"from": from}))).await
    };
    assert_eq!(roll(OPERATOR, "Stable").await.status, StatusCode::FORBIDDEN);
    let introduced = roll(ADMIN, "Stable").await.json();
    assert_eq!((&introduced["stage"], &introduced["fingerprint"]), (&json!("Introduced"), &stable["fingerprint"]));
    assert_eq!(introduced["bundle"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    let again = roll(ADMIN, "Stable").await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.problem().contains("Introduced"), "{}", again.text);
    let switched = roll(ADMIN, "Introduced").await.json();
    assert_eq!(switched["fingerprint"], introduced["otherFingerprint"]);
    assert_eq!(roll(ADMIN, "Switched").await.json()["stage"], "Stable");
    let log = hub.call(Method::GET, "/api/v1/audit", ADMIN, None).await.json();
    let actions: Vec<_> = log["items"].as_array().unwrap().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["ca.end", "ca.switch", "ca.introduce"]);
}
