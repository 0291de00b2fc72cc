use super::super::default_rules;
use super::*;
use crate::run::RunKind;

/// As Kubernetes 1.36 says it.
const ESCALATION: &str = "roles.rbac.authorization.k8s.io \"greedy-ns-role\" is forbidden: user \
    \"system:serviceaccount:active-monitor:active-monitor-agent\" (groups=[\"system:serviceaccounts\" \
    \"system:serviceaccounts:active-monitor\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
    currently held:\n";

fn account(level: Level) -> Account {
    Account { namespace: "shop".into(), name: "greedy".into(), level }
}

fn ceilings() -> Ceilings {
    Ceilings {
        reading: default_rules(RunKind::HealthCheck).to_vec(),
        remedying: default_rules(RunKind::Remedy).to_vec(),
    }
}

fn escalation(rules: &str, level: Level, remedies: bool, ceilings: Option<&Ceilings>) -> Refusal {
    Refusal::read(403, &format!("{ESCALATION}{rules}"), &account(level), remedies, ceilings)
}

#[test]
fn a_rule_beyond_the_ceiling_is_named_with_the_command_that_widens_it() {
    let rules = "{APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"tls\"], Verbs:[\"get\"]}\n\
        {APIGroups:[\"apps\"], Resources:[\"deployments/scale\"], Verbs:[\"get\" \"list\"]}; resolution errors: []";
    let refusal = escalation(rules, Level::Namespace, false, Some(&ceilings()));
    assert_eq!((refusal.layer.as_str(), refusal.rules.len()), ("BeyondCeiling", 2));
    insta::assert_snapshot!(refusal, @"account shop/greedy does not get its rights: the API server's escalation check refuses what the agent does not hold itself: get on secrets named tls; get, list on deployments.apps/scale. To allow it: kubectl create clusterrole reading-shop-greedy-d42b97 --verb=get --resource-name=tls --resource=secrets && kubectl create clusterrole reading-shop-greedy-a276fb --verb=get,list --resource=deployments.apps/scale && kubectl label clusterrole reading-shop-greedy-d42b97 reading-shop-greedy-a276fb activemonitor.keikoproj.io/ceiling=reading");
}

#[test]
fn a_remedy_in_a_closed_namespace_gets_the_command_that_opens_it() {
    let rules = "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\" \"delete\"]}";
    let refusal = escalation(rules, Level::Namespace, true, Some(&ceilings()));
    assert_eq!(refusal.layer, Layer::RemediesClosed);
    insta::assert_snapshot!(refusal, @"account shop/greedy does not get its rights: the remedying ceiling is not bound in namespace shop, so the agent cannot give: create, delete on pods. To allow it: kubectl create rolebinding active-monitor-ceiling-remedying --clusterrole=active-monitor-ceiling-remedying --serviceaccount=active-monitor:active-monitor-agent -n shop");
    let cluster = escalation(rules, Level::Cluster, true, Some(&ceilings())).to_string();
    assert!(cluster.contains("kubectl create clusterrolebinding active-monitor-ceiling-remedying "), "{cluster}");
    // The same rule asked for by a check is beyond its ceiling, whatever remedies may be given.
    let check = escalation(rules, Level::Namespace, false, Some(&ceilings()));
    assert_eq!(check.layer, Layer::Ceiling);
    assert!(check.to_string().contains("ceiling=reading"), "{check}");
    // A remedy that asks for more than the ceiling, where it is not bound either, needs both.
    let more = format!("{rules}\n{{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}}");
    let both = escalation(&more, Level::Namespace, true, Some(&ceilings())).to_string();
    assert!(both.contains("ceiling=remedying && kubectl create rolebinding"), "{both}");
    assert!(both.contains("--verb=get --resource=secrets"), "{both}");
}

#[test]
fn an_install_without_cluster_rights_is_widened_by_a_role() {
    let rules = "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
    let refusal = escalation(rules, Level::Namespace, false, None);
    assert_eq!(refusal.layer, Layer::Ceiling);
    insta::assert_snapshot!(refusal.remedy, @"To allow it: kubectl create role ceiling-shop-greedy-6a6829 --verb=get --resource=secrets -n shop && kubectl create rolebinding ceiling-shop-greedy-6a6829 --role=ceiling-shop-greedy-6a6829 --serviceaccount=active-monitor:active-monitor-agent -n shop");
}

#[test]
fn what_a_shell_could_take_for_something_else_is_in_no_command() {
    for rules in [
        "{APIGroups:[\"\"], Resources:[\"pods; rm -rf /\"], Verbs:[\"get\"]}",
        "{APIGroups:[\"$(id)\"], Resources:[\"pods\"], Verbs:[\"get\"]}",
        "{APIGroups:[\"\"], Resources:[\"pods\"], ResourceNames:[\"a\\\"b\"], Verbs:[\"get\"]}",
        "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}",
        "{APIGroups:[\"\"], Resources:[\"--all\"], Verbs:[\"get\"]}",
    ] {
        let refusal = escalation(rules, Level::Namespace, false, Some(&ceilings()));
        assert_eq!(refusal.rules.len(), 1, "{rules}");
        assert!(!refusal.remedy.contains("kubectl"), "{}", refusal.remedy);
    }
    // What is quoted cannot pass for a field of its own.
    let sly = escalation(
        "{APIGroups:[\"\"], Resources:[\"a\\\"], Verbs:[\\\"*\"], Verbs:[\"get\"]}",
        Level::Namespace,
        false,
        None,
    );
    assert_eq!(sly.rules[0].verbs, ["get"]);
}

#[test]
fn a_long_list_is_cut_and_counted() {
    let rules: String =
        (0..500).map(|i| format!("{{APIGroups:[\"\"], Resources:[\"r{i}\"], Verbs:[\"v{i}\"]}}\n")).collect();
    let refusal = escalation(&rules, Level::Namespace, false, Some(&ceilings()));
    let text = refusal.to_string();
    assert!(text.contains("and 494 more") && text.len() < 2_000, "{text}");
    assert!(text.contains("label a ClusterRole that has these rules with activemonitor.keikoproj.io/ceiling=reading"));
}

#[test]
fn every_layer_is_told_apart() {
    for (code, said, reason, says) in [
        (
            403,
            "serviceaccounts is forbidden: User \"system:serviceaccount:a:b\" cannot create resource \"serviceaccounts\" \
            in API group \"\" in the namespace \"shop\"",
            "AgentLacksRights",
            "cannot create resource",
        ),
        (
            422,
            "admission webhook \"guard.example.com\" denied the request: no\x1b[31m",
            "AdmissionDenied",
            "guard.example.com",
        ),
        (
            403,
            "roles.rbac.authorization.k8s.io \"x\" is forbidden: ValidatingAdmissionPolicy 'no-roles' with binding 'b' \
            denied request: no",
            "AdmissionDenied",
            "no-roles",
        ),
        (404, "namespaces \"shop\" not found", "NamespaceMissing", "kubectl create namespace shop"),
        (
            403,
            "serviceaccounts \"x\" is forbidden: unable to create new content in namespace shop because it is being \
            terminated",
            "NamespaceMissing",
            "terminated",
        ),
        (
            422,
            "Role.rbac.authorization.k8s.io \"x\" is invalid: rules[0].verbs: Required value",
            "ObjectInvalid",
            "rules[0]",
        ),
    ] {
        let refusal = Refusal::read(code, said, &account(Level::Namespace), false, Some(&ceilings()));
        let text = refusal.to_string();
        assert_eq!(refusal.layer.as_str(), reason, "{text}");
        assert!(text.contains(says) && !text.contains('\x1b'), "{text}");
    }
}
