//! The admission policy on a real API server, asked as several users.

use std::path::PathBuf;

use active_monitor_tests::charts::{Chart, Helm};
use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, fleet, wait};

use super::{PATIENCE, check, install};

/// A HealthCheck in a tenant's namespace, whose workflow runs where and as whom its author likes.
struct Draft {
    name: &'static str,
    namespace: &'static str,
    runs_in: &'static str,
    account: &'static str,
    /// Lines of the specification: level, remedy.
    spec: String,
    /// Lines of its workflow: rules.
    workflow: String,
}

impl Draft {
    fn new(name: &'static str) -> Draft {
        let (spec, workflow) = (String::new(), String::new());
        Draft { name, namespace: "shop", runs_in: "shop", account: "probe", spec, workflow }
    }

    fn with_remedy(mut self, runs_in: &str, account: &str) -> Draft {
        let source = r#"{inline: "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {}}"}"#;
        self.spec = format!(
            "  remedyworkflow: {{resource: {{namespace: {runs_in}, serviceAccount: {account}, source: {source}}}}}\n"
        );
        self
    }

    fn text(&self) -> String {
        let spec = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "1s"}"#];
        let text = check(self.name, "repeatAfterSec: 3600", &spec)
            .replace("namespace: health}", &format!("namespace: {}}}", self.namespace))
            .replace("      namespace: health", &format!("      namespace: {}", self.runs_in))
            .replace("serviceAccount: probe", &format!("serviceAccount: {}", self.account));
        text.replace("  workflow:\n", &format!("{}  workflow:\n{}", self.spec, self.workflow))
    }
}

/// Somebody with a client certificate.
struct User {
    name: &'static str,
    kubeconfig: PathBuf,
}

impl User {
    fn new(cluster: &Cluster, name: &'static str) -> User {
        User { name, kubeconfig: cluster.user_kubeconfig(name, name, "people").expect("kubeconfig") }
    }

    async fn kubectl(&self, cluster: &Cluster, args: &[&str], stdin: &str) -> Result<String, String> {
        let answer = cluster.kubectl_as(&self.kubeconfig, args, stdin).await;
        answer.map_err(|error| format!("{error:#}"))
    }

    async fn applies(&self, cluster: &Cluster, draft: &Draft) -> Result<String, String> {
        self.kubectl(cluster, &["apply", "-f", "-"], &draft.text()).await
    }

    /// Is let in; then what was made goes again.
    async fn may(&self, cluster: &Cluster, draft: &Draft) {
        let answer = self.applies(cluster, draft).await;
        assert!(answer.is_ok(), "{} may apply {}: {answer:?}", self.name, draft.name);
        let delete = ["delete", "healthcheck", draft.name, "-n", draft.namespace];
        self.kubectl(cluster, &delete, "").await.expect("whoever made it may delete it");
    }

    /// Is refused by the policy, with these words.
    async fn may_not(&self, cluster: &Cluster, draft: &Draft, says: &str) {
        let Err(error) = self.applies(cluster, draft).await else { panic!("{} applied {}", self.name, draft.name) };
        assert!(error.contains("ValidatingAdmissionPolicy 'active-monitor-authors'"), "{}: {error}", draft.name);
        assert!(error.contains(says), "{}: {error}", draft.name);
    }
}

/// Everyone may write HealthChecks anywhere. On top, by RBAC alone: the tenant has what docs/agent.md gives a team; the
/// editor has Kubernetes' own ClusterRole edit there; the owner has every verb that the policy asks for, in
/// two namespaces; the platform team has them cluster-wide.
const PEOPLE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Namespace
metadata: {name: moving, labels: {activemonitor.keikoproj.io/admission: audit}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: writes-checks}
rules:
- {apiGroups: [activemonitor.keikoproj.io], resources: [healthchecks], verbs: [get, create, update, patch, delete]}
- {apiGroups: [activemonitor.keikoproj.io], resources: [healthchecks/status], verbs: [get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: writes-checks}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: writes-checks}
subjects: [{kind: Group, name: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: runs-argo, labels: {rbac.authorization.k8s.io/aggregate-to-edit: 'true'}}
rules:
- {apiGroups: [argoproj.io], resources: [workflows], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: edits, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: User, name: editor}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: authors-all}
rules:
- {apiGroups: [argoproj.io], resources: [workflows], verbs: [create]}
- {apiGroups: [''], resources: [serviceaccounts], verbs: [use]}
- {apiGroups: [activemonitor.keikoproj.io], resources: [healthchecks], verbs: [grant, remedy]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: authors-all, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: authors-all}
subjects: [{kind: User, name: owner}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: authors-all, namespace: other}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: authors-all}
subjects: [{kind: User, name: owner}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: authors-all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: authors-all}
subjects: [{kind: User, name: platform}]
";

