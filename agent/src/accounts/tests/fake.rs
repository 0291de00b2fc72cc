//! The API server's side of accounts: objects by path, label selectors, preconditions on versions, and the escalation
//! check.

use std::collections::BTreeMap;
use std::sync::Arc;

use active_monitor_core::rbac::covers;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<State>>);

struct State {
    objects: BTreeMap<String, Value>,
    held: Vec<PolicyRule>,
    requests: usize,
}

impl Fake {
    /// The agent holds these rules, and what Argo's executor needs.
    pub(super) fn new(held: &[PolicyRule]) -> Fake {
        let mut held = held.to_vec();
        held.extend(active_monitor_core::rbac::union([].iter()));
        Fake(Arc::new(Mutex::new(State { objects: BTreeMap::new(), held, requests: 0 })))
    }

    pub(super) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let query = parts.uri.query().unwrap_or_default().to_owned();
                let answer = fake.0.lock().answer(&parts.method, parts.uri.path(), &query, &body);
                let (code, body) = match answer {
                    Ok(object) => (StatusCode::OK, object),
                    Err((code, message)) => {
                        let body = json!({"kind": "Status", "status": "Failure", "code": code, "message": message,
                            "reason": if code == 404 { "NotFound" } else { "" }, "metadata": {}});
                        (StatusCode::from_u16(code).unwrap(), body)
                    }
                };
                let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
                Ok::<_, tower::BoxError>(answer.unwrap())
            }
        });
        Client::new(service, "default")
    }

    pub(super) fn hold(&self, rules: Vec<PolicyRule>) {
        self.0.lock().held.extend(rules);
    }

    /// Stores an object as somebody else would.
    pub(super) fn put(&self, collection: &str, object: Value) {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        self.0.lock().objects.insert(path, object);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    pub(super) fn all(&self) -> BTreeMap<String, Value> {
        self.0.lock().objects.clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.0.lock().requests
    }
}

type Answer = Result<Value, (u16, String)>;

impl State {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> Answer {
        self.requests += 1;
        let missing = || (404, format!("{path} not found"));
        match *method {
            Method::GET if self.objects.contains_key(path) => Ok(self.objects[path].clone()),
            Method::GET if path.rsplit('/').next().is_some_and(|last| last.ends_with('s')) => {
                Ok(self.list(path, query))
            }
            Method::GET => Err(missing()),
            Method::POST => {
                self.escalation(path, body)?;
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return Err((409, format!("{path} already exists")));
                }
                self.objects.insert(path, body.clone());
                Ok(body.clone())
            }
            Method::PUT => {
                self.escalation(path, body)?;
                let current = self.objects.get_mut(path).ok_or_else(missing)?;
                if current["roleRef"] != body["roleRef"] {
                    return Err((422, "roleRef: Invalid value: cannot change roleRef".into()));
                }
                *current = body.clone();
                Ok(body.clone())
            }
            Method::DELETE => self.objects.remove(path).ok_or_else(missing),
            _ => Err((405, method.to_string())),
        }
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let selector = url_value(query, "labelSelector");
        let prefix = format!("{path}/");
        let selected = |object: &Value| match selector.split_once('=') {
            Some((label, value)) => object["metadata"]["labels"][label] == value,
            None => object["metadata"]["labels"].get(&selector).is_some(),
        };
        let items = self.objects.iter().filter(|(at, object)| at.starts_with(&prefix) && selected(object));
        json!({"metadata": {}, "items": items.map(|(_, object)| object).collect::<Vec<_>>()})
    }

    /// A role may be written, and bound, only within what the agent holds.
    fn escalation(&self, path: &str, body: &Value) -> Result<(), (u16, String)> {
        let rules = match body["roleRef"]["name"].as_str() {
            Some(role) => {
                let kind = body["roleRef"]["kind"].as_str().unwrap_or_default().to_lowercase();
                let role = self.objects.iter().find(|(at, _)| at.ends_with(&format!("/{kind}s/{role}")));
                role.map(|(_, role)| role["rules"].clone()).unwrap_or_default()
            }
            None => body["rules"].clone(),
        };
        let rules: Vec<PolicyRule> = serde_json::from_value(rules).unwrap_or_default();
        let beyond = rules.iter().filter(|rule| !covers(&self.held, rule));
        let beyond: Vec<String> = beyond
            .map(|rule| {
                let list = |list: &Option<Vec<String>>| {
                    list.iter().flatten().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" ")
                };
                let verbs = list(&Some(rule.verbs.clone()));
                format!(
                    "{{APIGroups:[{}], Resources:[{}], Verbs:[{verbs}]}}",
                    list(&rule.api_groups),
                    list(&rule.resources)
                )
            })
            .collect();
        if beyond.is_empty() {
            return Ok(());
        }
        let user = "user \"system:serviceaccount:active-monitor:active-monitor-agent\"";
        let message = "is attempting to grant RBAC permissions not currently held";
        Err((403, format!("{path} is forbidden: {user} {message}:\n{}", beyond.join("\n"))))
    }
}

fn url_value(query: &str, name: &str) -> String {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
    value.replace("%2F", "/").replace("%3D", "=")
}
