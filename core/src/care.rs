//! What people say of checks so that nobody is called in vain: maintenance windows, and acknowledgements of what is wrong.
//!
//! Neither changes a status: a check that fails in its window has failed. They say that somebody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::definition::select;
use crate::names;
use crate::schedule::Schedule;

/// The longest window.
pub const MAX_WINDOW: Duration = Duration::from_secs(31 * 24 * 3600);
/// The longest comment.
pub const MAX_COMMENT_BYTES: usize = 1024;
/// The most windows of a fleet.
pub const MAX_WINDOWS: usize = 1000;

/// A maintenance window as people write it: once, with `from` and `to`, or again and again, with `cron` and
/// `durationSeconds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowSpec {
    /// Unique; a DNS label of at most 63 characters.
    pub name: String,
    /// Labels of the clusters, as kubectl writes them: `env=prod,region in (eu,us)`; all clusters where it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Only this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Only checks in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only checks of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// When it begins, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub from: Option<Timestamp>,
    /// When it ends, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub to: Option<Timestamp>,
    /// When it begins, again and again: five cron fields, or `@daily` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of `cron`, by its IANA name; UTC without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How long it lasts each time, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A maintenance window that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// As it was written.
    pub spec: WindowSpec,
    clusters: LabelSelector,
    when: When,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    Once { from: Timestamp, to: Timestamp },
    Again { begins: Schedule, lasts: SignedDuration },
}

impl Window {
    /// Reads what was written.
    ///
    /// # Errors
    /// Which field is wrong, and what is allowed.
    pub fn parse(spec: WindowSpec) -> Result<Window, String> {
        names::dns_label(&spec.name).map_err(|rule| format!("name {rule}"))?;
        let clusters = select::parse(&spec.selector).map_err(|why| format!("selector: {why}"))?;
        if spec.comment.len() > MAX_COMMENT_BYTES {
            return Err(format!("comment must have at most {MAX_COMMENT_BYTES} bytes"));
        }
        let when = when(&spec)?;
        Ok(Window { spec, clusters, when })
    }

    /// When the part of it that `now` lies in ends; absent where it lies in none.
    pub fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Once { from, to } => (*from <= now && now < *to).then_some(*to),
            When::Again { begins, lasts } => {
                let begun = begins.latest_at(now, now.saturating_sub(*lasts).ok()?, Timestamp::UNIX_EPOCH)?;
                begun.checked_add(*lasts).ok()
            }
        }
    }

    /// When it begins or ends next; absent where it never does again.
    pub fn changes(&self, now: Timestamp) -> Option<Timestamp> {
        match (&self.when, self.ends(now)) {
            (_, Some(end)) => Some(end),
            (When::Once { from, .. }, None) => (*from > now).then_some(*from),
            (When::Again { begins, .. }, None) => begins.next_after(now, Timestamp::UNIX_EPOCH),
        }
    }

    /// Whether it is about this check.
    pub fn picks(&self, labels: &BTreeMap<String, String>, cluster: &str, namespace: &str, check: &str) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.spec.cluster, cluster)
            && is(&self.spec.namespace, namespace)
            && is(&self.spec.check, check)
            && select::matches(&self.clusters, labels)
    }
}

fn when(spec: &WindowSpec) -> Result<When, String> {
    let longest = format!("at most {} days", MAX_WINDOW.as_secs() / 86_400);
    match (spec.from, spec.to, &spec.cron, spec.duration_seconds) {
        (Some(from), Some(to), None, None) if spec.time_zone.is_none() => {
            let lasts = Duration::try_from(to.duration_since(from)).unwrap_or_default();
            if lasts.is_zero() || lasts > MAX_WINDOW {
                return Err(format!("to must be after from, by {longest}"));
            }
            Ok(When::Once { from, to })
        }
        (None, None, Some(cron), Some(seconds)) => {
            if !(1..=MAX_WINDOW.as_secs()).contains(&seconds) {
                return Err(format!("durationSeconds must be from 1 to {}", MAX_WINDOW.as_secs()));
            }
            let zoned = match &spec.time_zone {
                Some(_) if cron.starts_with("CRON_TZ=") || cron.starts_with("TZ=") => {
                    return Err("timeZone and a zone in cron: give one of them".to_owned());
                }
                Some(zone) => format!("CRON_TZ={zone} {cron}"),
                None => cron.clone(),
            };
            let begins = Schedule::parse_cron(&zoned).map_err(|why| format!("cron: {why}"))?;
            if begins.period().is_some() {
                return Err("cron must be calendar times, not an interval".to_owned());
            }
            Ok(When::Again { begins, lasts: SignedDuration::from_secs(seconds.cast_signed()) })
        }
        _ => Err("give from and to, or cron and durationSeconds (and timeZone)".to_owned()),
    }
}

/// Somebody knows that a check is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// Name of the API token.
    pub by: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// When, by the hub's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// When it ends, if the check has not succeeded before.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// What is said of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Care {
    /// Name of the maintenance window that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// Ends with the next success of the check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
    /// The check that it depends on and that explains its failure, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained_by: Option<String>,
    /// Why what it says of its dependencies is not heeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependency_problem: Option<String>,
}

