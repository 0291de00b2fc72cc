//! What changed in the fleet, newest first: what people did, which versions agents have, and what became of the checks.
//!
//! It comes from several places that each keep their own order. [`merge`] makes one timeline of them, and a [`Position`] in
//! it says to each place where to go on.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::CheckStatus;

/// What a change is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// A definition was written or deleted.
    Definition,
    /// A cluster was added, enrolled or removed, or its labels changed.
    Cluster,
    /// A command was given, or a cluster answered it.
    Command,
    /// A maintenance window was written or deleted.
    Window,
    /// A failure was acknowledged, or that was taken back.
    Acknowledgement,
    /// The hub's CA changed.
    Authority,
    /// A cluster's agent or Kubernetes has another version.
    Version,
    /// What is shown of a check changed.
    Status,
}

impl ChangeKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [ChangeKind; 8] = [
        ChangeKind::Definition,
        ChangeKind::Cluster,
        ChangeKind::Command,
        ChangeKind::Window,
        ChangeKind::Acknowledgement,
        ChangeKind::Authority,
        ChangeKind::Version,
        ChangeKind::Status,
    ];

    /// How the actions of the audit log begin that are of this kind; none where they are kept elsewhere.
    pub fn action_prefix(self) -> Option<&'static str> {
        match self {
            ChangeKind::Definition => Some("definition."),
            ChangeKind::Cluster => Some("cluster."),
            ChangeKind::Command => Some("command."),
            ChangeKind::Window => Some("window."),
            ChangeKind::Acknowledgement => Some("check."),
            ChangeKind::Authority => Some("ca."),
            ChangeKind::Version | ChangeKind::Status => None,
        }
    }

    /// Where changes of this kind are kept.
    pub fn source(self) -> ChangeSource {
        match self {
            ChangeKind::Status => ChangeSource::Statuses,
            ChangeKind::Version => ChangeSource::Versions,
            ChangeKind::Definition
            | ChangeKind::Cluster
            | ChangeKind::Command
            | ChangeKind::Window
            | ChangeKind::Acknowledgement
            | ChangeKind::Authority => ChangeSource::Audit,
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// When, by the hub's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What it is of.
    pub kind: ChangeKind,
    /// What was done, as in the audit log: `definition.put`, `command.pause.result`, ...; absent where nobody did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Who did it: the name of an API token, or a part of the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Name of the cluster; absent where it is not of one cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Namespace of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the check, definition or window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In words: the command and its result, the versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The status from then on; absent where the check is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<CheckStatus>,
    /// The status before; absent where there was no such check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<CheckStatus>,
    /// It is in a maintenance window from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
}

impl ChangeView {
    /// A change of which no more is known than when it was and of what.
    pub fn new(at: Timestamp, kind: ChangeKind) -> ChangeView {
        ChangeView {
            at,
            kind,
            action: None,
            who: None,
            cluster: None,
            namespace: None,
            name: None,
            message: String::new(),
            status: None,
            was: None,
            maintenance: false,
        }
    }

    /// A line of the audit log as viewers may see it; none for what is of no concern to them, such as API tokens. An action
    /// that is not known here is not shown.
    pub fn of_audit(at: Timestamp, who: &str, action: &str, object: &str) -> Option<ChangeView> {
        let is_of = |kind: &ChangeKind| kind.action_prefix().is_some_and(|prefix| action.starts_with(prefix));
        let kind = ChangeKind::ALL.into_iter().find(is_of)?;
        let mut change = ChangeView::new(at, kind);
        (change.action, change.who) = (Some(action.to_owned()), Some(who.to_owned()));
        match kind {
            ChangeKind::Definition | ChangeKind::Window => change.name = Some(object.to_owned()),
            ChangeKind::Cluster => {
                let (cluster, message) = object.split_once(": ").unwrap_or((object, ""));
                (change.cluster, change.message) = (Some(cluster.to_owned()), message.to_owned());
            }
            ChangeKind::Command if action.ends_with(".result") => {
                let (cluster, result) = object.split_once(": ")?;
                (change.cluster, change.message) = (Some(cluster.to_owned()), result.to_owned());
            }
            ChangeKind::Acknowledgement => {
                let mut names = object.splitn(3, '/').map(str::to_owned);
                (change.cluster, change.namespace, change.name) = (names.next(), names.next(), names.next());
            }
            ChangeKind::Command | ChangeKind::Authority | ChangeKind::Version | ChangeKind::Status => {
                change.message = object.to_owned();
            }
        }
        Some(change)
    }

    /// Whether it is of this cluster, or of the whole fleet.
    pub fn concerns(&self, cluster: &str) -> bool {
        self.cluster.as_deref().is_none_or(|own| own == cluster)
    }
}

/// A part of what changed, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangePage {
    /// The changes. There can be fewer than asked for although there are more: `next` says so.
    pub items: Vec<ChangeView>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where changes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeSource {
    /// The audit log.
    Audit,
    /// The versions of the agents.
    Versions,
    /// The statuses of the checks.
    Statuses,
}

impl ChangeSource {
    /// Every place.
    pub const ALL: [ChangeSource; 3] = [ChangeSource::Audit, ChangeSource::Versions, ChangeSource::Statuses];

    fn letter(self) -> char {
        match self {
            ChangeSource::Audit => 'a',
            ChangeSource::Versions => 'v',
            ChangeSource::Statuses => 's',
        }
    }
}

/// A place in the timeline. Ordered as the timeline is, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Microseconds since 1970.
    pub at: i64,
    /// Where the change is kept.
    pub source: ChangeSource,
    /// Its number there; numbers begin with 1.
    pub id: i64,
}

