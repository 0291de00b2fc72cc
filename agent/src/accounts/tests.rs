//! Against a small API server in this process: it stores objects by path and lets the agent grant only what it holds.

mod fake;

use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::rbac::{Layer, default_rules};
use serde_json::{Value, json};

use self::fake::Fake;
use super::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A check in `health` that asks for these rules; without any, for the default ones.
fn check(name: &str, account: &str, level: &str, rules: Value) -> Check {
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}";
    let namespace = name.split_once('.').map_or("health", |(namespace, _)| namespace);
    let job = json!({
        "resource": {"namespace": namespace, "serviceAccount": account, "source": {"inline": source}},
        "rbacRules": rules,
    });
    let resource: HealthCheck = serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}")},
        "spec": {"repeatAfterSec": 60, "level": level, "workflow": job},
    }))
    .unwrap();
    Check::parse(&resource).unwrap()
}

fn secrets() -> Value {
    json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}])
}

async fn run(accounts: &Accounts, check: &Check) -> Result<(), AccountError> {
    accounts.enter(check, RunKind::HealthCheck);
    accounts.ensure(check, RunKind::HealthCheck).await
}

#[tokio::test]
async fn a_check_that_asks_too_much_fails_alone_and_passes_once_the_ceiling_is_widened() {
    let fake = Fake::new(&default_rules(RunKind::HealthCheck));
    let accounts = Accounts::new(fake.client(), Scope::Cluster);
    let (modest, greedy) = (check("modest", "probe", "", json!([])), check("greedy", "probe", "", secrets()));
    accounts.enter(&modest, RunKind::HealthCheck);
    let refused = run(&accounts, &greedy).await.unwrap_err();
    let AccountError::Refused(refusal) = &refused else { panic!("{refused}") };
    assert_eq!(refusal.layer, Layer::Ceiling);
    assert!(refusal.to_string().contains("get on secrets"), "{refusal}");
    run(&accounts, &modest).await.unwrap();
    let role = format!("{RBAC}/namespaces/health/roles/probe-ns-role");
    assert!(!fake.get(&role).unwrap().to_string().contains("secrets"));
    // The modest one agrees already and costs nothing; the greedy one asks again each time.
    let asked = fake.requests();
    run(&accounts, &modest).await.unwrap();
    assert_eq!(fake.requests(), asked);
    fake.hold(serde_json::from_value(secrets()).unwrap());
    run(&accounts, &greedy).await.unwrap();
    assert!(fake.get(&role).unwrap().to_string().contains("secrets"));
}

#[tokio::test]
async fn one_name_in_two_namespaces_gets_a_qualified_role_and_each_is_taken_back_alone() {
    let fake = Fake::new(&default_rules(RunKind::HealthCheck));
    let before = fake.all();
    let accounts = Accounts::new(fake.client(), Scope::Cluster);
    let (a, b) = (check("a.x", "probe", "cluster", json!([])), check("b.x", "probe", "cluster", json!([])));
    run(&accounts, &a).await.unwrap();
    run(&accounts, &b).await.unwrap();
    let subject =
        |binding: &str| fake.get(&format!("{RBAC}/clusterrolebindings/{binding}")).unwrap()["subjects"][0].clone();
    assert_eq!(subject("probe-cluster-role-binding")["namespace"], "a");
    assert_eq!(subject("b-probe-cluster-role-binding")["namespace"], "b");
    accounts.release(&accounts.leave(&a.uid, RunKind::HealthCheck).unwrap()).await.unwrap();
    assert!(fake.get(&format!("{RBAC}/clusterroles/probe-cluster-role")).is_none());
    assert_eq!(subject("b-probe-cluster-role-binding")["namespace"], "b");
    accounts.release(&accounts.leave(&b.uid, RunKind::HealthCheck).unwrap()).await.unwrap();
    assert_eq!(fake.all(), before);
}

