use proptest::prelude::*;

use super::*;
use crate::care::Care;
use crate::state::Totals;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn state(phase: Phase, succeeded: u64, failed: u64) -> CheckState {
    CheckState {
        uid: "uid".into(),
        namespace: "health".into(),
        name: "dns".into(),
        description: String::new(),
        phase,
        message: String::new(),
        schedule: String::new(),
        running: None,
        next_slot: None,
        timeout_seconds: 60,
        check: Totals { succeeded, failed, ..Totals::default() },
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        refused_samples: 0,
        definition: None,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
    }
}

fn status(phase: Phase) -> CheckStatus {
    match phase {
        Phase::Pending => CheckStatus::Pending,
        Phase::Succeeded => CheckStatus::Succeeded,
        Phase::Failed => CheckStatus::Failed,
        Phase::Stopped => CheckStatus::Stopped,
        Phase::Invalid => CheckStatus::Invalid,
    }
}

/// Shows states of a check one after the other, a second apart.
struct Check(CheckView);

impl Check {
    fn new(phase: Phase) -> Check {
        let state = state(phase, 0, 0);
        let health = Health::next(at(0), None, status(phase), &state);
        Check(CheckView {
            cluster: "east".into(),
            status: status(phase),
            overdue_seconds: 0,
            health,
            care: Care::default(),
            state,
        })
    }

    fn show(&mut self, second: i64, phase: Phase, succeeded: u64, failed: u64) -> &Health {
        let state = state(phase, succeeded, failed);
        let health = Health::next(at(second), Some(&self.0), status(phase), &state);
        self.0 = CheckView { status: status(phase), health, state, ..self.0.clone() };
        &self.0.health
    }

    /// One result after the other, without thresholds.
    fn results(&mut self, results: &str) -> &Health {
        for letter in results.chars() {
            let Totals { succeeded, failed, .. } = self.0.state.check;
            if letter == 'S' {
                self.show(1, Phase::Succeeded, succeeded + 1, failed);
            } else {
                self.show(1, Phase::Failed, succeeded, failed + 1);
            }
        }
        &self.0.health
    }
}

#[test]
fn a_result_against_the_status_is_soft_until_there_are_enough() {
    let mut check = Check::new(Phase::Pending);
    assert!(!check.show(1, Phase::Succeeded, 1, 0).soft);
    // failureThreshold: 3
    for failed in 1..=2 {
        let health = check.show(10, Phase::Succeeded, 1, failed);
        assert!(health.soft && health.since == Some(at(1)));
        assert_eq!(health.recent.row(), u32::try_from(failed).unwrap());
    }
    let health = check.show(20, Phase::Failed, 1, 3);
    assert!(!health.soft);
    assert_eq!((health.since, health.recent.to_string().as_str()), (Some(at(20)), "SFFF"));
    // successThreshold: 2
    assert!(check.show(30, Phase::Failed, 2, 3).soft);
    assert!(!check.show(40, Phase::Succeeded, 3, 3).soft);
    assert!(!check.show(50, Phase::Stopped, 3, 3).soft);
}

#[test]
fn the_first_results_of_a_check_with_thresholds_are_soft() {
    let mut check = Check::new(Phase::Pending);
    assert!(!check.0.health.soft);
    assert!(check.show(1, Phase::Pending, 0, 1).soft);
    assert!(!check.show(2, Phase::Failed, 0, 2).soft);
}

/// The sums of Icinga's weights, by hand: the newest change counts 1.18, the one before it 1.16, the oldest 0.80.
#[test]
fn changes_weigh_as_in_icingas_formula() {
    for (results, percent) in [
        ("", 0.0),
        ("SSSSSSSSSSSSSSSSSSSSS", 0.0),
        ("SF", 5.9),
        ("SFS", 11.7),
        ("SFSSSSSSSSSSSSSSSSSSS", 8.1),
        ("SFFFFFFFFFFFFFFFFFFFF", 4.0),
        ("SFSFSFSFSFSFSFSFSFSFS", 99.0),
    ] {
        let health = Check::new(Phase::Pending).results(results).clone();
        assert!((health.change_percent - percent).abs() < 1e-9, "{results}: {}", health.change_percent);
    }
}

#[test]
fn flapping_begins_above_30_and_ends_at_25_percent() {
    let mut check = Check::new(Phase::Pending);
    // 1.18 + 1.16 + 1.14 + 1.12 + 1.10 = 5.7 of 20: 28.5 %.
    assert!(!check.results("SFSFSF").flapping);
    // One more: 1.18 + ... + 1.08 = 6.78 of 20: 33.9 %.
    assert!(check.results("S").flapping);
    let mut lowest = 100.0_f64;
    while check.results("S").flapping {
        lowest = lowest.min(check.0.health.change_percent);
    }
    // 25.5 %: what was too little to begin with is enough to go on with.
    assert!((lowest - 25.5).abs() < 1e-9, "{lowest}");
    assert!(check.0.health.change_percent <= FLAPPING_DOWN_TO);
}

#[test]
fn what_was_not_seen_is_no_flapping() {
    let mut check = Check::new(Phase::Pending);
    check.results("S");
    let health = check.show(5, Phase::Failed, 40, 30);
    assert!(!health.flapping);
    assert_eq!(health.recent.to_string(), "F".repeat(21));
    // Counters that went back are those of another life of the agent.
    assert_eq!(check.show(6, Phase::Failed, 2, 1).recent.to_string(), "F".repeat(21));
}

#[test]
fn a_status_keeps_its_age_while_results_come() {
    let mut check = Check::new(Phase::Pending);
    check.show(10, Phase::Failed, 0, 1);
    assert_eq!(check.show(20, Phase::Failed, 0, 2).since, Some(at(10)));
    assert_eq!(check.show(30, Phase::Succeeded, 1, 2).since, Some(at(30)));
}

#[test]
fn memory_survives_as_json_and_an_old_row_has_none() {
    let health = Check::new(Phase::Pending).results("SFSFSFS").clone();
    let saved: Health = serde_json::from_str(&serde_json::to_string(&health).unwrap()).unwrap();
    assert_eq!(saved, health);
    let shown = Health { since: Some(at(99)), ..Health::default() };
    let restored = saved.remembered(&shown);
    assert!(restored.flapping && restored.since == Some(at(99)) && restored.recent.to_string() == "SFSFSFS");
    assert_eq!(serde_json::from_str::<Health>("{}").unwrap(), Health::default());
    assert!(serde_json::from_str::<Health>(r#"{"recent":"SX"}"#).is_err());
}

proptest! {
    #[test]
    fn percent_is_bounded_and_the_text_round_trips(results in "[SF]{0,60}") {
        let health = Check::new(Phase::Pending).results(&results).clone();
        prop_assert!((0.0..=99.0).contains(&health.change_percent));
        let kept: String = results.chars().skip(results.len().saturating_sub(21)).collect();
        prop_assert_eq!(health.recent.to_string(), kept.clone());
        prop_assert_eq!(Recent::try_from(kept).unwrap(), health.recent);
    }
}
