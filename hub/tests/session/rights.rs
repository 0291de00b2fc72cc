//! Who may call what: each method of the protocol and each operation of the API, by whoever may show up. Both lists are read
//! from what describes them, so that one without a row here fails.

use std::error::Error;

use active_monitor_core::view::Role;
use active_monitor_hub::ca::{self, SigningRequest};
use active_monitor_hub::{api, auth};
use rcgen::{BasicConstraints, IsCa, Issuer, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tonic::Request;

use super::*;

/// Of an agent's certificate.
const LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
const PROTOCOL: &str = include_str!("../../../proto/activemonitor/fleet/v1/session.proto");

/// `Service/Method`, in the order of the file.
fn methods() -> Vec<String> {
    let mut service = "";
    let mut methods = Vec::new();
    for line in PROTOCOL.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split([' ', '{']).next().unwrap();
        }
        if let Some(rest) = line.strip_prefix("rpc ") {
            methods.push(format!("{service}/{}", rest.split('(').next().unwrap().trim()));
        }
    }
    methods
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Agents,
    Enrolment,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// With no certificate.
    Nobody,
    /// The same, with the one-time token of a cluster in the request and as a header.
    Token,
    /// With a certificate that it signed itself.
    SelfSigned,
    /// With one of another CA, in the cluster's name.
    OtherCa,
    /// With one of the hub's that has expired, of a key that the hub does not know.
    Expired,
    /// With one of the hub's, in the name of a cluster that it does not know.
    Unknown,
    /// With that of a cluster that was removed.
    Removed,
    /// With that of `c1`, and speaks of `c10`.
    Another,
    /// The agent of `c1`.
    Itself,
}

const CALLERS: [Caller; 9] = [
    Caller::Nobody,
    Caller::Token,
    Caller::SelfSigned,
    Caller::OtherCa,
    Caller::Expired,
    Caller::Unknown,
    Caller::Removed,
    Caller::Another,
    Caller::Itself,
];

#[derive(Debug, PartialEq, Eq)]
enum Answered {
    /// The connection was refused: no method was reached.
    NoConnection,
    Refused(Code),
    /// For the cluster of its certificate or token, whatever else it says.
    Allowed(&'static str),
}

fn expected(port: Port, method: &str, caller: Caller) -> Answered {
    use Answered::{Allowed, NoConnection, Refused};
    use Caller::{Another, Expired, Itself, Nobody, OtherCa, Removed, SelfSigned, Token, Unknown};
    match (port, method, caller) {
        (_, _, SelfSigned | OtherCa) => NoConnection,
        (Port::Agents, _, Nobody | Token | Expired) => NoConnection,
        (Port::Agents, "Fleet/Session" | "Fleet/Renew", Unknown | Removed) => Refused(Code::PermissionDenied),
        (Port::Agents, "Fleet/Session", Another) => Refused(Code::PermissionDenied),
        (Port::Agents, "Fleet/Session", Itself) => Allowed("c1"),
        // Nothing in the request says for whom.
        (Port::Agents, "Fleet/Renew", Another | Itself) => Allowed("c1"),
        (Port::Enrolment, "Enrolment/Enrol", Token) => Allowed("c10"),
        // A certificate is worth nothing where a token is asked for.
        (Port::Enrolment, "Enrolment/Enrol", _) => Refused(Code::Unauthenticated),
        (Port::Enrolment, "Enrolment/Recover", Nobody | Token) => Refused(Code::Unauthenticated),
        (Port::Enrolment, "Enrolment/Recover", Expired | Unknown | Removed) => Refused(Code::PermissionDenied),
        (Port::Enrolment, "Enrolment/Recover", Another | Itself) => Allowed("c1"),
        (Port::Agents, "Enrolment/Enrol" | "Enrolment/Recover", _) => Refused(Code::Unimplemented),
        (Port::Enrolment, "Fleet/Session" | "Fleet/Renew", _) => Refused(Code::Unimplemented),
        (_, method, _) => panic!("{method} has no row: say here who may call it"),
    }
}

/// The hub, and what each caller shows.
struct World<'a> {
    hub: &'a Running,
    /// Signed by the CA that the hub has.
    own: Agent,
    removed: Agent,
    secret: String,
}

