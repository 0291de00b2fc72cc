//! Sessions of people whom a provider vouched for, and how they end before their time.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::{Me, Role};
use active_monitor_hub::auth;
use active_monitor_hub::auth::oidc::{Oidc, OidcArgs};
use active_monitor_hub::auth::sessions::Sessions;
use active_monitor_hub::store::{ApiToken, Store};
use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;

use crate::Hub;

/// Tokens as the hub makes them: beside a provider, what is no such token is taken for one of the provider's.
const OPERATOR: &str = "amf_2222222222222222222222222222222222222222222222222222222222222222";
const ADMIN: &str = "amf_3333333333333333333333333333333333333333333333333333333333333333";

impl Hub {
    /// With a provider that nobody asks: the sessions are sealed here.
    async fn start_with_provider() -> Hub {
        let mut hub = Hub::start().await;
        for (name, role, text) in [("ops", Role::Operator, OPERATOR), ("root", Role::Admin, ADMIN)] {
            let token = ApiToken { name: name.to_owned(), role, hash: auth::hash(text), created_at: Timestamp::now() };
            hub.store.put_api_token(&token).await.unwrap();
        }
        let args = OidcArgs {
            oidc_issuer: Some("http://127.0.0.1:1".to_owned()),
            oidc_redirect_url: Some("http://127.0.0.1/api/v1/oidc/callback".parse().unwrap()),
            ..OidcArgs::default()
        };
        let oidc = Oidc::load(&args, hub.store.as_ref()).await.unwrap().map(Arc::new);
        let directory = hub.directory.take().unwrap();
        hub.tasks.stop();
        Hub::with(hub.store.clone(), directory, Default::default(), oidc).await
    }

    async fn session_of(&self, name: &str) -> String {
        let me = Me { name: name.to_owned(), role: Role::Viewer };
        Sessions::load(self.store.as_ref()).await.unwrap().seal(&me, Timestamp::now()).unwrap()
    }

    async fn status(&self, session: &str) -> StatusCode {
        self.send(with_cookie(Method::GET, "/api/v1/me", session)).await.status
    }
}

fn with_cookie(method: Method, path: &str, session: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::COOKIE, format!("amf_token={session}"));
    request.header("sec-fetch-site", "same-origin").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn who_logs_out_is_logged_out_though_somebody_has_a_copy_of_the_cookie() {
    let hub = Hub::start_with_provider().await;
    let (here, elsewhere) = (hub.session_of("oidc:ann").await, hub.session_of("oidc:ann").await);
    assert_eq!((hub.status(&here).await, hub.status(&elsewhere).await), (StatusCode::OK, StatusCode::OK));
    let out = hub.send(with_cookie(Method::POST, "/api/v1/logout", &here)).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT, "{}", out.text);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().starts_with("amf_token=;"));
    assert_eq!((hub.status(&here).await, hub.status(&elsewhere).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    // It stays so in another life of the hub.
    assert_eq!(hub.store.ended_sessions().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_admin_ends_all_sessions_of_a_person_and_their_streams() {
    let hub = Hub::start_with_provider().await;
    let (ann, bob) = (hub.session_of("oidc:ann@example.com").await, hub.session_of("oidc:bob@example.com").await);
    let stream = hub.router_call(with_cookie(Method::GET, "/api/v1/events", &ann)).await;
    let mut stream = stream.into_body().into_data_stream();
    assert!(stream.next().await.unwrap().is_ok(), "the stream has begun");
    let end = async |token: &str, person: &str| {
        hub.call(Method::DELETE, &format!("/api/v1/sessions/{person}"), token, None).await
    };
    assert_eq!(end(OPERATOR, "oidc:ann@example.com").await.status, StatusCode::FORBIDDEN);
    let nobody = end(ADMIN, "viewer").await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    assert!(nobody.problem().starts_with("viewer has no sessions"), "{}", nobody.text);
    assert_eq!(hub.status(&ann).await, StatusCode::OK);

    assert_eq!(end(ADMIN, "oidc:ann%40example.com").await.status, StatusCode::NO_CONTENT);
    assert_eq!((hub.status(&ann).await, hub.status(&bob).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    let rest = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), rest).await.expect("the stream ends with the session");
    let audit = hub.call(Method::GET, "/api/v1/audit?action=session.", ADMIN, None).await.json();
    let line = &audit["items"][0];
    assert_eq!((&line["who"], &line["object"]), (&json!("root"), &json!("oidc:ann@example.com")));
    assert_eq!(hub.status(&hub.session_of("oidc:ann@example.com").await).await, StatusCode::OK, "she may log in again");
}

#[tokio::test]
async fn without_a_provider_there_are_no_sessions() {
    let hub = Hub::start().await;
    let session = hub.session_of("oidc:ann").await;
    assert_eq!(hub.status(&session).await, StatusCode::UNAUTHORIZED);
    let answer = hub.call(Method::DELETE, "/api/v1/sessions/oidc:ann", crate::ADMIN, None).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