const RULES: &str = "    rbacRules:\n    - {apiGroups: [''], resources: [pods], verbs: [get]}\n";

/// What docs/agent.md gives a team, without its last rule, which is for remedies.
fn documented_role() -> String {
    let docs = std::fs::read_to_string(fleet::project().join("docs/agent.md")).expect("docs");
    let (_, role) = docs.split_once("```yaml\n# A team that runs checks").expect("the role");
    let (role, _) = role.split_once("```").expect("its end");
    let kept: String =
        role.lines().skip(1).filter(|line| !line.contains("grant")).map(|line| format!("{line}\n")).collect();
    assert_eq!(kept.lines().count() + 2, role.lines().count(), "one line of a comment, one of remedies");
    kept.replace("probe, probe-remedy", "probe")
}

async fn install(cluster: &Cluster) {
    Agent::install(cluster, Crd::Ours).await.expect("install");
    people(cluster).await;
    // Stored before the policy is there.
    let before = Draft { runs_in: "other", ..Draft::new("before") };
    cluster.apply_yaml(&before.text()).await.expect("old check");
    let policy = fleet::project().join("deploy/agent/admission-policy.yaml");
    cluster.kubectl(&["apply", "-f", &policy.display().to_string()]).await.expect("policy");
    until_in_force(cluster).await;
}

async fn people(cluster: &Cluster) {
    cluster.apply_yaml(PEOPLE).await.expect("people");
    cluster.apply_yaml(&documented_role()).await.expect("the role in docs/agent.md");
    let bind = ["create", "rolebinding", "runs-checks", "-n", "shop", "--role=runs-checks", "--user=tenant"];
    cluster.kubectl(&bind).await.expect("binding");
}