impl World<'_> {
    fn identity(&self, caller: Caller) -> Option<Identity> {
        let (certificate, key) = match caller {
            Caller::Nobody | Caller::Token => return None,
            Caller::SelfSigned => {
                let key = KeyPair::generate().unwrap();
                (named("c1").self_signed(&key).unwrap().pem(), key)
            }
            Caller::OtherCa => other_ca("c1"),
            Caller::Expired => self.issued("c1", Timestamp::now() - LIFE - jiff::SignedDuration::from_mins(1)),
            Caller::Unknown => self.issued("never-added", Timestamp::now()),
            Caller::Removed => return Some(Identity::from_pem(&self.removed.certificate, &self.removed.key)),
            Caller::Another | Caller::Itself => return Some(Identity::from_pem(&self.own.certificate, &self.own.key)),
        };
        Some(Identity::from_pem(certificate, key.serialize_pem()))
    }

    fn issued(&self, cluster: &str, at: Timestamp) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let request = SigningRequest::parse(&signing_request(&key)).unwrap();
        (self.hub.hub.authority.trust().ca.issue_agent(cluster, &request, at).unwrap(), key)
    }

    async fn call(&self, port: Port, method: &str, caller: Caller) -> Answered {
        let address = match port {
            Port::Agents => self.hub.hub.agents,
            Port::Enrolment => self.hub.hub.enrolment,
        };
        let channel = channel(address, &self.own.ca, self.identity(caller)).await;
        let answered = within(method, self.ask(channel, method, caller)).await;
        match answered {
            Ok(cluster) => Answered::Allowed(if cluster == "c10" { "c10" } else { "c1" }),
            Err(status) if status.source().is_some() => Answered::NoConnection,
            Err(status) => Answered::Refused(status.code()),
        }
    }

    /// For which cluster it was answered.
    async fn ask(&self, channel: Channel, method: &str, caller: Caller) -> Result<String, Status> {
        let csr = signing_request(&KeyPair::generate().unwrap());
        // What one says of a name is what an agent of `c10` would.
        let cluster = if [Caller::Another, Caller::Token].contains(&caller) { "c10" } else { "c1" };
        let token = if caller == Caller::Token { self.secret.clone() } else { "0".repeat(64) };
        let bearer = format!("Bearer {token}").parse().unwrap();
        let reply = match method {
            "Fleet/Session" => {
                let (frames, queued) = mpsc::channel::<v1::AgentFrame>(4);
                frames.send(AgentFrame::Hello(hello(cluster, "uid-1", "i1")).into()).await.unwrap();
                let mut request = Request::new(ReceiverStream::new(queued));
                request.metadata_mut().insert("authorization", bearer);
                let mut answers = FleetClient::new(channel).session(request).await?.into_inner();
                let first = answers.message().await?.expect("a frame");
                assert!(matches!(HubFrame::try_from(first), Ok(HubFrame::Welcome(_))));
                return Ok(cluster.to_owned());
            }
            "Fleet/Renew" => {
                let mut request = Request::new(RenewRequest { csr });
                request.metadata_mut().insert("authorization", bearer);
                FleetClient::new(channel).renew(request).await?
            }
            "Enrolment/Enrol" => {
                let request = EnrolRequest { token, cluster: cluster.into(), cluster_uid: "uid-1".into(), csr };
                EnrolmentClient::new(channel).enrol(request).await?
            }
            "Enrolment/Recover" => {
                let mut request = Request::new(RenewRequest { csr });
                request.metadata_mut().insert("authorization", bearer);
                EnrolmentClient::new(channel).recover(request).await?
            }
            other => panic!("{other} has no row: say here how it is called"),
        };
        let certificate = CertificateDer::from_pem_slice(reply.into_inner().certificate.as_bytes()).unwrap();
        Ok(ca::identity(&certificate).unwrap().cluster)
    }
}

fn named(cluster: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://active-monitor-fleet/cluster/{cluster}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}

fn other_ca(cluster: &str) -> (String, KeyPair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let issuer = Issuer::new(params, ca_key);
    (named(cluster).signed_by(&key, &issuer).unwrap().pem(), key)
}

#[tokio::test]
async fn each_method_of_the_protocol_is_for_whom_its_row_says_and_for_nobody_else() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("c1").await;
    let own = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let token = hub.token("removed").await;
    let removed = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.hub.fleet.remove_cluster("removed").await.unwrap();
    let secret = hub.token("c10").await.split('.').nth(1).unwrap().to_owned();
    let world = World { hub: &hub, own, removed, secret };
    let methods = methods();
    assert_eq!(methods.len(), 4, "{methods:?}");
    let mut rows = 0;
    for method in &methods {
        for port in [Port::Agents, Port::Enrolment] {
            for caller in CALLERS {
                let outcome = world.call(port, method, caller).await;
                assert_eq!(outcome, expected(port, method, caller), "{method} at the port of {port:?} by {caller:?}");
                rows += 1;
            }
        }
    }
    println!("{rows} rows");
    hub.stop().await;
}

/// Operations that ask for nobody, as the document says by their `security`.
const OPEN: [&str; 5] = ["login", "loginOptions", "logout", "oidcCallback", "oidcLogin"];

