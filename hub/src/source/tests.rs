//! A real folder, a real store, a real fleet: only the clock is waited for.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use active_monitor_core::care::WindowSpec;
use active_monitor_core::view::ClusterAdd;
use active_monitor_runtime::tasks::Tasks;

use super::*;
use crate::owner::{self, Terms};
use crate::store::sqlite::SqliteStore;

const HEAD: &str = "apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1";

fn definition(name: &str, period: u32) -> String {
    format!(
        "{HEAD}\nkind: FleetHealthCheck\nmetadata: {{name: {name}}}\nspec:\n  clusterSelector: {{matchLabels: {{env: prod}}}}\n  \
         template:\n    metadata: {{namespace: health}}\n    spec: {{repeatAfterSec: {period}}}\n---\n"
    )
}

fn cluster(name: &str) -> String {
    format!("{HEAD}\nkind: FleetCluster\nmetadata: {{name: {name}, labels: {{env: prod}}}}\n---\n")
}

fn window(name: &str) -> String {
    format!(
        "{HEAD}\nkind: MaintenanceWindow\nmetadata: {{name: {name}}}\nspec: {{cron: \"0 3 * * *\", durationSeconds: 60}}\n---\n"
    )
}

/// A repository as git-sync keeps it.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Repository {
        Repository(tempfile::tempdir().unwrap())
    }

    fn link(&self) -> PathBuf {
        self.0.path().join("current")
    }

    /// A commit whose name is forty times the digit.
    fn commit(&self, digit: char, text: &str) {
        let name: String = std::iter::repeat_n(digit, 40).collect();
        let worktree = self.0.path().join(&name);
        std::fs::create_dir_all(&worktree).unwrap();
        std::fs::write(worktree.join("fleet.yaml"), text).unwrap();
        let next = self.0.path().join("next");
        symlink(&name, &next).unwrap();
        std::fs::rename(&next, self.link()).unwrap();
    }
}

struct Hub {
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    source: Arc<Source>,
    tasks: Tasks,
}

impl Hub {
    async fn start(data: &Path, store: Arc<dyn Store>, folder: Option<PathBuf>) -> Hub {
        let tasks = Tasks::new();
        let fleet = owner::start(Arc::clone(&store), Terms::of_a_test(data), &tasks).await.unwrap();
        let args = SourceArgs { git_folder: folder, ..SourceArgs::default() };
        let source = Arc::new(Source::load(args, store.as_ref()).await.unwrap());
        tasks
            .supervise("source", run(Arc::clone(&source), Arc::clone(&store), fleet.clone(), None, tasks.stop_token()));
        Hub { store, fleet, source, tasks }
    }

