//! What changes in the fleet, a line each.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::view::{CheckStatus, CheckView};
use jiff::Timestamp;

use super::say::say;
use crate::fleet::Hub;

const PAUSE: Duration = Duration::from_millis(500);

type Known = BTreeMap<String, Shown>;

/// What of a check is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    status: CheckStatus,
    message: String,
    /// Remedies that succeeded, and that failed.
    remedies: (u64, u64),
}

/// Prints what changes, until `is_well` fails.
///
/// # Errors
/// That of `is_well`.
pub async fn watch(hub: &Hub, is_well: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut known = Known::new();
    loop {
        is_well()?;
        // A hub that is too busy to answer has nothing new to say.
        if let Ok(checks) = hub.checks("").await {
            let seen = checks.iter().map(shown).collect();
            let now = Timestamp::now().strftime("%H:%M:%SZ").to_string();
            changes(&known, &seen).iter().for_each(|line| say(format!("{now}  {line}")));
            known = seen;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn shown(check: &CheckView) -> (String, Shown) {
    let remedies = check.state.remedy.as_ref().map_or((0, 0), |totals| (totals.succeeded, totals.failed));
    let shown = Shown { status: check.status, message: check.state.message.clone(), remedies };
    (format!("{}/{}/{}", check.cluster, check.state.namespace, check.state.name), shown)
}

fn changes(known: &Known, seen: &Known) -> Vec<String> {
    let mut lines = Vec::new();
    let width = known.keys().chain(seen.keys()).map(String::len).max().unwrap_or_default();
    for (name, check) in seen {
        let before = known.get(name);
        if before.is_none() && check.status == CheckStatus::Pending {
            // Its first result will be news.
            continue;
        }
        let status = before.map_or("new", |before| before.status.as_str());
        if status != check.status.as_str() {
            let message = if check.status.is_wrong() { check.message.as_str() } else { "" };
            let line = format!("{name:width$}  {status} -> {}  {message}", check.status.as_str());
            lines.push(line.trim_end().to_owned());
        }
        let (succeeded, failed) = before.map_or(check.remedies, |before| before.remedies);
        if check.remedies.0 > succeeded {
            lines.push(format!("{name:width$}  remedy succeeded"));
        }
        if check.remedies.1 > failed {
            lines.push(format!("{name:width$}  remedy failed"));
        }
    }
    let gone = known.iter().filter(|(name, _)| !seen.contains_key(*name));
    lines.extend(gone.map(|(name, before)| format!("{name:width$}  {} -> gone", before.status.as_str())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(status: CheckStatus, remedies: (u64, u64)) -> Known {
        let shown = Shown { status, message: "it broke".to_owned(), remedies };
        Known::from([("eu-1/health/remedy".to_owned(), shown)])
    }

    #[test]
    fn only_changes_are_shown() {
        let well = one(CheckStatus::Succeeded, (4, 0));
        let ill = one(CheckStatus::Failed, (4, 0));
        let cured = one(CheckStatus::Failed, (5, 0));
        assert_eq!(changes(&well, &well), Vec::<String>::new());
        assert_eq!(changes(&Known::new(), &well), ["eu-1/health/remedy  new -> Succeeded"]);
        assert_eq!(changes(&well, &ill), ["eu-1/health/remedy  Succeeded -> Failed  it broke"]);
        assert_eq!(changes(&ill, &cured), ["eu-1/health/remedy  remedy succeeded"]);
        assert_eq!(changes(&cured, &Known::new()), ["eu-1/health/remedy  Failed -> gone"]);
    }
}
