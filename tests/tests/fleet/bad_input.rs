//! Bad input: refused when it is applied, or said in one clear place; nothing else is affected.

use std::time::Duration;

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, fleet, skip, wait};
use futures::future::join_all;
use serde_json::Value;

use super::{PATIENCE, check, created_workflows, waiting_check};

struct Bad {
    name: &'static str,
    /// The HealthCheck.
    text: String,
    /// What the answer must contain: the field and what is wrong.
    says: &'static str,
    /// Whether our CRD refuses it.
    refused: bool,
}

fn bad_input() -> Vec<Bad> {
    let every = "repeatAfterSec: 5";
    let good = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "1s"}"#];
    let plain = |name: &str| check(name, every, &good);
    let source = |name: &str, text: &str| {
        let inline = serde_json::to_string(text).expect("text");
        let (head, _) =
            plain(name).split_once("        inline:").map(|(h, t)| (h.to_owned(), t.to_owned())).expect("source");
        format!("{head}        inline: {inline}\n")
    };
    let with_source = |name: &str, source: &str| {
        let (head, _) =
            plain(name).split_once("      source:").map(|(h, t)| (h.to_owned(), t.to_owned())).expect("source");
        format!("{head}      source: {source}\n")
    };
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    let rules = vec!["{apiGroups: [''], resources: [pods], verbs: [get]}"; 10_000];
    let host = "            volumes: [{name: root, hostPath: {path: /}}]\n            templates:";
    let patch = "            podSpecPatch: 'hostPID: true'\n            templates:";
    let instance =
        "          metadata: {labels: {workflows.argoproj.io/controller-instanceid: other}}\n          spec:\n";
    let bad = |name, text, says, refused| Bad { name, text, says, refused };
    vec![
        bad("bad-nothing", source("bad-nothing", ""), "is empty: one of inline, url, file is needed", true),
        bad("bad-yaml", source("bad-yaml", "a: ["), "source.inline", false),
        bad("bad-scalar", source("bad-scalar", "just text"), "source.inline: document must be", false),
        bad("bad-empty", source("bad-empty", "#"), "source.inline: document must be", false),
        bad("bad-list", source("bad-list", "- a"), "source.inline: document must be", false),
        bad("bad-docs", source("bad-docs", "a: 1\n---\nb: 2"), "source.inline", false),
        bad("bad-bomb", source("bad-bomb", &bomb), "source.inline", false),
        bad("bad-size", source("bad-size", &"#".repeat(1_200_000)), "inline", true),
        bad(
            "bad-rules",
            plain("bad-rules")
                .replace("  workflow:\n", &format!("  workflow:\n    rbacRules: [{}]\n", rules.join(","))),
            "spec.workflow.rbacRules: 10000 rules are above 100",
            false,
        ),
        bad(
            "bad-period",
            plain("bad-period").replace(every, "repeatAfterSec: 2147483648"),
            "31622400 (366 days)",
            true,
        ),
        bad("bad-host", plain("bad-host").replace("            templates:", host), "volumes[0].hostPath", false),
        bad("bad-patch", plain("bad-patch").replace("            templates:", patch), "spec.podSpecPatch", false),
        bad(
            "bad-instance",
            plain("bad-instance").replace("          spec:\n", instance),
            "metadata.labels[workflows.argoproj.io/controller-instanceid]",
            false,
        ),
        bad("bad-level", plain("bad-level").replace(every, "repeatAfterSec: 5\n  level: galaxy"), "level", true),
        bad(
            "bad-limit",
            plain("bad-limit").replace(every, "repeatAfterSec: 5\n  remedyRunsLimit: -1"),
            "emedyRunsLimit",
            true,
        ),
        bad(
            "bad-cron",
            check("bad-cron", "schedule: {cron: '61 * * * *'}", &good),
            "spec.schedule.cron: minute: 61",
            false,
        ),
        bad("bad-never", check("bad-never", "schedule: {cron: '0 0 31 2 *'}", &good), "no time that ever comes", false),
        bad(
            "bad-zone",
            check("bad-zone", "schedule: {cron: 'CRON_TZ=Mars/X * * * * *'}", &good),
            "spec.schedule.cron",
            false,
        ),
        bad("bad-words", check("bad-words", "schedule: {cron: '* * * *'}", &good), "spec.schedule.cron", true),
        bad("bad-source", with_source("bad-source", "{}"), "one of inline, url, file is needed", true),
        bad("bad-http", with_source("bad-http", "{url: {path: 'http://x/y'}}"), "must start with https://", true),
        bad("bad-file", with_source("bad-file", "{file: {path: a/../b}}"), "must be relative", true),
        bad(
            "bad-ns",
            plain("bad-ns").replace("      namespace: health", "      namespace: a/b"),
            "resource.namespace",
            true,
        ),
        bad(
            "bad-prefix",
            plain("bad-prefix").replace("  workflow:\n", "  workflow:\n    generateName: UPPER_case\n"),
            "spec.workflow.generateName",
            true,
        ),
        bad(
            "bad-account",
            plain("bad-account").replace("serviceAccount: probe", "serviceAccount: 'x y'"),
            "serviceAccount",
            true,
        ),
    ]
}