    async fn until(&self, what: &str, holds: impl Fn(&SourceView) -> bool) -> SourceView {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let view = self.source.view().unwrap();
            if holds(&view) {
                return view;
            }
            assert!(Instant::now() < deadline, "{what}: {view:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn in_force(&self, digit: char) -> SourceView {
        let revision: String = std::iter::repeat_n(digit, 40).collect();
        let holds = |view: &SourceView| view.state == SourceState::InForce && view.revision.as_ref() == Some(&revision);
        self.until("in force", holds).await
    }

    async fn refused(&self, part: &str) -> SourceView {
        let says = |view: &SourceView| view.problems.iter().any(|problem| problem.to_string().contains(part));
        self.until(part, |view| view.state == SourceState::Refused && says(view)).await
    }

    fn definitions(&self) -> Vec<String> {
        self.fleet.definitions().keys().cloned().collect()
    }

    async fn add(&self, name: &str) {
        let add = ClusterAdd { name: name.into(), labels: Default::default(), annotations: Default::default() };
        self.fleet.add_cluster(add).await.unwrap();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_kept_as_the_folder_says_and_one_bad_document_changes_nothing() {
    let (data, repository) = (tempfile::tempdir().unwrap(), Repository::new());
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    repository.commit('1', &[definition("dns", 60), cluster("east"), window("night")].concat());
    let hub = Hub::start(data.path(), Arc::clone(&store), Some(repository.link())).await;
    let view = hub.in_force('1').await;
    assert_eq!((view.waiting.as_slice(), view.objects.len()), (["east".to_owned()].as_slice(), 3));
    assert_eq!((hub.definitions(), hub.store.windows().await.unwrap().len()), (vec!["dns".to_owned()], 1));

    // The labels of a cluster are there as soon as it is.
    hub.add("east").await;
    hub.until("no cluster waits", |view| view.waiting.is_empty()).await;
    assert_eq!(hub.fleet.view().clusters["east"].view.labels["env"], "prod");
    assert_eq!(hub.fleet.definitions()["dns"].clusters.len(), 1);

    // Two changes and one mistake: none of it.
    repository.commit('2', &[definition("dns", 30), definition("tls", 60), window("Night")].concat());
    let view = hub.refused("fleet.yaml:21:12: metadata.name").await;
    assert_eq!((view.revision.unwrap(), view.refused_revision.unwrap()), ("1".repeat(40), "2".repeat(40)));
    assert_eq!(hub.source.error.get(), 1);
    assert_eq!(hub.fleet.definitions()["dns"].definition["spec"]["template"]["spec"]["repeatAfterSec"], 60);
    assert_eq!((hub.definitions().len(), hub.store.windows().await.unwrap().len()), (1, 1));

    // Without the mistake: a change, an addition, and what is no longer there.
    repository.commit('3', &[definition("dns", 30), definition("tls", 60)].concat());
    hub.in_force('3').await;
    assert_eq!(hub.source.error.get(), 0);
    assert_eq!(hub.fleet.definitions()["dns"].definition["spec"]["template"]["spec"]["repeatAfterSec"], 30);
    assert_eq!((hub.definitions().len(), hub.store.windows().await.unwrap().len()), (2, 0));
    assert!(hub.fleet.view().clusters["east"].view.labels.is_empty());

    // A folder that is empty or gone is a mistake.
    repository.commit('4', "# nothing\n");
    hub.refused("there are no documents").await;
    std::fs::remove_file(repository.link()).unwrap();
    hub.refused("current cannot be read").await;
    assert_eq!(hub.definitions().len(), 2);
    let log = hub.store.audit_log(100).await.unwrap();
    let lines: Vec<String> = log.iter().map(|line| format!("{} {} {}", line.who, line.action, line.object)).collect();
    let commit = "3".repeat(40);
    for expected in ["definition.put tls", "window.delete night", "cluster.patch east"] {
        assert!(lines.contains(&format!("git@{commit} {expected}")), "{expected}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gits_is_known_over_a_restart_and_what_people_made_is_left_alone() {
    let (data, repository) = (tempfile::tempdir().unwrap(), Repository::new());
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    let by_hand = WindowSpec {
        name: "mine".into(),
        cron: Some("0 1 * * *".into()),
        duration_seconds: Some(9),
        ..WindowSpec::default()
    };
    store.put_window("mine", Some(&by_hand)).await.unwrap();
    repository.commit('1', &[definition("dns", 60), definition("tls", 60)].concat());
    let hub = Hub::start(data.path(), Arc::clone(&store), Some(repository.link())).await;
    hub.in_force('1').await;
    drop(hub);

    repository.commit('2', &definition("dns", 60));
    let hub = Hub::start(data.path(), Arc::clone(&store), Some(repository.link())).await;
    hub.in_force('2').await;
    assert_eq!(
        (hub.definitions(), hub.store.windows().await.unwrap()),
        (vec!["dns".to_owned()], vec![by_hand.clone()])
    );

    // Git may not take over what a person made otherwise.
    repository.commit('3', &[definition("dns", 30), window("mine")].concat());
    hub.refused("metadata.name: is there and was not made by Git").await;
    assert_eq!(hub.fleet.definitions()["dns"].definition["spec"]["template"]["spec"]["repeatAfterSec"], 60);
    assert_eq!(hub.store.windows().await.unwrap(), [by_hand]);
    drop(hub);

    // Without a folder all that there is becomes people's, and with the same content Git's again.
    let folderless = Source::load(SourceArgs::default(), store.as_ref()).await.unwrap();
    folderless.release(store.as_ref()).await.unwrap();
    assert_eq!(store.ownership().await.unwrap(), None);
    repository.commit('4', &definition("dns", 60));
    let hub = Hub::start(data.path(), Arc::clone(&store), Some(repository.link())).await;
    hub.in_force('4').await;
    assert_eq!(store.ownership().await.unwrap().unwrap().objects.len(), 1);
    assert_eq!(hub.store.audit_log(1).await.unwrap()[0].action, "definition.adopt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_no_cluster_could_be_sent_changes_nothing() {
    let (data, repository) = (tempfile::tempdir().unwrap(), Repository::new());
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    repository.commit('1', &[definition("dns", 60), cluster("east")].concat());
    let hub = Hub::start(data.path(), Arc::clone(&store), Some(repository.link())).await;
    hub.in_force('1').await;
    hub.add("east").await;
    hub.until("no cluster waits", |view| view.waiting.is_empty()).await;
    let owned = store.ownership().await.unwrap();

    // More than a frame holds, and beside it what could be done.
    let worktree = repository.0.path().join("2".repeat(40));
    std::fs::create_dir_all(&worktree).unwrap();
    let large = |n: usize| {
        let description = "x".repeat(240 * 1024);
        definition(&format!("large-{n}"), 60).replace("repeatAfterSec: 60", &format!("description: {description}"))
    };
    for n in 0..20 {
        std::fs::write(worktree.join(format!("{n}.yaml")), large(n)).unwrap();
    }
    repository.commit('2', &[definition("dns", 30), cluster("east"), window("night")].concat());
    hub.refused("the definitions of cluster east would be").await;
    assert_eq!(hub.definitions(), ["dns"]);
    assert_eq!(hub.fleet.definitions()["dns"].definition["spec"]["template"]["spec"]["repeatAfterSec"], 60);
    assert!(store.windows().await.unwrap().is_empty());
    assert_eq!(hub.fleet.view().clusters["east"].view.labels["env"], "prod");
    // Nothing is claimed that is not there: a person may still make it.
    assert_eq!(store.ownership().await.unwrap(), owned);
}