impl Care {
    /// Nothing is said.
    pub fn is_none(&self) -> bool {
        *self == Care::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn spec() -> WindowSpec {
        WindowSpec { name: "patch-day".into(), ..WindowSpec::default() }
    }

    fn once(from: &str, to: &str) -> WindowSpec {
        WindowSpec { from: Some(time(from)), to: Some(time(to)), ..spec() }
    }

    fn again(cron: &str, zone: Option<&str>, seconds: u64) -> WindowSpec {
        let (cron, time_zone) = (Some(cron.to_owned()), zone.map(str::to_owned));
        WindowSpec { cron, time_zone, duration_seconds: Some(seconds), ..spec() }
    }

    #[test]
    fn once_it_begins_and_ends_to_the_second() {
        let window = Window::parse(once("2026-03-01T10:00:00Z", "2026-03-01T12:00:00Z")).unwrap();
        for (now, ends, changes) in [
            ("2026-03-01T09:59:59Z", None, Some("2026-03-01T10:00:00Z")),
            ("2026-03-01T10:00:00Z", Some("2026-03-01T12:00:00Z"), Some("2026-03-01T12:00:00Z")),
            ("2026-03-01T11:59:59Z", Some("2026-03-01T12:00:00Z"), Some("2026-03-01T12:00:00Z")),
            ("2026-03-01T12:00:00Z", None, None),
        ] {
            assert_eq!(
                (window.ends(time(now)), window.changes(time(now))),
                (ends.map(time), changes.map(time)),
                "{now}"
            );
        }
    }

    #[test]
    fn again_and_again_in_its_own_time_zone() {
        // Sundays at two in Berlin, for two hours; in summer that is midnight UTC.
        let window = Window::parse(again("0 2 * * SUN", Some("Europe/Berlin"), 7200)).unwrap();
        for (now, ends) in [
            ("2026-03-01T00:59:59Z", None),
            ("2026-03-01T01:00:00Z", Some("2026-03-01T03:00:00Z")),
            ("2026-03-01T02:59:59Z", Some("2026-03-01T03:00:00Z")),
            ("2026-03-01T03:00:00Z", None),
            ("2026-07-05T00:00:00Z", Some("2026-07-05T02:00:00Z")),
            ("2026-07-06T00:30:00Z", None),
        ] {
            assert_eq!(window.ends(time(now)), ends.map(time), "{now}");
        }
        assert_eq!(window.changes(time("2026-03-02T00:00:00Z")), Some(time("2026-03-08T01:00:00Z")));
        // One that begins again before it has ended goes on.
        let long = Window::parse(again("0 * * * *", None, 5400)).unwrap();
        assert_eq!(long.ends(time("2026-03-01T10:15:00Z")), Some(time("2026-03-01T11:30:00Z")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        let sunday = || again("0 2 * * SUN", None, 3600);
        for (spec, why) in [
            (spec(), "give from and to, or cron and durationSeconds"),
            (WindowSpec { name: "Upper".into(), ..sunday() }, "name must be 1 to 63"),
            (WindowSpec { selector: "a b".into(), ..sunday() }, "selector: the key"),
            (WindowSpec { comment: "x".repeat(2000), ..sunday() }, "comment must have at most"),
            (WindowSpec { from: Some(time("2026-03-01T10:00:00Z")), ..sunday() }, "give from and to"),
            (once("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"), "to must be after from"),
            (once("2026-03-01T10:00:00Z", "2026-03-01T09:00:00Z"), "to must be after from"),
            (once("2026-03-01T10:00:00Z", "2026-05-01T09:00:00Z"), "to must be after from, by at most 31 days"),
            (again("0 2 * *", None, 60), "cron: "),
            (again("0 2 * * *", Some("Mars/Base"), 60), "cron: "),
            (again("CRON_TZ=UTC 0 2 * * *", Some("UTC"), 60), "timeZone and a zone in cron"),
            (again("@every 1h", None, 60), "cron must be calendar times"),
            (again("0 2 * * *", None, 0), "durationSeconds must be from 1"),
        ] {
            let said = Window::parse(spec.clone()).unwrap_err();
            assert!(said.contains(why), "{spec:?}: {said}");
        }
    }

    #[test]
    fn it_is_about_what_it_names() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let window = |selector: &str, cluster: Option<&str>, check: Option<&str>| {
            let (cluster, check) = (cluster.map(str::to_owned), check.map(str::to_owned));
            let spec = WindowSpec { selector: selector.into(), cluster, check, ..again("@daily", None, 60) };
            Window::parse(spec).unwrap().picks(&labels, "east", "health", "dns")
        };
        assert!(window("", None, None) && window("env=prod", Some("east"), Some("dns")));
        assert!(!window("env=dev", None, None) && !window("", Some("west"), None) && !window("", None, Some("web")));
    }
}