/// Values of the fields that active-monitor does not have, and the field that the refusal of our CRD names.
const BAD_OPTIONS: [(&str, &str); 8] = [
    ("jitterSec: 61", "spec.jitterSec"),
    ("jitterSec: -1", "spec.jitterSec"),
    ("initialDelaySec: -1", "spec.initialDelaySec"),
    ("startingDeadlineSeconds: 0", "spec.startingDeadlineSeconds"),
    ("failureThreshold: 0", "spec.failureThreshold"),
    ("failureThreshold: 101", "spec.failureThreshold"),
    ("successThreshold: 0", "spec.successThreshold"),
    ("suspend: 1", "spec.suspend"),
];

/// What looks bad, and the agent takes: values that do not count, and the odder ways to say a thing.
fn odd_input() -> String {
    let good = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "1s"}"#];
    let timings = [
        "schedule: {cron: ' @hourly '}",
        "schedule: {cron: '@every 1h30m'}",
        "schedule: {cron: 'CRON_TZ=Europe/Berlin @every 5m'}",
        "schedule: {cron: \"TZ=Asia/Tokyo  5\\t4 */2 JAN-MAR ?\"}",
        "schedule: {cron: \"0\\u00a00 1,,2 * *-5\"}",
        "schedule: {cron: ''}",
        "schedule: {cron: nonsense}\n  repeatAfterSec: 60",
        "schedule: {}\n  repeatAfterSec: 0\n  remedyworkflow: {generateName: A_B, workflowtimeout: -1}",
        "repeatAfterSec: -1\n  level: null\n  remedyRunsLimit: null\n  schedule: null\n  remedyworkflow: null",
        "repeatAfterSec: 60\n  jitterSec: 60\n  backoffFactor: nan\n  remedyResetInterval: 0",
    ];
    let timed = timings.iter().enumerate().map(|(i, timing)| check(&format!("odd-{i}"), timing, &good));
    let plain = |name: &str| check(name, "repeatAfterSec: 60", &good);
    let changed = [
        plain("odd-prefix").replace("  workflow:\n", "  workflow:\n    generateName: 'a.b-'\n    workflowtimeout: 0\n"),
        plain("odd-empty").replace("  workflow:\n", "  workflow:\n    generateName: ''\n"),
        plain("odd-url")
            .replace("        inline:", "        url: {path: 'http://x'}\n        file: {path: /x}\n        inline:"),
        plain("odd-account").replace("serviceAccount: probe", "serviceAccount: a.b-c.9"),
    ];
    timed.chain(changed).collect::<Vec<_>>().join("---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_one_clear_error_and_touches_nothing_else() {
    let name = "bad_input_gets_one_clear_error_and_touches_nothing_else";
    let clusters = if fleet::upstream().is_some() { 2 } else { 1 };
    if clusters == 1 {
        skip::report(name, "../shared/upstream is not there: only with our CRD");
    }
    let Some(testbed) = Testbed::start_or_skip(name, Options { clusters, node: false }).await.expect("testbed") else {
        return;
    };
    let worlds = testbed.clusters.iter().zip([Crd::Ours, Crd::Upstream]);
    join_all(worlds.map(|(cluster, crd)| judged(cluster, crd))).await;
}

