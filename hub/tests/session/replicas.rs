//! Two replicas of the hub on one data base of a real PostgreSQL server.

use active_monitor_core::command::{Answer, Command, Layer, Order, Refusal, Scope};
use active_monitor_hub::owner::Undelivered;
use tokio::runtime::Runtime;

use super::*;
use crate::postgres::Database;

/// Two hubs, each in a runtime of its own, so that one can die as a process does.
struct Two {
    dir: TempDir,
    _other: TempDir,
    one: Running,
    two: Running,
    runtimes: Vec<Runtime>,
}

impl Two {
    /// None where no server is installed.
    async fn start(test: &str) -> Option<Two> {
        let database = Database::create(test).await?;
        let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mut runtimes = Vec::new();
        let mut start = async |path: &Path| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let (path, url) = (path.to_owned(), database.url());
            let start = move || {
                let running = runtime.block_on(Running::start_leased(&path, "6", &["--store", &url, "--replicated"]));
                (runtime, running)
            };
            let (runtime, running) = tokio::task::spawn_blocking(start).await.unwrap();
            runtimes.push(runtime);
            running
        };
        let one = start(dir.path()).await;
        let two = start(other.path()).await;
        Some(Two { dir, _other: other, one, two, runtimes })
    }

    /// An agent that has enrolled with the first.
    async fn agent(&self, cluster: &str) -> Agent {
        let token = self.one.token(cluster).await;
        Agent::enrol(self.dir.path(), &self.one, &token, "uid-1").await.unwrap()
    }

    /// The first one is gone, without a word.
    fn kill_one(&mut self) {
        self.runtimes.remove(0).shutdown_background();
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        // A runtime must not be waited for by one that runs.
        self.runtimes.drain(..).for_each(Runtime::shutdown_background);
    }
}

