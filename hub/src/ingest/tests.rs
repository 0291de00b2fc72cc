//! Sessions in virtual time: days of them in seconds.

use std::time::Duration;

use active_monitor_core::session::frame::AgentFrame;
use active_monitor_core::session::pace::{BURST, RATE, SESSION_COST};
use active_monitor_core::view::{CheckStatus, ClusterStatus};
use active_monitor_proto::EnrolRequest;
use jiff::SignedDuration;
use tonic::Code;

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
/// How long an agent may read nothing, may leave the queue full, and may keep a connection whose session is over.
const UNREAD: Duration = Duration::from_secs(30);
const FULL: Duration = Duration::from_secs(5);
const CLOSING: Duration = Duration::from_secs(5);
/// The longest that a first frame waits to be read.
const DOOR_WAIT: Duration = Duration::from_secs(5);
/// How long a connection of who enrols may last.
const ENROLMENT_AGE: Duration = Duration::from_secs(60);

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

/// For ten seconds each report of an agent is acked as soon as it speaks.
async fn reports_at_once(agent: &Agent) {
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        agent.report();
        within(HEARTBEAT + Duration::from_millis(100), "ack", || agent.known.lock().reports.is_empty()).await;
        sleep(1).await;
    }
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
async fn sessions_missing_reports_lag_and_expiry_are_in_the_figures() {
    let mut world = World::new().await;
    let agent = world.agent("c1").await;
    connected(&world, &agent).await;
    let acked = async || within(2 * HEARTBEAT, "ack", || agent.known.lock().reports.is_empty()).await;
    agent.report();
    acked().await;
    // Three are lost, and the agent begins anew.
    agent.known.lock().reported += 3;
    agent.restart();
    agent.report();
    acked().await;
    let text = world.figures();
    let value = |series: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok());
        found.unwrap_or_else(|| panic!("no {series} in {text}"))
    };
    assert_eq!(value("activemonitor_cluster_sessions_total{cluster=\"c1\"}"), 2.0);
    assert_eq!(value("activemonitor_cluster_missing_reports_total{cluster=\"c1\"}"), 3.0);
    assert_eq!(value("activemonitor_hub_report_lag_seconds_count"), 2.0);
    let expires = agent.known.lock().identity.not_after.as_second() as f64;
    assert_eq!(value("activemonitor_cluster_certificate_expiry_timestamp_seconds{cluster=\"c1\"}"), expires);
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
async fn a_certificate_is_renewed_a_hundred_times_under_load_in_one_session() {
    const LIFE: u64 = 300;
    let mut world = World::with_certificates(Duration::from_secs(LIFE)).await;
    let agent = world.agent("a").await;
    connected(&world, &agent).await;
    let first = agent.known.lock().identity.clone();
    // Renewed at two thirds, seen with the next sign of life.
    for _ in 0..102 * (LIFE * 2 / 3 + HEARTBEAT.as_secs()) {
        agent.report();
        sleep(1).await;
    }
    sleep(2 * HEARTBEAT.as_secs()).await;
    let (renewals, reported) = {
        let known = agent.known.lock();
        assert_eq!((known.sessions, known.farewells.len(), known.reports.len()), (1, 0, 0), "{:?}", known.farewells);
        assert_ne!(known.identity.key_hash, first.key_hash);
        (known.renewals, known.reported)
    };
    assert!(renewals >= 100, "{renewals}");
    assert_eq!(world.history("a").await, (reported, reported));
    assert!(world.times("a", ClusterStatus::Reconnecting).is_empty());
    assert!(world.times("a", ClusterStatus::Unreachable).is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn dialling_again_with_a_first_frame_that_cannot_be_read_is_paced_and_costs_no_other_cluster() {
    const DIALS: u64 = 300;
    let mut world = World::new().await;
    let [bad, other] = [world.agent("bad").await, world.agent("other").await];
    connected(&world, &bad).await;
    bad.stop();
    sleep(60).await;
    let mut hello = bad.hello();
    hello.cluster = "c".repeat(5000);
    let unreadable = AgentFrame::Hello(hello);
    let dials = async {
        let began = tokio::time::Instant::now();
        for _ in 0..DIALS {
            let refused = bad.begin_with(unreadable.clone().into()).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
        }
        began.elapsed()
    };
    let (took, ()) = tokio::join!(dials, reports_at_once(&other));
    let least = Duration::from_millis((DIALS * SESSION_COST - BURST) * 1000 / RATE);
    assert!(took >= least && took <= least + Duration::from_secs(1), "{took:?} instead of {least:?}");
    // Whoever has it right again is let in, although the bucket is empty.
    bad.restart();
    within(DOOR_WAIT + HEARTBEAT, "session", || world.check_status("bad") == Some(CheckStatus::Succeeded)).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_read_at_the_rate_and_what_another_cluster_reports_is_recorded_at_once() {
    const FLOOD: u64 = 30_000;
    let mut world = World::new().await;
    let [floods, other] = [world.agent("floods").await, world.agent("other").await];
    connected(&world, &floods).await;
    connected(&world, &other).await;
    floods.stop();
    sleep(60).await;
    let (took, ()) = tokio::join!(floods.flood(FLOOD), reports_at_once(&other));
    // The session and its snapshot come first.
    let least = Duration::from_millis((FLOOD + SESSION_COST + 1 - BURST) * 1000 / RATE);
    let took = took.unwrap();
    assert!(
        took >= least - Duration::from_millis(100) && took <= least + Duration::from_secs(1),
        "{took:?}, {least:?}"
    );
    assert_eq!(world.history("floods").await, (FLOOD, FLOOD));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_reads_nothing_loses_its_session_and_its_connection_and_no_other_notices() {
    let mut world = World::new().await;
    let [deaf, other] = [world.agent("deaf").await, world.agent("other").await];
    connected(&world, &deaf).await;
    connected(&world, &other).await;
    deaf.stop();
    sleep(60).await;
    for (reports, limit) in [(false, UNREAD), (true, FULL + Duration::from_secs(7))] {
        let began = tokio::time::Instant::now();
        // An error means that the connection has ended.
        let let_go = async {
            let ended = tokio::time::timeout(Duration::from_secs(600), deaf.reads_nothing(reports)).await;
            assert!(ended.is_ok_and(|ended| ended.is_err()), "a peer that reads nothing is kept");
            began.elapsed()
        };
        let (after, ()) = tokio::join!(let_go, reports_at_once(&other));
        assert!(
            after >= FULL && after <= limit + CLOSING + Duration::from_secs(1),
            "{reports}: let go after {after:?}"
        );
        assert!(!deaf.known.lock().connection.as_ref().is_some_and(wire::Open::is_open));
    }
    // What it reported is recorded, whether it has read the ack or not, and counts once when it comes again.
    deaf.restart();
    within(HEARTBEAT * 2, "last ack", || deaf.known.lock().reports.is_empty()).await;
    let reported = deaf.known.lock().reported;
    assert_eq!(world.history("deaf").await, (reported, reported));
    assert_eq!(world.status("other"), ClusterStatus::Connected);
    assert_eq!(other.known.lock().sessions, 1);
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

/// Nobody has to be known to open one.
#[tokio::test(start_paused = true)]
async fn a_connection_for_enrolments_ends_after_a_minute_although_its_caller_is_alive() {
    let mut world = World::new().await;
    let agent = world.agent("east").await;
    let (mut client, open) = world.enrolment(&agent).await;
    let began = tokio::time::Instant::now();
    let request = EnrolRequest {
        token: "x".into(),
        cluster: "east".into(),
        cluster_uid: "uid-east".into(),
        csr: agent::signing_request(),
    };
    // It answers pings and asks again and again.
    while began.elapsed() < ENROLMENT_AGE - Duration::from_secs(1) {
        assert!(open.is_open(), "after {:?}", began.elapsed());
        let refused = client.enrol(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        sleep(2).await;
    }
    within(Duration::from_secs(2), "end of the connection", || !open.is_open()).await;
    world.stop().await;
}