#[tokio::test]
async fn what_a_user_made_is_used_and_never_changed() {
    let fake = Fake::new(&default_rules(RunKind::HealthCheck));
    let subjects = |name: &str| json!([{"kind": "ServiceAccount", "name": name, "namespace": "health"}]);
    let binding = |name: &str, role: &str, to: &str| {
        json!({"metadata": {"name": name}, "subjects": subjects(to),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}})
    };
    let roles = format!("{RBAC}/namespaces/health/roles");
    let bindings = format!("{RBAC}/namespaces/health/rolebindings");
    // An account with all it needs; and one whose plain binding serves somebody else.
    fake.put("/api/v1/namespaces/health/serviceaccounts", json!({"metadata": {"name": "own"}}));
    fake.put(&roles, json!({"metadata": {"name": "own-ns-role"}, "rules": []}));
    fake.put(&bindings, binding("own-ns-role-binding", "own-ns-role", "own"));
    fake.put(&bindings, binding("probe-ns-role-binding", "view", "somebody"));
    let before = fake.all();
    let accounts = Accounts::new(fake.client(), Scope::Cluster);
    let (own, probe) = (check("own", "own", "", json!([])), check("probe", "probe", "", json!([])));
    run(&accounts, &own).await.unwrap();
    assert_eq!(fake.all(), before, "nothing is added to an account that is complete");
    run(&accounts, &probe).await.unwrap();
    let made = fake.get(&format!("{bindings}/health-probe-ns-role-binding")).unwrap();
    assert_eq!(made["roleRef"]["name"], "health-probe-ns-role");
    for (path, object) in &before {
        assert_eq!(fake.get(path).as_ref(), Some(object), "{path}");
    }
    for check in [&own, &probe] {
        accounts.release(&accounts.leave(&check.uid, RunKind::HealthCheck).unwrap()).await.unwrap();
    }
    assert_eq!(fake.all(), before);
}

#[tokio::test]
async fn a_binding_of_ours_that_somebody_changed_is_put_right() {
    let fake = Fake::new(&default_rules(RunKind::HealthCheck));
    let accounts = Accounts::new(fake.client(), Scope::Cluster);
    let probe = check("probe", "probe", "", json!([]));
    run(&accounts, &probe).await.unwrap();
    let before = fake.all();
    let path = format!("{RBAC}/namespaces/health/rolebindings");
    let good = fake.get(&format!("{path}/probe-ns-role-binding")).unwrap();
    for (field, value) in [
        ("subjects", json!([])),
        ("subjects", json!([{"kind": "User", "name": "mallory"}])),
        ("roleRef", json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"})),
    ] {
        let mut changed = good.clone();
        changed[field] = value;
        fake.put(&path, changed);
        accounts.doubt(&Account::of(&probe, &probe.workflow));
        run(&accounts, &probe).await.unwrap();
        assert_eq!(fake.all(), before, "{field}");
    }
}

#[tokio::test]
async fn a_change_is_found_by_kind_and_name_and_put_right_with_one_write() {
    let fake = Fake::new(&default_rules(RunKind::HealthCheck));
    let accounts = Accounts::new(fake.client(), Scope::Cluster);
    let probe = check("probe", "probe", "", json!([]));
    let account = Account::of(&probe, &probe.workflow);
    let suspects = |kind, object: &Object| accounts.known.lock().differing(kind, object);
    let path = format!("{RBAC}/namespaces/health/roles");
    let role = |rules: Value, namespace: &str| {
        Object::wanted(json!({"metadata": {"name": "probe-ns-role", "namespace": namespace}, "rules": rules})).unwrap()
    };
    // Before the account was looked at there is nothing to compare with.
    assert_eq!(suspects(Kind::Role, &role(json!([]), "health")), []);
    run(&accounts, &probe).await.unwrap();
    let good = fake.get(&format!("{path}/probe-ns-role")).unwrap();
    assert_eq!(suspects(Kind::Role, &Object::wanted(good.clone()).unwrap()), []);
    assert_eq!(suspects(Kind::Role, &role(json!([]), "health")), std::slice::from_ref(&account));
    assert_eq!(suspects(Kind::Role, &role(json!([]), "shop")), [], "another namespace's");
    assert_eq!(suspects(Kind::ClusterRole, &role(json!([]), "health")), [], "another kind");

    // A list that lacks one of the objects, as after a watch that broke off.
    let lacking = |kind, names: &[&str]| {
        let there = names.iter().map(|name| ("health".to_owned(), (*name).to_owned())).collect();
        accounts.known.lock().lacking(kind, &there)
    };
    assert_eq!(lacking(Kind::RoleBinding, &["probe-ns-role-binding", "another"]), []);
    assert_eq!(lacking(Kind::RoleBinding, &["another"]), std::slice::from_ref(&account));
    assert_eq!(lacking(Kind::ClusterRole, &[]), [], "its level has none");

    let mut changed = good.clone();
    changed["rules"] = json!([]);
    fake.put(&path, changed);
    let before = fake.requests();
    let written = accounts.put_right(&account).await.unwrap();
    assert_eq!(written.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::Role]);
    assert_eq!(fake.get(&format!("{path}/probe-ns-role")).unwrap()["rules"], good["rules"]);
    assert!(accounts.put_right(&account).await.unwrap().is_empty(), "what is right costs no write");
    assert_eq!(fake.requests() - before, 7, "three reads each, and one write");

    // Nobody's rights are made again once the last check has left.
    accounts.release(&accounts.leave(&probe.uid, RunKind::HealthCheck).unwrap()).await.unwrap();
    assert_eq!(suspects(Kind::Role, &role(json!([]), "health")), []);
    assert!(accounts.put_right(&account).await.unwrap().is_empty() && fake.all().is_empty());
}