fn failed(name: &str) -> CheckState {
    CheckState { phase: Phase::Failed, check: Totals { failed: 1, ..Totals::default() }, ..check(name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_shows_the_whole_fleet_and_its_events() {
    let Some(two) = Two::start("each_replica_shows_the_whole_fleet_and_its_events").await else { return };
    let agent = two.agent("berlin").await;
    let (session, _) = agent.connect(&two.one, "berlin", vec![check("dns"), check("web")]).await;
    eventually("the check at the other", || two.two.check_status("berlin", "dns") == Some(CheckStatus::Succeeded))
        .await;
    eventually("its link", || two.two.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    assert_eq!(two.two.hub.fleet.view().clusters["berlin"].view.policy, hello("", "", "").policy);
    let mut events = two.two.hub.fleet.events();
    let began = std::time::Instant::now();
    session.send(AgentFrame::CheckUpsert(Box::new(failed("dns")))).await;
    within("event", async {
        while !matches!(&*events.recv().await.unwrap().1, Event::Check(check) if check.status == CheckStatus::Failed) {}
    })
    .await;
    eprintln!("a failure was shown by the other replica after {} ms", began.elapsed().as_millis());
    session.send(AgentFrame::CheckRemoved("uid-web".into())).await;
    eventually("the end of a check", || two.two.check_status("berlin", "web").is_none()).await;
    let shown = |hub: &Running| hub.hub.fleet.view().check("berlin", "health", "dns").unwrap().clone();
    assert_eq!(shown(&two.one), shown(&two.two), "down to the time since when it is so");
    drop(session);
    eventually("its end", || two.two.cluster_status("berlin") == Some(ClusterStatus::Unreachable)).await;
    assert_eq!(two.two.check_status("berlin", "dns"), Some(CheckStatus::Stale));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_change_at_one_replica_reaches_agents_at_the_other() {
    let Some(two) = Two::start("what_people_change_at_one_replica_reaches_agents_at_the_other").await else { return };
    let agent = two.agent("berlin").await;
    let (mut session, _) = agent.connect(&two.one, "berlin", vec![]).await;
    assert_eq!(session.definitions().await.1.len(), 0);
    eventually("the cluster", || two.two.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    two.two.hub.fleet.put_definition(definition("dns", "x")).await.unwrap();
    // At both at once: neither takes the other's label away.
    let label = |key: &str, value: &str| ClusterPatch {
        labels: BTreeMap::from([(key.to_owned(), Some(value.to_owned()))]),
        ..ClusterPatch::default()
    };
    let patches = tokio::join!(
        two.one.hub.fleet.patch_cluster("berlin", label("team", "a")),
        two.two.hub.fleet.patch_cluster("berlin", label("env", "prod"))
    );
    patches.0.unwrap();
    patches.1.unwrap();
    let (nonce, pushed) = session.definitions().await;
    assert_eq!(pushed.len(), 1, "{pushed:?}");
    let labels = BTreeMap::from([("env", "prod"), ("team", "a")]).into_iter();
    let labels: BTreeMap<String, String> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    for hub in [&two.one, &two.two] {
        eventually("both labels", || hub.hub.fleet.view().clusters["berlin"].view.labels == labels).await;
    }
    let status = DefinitionStatus {
        name: "dns".into(),
        generation: 1,
        result: DefinitionResult::Applied,
        message: String::new(),
    };
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![status] }).await;
    eventually("the status at the other", || {
        let definitions = two.two.hub.fleet.definitions();
        let clusters = &definitions["dns"].clusters;
        clusters.len() == 1 && clusters[0].result == Some(DefinitionResult::Applied)
    })
    .await;
    two.two.hub.fleet.delete_definition("dns").await.unwrap();
    assert_eq!(session.definitions().await.1.len(), 0);
    two.two.hub.fleet.remove_cluster("berlin").await.unwrap();
    assert!(session.go_away().await.contains("removed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_to_the_replica_with_the_session_and_its_answer_comes_back() {
    let test = "a_command_goes_to_the_replica_with_the_session_and_its_answer_comes_back";
    let Some(two) = Two::start(test).await else { return };
    let agent = two.agent("berlin").await;
    let command = |id: &str| Command { id: id.into(), scope: Scope::default(), order: Order::RunNow };
    let give = |id: &str| {
        let (fleet, command) = (two.two.hub.fleet.clone(), command(id));
        tokio::spawn(async move { fleet.command("berlin", command).await })
    };
    assert_eq!(give("0").await.unwrap(), Err(Undelivered::NotConnected));
    let (mut session, _) = agent.connect(&two.one, "berlin", vec![]).await;
    eventually("a session", || two.two.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    let began = std::time::Instant::now();
    for (id, verdict) in [("1", Ok("done")), ("2", Err(Refusal::new(Layer::Policy, "not here")))] {
        let asked = give(id);
        assert_eq!(session.command().await, command(id));
        session.answer(id, verdict.clone()).await;
        let answer = Answer { id: id.into(), verdict: verdict.map(str::to_owned) };
        assert_eq!(within("answer", asked).await.unwrap(), Ok(answer));
    }
    eprintln!("two commands to the other replica took {} ms", began.elapsed().as_millis());
    let asked = give("3");
    session.command().await;
    drop(session);
    assert_eq!(within("end", asked).await.unwrap(), Err(Undelivered::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_moves_ends_at_the_replica_it_comes_from() {
    let Some(two) = Two::start("a_session_that_moves_ends_at_the_replica_it_comes_from").await else { return };
    // Added and enrolled a moment ago, and at another replica.
    let agent = two.agent("berlin").await;
    let (mut first, _) = agent.connect(&two.two, "berlin", vec![check("dns")]).await;
    eventually("the check", || two.one.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    let (mut second, welcome) = agent.connect(&two.one, "berlin", vec![failed("dns")]).await;
    assert!(first.go_away().await.contains("took over"));
    eventually("the new word", || two.two.check_status("berlin", "dns") == Some(CheckStatus::Failed)).await;
    let own = |hub: &Running| hub.hub.fleet.view().clusters["berlin"].own.as_ref().map(|own| own.epoch);
    assert_eq!((own(&two.one), own(&two.two)), (Some(welcome.session_epoch), None));
    second.send(AgentFrame::reports(vec![report(1)])).await;
    second.ack().await;
    assert_eq!(two.two.history("berlin").await, [report(1).run]);
    // The identity in another cluster disturbs neither.
    let mut stolen = agent.dial(&two.two, hello("berlin", "uid-2", "x")).await.unwrap();
    assert!(stolen.go_away().await.contains("uid-2"));
    for hub in [&two.one, &two.two] {
        let message = || hub.hub.fleet.view().clusters["berlin"].view.message.clone();
        eventually("who was refused", || message().contains("uid-2")).await;
    }
    second.send(AgentFrame::reports(vec![report(2)])).await;
    assert_eq!(second.ack().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_a_replica_that_dies_are_silent_then_unreachable_until_their_agents_come_here() {
    let test = "clusters_of_a_replica_that_dies_are_silent_then_unreachable_until_their_agents_come_here";
    let Some(mut two) = Two::start(test).await else { return };
    let agent = two.agent("berlin").await;
    let (mut session, _) = agent.connect(&two.one, "berlin", vec![check("dns")]).await;
    session.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(session.ack().await, 1);
    eventually("the check", || two.two.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    let mut events = two.two.hub.fleet.events();
    two.kill_one();
    let mut next = async || loop {
        if let Event::Cluster(view) = &*within("event", events.recv()).await.unwrap().1 {
            return view.status;
        }
    };
    assert_eq!(next().await, ClusterStatus::Reconnecting);
    assert_eq!(two.two.check_status("berlin", "dns"), Some(CheckStatus::Succeeded), "no alarm within the lease");
    assert_eq!(next().await, ClusterStatus::Unreachable);
    eventually("no green", || two.two.check_status("berlin", "dns") == Some(CheckStatus::Stale)).await;
    let (mut session, _) = agent.connect(&two.two, "berlin", vec![check("dns")]).await;
    eventually("the check", || two.two.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    session.send(AgentFrame::reports(vec![report(1), report(2)])).await;
    assert_eq!(session.ack().await, 2);
    assert_eq!(two.two.history("berlin").await, [report(2).run, report(1).run], "each once");
}