impl Position {
    /// What `source` has before this position: everything whose (microseconds, number) is smaller than this.
    pub fn bound(self, source: ChangeSource) -> (i64, i64) {
        let id = match source.cmp(&self.source) {
            std::cmp::Ordering::Less => i64::MAX,
            std::cmp::Ordering::Equal => self.id,
            std::cmp::Ordering::Greater => 0,
        };
        (self.at, id)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.at, self.source.letter(), self.id)
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let source = ChangeSource::ALL.into_iter().find(|source| text.contains(source.letter()))?;
            let (at, id) = text.split_once(source.letter())?;
            Some(Position { at: at.parse().ok()?, source, id: id.parse().ok()? })
        };
        parse().ok_or("must be the `next` of another page")
    }
}

/// A change at its place; none where there is nothing to show of it.
pub type Placed = (Position, Option<ChangeView>);

/// One timeline of what each place has, newest first: the `limit` newest of all, and where the next page begins. Each place
/// must have given its newest `limit`, or all that it has.
pub fn merge(sources: Vec<Vec<Placed>>, limit: usize) -> (Vec<ChangeView>, Option<Position>) {
    let has_more = sources.iter().any(|changes| changes.len() >= limit);
    let mut all: Vec<Placed> = sources.into_iter().flatten().collect();
    all.sort_by(|(a, _), (b, _)| b.cmp(a));
    let has_more = has_more || all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| has_more).map(|(position, _)| *position);
    (all.into_iter().filter_map(|(_, change)| change).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn position(second: i64, source: ChangeSource, id: i64) -> Position {
        Position { at: at(second).as_microsecond(), source, id }
    }

    /// What a store does with a query.
    fn page(all: &[Vec<Placed>], before: Option<Position>, limit: usize) -> (Vec<ChangeView>, Option<Position>) {
        let part = |changes: &Vec<Placed>| {
            let is_before = |(own, _): &&Placed| before.is_none_or(|p| (own.at, own.id) < p.bound(own.source));
            let mut part: Vec<Placed> = changes.iter().filter(is_before).cloned().collect();
            part.sort_by(|(a, _), (b, _)| b.cmp(a));
            part.truncate(limit);
            part
        };
        merge(all.iter().map(part).collect(), limit)
    }

    #[test]
    fn pages_of_any_size_show_each_change_once_and_in_order() {
        let mut sources: Vec<Vec<Placed>> = Vec::new();
        for (source, kind) in [
            (ChangeSource::Audit, ChangeKind::Window),
            (ChangeSource::Versions, ChangeKind::Version),
            (ChangeSource::Statuses, ChangeKind::Status),
        ] {
            // Many at the same time, and some of which nothing is shown.
            let placed = (1..=10).map(|id| {
                let change = ChangeView { message: format!("{source:?} {id}"), ..ChangeView::new(at(id / 4), kind) };
                (position(id / 4, source, id), (id != 3).then_some(change))
            });
            sources.push(placed.collect());
        }
        let (whole, next) = page(&sources, None, 100);
        assert_eq!((whole.len(), next), (27, None));
        assert!(whole.is_sorted_by(|a, b| a.at >= b.at));
        for limit in 1..=31 {
            let (mut shown, mut before) = (Vec::new(), None);
            loop {
                let (items, next) = page(&sources, before, limit);
                shown.extend(items);
                before = next.map(|next| next.to_string().parse().unwrap());
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(shown, whole, "pages of {limit}");
        }
    }

    #[test]
    fn a_position_is_what_it_was_written_as_and_nothing_else_is_one() {
        for text in ["", "x", "5", "5a", "a5", "5a6v7", "5b6", "5a-", "1e3a1", "5 a6", "99999999999999999999a1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        for source in ChangeSource::ALL {
            let position = position(-7, source, 12);
            assert_eq!(position.to_string().parse(), Ok(position));
        }
    }

    #[test]
    fn viewers_see_what_was_done_and_nothing_of_tokens() {
        let seen = |action: &str, object: &str| ChangeView::of_audit(at(1), "ann", action, object);
        for (action, object) in [("token.create", "ci (admin)"), ("token.delete", "ci"), ("login", "x"), ("", "")] {
            assert_eq!(seen(action, object), None, "{action}");
        }
        let put = seen("definition.put", "dns").unwrap();
        assert_eq!(
            (put.kind, put.name.as_deref(), put.who.as_deref()),
            (ChangeKind::Definition, Some("dns"), Some("ann"))
        );
        let result = seen("command.pause.result", "eu-1: pause checks: Refused by policy: not obeyed").unwrap();
        assert_eq!(result.cluster.as_deref(), Some("eu-1"));
        assert_eq!(result.message, "pause checks: Refused by policy: not obeyed");
        assert!(result.concerns("eu-1") && !result.concerns("eu-10"));
        let tested = seen("cluster.self-test", "eu-1: Failed: no quota: see Argo's log").unwrap();
        assert_eq!(
            (tested.cluster.as_deref(), tested.message.as_str()),
            (Some("eu-1"), "Failed: no quota: see Argo's log")
        );
        assert_eq!(seen("cluster.add", "eu-1").unwrap().cluster.as_deref(), Some("eu-1"));
        let given = seen("command.pause", "pause checks of the whole cluster for 60 s; in eu-1, eu-2").unwrap();
        assert!(given.cluster.is_none() && given.concerns("eu-7"));
        let known = seen("check.acknowledge", "eu-1/health/dns").unwrap();
        let names = [known.cluster, known.namespace, known.name].map(Option::unwrap);
        assert_eq!(names, ["eu-1", "health", "dns"]);
    }

    #[test]
    fn each_kind_is_kept_in_one_place() {
        for kind in ChangeKind::ALL {
            assert_eq!(kind.action_prefix().is_some(), kind.source() == ChangeSource::Audit, "{kind:?}");
        }
    }
}
