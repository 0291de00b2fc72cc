//! One request in ten fails, in every way that there is: all runs are done and counted once, and the API server has hardly
//! more to do than without that.

use active_monitor_tests::api_proxy::Fault;
use active_monitor_tests::wait;

use super::faults::World;
use super::{PATIENCE, created_workflows, waiting_check};

/// In each of the two parts, which runs each once.
const CHECKS: usize = 150;
const SEED: u64 = 37;
/// The promise: so many percent of the requests that the same takes without a fault.
const LOAD: u64 = 120;

/// What the same work has cost.
#[derive(Debug)]
struct Requests {
    /// That came from the agent, those among them that met a fault.
    all: u64,
    /// That came to the API server.
    passed_on: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_in_ten_fails_and_each_run_is_counted_once_for_a_fifth_more_load_at_most() {
    let name = "one_request_in_ten_fails_and_each_run_is_counted_once_for_a_fifth_more_load_at_most";
    let Some(world) = World::start_by(name, &[]).await else { return };
    // The account of all of them is made for the first one.
    first_runs(&world, "warm-up", 1).await;
    let without = first_runs(&world, "plain", CHECKS).await;
    world.proxy.set(Fault::OneInTen(SEED));
    let with = first_runs(&world, "faulty", CHECKS).await;
    println!("{CHECKS} runs cost {without:?}; where one request in ten fails {with:?}");
    assert!(with.all * 100 <= without.all * LOAD, "{with:?} after {without:?}");
    assert!(with.passed_on * 100 <= without.passed_on * LOAD, "{with:?} after {without:?}");
    let failed = with.all - with.passed_on;
    assert!(failed * 100 >= with.all * 5, "{with:?}: the faults that are not passed on are nine in a hundred");

    world.proxy.set(Fault::None);
    let mut made: Vec<String> = created_workflows(world.cluster()).into_iter().map(|made| made.workflow).collect();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 1 + 2 * CHECKS, "each ran once");
}

/// Makes checks and waits until each has run, and is counted as one success; gives what that took.
async fn first_runs(world: &World, name: &str, checks: usize) -> Requests {
    let before = requests(world);
    let texts = (0..checks).map(|i| waiting_check(&format!("{name}-{i}"), "repeatAfterSec: 3600"));
    world.cluster().apply_yaml(&texts.collect::<Vec<_>>().join("---\n")).await.expect("checks");
    wait::until(&format!("each of {name} counted"), PATIENCE * 2, || async {
        let (counted, at) = (counted_once(world, name).await?, requests(world).all);
        anyhow::ensure!(counted == checks, "{counted} of {checks}");
        // What is told beside that, events, is under way.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        Ok((requests(world).all == at).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));
    let after = requests(world);
    Requests { all: after.all - before.all, passed_on: after.passed_on - before.passed_on }
}

fn requests(world: &World) -> Requests {
    Requests { all: world.proxy.requests(), passed_on: world.proxy.passed_on() }
}

/// How many of these checks have one success and nothing else.
async fn counted_once(world: &World, name: &str) -> anyhow::Result<usize> {
    let list = world.cluster().get("/apis/activemonitor.keikoproj.io/v1alpha1/namespaces/health/healthchecks").await?;
    let of_part = list["items"].as_array().into_iter().flatten();
    let of_part = of_part.filter(|check| check["metadata"]["name"].as_str().is_some_and(|of| of.starts_with(name)));
    let counts = of_part.map(|check| ["successCount", "failedCount"].map(|count| check["status"][count].as_u64()));
    let counts: Vec<_> = counts.map(|[good, bad]| (good.unwrap_or(0), bad.unwrap_or(0))).collect();
    anyhow::ensure!(counts.iter().all(|(good, bad)| *good <= 1 && *bad == 0), "{counts:?}");
    Ok(counts.iter().filter(|(good, _)| *good == 1).count())
}
