//! The whole hub, a browser of a few lines, and a real OpenID provider (npm's oidc-provider).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use active_monitor_core::view::{Me, Role};
use active_monitor_runtime::tasks::Tasks;
use clap::Parser;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::config::Cli;
use crate::serve;

const SECRET: &str = "s3cret of the hub";
const START_LIMIT: Duration = Duration::from_secs(30);
/// More than any login takes.
const MAX_STEPS: usize = 12;

/// The provider, and its issuer. `None` where it is not installed.
async fn provider(redirect: &str) -> Option<(Child, String)> {
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard");
    if !dashboard.join("node_modules/oidc-provider").exists() {
        crate::skip::report("people_log_in_at_a_real_provider", "npm's oidc-provider is not installed: make dashboard");
        return None;
    }
    let mut command = Command::new("node");
    command.arg(dashboard.join("e2e/oidc-provider.mjs")).args([redirect, SECRET]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let issuer = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the provider has ended");
            if line.starts_with("http://") {
                return line;
            }
        }
    };
    let issuer = tokio::time::timeout(START_LIMIT, issuer).await.expect("the provider says no issuer");
    // What else it says is read, so that it never waits for a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some((child, issuer))
}

/// A browser: it keeps cookies and follows, as far as it is told.
struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new() -> Browser {
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Browser { client: client.build().unwrap(), cookies: BTreeMap::new() }
    }

    async fn get(&mut self, url: Url) -> Response {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let response = self.client.get(url).header(COOKIE, cookies.join("; ")).send().await.unwrap();
        for cookie in response.headers().get_all(SET_COOKIE) {
            let cookie = axum_extra::extract::cookie::Cookie::parse(cookie.to_str().unwrap()).unwrap();
            match cookie.value() {
                "" => self.cookies.remove(cookie.name()),
                value => self.cookies.insert(cookie.name().to_owned(), value.to_owned()),
            };
        }
        response
    }

    /// Follows until an address that `is_end`.
    async fn follow(&mut self, from: Url, is_end: impl Fn(&Url) -> bool) -> Url {
        let mut at = from;
        for _ in 0..MAX_STEPS {
            let response = self.get(at.clone()).await;
            let text = format!("{at}: {}", response.status());
            let location = response.headers().get(LOCATION).unwrap_or_else(|| panic!("{text} leads nowhere"));
            at = at.join(location.to_str().unwrap()).unwrap();
            if is_end(&at) {
                return at;
            }
        }
        panic!("still on the way at {at}");
    }

    /// Who the hub says that this is.
    async fn me(&mut self, hub: &Url) -> Result<Me, StatusCode> {
        let response = self.get(hub.join("/api/v1/me").unwrap()).await;
        let status = response.status();
        if status.is_success() { Ok(response.json().await.unwrap()) } else { Err(status) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_log_in_at_a_real_provider() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let redirect = hub.join("/api/v1/oidc/callback").unwrap();
    let Some((_provider, issuer)) = provider(redirect.as_str()).await else { return };

    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let flags = [
        format!("--data-dir={}", dir.path().join("data").display()),
        "--agents-listen=127.0.0.1:0".to_owned(),
        "--enrolment-listen=127.0.0.1:0".to_owned(),
        format!("--people-listen=127.0.0.1:{port}"),
        "--people-plaintext".to_owned(),
        format!("--oidc-issuer={issuer}"),
        "--oidc-client-id=hub".to_owned(),
        format!("--oidc-client-secret-file={}", secret.display()),
        format!("--oidc-redirect-url={redirect}"),
        "--oidc-viewer-group=all".to_owned(),
        "--oidc-operator-group=sre".to_owned(),
    ];
    let args = Cli::try_parse_from(["hub".to_owned()].into_iter().chain(flags)).unwrap().serve;
    let tasks = Tasks::new();
    serve::start(&args, &tasks).await.unwrap();

    let mut ann = Browser::new();
    let options: Value = ann.get(hub.join("/api/v1/login").unwrap()).await.json().await.unwrap();
    assert_eq!(options["issuer"], issuer);
    let issuer = Url::parse(&issuer).unwrap();
    assert_eq!(ann.me(&hub).await, Err(StatusCode::UNAUTHORIZED));
    let login = hub.join("/api/v1/oidc/login").unwrap();
    let is_home = |at: &Url| at.port() == hub.port() && at.path() == "/";
    let home = ann.follow(login.clone(), is_home).await;
    assert_eq!(home.query(), None);
    let expected = Me { name: "oidc:ann@example.com".to_owned(), role: Role::Operator };
    assert_eq!(ann.me(&hub).await, Ok(expected.clone()));
    assert!(!ann.cookies.contains_key("amf_login"), "{:?}", ann.cookies);

    // The provider vouches for them, but no group of theirs has a role; or it does not vouch for the name.
    for (person, said) in [("bob", "login=no-role"), ("eve", "login=failed")] {
        let mut browser = Browser::new();
        browser.get(issuer.join(&format!("/as/{person}")).unwrap()).await;
        assert_eq!(browser.follow(login.clone(), is_home).await.query(), Some(said), "{person}");
        assert_eq!(browser.me(&hub).await, Err(StatusCode::UNAUTHORIZED));
    }
    ann.get(issuer.join("/as/ann").unwrap()).await;

    // Another's browser is sent to the end of a login that it did not begin: it is logged in as nobody.
    let is_back = |at: &Url| at.port() == hub.port() && at.path() == redirect.path();
    let back = ann.follow(login.clone(), is_back).await;
    let mut other = Browser::new();
    assert_eq!(other.follow(back.clone(), is_home).await.query(), Some("login=again"));
    other.follow(login.clone(), |at| at.port() == issuer.port()).await;
    assert_eq!(other.follow(back.clone(), is_home).await.query(), Some("login=again"));
    assert_eq!(other.me(&hub).await, Err(StatusCode::UNAUTHORIZED));

    // A program shows the ID token itself.
    let token = id_token(&ann, &issuer, &back, &redirect).await;
    let shown = |token: String| Client::new().get(hub.join("/api/v1/me").unwrap()).bearer_auth(token).send();
    assert_eq!(shown(token.clone()).await.unwrap().json::<Me>().await.unwrap(), expected);
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert_eq!(shown(forged).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    // Its code counts once.
    assert_eq!(ann.follow(back, is_home).await.query(), Some("login=unavailable"));
    tasks.stop();
}

/// The ID token for the code that the provider has sent `browser` back with.
async fn id_token(browser: &Browser, issuer: &Url, back: &Url, redirect: &Url) -> String {
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let verifier = browser.cookies["amf_login"].rsplit('.').next().unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", redirect.as_str()),
        ("code_verifier", verifier),
    ];
    let secret = super::provider::form_encoded(SECRET);
    let request = browser.client.post(issuer.join("/token").unwrap()).basic_auth("hub", Some(secret));
    let answer: Value = request.form(&form).send().await.unwrap().json().await.unwrap();
    answer["id_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}