async fn judged(cluster: &Cluster, crd: Crd) {
    Agent::install(cluster, crd).await.expect("install");
    let agent = Agent::start(cluster, "alone", None).await.expect("agent");
    cluster.apply_yaml(&waiting_check("good", "repeatAfterSec: 5")).await.expect("good check");
    for bad in bad_input() {
        apply_bad(cluster, crd, &bad).await;
    }
    if crd == Crd::Ours {
        let create = ["create", "--dry-run=server", "-f", "-"];
        let odd = cluster.kubectl_as(&cluster.kubeconfig, &create, &odd_input()).await;
        odd.expect("what the agent runs is let in");
        for (option, field) in BAD_OPTIONS {
            let bad = waiting_check("bad-option", &format!("repeatAfterSec: 60\n  {option}"));
            let refused = cluster.kubectl_as(&cluster.kubeconfig, &create, &bad).await.expect_err(option);
            assert!(format!("{refused:#}").contains(field), "{option}: {refused:#}");
        }
    }
    for bad in bad_input() {
        says_what_is_wrong(cluster, crd, &bad).await;
    }
    let (runs, told) = (success_count(cluster).await, verdicts(cluster));
    if crd == Crd::Upstream {
        super::options::their_crd_drops_fields_and_the_agent_says_so(cluster, &agent).await;
    }
    wait::until("further runs of the good check", PATIENCE, || async {
        Ok((success_count(cluster).await >= runs + 2).then_some(()))
    })
    .await
    .expect("the good check goes on");
    assert_eq!(verdicts(cluster), told, "what is bad is looked at again when somebody edits it");
    let made = created_workflows(cluster);
    assert!(!made.iter().any(|made| made.workflow.starts_with("health/bad-")), "{made:?}");
    assert!(agent.process.pid().is_some(), "the agent lives");
}

/// The agent's writes on bad checks so far.
fn verdicts(cluster: &Cluster) -> usize {
    let events = cluster.audit().expect("audit log").into_iter();
    let agents = events.filter(|event| event.user.username.ends_with(":active-monitor-agent"));
    agents.filter(|event| event.object_ref.as_ref().is_some_and(|object| object.name.starts_with("bad-"))).count()
}

async fn apply_bad(cluster: &Cluster, crd: Crd, bad: &Bad) {
    let answer = cluster.apply_yaml(&bad.text).await;
    match (answer, crd == Crd::Ours && bad.refused) {
        (Ok(()), false) => {}
        (Err(error), true) => assert!(format!("{error:#}").contains(bad.says), "{}: {error:#}", bad.name),
        // etcd and the API server have limits of their own.
        (Err(error), false) if bad.name == "bad-size" => println!("{}: {error:.200}", bad.name),
        (answer, _) => panic!("{}: {answer:?}", bad.name),
    }
}

async fn says_what_is_wrong(cluster: &Cluster, crd: Crd, bad: &Bad) {
    let (what, is_absent) =
        (format!("verdict on {}", bad.name), bad.refused && crd == Crd::Ours || bad.name == "bad-size");
    let found = wait::until(&what, PATIENCE, || async {
        match cluster.health_check("health", bad.name).await {
            Ok(mut check) => Ok((check["status"]["status"] == "Invalid").then(|| Some(check["status"].take()))),
            Err(_) if is_absent => Ok(Some(None)),
            Err(error) => Err(error),
        }
    });
    let Some(status) = found.await.expect("verdict") else { return };
    let message = status["errorMessage"].as_str().unwrap_or_default();
    assert!(message.contains(bad.says), "{}: {message}", bad.name);
    if crd == Crd::Ours {
        let ready = &status["conditions"][0];
        assert_eq!(
            (&ready["type"], &ready["status"], &ready["reason"]),
            (&"Ready".into(), &"False".into(), &"Invalid".into())
        );
    }
    wait::until(&format!("event of {}", bad.name), Duration::from_secs(15), || async {
        let events = cluster.get("/apis/events.k8s.io/v1/namespaces/health/events").await?;
        let of_bad = |event: &Value| event["regarding"]["name"] == bad.name && event["reason"] == "Invalid";
        Ok(events["items"].as_array().into_iter().flatten().any(of_bad).then_some(()))
    })
    .await
    .expect("event");
}

async fn success_count(cluster: &Cluster) -> u64 {
    let good = cluster.health_check("health", "good").await;
    good.ok().and_then(|good| good["status"]["successCount"].as_u64()).unwrap_or(0)
}
