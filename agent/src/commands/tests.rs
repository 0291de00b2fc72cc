//! A hub that may ask anything, against an API server faked at the wire.

use std::time::Duration;

use active_monitor_core::command::{Kind, MAX_RUNS, Subject};
use active_monitor_core::state::Totals;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

type Asked = Arc<Mutex<Vec<(Method, String, Value)>>>;

fn client(asked: Asked) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = asked.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            asked.lock().push((parts.method, parts.uri.path().to_owned(), body));
            let answer = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "dns", "namespace": "health"}});
            Ok::<_, tower::BoxError>(Response::new(Body::from(serde_json::to_vec(&answer).unwrap())))
        }
    });
    Client::new(service, "default")
}

fn check(namespace: &str, name: &str, phase: Phase) -> CheckState {
    CheckState {
        uid: format!("uid-{name}"),
        namespace: namespace.into(),
        name: name.into(),
        description: String::new(),
        phase,
        message: "why".into(),
        schedule: String::new(),
        running: None,
        next_slot: None,
        timeout_seconds: 1,
        check: Totals::default(),
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    }
}

struct Agent {
    dir: TempDir,
    asked: Asked,
    paused: Paused,
    woken: mpsc::Receiver<ObjectRef<HealthCheck>>,
    commands: mpsc::Sender<Command>,
    answers: mpsc::Receiver<Answer>,
    self_tests: mpsc::Receiver<SelfTest>,
    ids: u32,
}

impl Agent {
    fn start(kinds: &[Kind]) -> Agent {
        let (dir, asked) = (tempfile::tempdir().unwrap(), Asked::default());
        let states = States::new();
        states.upsert(check("health", "dns", Phase::Succeeded));
        states.upsert(check("health", "bad", Phase::Invalid));
        let (wake, woken) = mpsc::channel(16);
        let paused = Paused::open(dir.path());
        let obedience = Obedience { kinds: kinds.to_vec(), longest_pause: Duration::from_secs(3600) };
        let client = client(asked.clone());
        let tester = Tester { client: client.clone(), namespace: "health".into() };
        let all = Commands { client, obedience, paused: paused.clone(), states, wake, tester };
        let (commands, receiver) = mpsc::channel(16);
        let (sender, answers) = mpsc::channel(16);
        let (tested, self_tests) = mpsc::channel(1);
        tokio::spawn(all.run(receiver, sender, tested));
        Agent { dir, asked, paused, woken, commands, answers, self_tests, ids: 0 }
    }

    async fn ask(&mut self, scope: (&str, &str), order: Order) -> Result<String, (Layer, String)> {
        self.ids += 1;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let scope = Scope { namespace: some(scope.0), name: some(scope.1) };
        let id = self.ids.to_string();
        self.commands.send(Command { id: id.clone(), scope, order }).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), self.answers.recv()).await.unwrap().unwrap();
        assert_eq!(answer.id, id);
        answer.verdict.map_err(|Refusal { layer, reason }| (layer, reason))
    }
}

fn pause(subject: Subject, seconds: u64) -> Order {
    Order::Pause { subject, seconds, reason: "release".into(), by: "ann".into() }
}