/// The API server compiles a new policy by and by.
async fn until_in_force(cluster: &Cluster) {
    let tenant = User::new(cluster, "tenant");
    let closed = Draft { runs_in: "kube-system", ..Draft::new("first") };
    wait::until("policy in force", PATIENCE, || async {
        Ok(tenant
            .kubectl(cluster, &["create", "--dry-run=server", "-f", "-"], &closed.text())
            .await
            .is_err()
            .then_some(()))
    })
    .await
    .expect("policy");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_runs_what_he_could_run_himself_and_nothing_else() {
    let name = "an_author_runs_what_he_could_run_himself_and_nothing_else";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    install(cluster).await;
    let [tenant, editor, owner, platform] =
        ["tenant", "editor", "owner", "platform"].map(|name| User::new(cluster, name));

    tenant_stays_in_his_namespace(cluster, &tenant).await;
    verbs_open_what_they_name(cluster, &tenant, &editor, &owner, &platform).await;
    what_was_there_before_stays_usable(cluster, &tenant).await;
    the_agent_writes_what_the_hub_pushes(cluster).await;
    a_large_specification_is_within_the_cost_limits(cluster, &platform, &tenant).await;
    audit_mode_only_warns(cluster, &tenant).await;
}

async fn tenant_stays_in_his_namespace(cluster: &Cluster, tenant: &User) {
    tenant.may(cluster, &Draft::new("own")).await;
    // active-monitor's way to say that there is no remedy.
    tenant.may(cluster, &Draft { spec: "  remedyworkflow: {}\n".into(), ..Draft::new("no-remedy") }).await;
    for (draft, says) in [
        (Draft { runs_in: "other", ..Draft::new("elsewhere") }, "create on workflows.argoproj.io in namespace other"),
        (
            Draft { account: "default", ..Draft::new("account") },
            "(or impersonate) on serviceaccounts default in namespace shop",
        ),
        (Draft { runs_in: "kube-system", ..Draft::new("system") }, "no workflows of checks are allowed in kube-system"),
        (Draft { namespace: "kube-system", ..Draft::new("in-system") }, "no checks are allowed in kube-system"),
        (
            Draft { runs_in: "active-monitor", ..Draft::new("agents") },
            "no workflows of checks are allowed in active-monitor",
        ),
        (Draft::new("remedy").with_remedy("shop", "probe"), "on serviceaccounts probe-remedy in namespace shop"),
        (Draft { workflow: RULES.into(), ..Draft::new("rules") }, "spec.workflow.rbacRules: you need the verb grant"),
        (
            Draft { spec: "  level: cluster\n".into(), ..Draft::new("cluster") },
            "spec.level: cluster needs the verb grant",
        ),
    ] {
        tenant.may_not(cluster, &draft, says).await;
    }
}

async fn verbs_open_what_they_name(cluster: &Cluster, tenant: &User, editor: &User, owner: &User, platform: &User) {
    // Kubernetes' own role edit may impersonate the accounts of its namespace; remedies are not for it.
    wait::until("aggregated role edit", PATIENCE, || async {
        let can = ["auth", "can-i", "create", "workflows.argoproj.io", "-n", "shop"];
        Ok(editor.kubectl(cluster, &can, "").await.is_ok().then_some(()))
    })
    .await
    .expect("aggregation");
    editor.may(cluster, &Draft { account: "default", ..Draft::new("edited") }).await;
    let remedy = || Draft::new("remedied").with_remedy("shop", "fixer");
    editor.may_not(cluster, &remedy(), "spec.remedyworkflow: you need the verb remedy").await;
    owner.may(cluster, &remedy()).await;
    owner.may(cluster, &Draft { workflow: RULES.into(), ..Draft::new("rules") }).await;
    owner.may(cluster, &Draft { runs_in: "other", ..Draft::new("both") }.with_remedy("other", "probe")).await;
    let cluster_wide = |name| Draft { spec: "  level: cluster\n".into(), ..Draft::new(name) };
    owner.may_not(cluster, &cluster_wide("wide"), "cluster-wide").await;
    platform.may(cluster, &cluster_wide("wide")).await;
    let mut wide_remedy = cluster_wide("wide-remedy");
    wide_remedy.spec.push_str(&Draft::new("x").with_remedy("shop", "fixer").spec);
    platform.may(cluster, &wide_remedy).await;
    owner.may_not(cluster, &wide_remedy, "cluster-wide").await;
    for namespace in ["kube-system", "active-monitor"] {
        let remedy = Draft::new("closed").with_remedy(namespace, "fixer");
        platform.may_not(cluster, &remedy, &format!("no remedies are allowed in {namespace}")).await;
    }
    // An update is judged as a whole: nobody slips a remedy under a check that is let in.
    owner.applies(cluster, &remedy()).await.expect("remedied");
    let patch = ["patch", "healthcheck", "remedied", "-n", "shop", "--type=merge", "-p"];
    let longer = [&patch[..], &[r#"{"spec":{"repeatAfterSec":7200}}"#]].concat();
    let error = tenant.kubectl(cluster, &longer, "").await.expect_err("the tenant may not change another's remedy");
    assert!(error.contains("spec.remedyworkflow"), "{error}");
    owner.kubectl(cluster, &longer, "").await.expect("its owner may");
}

/// A check from before the policy, that its user could not write any more.
async fn what_was_there_before_stays_usable(cluster: &Cluster, tenant: &User) {
    let patch = ["patch", "healthcheck", "before", "-n", "shop", "--type=merge", "-p"];
    let spec = tenant.kubectl(cluster, &[&patch[..], &[r#"{"spec":{"repeatAfterSec":60}}"#]].concat(), "").await;
    assert!(spec.expect_err("its specification is judged").contains("in namespace other"));
    for free in [
        r#"{"metadata":{"labels":{"team":"shop"},"annotations":{"note":"x"},"finalizers":["example.com/hold"]}}"#,
        r#"{"metadata":{"finalizers":null}}"#,
    ] {
        tenant.kubectl(cluster, &[&patch[..], &[free]].concat(), "").await.expect("metadata is free");
    }
    let status = [&patch[..], &[r#"{"status":{"status":"Succeeded"}}"#, "--subresource=status"]].concat();
    tenant.kubectl(cluster, &status, "").await.expect("status is free");
    tenant.kubectl(cluster, &["delete", "healthcheck", "before", "-n", "shop"], "").await.expect("deletion is free");
}

async fn the_agent_writes_what_the_hub_pushes(cluster: &Cluster) {
    let kubeconfig = cluster.service_account_kubeconfig("active-monitor", "active-monitor-agent").await.expect("token");
    let pushed = Draft::new("pushed").with_remedy("shop", "fixer").text();
    cluster.kubectl_as(&kubeconfig, &["create", "-f", "-"], &pushed).await.expect("the agent is not an author");
}

/// Everything at once, in the largest object that etcd takes: each expression that asks the authorizer is evaluated.
async fn a_large_specification_is_within_the_cost_limits(cluster: &Cluster, platform: &User, tenant: &User) {
    let rule = "    - {apiGroups: [''], resources: [pods, services, configmaps, endpoints], verbs: [get, list]}\n";
    let mut large = Draft::new("large").with_remedy("shop", "probe");
    large.spec.push_str("  level: cluster\n");
    large.spec.push_str(&format!("  description: {}\n", "x".repeat(900_000)));
    large.workflow = format!("    rbacRules:\n{}", rule.repeat(100));
    let create = ["create", "-f", "-"];
    platform.kubectl(cluster, &create, &large.text()).await.expect("large check");
    let denied = tenant.kubectl(cluster, &create, &large.text().replace("name: large", "name: larger")).await;
    let error = denied.expect_err("the tenant is refused for his rights");
    assert!(error.contains("you need the verb") && !error.contains("cost"), "{error:.2000}");
    let patch =
        ["patch", "healthcheck", "large", "-n", "shop", "--type=merge", "-p", r#"{"spec":{"repeatAfterSec":60}}"#];
    platform.kubectl(cluster, &patch, "").await.expect("large update");
}

async fn audit_mode_only_warns(cluster: &Cluster, tenant: &User) {
    let draft = Draft { namespace: "moving", runs_in: "other", ..Draft::new("moved") };
    // kubectl tells warnings on stderr, which the answer does not carry: as errors they are visible.
    let strict = ["create", "--warnings-as-errors", "-f", "-"];
    let warned = tenant.kubectl(cluster, &strict, &draft.text()).await.expect_err("a warning");
    assert!(warned.contains("create on workflows.argoproj.io in namespace other"), "{warned}");
    let stored = cluster.kubectl(&["get", "healthcheck", "moved", "-n", "moving", "-o", "name"]).await;
    assert!(stored.is_ok(), "it is stored all the same");
    assert!(is_recorded(cluster, "moved"), "the audit log has what would have been refused");
}

/// Whether the API server's audit log says that this check would have been refused.
fn is_recorded(cluster: &Cluster, check: &str) -> bool {
    let log = std::fs::read_to_string(&cluster.audit_log).expect("audit log");
    let name = format!("\"{check}\"");
    log.lines().any(|line| line.contains("validation_failure") && line.contains(&name))
}

/// The chart's three values, one upgrade after the other, in a namespace without a label.
#[tokio::test(flavor = "multi_thread")]
async fn the_charts_admission_refuses_or_only_warns_or_is_off() {
    let name = "the_charts_admission_refuses_or_only_warns_or_is_off";
    let Some(programs) = install::programs_or_skip(name).await else { return };
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let helm = Helm::new(&programs, testbed.run());
    cluster.apply_yaml(install::NAMESPACES).await.expect("namespaces");
    let chart = Chart::Agent.folder();
    let chart = chart.to_str().expect("UTF-8");
    helm.on(cluster, &["install", "agent", chart]).await.expect("installed");
    super::takes_creates(cluster).await;
    people(cluster).await;
    until_in_force(cluster).await;
    let tenant = User::new(cluster, "tenant");
    let draft = |name| Draft { runs_in: "other", ..Draft::new(name) };
    tenant.may_not(cluster, &draft("enforced"), "create on workflows.argoproj.io in namespace other").await;

    set_admission(cluster, &helm, "audit").await;
    let bindings = ["get", "validatingadmissionpolicybindings", "-o", "jsonpath={.items[*].spec.validationActions}"];
    assert_eq!(cluster.kubectl(&bindings).await.expect("bindings"), r#"["Warn","Audit"]"#);
    until_let_in(cluster, &tenant, &draft("audited")).await;
    assert!(is_recorded(cluster, "audited"), "the audit log has what would have been refused");
    let warned = ["apply", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
    let warning = tenant.kubectl(cluster, &warned, &draft("warned").text()).await.expect_err("a warning");
    assert!(warning.contains("create on workflows.argoproj.io in namespace other"), "{warning}");

    set_admission(cluster, &helm, "off").await;
    let policies = ["get", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-o", "name"];
    assert_eq!(cluster.kubectl(&policies).await.expect("policies"), "");
    wait::until("no warning", PATIENCE, || async {
        Ok(tenant.kubectl(cluster, &warned, &draft("free").text()).await.is_ok().then_some(()))
    })
    .await
    .expect("nobody is told anything");
}

async fn set_admission(cluster: &Cluster, helm: &Helm<'_>, mode: &str) {
    let chart = Chart::Agent.folder();
    let value = format!("admission={mode}");
    let upgrade = ["upgrade", "agent", chart.to_str().expect("UTF-8"), "--reuse-values", "--set", &value];
    helm.on(cluster, &upgrade).await.unwrap_or_else(|error| panic!("{mode}: {error:#}"));
}

/// The API server forgets a binding by and by.
async fn until_let_in(cluster: &Cluster, user: &User, draft: &Draft) {
    wait::until(draft.name, PATIENCE, || async { Ok(user.applies(cluster, draft).await.is_ok().then_some(())) })
        .await
        .expect("let in");
}
