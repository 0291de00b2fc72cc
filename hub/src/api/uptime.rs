//! How much of a time checks were up: one by one, and rolled up.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use active_monitor_core::fleet::FleetView;
use active_monitor_core::uptime::{Objective, Uptime};
use active_monitor_core::view::{Problem, UptimePage, UptimeView};
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Limit, Query, Selector};
use super::problem::ApiError;
use crate::auth::Viewer;
use crate::store::CheckKey;
use crate::store::rollups::CheckFilter;
use crate::uptime::{self, Made};

/// Of which checks, over which time, and by what it is summed up.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UptimeFilter {
    /// Name of the cluster.
    cluster: Option<String>,
    /// Namespace of the check.
    namespace: Option<String>,
    /// Name of the check.
    name: Option<String>,
    /// Only of clusters with these labels, as kubectl writes them: `env=prod,region in (eu,us)`.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
    /// The time until now, in hours or days: `1h` to `90d`.
    #[serde(default)]
    #[param(value_type = String, required = false, default = "24h", pattern = "^[0-9]+[hd]$")]
    window: Window,
    /// `check`, `cluster`, `fleet`, or `label.KEY` for a label of the clusters.
    #[serde(default)]
    #[param(value_type = String, required = false, default = "check")]
    by: By,
    /// A service level objective, in percent: how much of the time may be down, and how much of that is left.
    #[serde(default)]
    #[param(value_type = Option<String>, pattern = r"^[0-9]{1,2}(\.[0-9]+)?$")]
    objective: Option<Wanted>,
    /// Items in the answer.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: Limit,
}

/// A time until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Window(SignedDuration);

impl Default for Window {
    fn default() -> Self {
        Window(SignedDuration::from_hours(24))
    }
}

impl TryFrom<String> for Window {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let hours = |digits: &str, each: i64| i64::from(digits.parse::<u32>().ok()?).checked_mul(each);
        let hours = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(digits), _) => hours(digits, 1),
            (_, Some(digits)) => hours(digits, 24),
            (None, None) => None,
        };
        match hours {
            Some(hours) if (1..=90 * 24).contains(&hours) => Ok(Window(SignedDuration::from_hours(hours))),
            _ => Err("must be a number of hours or days from 1h to 90d"),
        }
    }
}

/// An objective, as it is written in a query.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Wanted(Objective);

impl TryFrom<String> for Wanted {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse().map(Wanted)
    }
}

/// What it is summed up by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum By {
    #[default]
    Check,
    Cluster,
    Fleet,
    Label(String),
}

impl TryFrom<String> for By {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match (text.as_str(), text.strip_prefix("label.")) {
            ("check", _) => Ok(By::Check),
            ("cluster", _) => Ok(By::Cluster),
            ("fleet", _) => Ok(By::Fleet),
            (_, Some(key)) if !key.is_empty() => Ok(By::Label(key.to_owned())),
            _ => Err("must be check, cluster, fleet or label.KEY"),
        }
    }
}

/// Uptime over 1 hour to 90 days, the lowest first. Also a run that did not happen counts against it; time of which
/// nothing is known is shown apart. More than two days begin at a midnight (UTC); sums of clusters may be 30 s old.
#[utoipa::path(
    get, path = "/api/v1/uptime", operation_id = "uptime", tag = "uptime", params(UptimeFilter),
    responses(
        (status = 200, body = UptimePage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn uptime(
    _: Viewer,
    State(api): State<Api>,
    Query(filter): Query<UptimeFilter>,
) -> Result<axum::Json<UptimePage>, ApiError> {
    let UptimeFilter { cluster, namespace, name, selector, window: Window(window), by, objective, limit } = filter;
    let objective = objective.map(|Wanted(objective)| objective);
    let (now, store) = (Timestamp::now(), api.app.store.as_ref());
    let view = api.app.fleet.view();
    let mut sums = Sums { view: &view, selector, by, objective, groups: BTreeMap::new() };
    if sums.by != By::Check && namespace.is_none() && name.is_none() {
        let Made { from, to, clusters } = api.uptime.clusters(store, cluster, window, now).await?;
        for (cluster, (checks, time)) in clusters.iter() {
            sums.add(cluster.clone(), None, *checks, time);
        }
        return Ok(axum::Json(sums.page(from, to, limit.0 as usize)));
    }
    let (filter, from) = (CheckFilter { cluster, namespace, name }, uptime::begins(now, window));
    let checks = uptime::checks(store, &filter, &uptime::lives(store, now).await?, from, now).await?;
    for (CheckKey { cluster, namespace, name }, time) in checks {
        sums.add(cluster, Some((namespace, name)), 1, &time);
    }
    Ok(axum::Json(sums.page(from, now, limit.0 as usize)))
}

/// Sums up what the store shows, by groups.
struct Sums<'a> {
    view: &'a FleetView,
    selector: Option<Selector>,
    by: By,
    objective: Option<Objective>,
    groups: BTreeMap<Group, (u64, Uptime)>,
}

/// What a sum is of: cluster, namespace and name, label.
type Group = (Option<String>, Option<(String, String)>, Option<String>);

impl Sums<'_> {
    /// Adds the time of a check, or of so many checks of a cluster.
    fn add(&mut self, cluster: String, check: Option<(String, String)>, checks: u64, time: &Uptime) {
        let labels = self.view.clusters.get(&cluster).map(|entry| &entry.view.labels);
        let nothing = BTreeMap::new();
        if self.selector.as_ref().is_some_and(|selector| !selector.picks(labels.unwrap_or(&nothing))) {
            return;
        }
        if *time == Uptime::default() {
            // It was gone before.
            return;
        }
        let group = match &self.by {
            By::Check => (Some(cluster), check, None),
            By::Cluster => (Some(cluster), None, None),
            By::Fleet => (None, None, None),
            By::Label(label) => {
                (None, None, Some(labels.and_then(|labels| labels.get(label)).cloned().unwrap_or_default()))
            }
        };
        let (count, sum) = self.groups.entry(group).or_default();
        *count += checks;
        sum.add(time);
    }

    fn page(self, from: Timestamp, to: Timestamp, limit: usize) -> UptimePage {
        let Sums { objective, groups, .. } = self;
        let items = groups.into_iter().map(|((cluster, check, label), (checks, time))| {
            let (namespace, name) = check.unzip();
            let budget = objective.and_then(|objective| objective.budget(&time));
            UptimeView { cluster, namespace, name, label, checks, ratio: time.ratio(), budget, time }
        });
        let mut items: Vec<UptimeView> = items.collect();
        items.sort_by(|a, b| match (a.ratio, b.ratio) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        let total = items.len() as u64;
        items.truncate(limit);
        UptimePage { from, to, items, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_from_an_hour_to_ninety_days() {
        let seconds = |text: &str| Window::try_from(text.to_owned()).map(|Window(window)| window.as_secs());
        assert_eq!((seconds("1h"), seconds("90d"), seconds("36h")), (Ok(3600), Ok(7_776_000), Ok(129_600)));
        for bad in ["", "h", "0h", "91d", "2161h", "1m", "1.5h", "-1h", "99999999999999999999d", "1h30m", "d1"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_are_named() {
        let by = |text: &str| By::try_from(text.to_owned());
        assert_eq!(by("check"), Ok(By::Check));
        assert_eq!(by("label.region"), Ok(By::Label("region".to_owned())));
        assert!(by("label.").is_err() && by("region").is_err() && by("").is_err());
    }
}