#[tokio::test]
async fn a_run_now_annotates_the_check_and_nothing_else() {
    let mut agent = Agent::start(&Kind::ALL);
    agent.ask(("health", "dns"), Order::RunNow).await.unwrap();
    let asked = agent.asked.lock().clone();
    let [(method, path, body)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(*method, Method::PATCH);
    assert!(path.ends_with("/namespaces/health/healthchecks/dns"), "{path}");
    assert_eq!(*body, json!({"metadata": {"uid": "uid-dns", "annotations": {RUN_NOW_ANNOTATION: "1"}}}));
}

#[tokio::test]
async fn a_hostile_hub_gets_nothing_beyond_the_local_policy() {
    let mut agent = Agent::start(&[]);
    for order in [Order::RunNow, pause(Subject::Checks, 60), pause(Subject::Remedies, 60)] {
        let (layer, reason) = agent.ask(("health", "dns"), order).await.unwrap_err();
        assert!(layer == Layer::Policy && reason.contains("obeyed are: none"), "{reason}");
    }
    assert_eq!(agent.paused.of(Timestamp::now(), "health", "dns"), []);
    assert!(!agent.dir.path().join(FILE).exists());

    let mut agent = Agent::start(&Kind::ALL);
    for seconds in [0, 3601, u64::MAX] {
        let (layer, _) = agent.ask(("", ""), pause(Subject::Remedies, seconds)).await.unwrap_err();
        assert_eq!(layer, Layer::Policy, "{seconds}");
    }
    for (scope, says) in [
        (("", ""), "one check"),
        (("health", ""), "one check"),
        (("kube-system", "dns"), "no HealthCheck"),
        (("health", "bad"), "cannot run: why"),
    ] {
        let (layer, reason) = agent.ask(scope, Order::RunNow).await.unwrap_err();
        assert!(layer == Layer::Agent && reason.contains(says), "{reason}");
    }
    assert_eq!(agent.asked.lock().len(), 0);
    let mut refused = None;
    for _ in 0..=MAX_RUNS {
        refused = agent.ask(("health", "dns"), Order::RunNow).await.err();
    }
    assert_eq!(refused.unwrap().0, Layer::Policy);
    assert_eq!(agent.asked.lock().len(), MAX_RUNS, "no more runs than a person would ask for");
}

#[tokio::test]
async fn a_pause_survives_a_restart_of_the_agent_and_a_resume_ends_it() {
    let mut agent = Agent::start(&Kind::ALL);
    agent.ask(("health", ""), pause(Subject::Checks, 60)).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(10), agent.woken.recv()).await.unwrap().unwrap();
    assert_eq!(woken.namespace.as_deref(), Some("health"));
    let (layer, reason) = agent.ask(("health", "dns"), Order::RunNow).await.unwrap_err();
    assert!(layer == Layer::Agent && reason.contains("by ann: release"), "{reason}");
    let now = Timestamp::now();
    let restarted = Paused::open(agent.dir.path());
    assert_eq!(restarted.of(now, "health", "dns"), agent.paused.of(now, "health", "dns"));
    assert_eq!(restarted.of(now, "health", "dns").len(), 1);
    let over = now + Duration::from_secs(61);
    assert_eq!(restarted.of(over, "health", "dns"), [], "it ends by itself");
    agent.ask(("", ""), Order::Resume { subject: Subject::Checks }).await.unwrap();
    assert_eq!(Paused::open(agent.dir.path()).of(now, "health", "dns"), []);
    let (layer, _) = agent.ask(("", ""), Order::Resume { subject: Subject::Checks }).await.unwrap_err();
    assert_eq!(layer, Layer::Agent);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_and_a_damaged_file_is_set_aside() {
    let mut agent = Agent::start(&Kind::ALL);
    fs::create_dir(agent.dir.path().join("pauses.tmp")).unwrap();
    let (layer, reason) = agent.ask(("", ""), pause(Subject::Checks, 60)).await.unwrap_err();
    assert!(layer == Layer::Agent && reason.contains("cannot keep it"), "{reason}");
    assert_eq!(agent.paused.of(Timestamp::now(), "health", "dns"), []);
    fs::write(agent.dir.path().join(FILE), "[{").unwrap();
    assert_eq!(Paused::open(agent.dir.path()).of(Timestamp::now(), "health", "dns"), []);
    assert!(agent.dir.path().join("pauses.damaged").exists());
}

#[tokio::test]
async fn an_agent_that_only_observes_refuses_everything() {
    let (commands, receiver) = mpsc::channel(1);
    let (sender, mut answers) = mpsc::channel(1);
    tokio::spawn(refuse("it only observes", receiver, sender));
    commands.send(Command { id: "1".into(), scope: Scope::default(), order: Order::RunNow }).await.unwrap();
    let refused = answers.recv().await.unwrap().verdict.unwrap_err();
    assert_eq!(refused, Refusal::new(Layer::Policy, "it only observes"));
}

#[tokio::test(start_paused = true)]
async fn a_self_test_is_answered_at_once_runs_alone_and_says_later_what_came_of_it() {
    let mut agent = Agent::start(&[Kind::SelfTest]);
    assert_eq!(agent.ask(("", ""), Order::SelfTest).await.unwrap(), "the self-test has begun in namespace health");
    let again = agent.ask(("", ""), Order::SelfTest).await.expect("the one that is under way is as good");
    assert!(again.contains("under way"), "{again}");
    let ended = agent.self_tests.recv().await.unwrap();
    assert!(!ended.passed(), "what this API server answers is no workflow that Argo ended: {ended:?}");
    let made = agent.asked.lock().iter().filter(|(method, ..)| *method == Method::POST).count();
    assert_eq!(made, 1, "there was one");
    agent.ask(("", ""), Order::SelfTest).await.unwrap();
    let mut closed = Agent::start(&[Kind::RunNow]);
    assert_eq!(closed.ask(("", ""), Order::SelfTest).await.unwrap_err().0, Layer::Policy);
}
