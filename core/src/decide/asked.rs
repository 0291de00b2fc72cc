//! The run out of schedule that somebody asks for: whether it is still to be made, and when the status may say that it was.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Observed, Step, floor, following, is_paused, ours};
use crate::check::Check;
use crate::healthcheck::whole_seconds;
use crate::run::{RunKey, RunKind, clean_message};
use crate::workflow::Seen;

/// Annotation of a HealthCheck that asks for one run out of schedule, each time that its value changes.
pub const RUN_NOW_ANNOTATION: &str = "activemonitor.keikoproj.io/run-now";
/// Bytes of that annotation's value that are told apart.
const MAX_BYTES: usize = 128;

/// The run out of schedule that a HealthCheck's annotations ask for.
pub fn run_now(annotations: &BTreeMap<String, String>) -> Option<String> {
    let token = annotations.get(RUN_NOW_ANNOTATION)?.trim();
    let cut = token.floor_char_boundary(MAX_BYTES);
    (!token.is_empty()).then(|| clean_message(&token[..cut]))
}

/// The run that is still to be made, which waits for the end of a pause. Its slot is this second, or the first that is
/// not used up, so that no other run has it.
pub(super) fn next(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let wanted = observed.run_now.as_deref().filter(|_| !is_paused(observed, RunKind::HealthCheck));
    let token = wanted.filter(|token| !is_obeyed(now, check, observed, token))?;
    let slot = floor(observed).map_or(Some(now), following).map(|free| whole_seconds(now).max(whole_seconds(free)))?;
    let key = RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot };
    Some(Step::RunNow { key, token: token.to_owned() })
}

/// The request that the status may say was obeyed. As long as its run has no end it may come to nothing, or be lost with
/// the journal of the one who made it, and then the request is obeyed anew.
pub(super) fn obeyed(now: Timestamp, check: &Check, observed: &Observed) -> Option<String> {
    let token = observed.run_now.as_ref().filter(|token| is_obeyed(now, check, observed, token))?;
    let is_under_way = observed.intents.iter().any(|open| open.run_now.as_ref() == Some(token))
        || made_for(now, check, observed, token).any(|seen| has_no_end(observed, seen));
    (!is_under_way).then(|| token.clone())
}

/// Whether this request was obeyed: by the journal, by the status, or by a workflow that another agent left behind. A
/// workflow of a slot that is used up may have come late, after its run had been given up: where the status can tell and
/// does not, it does not count.
fn is_obeyed(now: Timestamp, check: &Check, observed: &Observed, token: &str) -> bool {
    let known = [observed.ran_now.as_deref(), observed.status.last_run_now.as_deref()];
    let is_recorded = |seen: &Seen| observed.settled.iter().any(|run| run.key == seen.key);
    let counts = |seen: &Seen| !observed.has_conditions || has_no_end(observed, seen) || is_recorded(seen);
    known.contains(&Some(token)) || made_for(now, check, observed, token).any(counts)
}

/// Whether the slot of this workflow's run is not used up yet.
fn has_no_end(observed: &Observed, seen: &Seen) -> bool {
    floor(observed).is_none_or(|floor| seen.key.slot > floor)
}

/// The workflows of this request.
fn made_for<'a>(
    now: Timestamp,
    check: &'a Check,
    observed: &'a Observed,
    token: &'a str,
) -> impl Iterator<Item = &'a Seen> {
    ours(now, check, observed).filter(move |seen| seen.run_now.as_deref() == Some(token))
}