/// What there is, in the cluster and in the memory.
fn sizes(fake: &Fake, accounts: &Accounts) -> [usize; 5] {
    let known = accounts.known.lock();
    [fake.all().len(), known.users.len(), known.of_user.len(), known.applied.len(), known.turns.len()]
}

#[tokio::test]
async fn a_day_of_a_thousand_checks_leaves_no_more_rights_than_its_first_hour() {
    const CHECKS: usize = 1_000;
    const ACCOUNTS: usize = 10;
    let held = [RunKind::HealthCheck, RunKind::Remedy].map(default_rules).concat();
    let (fake, checks) = (Fake::new(&held), (0..CHECKS).map(remedied).collect::<Vec<_>>());
    let accounts = Accounts::new(fake.client(), Scope::Cluster);
    let mut hours = Vec::new();
    for hour in 0..24 {
        for (i, check) in checks.iter().enumerate() {
            run(&accounts, check).await.unwrap();
            if (i + hour) % 20 == 0 {
                accounts.enter(check, RunKind::Remedy);
                accounts.ensure(check, RunKind::Remedy).await.unwrap();
                assert!(fake.all().keys().any(|path| path.ends_with(&format!("serviceaccounts/mender-{i}"))));
                accounts.release(&accounts.leave(&check.uid, RunKind::Remedy).unwrap()).await.unwrap();
            }
        }
        hours.push(sizes(&fake, &accounts));
    }
    // An account, its role and its binding.
    assert_eq!(hours[0][..4], [3 * ACCOUNTS, ACCOUNTS, CHECKS, ACCOUNTS], "{hours:?}");
    assert!(hours.iter().all(|hour| hour[..4] == hours[0][..4] && hour[4] <= ACCOUNTS), "{hours:?}");
    for check in &checks {
        accounts.release(&accounts.leave(&check.uid, RunKind::HealthCheck).unwrap()).await.unwrap();
    }
    assert_eq!(sizes(&fake, &accounts)[..4], [0; 4]);
}

/// One of a thousand checks that share ten accounts; each has a remedy with an account of its own.
fn remedied(i: usize) -> Check {
    let level = if i.is_multiple_of(2) { "namespace" } else { "cluster" };
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}";
    let job = |account: String| json!({"resource": {"namespace": "health", "serviceAccount": account, "source": {"inline": source}}});
    let resource: HealthCheck = serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": format!("check-{i}"), "namespace": "health", "uid": format!("uid-{i}")},
        "spec": {"repeatAfterSec": 3600, "level": level, "workflow": job(format!("probe-{}", i % 10)),
            "remedyworkflow": job(format!("mender-{i}"))},
    }))
    .unwrap();
    Check::parse(&resource).unwrap()
}
