//! Bad input: refused when it is applied, or said in one clear place; nothing else is affected.

use std::time::Duration;

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, fleet, skip, wait};

use super::{PATIENCE, check, waiting_check};

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
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    let bad = |name, text, says, refused| Bad { name, text, says, refused };
    vec![
        bad("bad-yaml", source("bad-yaml", "a: ["), "source.inline", false),
        bad("bad-empty", source("bad-empty", "#"), "source.inline: document must be", false),
        bad("bad-list", source("bad-list", "- a"), "source.inline: document must be", false),
        bad("bad-docs", source("bad-docs", "a: 1\n---\nb: 2"), "source.inline", false),
        bad("bad-bomb", source("bad-bomb", &bomb), "source.inline", false),
        bad("bad-size", source("bad-size", &"#".repeat(1_200_000)), "inline", true),
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
        bad(
            "bad-ns",
            plain("bad-ns").replace("      namespace: health", "      namespace: a/b"),
            "resource.namespace",
            false,
        ),
        bad(
            "bad-prefix",
            plain("bad-prefix").replace("  workflow:\n", "  workflow:\n    generateName: UPPER_case\n"),
            "spec.workflow.generateName",
            false,
        ),
        bad(
            "bad-account",
            plain("bad-account").replace("serviceAccount: probe", "serviceAccount: 'x y'"),
            "serviceAccount",
            false,
        ),
    ]
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
    for (cluster, crd) in testbed.clusters.iter().zip([Crd::Ours, Crd::Upstream]) {
        Agent::install(cluster, crd).await.expect("install");
        let agent = Agent::start(cluster, "alone", None).await.expect("agent");
        cluster.apply_yaml(&waiting_check("good", "repeatAfterSec: 5")).await.expect("good check");
        for bad in bad_input() {
            apply_bad(cluster, crd, &bad).await;
        }
        for bad in bad_input() {
            says_what_is_wrong(cluster, crd, &bad).await;
        }
        let runs = success_count(cluster).await;
        wait::until("further runs of the good check", PATIENCE, || async {
            Ok((success_count(cluster).await >= runs + 2).then_some(()))
        })
        .await
        .expect("the good check goes on");
        assert!(agent.process.pid().is_some(), "the agent lives");
    }
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
    let get = ["get", "healthcheck", bad.name, "-n", "health", "--ignore-not-found", "-o", "json"];
    let what = format!("verdict on {}", bad.name);
    let found = wait::until(&what, PATIENCE, || async {
        let text = cluster.kubectl(&get).await?;
        if text.is_empty() {
            return Ok(Some(None));
        }
        let check: serde_json::Value = serde_json::from_str(&text)?;
        let judged = check["status"]["status"] == "Invalid";
        Ok(judged.then_some(Some(check["status"].clone())))
    });
    let Some(status) = found.await.expect("verdict") else {
        assert!(bad.refused, "{} is gone", bad.name);
        return;
    };
    let message = status["errorMessage"].as_str().unwrap_or_default();
    assert!(message.contains(bad.says), "{}: {message}", bad.name);
    if crd == Crd::Ours {
        let ready = &status["conditions"][0];
        assert_eq!(
            (&ready["type"], &ready["status"], &ready["reason"]),
            (&"Ready".into(), &"False".into(), &"Invalid".into())
        );
    }
    let field = format!("involvedObject.name={},reason=Invalid", bad.name);
    let events = ["get", "events", "-n", "health", "--field-selector", &field, "-o", "name"];
    wait::until(&format!("event of {}", bad.name), Duration::from_secs(15), || async {
        Ok((!cluster.kubectl(&events).await?.is_empty()).then_some(()))
    })
    .await
    .expect("event");
}

async fn success_count(cluster: &Cluster) -> u64 {
    let get = ["get", "healthcheck", "good", "-n", "health", "-o", "jsonpath={.status.successCount}"];
    cluster.kubectl(&get).await.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
