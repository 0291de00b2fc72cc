//! Sessions in virtual time: days of them in seconds.

use std::time::Duration;

use active_monitor_core::view::{CheckStatus, ClusterStatus};
use jiff::SignedDuration;

use crate::clock::{self, virtual_time};
use agent::Agent;
use wire::Weather;
use world::World;

mod agent;
mod wire;
mod world;

const LEASE: Duration = Duration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The hub's: between two pings, and for the answer.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = LEASE;

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Waits for something that must come within this virtual time; how long it took.
async fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = tokio::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() <= limit, "no {what} within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

async fn connected(world: &World, agent: &Agent) {
    let is_green = || {
        world.status(&agent.cluster) == ClusterStatus::Connected
            && world.check_status(&agent.cluster) == Some(CheckStatus::Succeeded)
    };
    within(HEARTBEAT, "green check", is_green).await;
}

/// A seeded sequence.
struct Dice(u64);

impl Dice {
    fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        least + (self.0 >> 33) % (most - least + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_pauses_cuts_restarts_and_renewals_raises_only_what_is_true_and_loses_nothing() {
    let mut world = World::new().await;
    let [calm, halting, cut] = [world.agent("calm").await, world.agent("halting").await, world.agent("cut").await];
    let all = [&calm, &halting, &cut];
    for agent in all {
        connected(&world, agent).await;
    }
    let (mut dice, mut cuts, mut restarts) = (Dice(7), Vec::new(), 0);
    let end = clock::now() + SignedDuration::from_hours(24);
    while clock::now() < end {
        for _ in 0..dice.between(10, 60) {
            sleep(58).await;
            halting.weather.send_replace(Weather::Held);
            sleep(10).await;
            halting.weather.send_replace(Weather::Up);
            sleep(2).await;
            all.iter().for_each(|agent| agent.report());
        }
        cuts.push(clock::now());
        cut.weather.send_replace(Weather::Cut);
        sleep(dice.between(60, 2400)).await;
        assert_eq!(world.check_status("cut"), Some(CheckStatus::Stale));
        cut.weather.send_replace(Weather::Up);
        within(Duration::from_secs(40), "return", || world.status("cut") == ClusterStatus::Connected).await;
        if cuts.len() % 6 == 0 {
            sleep(60).await;
            world.stop().await;
            sleep(5).await;
            world.start().await;
            restarts += 1;
            sleep(10).await;
        }
    }
    sleep(60).await;
    assert!(cuts.len() > 12 && restarts >= 2, "{} cuts, {restarts} restarts", cuts.len());
    for agent in all {
        let known = agent.known.lock();
        assert_eq!((known.reports.len(), world.status(&agent.cluster)), (0, ClusterStatus::Connected));
        assert!(known.renewals >= 1 && known.identity.not_after > clock::now(), "{} renewals", known.renewals);
        assert!(known.farewells.iter().all(|(_, reason)| reason == "the hub is stopping"), "{:?}", known.farewells);
    }
    for agent in [&calm, &halting] {
        assert!(
            world.times(&agent.cluster, ClusterStatus::Unreachable).is_empty(),
            "a false alarm of {}",
            agent.cluster
        );
        assert_eq!(agent.known.lock().sessions, 1 + restarts, "a pause ends no session of {}", agent.cluster);
    }
    let alarms = world.times("cut", ClusterStatus::Unreachable);
    assert_eq!(alarms.len(), cuts.len());
    for (cut, alarm) in cuts.into_iter().zip(alarms) {
        let after = alarm.duration_since(cut).unsigned_abs();
        assert!((LEASE - HEARTBEAT..=LEASE + Duration::from_millis(2)).contains(&after), "{after:?}");
    }
    for agent in all {
        let reported = agent.known.lock().reported;
        assert_eq!(world.history(&agent.cluster).await, (reported, reported), "{}", agent.cluster);
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_silent_cluster_has_its_grace_and_not_a_second_more() {
    let mut world = World::new().await;
    let [lives, silent] = [world.agent("lives").await, world.agent("silent").await];
    connected(&world, &lives).await;
    connected(&world, &silent).await;
    world.stop().await;
    silent.weather.send_replace(Weather::Cut);
    sleep(3600).await;
    let started = clock::now();
    world.start().await;
    assert_eq!(world.status("silent"), ClusterStatus::Reconnecting);
    assert_eq!(world.check_status("lives"), Some(CheckStatus::Stale));
    connected(&world, &lives).await;
    sleep(60).await;
    let [alarm] = world.times("silent", ClusterStatus::Unreachable)[..] else { panic!("one alarm") };
    let after = alarm.duration_since(started).unsigned_abs();
    assert!((LEASE..=LEASE + Duration::from_millis(2)).contains(&after), "{after:?}");
    assert!(world.times("lives", ClusterStatus::Unreachable).is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_wire_is_silently_cut_is_let_go_when_it_owes_the_answer_to_a_ping() {
    let mut world = World::new().await;
    let agent = world.agent("a").await;
    connected(&world, &agent).await;
    sleep(3600).await;
    let connection = agent.known.lock().connection.take().unwrap();
    assert!(connection.is_open());
    agent.weather.send_replace(Weather::Cut);
    let after = within(Duration::from_secs(600), "end", || !connection.is_open()).await;
    assert!(after >= PONG && after <= PING + PONG + Duration::from_millis(100), "let go after {after:?}");
    assert_eq!(world.status("a"), ClusterStatus::Unreachable);
    assert!(world.times("a", ClusterStatus::Reconnecting).is_empty(), "the lease was over first");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_and_says_nothing_keeps_its_connection_and_nothing_green() {
    let mut world = World::new().await;
    let agent = world.agent("a").await;
    connected(&world, &agent).await;
    agent.known.lock().speaks = false;
    // One more word is on its way.
    let silent_for = within(LEASE + HEARTBEAT, "alarm", || world.status("a") == ClusterStatus::Unreachable).await;
    assert!(silent_for >= LEASE - HEARTBEAT, "{silent_for:?}");
    sleep(3600).await;
    assert_eq!(world.check_status("a"), Some(CheckStatus::Stale));
    assert!(agent.known.lock().connection.as_ref().is_some_and(wire::Open::is_open));
    agent.known.lock().speaks = true;
    agent.restart();
    connected(&world, &agent).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_comes_late_says_nothing_of_the_next_session() {
    let mut world = World::new().await;
    let agent = world.agent("a").await;
    connected(&world, &agent).await;
    for _ in 0..20 {
        sleep(61).await;
        let before = agent.known.lock().connection.take().unwrap();
        // The agent's node loses power; the next one dials at once.
        agent.weather.send_replace(Weather::Cut);
        tokio::time::sleep(Duration::from_millis(1)).await;
        agent.weather.send_replace(Weather::Up);
        agent.restart();
        connected(&world, &agent).await;
        within(PING + PONG + HEARTBEAT, "end of the old connection", || !before.is_open()).await;
        assert_eq!(world.status("a"), ClusterStatus::Connected);
    }
    sleep(60).await;
    for status in [ClusterStatus::Unreachable, ClusterStatus::Reconnecting] {
        assert!(world.times("a", status).is_empty(), "{status:?}");
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_certificate_unless_that_was_renewed() {
    let mut world = World::with_certificates(Duration::from_secs(3600)).await;
    let [renews, forgets] = [world.agent("renews").await, world.agent("forgets").await];
    forgets.known.lock().renews = false;
    connected(&world, &renews).await;
    connected(&world, &forgets).await;
    let ends = forgets.known.lock().identity.not_after;
    sleep(3600).await;
    forgets.weather.send_replace(Weather::Cut);
    sleep(2 * 3600).await;
    let (at, reason) = forgets.known.lock().farewells.first().cloned().unwrap();
    assert_eq!(reason, "the certificate has expired");
    let off = at.duration_since(ends).unsigned_abs();
    assert!(off < Duration::from_secs(2), "{off:?}");
    {
        let known = renews.known.lock();
        assert_eq!((known.sessions, known.farewells.len()), (1, 0), "{:?}", known.farewells);
        assert!(known.renewals >= 4, "{}", known.renewals);
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_raises_nothing_of_who_speaks_and_hides_nobody_who_is_silent() {
    for hours in [1, -1] {
        let mut world = World::new().await;
        let [lives, dies] = [world.agent("lives").await, world.agent("dies").await];
        let due = virtual_time::unset() + SignedDuration::from_mins(30);
        for agent in [&lives, &dies] {
            agent.known.lock().next_slot = due;
            agent.restart();
            sleep(2).await;
            connected(&world, agent).await;
        }
        dies.weather.send_replace(Weather::Cut);
        let cut = tokio::time::Instant::now();
        sleep(2).await;
        virtual_time::step(SignedDuration::from_hours(hours));
        within(LEASE, "alarm", || world.status("dies") == ClusterStatus::Unreachable).await;
        assert!(cut.elapsed() >= LEASE - HEARTBEAT, "{hours} h: an alarm after {:?}", cut.elapsed());
        sleep(120).await;
        assert_eq!(world.status("lives"), ClusterStatus::Connected, "{hours} h");
        assert_eq!(world.check_status("lives"), Some(CheckStatus::Succeeded), "{hours} h");
        assert!(world.times("lives", ClusterStatus::Unreachable).is_empty(), "{hours} h");
        // Who enrols under the clock as it is now is admitted.
        let late = world.agent("late").await;
        connected(&world, &late).await;
        world.stop().await;
    }
}
