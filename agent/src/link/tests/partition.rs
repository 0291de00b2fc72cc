//! The link cut for an hour, and on and off for days, in virtual time.

use tokio::time::Instant;

use super::*;

mod world;

use world::{CERTIFICATE_AGE, CERTIFICATE_REST, Far, Heard, MAX_UNACKED, Near, TAKES};

/// The agent's keepalive, and its timeout.
const SILENCE_SEEN: Duration = Duration::from_secs(31);
/// How long a hub may take nothing, or leave Hello without an answer.
const UNREAD: Duration = Duration::from_secs(30);
const NO_WELCOME: Duration = Duration::from_secs(10);
/// What may be sent ahead of what a hub has read, where that is little: bytes.
const SMALL_WINDOW: u32 = 16 << 10;
/// The longest pause between dials, and what a dial may take.
const BACK_AFTER_HEALING: Duration = Duration::from_secs(36);

#[tokio::test(start_paused = true)]
async fn after_an_hour_without_the_hub_live_state_goes_first_and_the_backlog_follows_in_order() {
    let far = Far::new();
    let mut near = Near::start(&far).await;
    near.states.upsert(check("a", "before"));
    near.until_connected(true).await;
    near.runs(10).await;
    near.until_recorded().await;

    far.up.send_replace(false);
    let seen = near.until_connected(false).await;
    assert!(seen <= SILENCE_SEEN, "silence was seen after {seen:?}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3600) {
        near.runs(100).await;
        near.states.upsert(check("a", "meanwhile"));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let backlog = near.journal.backlog();
    assert!(backlog >= 6000, "{backlog}");
    let heard_before = far.heard.lock().len();

    far.up.send_replace(true);
    let back = near.until_connected(true).await;
    assert!(back <= BACK_AFTER_HEALING, "back after {back:?}");
    // In the middle of the replay something happens.
    while far.last_reported() < backlog / 2 {
        tokio::time::sleep(TAKES).await;
    }
    let asked_at = far.heard.lock().len();
    near.states.upsert(check("a", "now"));
    near.until_recorded().await;

    let heard = far.heard.lock().clone();
    let first = Heard::Snapshot(vec!["meanwhile".into()]);
    assert_eq!(heard[heard_before], first, "how it is comes before how it was");
    let arrived = heard.iter().position(|heard| *heard == Heard::Check("now".into())).unwrap();
    assert!(arrived - asked_at <= 4, "behind {} frames of the backlog", arrived - asked_at);
    let seqs: Vec<u64> = heard
        .iter()
        .flat_map(|heard| if let Heard::Reports(seqs) = heard { seqs.clone() } else { Vec::new() })
        .collect();
    assert!(seqs.is_sorted(), "in order");
    assert!(far.recorded.lock().values().all(|times| *times == 1), "nothing of it twice");
    let frames = heard[heard_before..].iter().filter(|heard| matches!(heard, Heard::Reports(_))).count() as u64;
    assert!(frames >= backlog / u64::from(MAX_UNACKED), "paced by what the hub allows: {frames} frames");
}

#[tokio::test(start_paused = true)]
async fn three_days_on_a_link_that_comes_and_goes_lose_nothing_and_the_last_word_is_the_hubs() {
    let far = Far::new();
    let mut near = Near::start(&far).await;
    let began = Instant::now();
    // A seeded sequence: up and down for some ten minutes each, or for hours.
    let mut state: u64 = 7;
    let mut tens_of_minutes = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (state >> 33) % most
    };
    let mut cuts = 0;
    while began.elapsed() < Duration::from_secs(3 * 24 * 3600) {
        for (up, most) in [(true, 4), (false, 24)] {
            far.up.send_replace(up);
            for ten in 0..tens_of_minutes(most) {
                near.runs(20).await;
                near.states.upsert(check("a", &format!("{cuts}/{ten}")));
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
        }
        cuts += 1;
    }
    near.states.upsert(check("a", "at last"));
    far.up.send_replace(true);
    near.until_recorded().await;
    near.until_connected(true).await;
    assert!(cuts > 10, "{cuts}");
    assert_eq!((near.journal.dropped(), far.recorded.lock().len()), (0, usize::try_from(near.runs).unwrap()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let heard = far.heard.lock().clone();
    let said = heard.into_iter().rev().find_map(|heard| match heard {
        Heard::Snapshot(messages) => Some(messages),
        Heard::Check(message) => Some(vec![message]),
        Heard::Reports(_) => None,
    });
    assert_eq!(said, Some(vec!["at last".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_acks_nothing_gets_no_more_reports_than_it_allows_and_hears_what_happens_all_the_same() {
    let far = Far::new();
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    *far.acks.lock() = false;
    near.runs(1000).await;
    for minute in 0..60 {
        let said = format!("minute {minute}");
        near.states.upsert(check("a", &said));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(far.last_reported(), u64::from(MAX_UNACKED), "{said}");
        let heard = far.heard.lock().clone();
        let is_it = |heard: &Heard| match heard {
            Heard::Check(message) => *message == said,
            Heard::Snapshot(messages) => messages.contains(&said),
            Heard::Reports(_) => false,
        };
        assert!(heard.iter().any(is_it), "{said}");
    }
    assert_eq!(near.journal.backlog(), 1000);
    *far.acks.lock() = true;
    near.until_recorded().await;
    assert_eq!((near.journal.backlog(), far.last_reported()), (0, 1000));
    assert!(far.recorded.lock().values().all(|times| *times == 1), "in one session nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_a_hundred_times_under_load_and_never_in_a_storm() {
    let far = Far::new();
    let mut near = Near::start_with(&far, &far.hub).await;
    near.until_connected(true).await;
    let began = Instant::now();
    let mut done = 0;
    while done < 100 {
        near.runs(5).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        done = far.hub.state.lock().renewals;
        let most = began.elapsed().as_secs() + 2;
        assert!(u64::from(done) <= most, "{done} renewals after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(600), "{done} renewals");
    }
    near.until_recorded().await;
    assert!(*near.connected.borrow());
    assert_eq!(far.heard.lock().iter().filter(|heard| matches!(heard, Heard::Snapshot(_))).count(), 1, "one session");
    assert!(far.recorded.lock().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn between_two_renewals_is_a_thirtieth_of_the_certificates_life_whether_they_go_well_or_not() {
    const MINUTE: Duration = Duration::from_secs(60);
    // As it comes it is past two thirds of its hour: it is due at once, always.
    let far = Far::with(None, Hub::with_certificates(41 * MINUTE, 19 * MINUTE));
    let mut near = Near::start_with(&far, &far.hub).await;
    near.until_connected(true).await;
    for fails in [false, true, false] {
        *far.renewals_fail.lock() = fails;
        let before = far.hub.state.lock().renewals;
        tokio::time::sleep(60 * MINUTE).await;
        let tries = far.hub.state.lock().renewals - before;
        assert!((29..=31).contains(&tries), "{tries} in an hour, fails: {fails}");
    }
    assert!(*near.connected.borrow());
    assert_eq!(far.connections.lock().len(), 1, "one session all the while");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_reads_nothing_is_left_its_connection_is_closed_and_nothing_is_lost() {
    let far = Far::with(Some(SMALL_WINDOW), Hub::with_certificates(CERTIFICATE_AGE, CERTIFICATE_REST));
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    near.runs(10).await;
    near.until_recorded().await;
    let open = || far.connections.lock().iter().filter(|over| !over.is_cancelled()).count();
    assert_eq!(open(), 1);

    // It answers pings all the while.
    far.reads.send_replace(false);
    let began = Instant::now();
    near.runs(500).await;
    let mut said = 0;
    while *near.connected.borrow() {
        let waited = began.elapsed();
        assert!(waited <= UNREAD + Duration::from_secs(30), "a hub that reads nothing is kept for {waited:?}");
        said += 1;
        near.states.upsert(check("a", &format!("{said} {}", "x".repeat(1000))));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() >= UNREAD, "left after {:?}", began.elapsed());
    let first = far.connections.lock()[0].clone();
    let closed = tokio::time::timeout(Duration::from_secs(5), first.cancelled()).await;
    closed.expect("the connection of the session that is over is closed");
    // Each next one ends by its Hello, and none is left behind.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let dialled = far.connections.lock().len();
    assert!(open() <= 1 && dialled >= 600 / (BACK_AFTER_HEALING + NO_WELCOME).as_secs() as usize, "{dialled}");

    far.reads.send_replace(true);
    near.until_recorded().await;
    near.until_connected(true).await;
    assert_eq!(far.recorded.lock().len(), usize::try_from(near.runs).unwrap());
    assert_eq!((near.journal.backlog(), near.journal.dropped()), (0, 0));
}

/// A frame of failed runs takes longer than a hub may leave a frame unread: it is taken bit by bit.
#[tokio::test(start_paused = true)]
async fn a_link_of_64_kbit_s_carries_the_logs_of_failed_runs_in_one_session() {
    let far = Far::slow(8_000);
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    near.fail(600).await;
    let began = Instant::now();
    near.until_recorded().await;
    assert!(began.elapsed() >= 2 * UNREAD, "{:?} is no load", began.elapsed());
    assert!(*near.connected.borrow());
    assert_eq!(far.connections.lock().len(), 1, "one session all the while");
    assert_eq!((near.journal.backlog(), near.journal.dropped()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_only_a_newer_hub_knows_is_passed_over_or_refused_and_the_session_goes_on() {
    let far = Far::new();
    let command = |id: &str, order| {
        let command = v1::Command { id: id.into(), namespace: String::new(), name: String::new(), order };
        v1::HubFrame { frame: Some(v1::hub_frame::Frame::Command(command)) }
    };
    let resume = v1::command::Order::Resume(v1::Resume { subject: 99 });
    far.says.lock().extend([v1::HubFrame { frame: None }, command("1", None), command("2", Some(resume))]);
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    near.runs(5).await;
    near.until_recorded().await;
    let answers = far.answers.lock().clone();
    assert_eq!(answers.iter().map(|answer| answer.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    for answer in answers {
        let refusal = answer.verdict.unwrap_err();
        assert_eq!(refusal.layer, Layer::Agent);
        assert!(refusal.reason.ends_with("does not know this command: upgrade the agent"), "{}", refusal.reason);
    }
    assert_eq!(far.heard.lock().iter().filter(|heard| matches!(heard, Heard::Snapshot(_))).count(), 1, "one session");
}