/// Which role an operation needs.
fn needs(operation: &str) -> Role {
    match operation {
        "readCa" | "listChanges" | "listChecks" | "listClusters" | "readCluster" | "readCheck" | "listDefinitions"
        | "previewDefinition" | "previewRoutes" | "readDefinition" | "events" | "fleet" | "listIncidents" | "me"
        | "readRestore" | "listRuns" | "discoverTargets" | "listSources" | "uptime" | "listWindows" | "readWindow"
        | "federate" | "metrics" => Role::Viewer,
        "patchCluster" | "acknowledge" | "unacknowledge" | "command" | "putDefinition" | "deleteDefinition"
        | "putWindow" | "removeWindow" => Role::Operator,
        "listAudit" | "rollCa" | "addCluster" | "removeCluster" | "approveEnrolment" | "denyEnrolment"
        | "rebindCluster" | "newClusterToken" | "confirmRestore" | "endSessions" | "listTokens" | "addToken"
        | "removeToken" => Role::Admin,
        other => panic!("the operation {other} has no row: say here which role it needs"),
    }
}

/// Method, path with names that do not exist, operation, and whether it asks for nobody.
fn operations() -> Vec<(reqwest::Method, String, String, bool)> {
    let document = serde_json::to_value(api::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut operations = Vec::new();
    for (path, of_path) in paths {
        let path: String = path
            .split_inclusive('}')
            .map(|part| match part.split_once('{') {
                Some((before, _)) => format!("{before}none"),
                None => part.to_owned(),
            })
            .collect();
        let methods = of_path.as_object().unwrap().iter().filter(|(_, operation)| operation["operationId"].is_string());
        for (method, operation) in methods {
            let method = method.to_uppercase().parse().unwrap();
            let is_open = operation["security"] == serde_json::json!([{}]);
            let name = operation["operationId"].as_str().unwrap().to_owned();
            operations.push((method, path.clone(), name, is_open));
        }
    }
    operations
}

#[tokio::test]
async fn each_operation_of_the_api_is_for_whom_its_row_says_and_for_nobody_else() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let store = &*hub.hub.store;
    let mut tokens = Vec::new();
    for (name, role) in [("viewer", Role::Viewer), ("operator", Role::Operator), ("administrator", Role::Admin)] {
        tokens.push((Some(role), format!("Bearer {}", serve::create_token(store, name, role).await.unwrap())));
    }
    let deleted = serve::create_token(store, "deleted", Role::Admin).await.unwrap();
    store.delete_api_token("deleted").await.unwrap();
    let secret = token.split('.').nth(1).unwrap();
    let nobody = [
        String::new(),
        "Bearer ".to_owned(),
        "Bearer nothing".to_owned(),
        "Basic YWRtaW46YWRtaW4=".to_owned(),
        format!("Bearer {}", auth::new_token()),
        format!("Bearer {deleted}"),
        format!("Bearer {secret}"),
        format!("Bearer {token}"),
    ];
    tokens.extend(nobody.map(|shown| (None, shown)));
    let ca = reqwest::Certificate::from_pem(agent.ca.as_bytes()).unwrap();
    let client = || reqwest::Client::builder().no_proxy().tls_certs_only([ca.clone()]).timeout(DEADLINE);
    // An agent's certificate opens nothing here.
    let of_agent = reqwest::Identity::from_pem(format!("{}\n{}", agent.certificate, agent.key).as_bytes()).unwrap();
    let plain = client().build().unwrap();
    let certified = client().identity(of_agent).build().unwrap();
    let operations = operations();
    let open: Vec<&str> = operations.iter().filter(|(.., open)| *open).map(|(_, _, name, _)| name.as_str()).collect();
    let mut sorted = open.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, OPEN, "what asks for nobody");
    let mut rows = 0;
    for (method, path, name, is_open) in &operations {
        if *is_open {
            continue;
        }
        let needed = needs(name);
        let shown = tokens.iter().map(|(role, token)| (*role, token.as_str(), &plain));
        for (role, token, client) in shown.chain([(None, "", &certified)]) {
            let url = format!("https://localhost:{}{path}", hub.hub.people.port());
            let mut request = client.request(method.clone(), url);
            if !token.is_empty() {
                request = request.header("authorization", token);
            }
            let answer = request.send().await.unwrap();
            let (status, what) = (answer.status().as_u16(), format!("{method} {path} ({name}) by {role:?} {token:?}"));
            match role {
                None => {
                    assert_eq!(status, 401, "{what}");
                    assert!(answer.json::<Value>().await.unwrap()["title"].is_string(), "{what}: a problem");
                }
                Some(role) if role < needed => assert_eq!(status, 403, "{what}"),
                // What it asks for is not there, or it asks for nothing: it got as far as that.
                Some(_) => assert!(status != 401 && status != 403 && status < 500, "{what}: {status}"),
            }
            rows += 1;
        }
    }
    println!("{} operations, {rows} rows", operations.len());
    hub.stop().await;
}
