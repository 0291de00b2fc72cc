//! Values: what is read from one word of the command line.

use std::time::Duration;

use active_monitor_core::schedule::parse_go;
use active_monitor_core::view::Role;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::checks::{CheckName, Scope};

/// Takes one of the texts, whatever the case of its letters, and gives it as written here.
pub(super) fn one_of<const N: usize>(texts: [&'static str; N]) -> impl TypedValueParser<Value = &'static str> {
    PossibleValuesParser::new(texts.map(PossibleValue::new)).try_map(move |given| {
        texts.into_iter().find(|text| text.eq_ignore_ascii_case(&given)).ok_or("not one of the possible values")
    })
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    roles.into_iter().find(|role| role.as_str() == text).ok_or("expected viewer, operator or admin".to_owned())
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

pub(super) fn change(text: &str) -> Result<(String, Option<String>), String> {
    match (pair(text), text.strip_suffix('-')) {
        (Ok((key, value)), _) => Ok((key, Some(value))),
        (Err(_), Some(key)) if !key.is_empty() => Ok((key.to_owned(), None)),
        (Err(_), Some(_) | None) => Err("expected KEY=VALUE or KEY-".to_owned()),
    }
}

pub(super) fn one_check(text: &str) -> Result<Scope, String> {
    scope(text).ok().filter(|scope| scope.check.is_some()).ok_or("expected CLUSTER/NAMESPACE/CHECK".to_owned())
}

/// Whole seconds, in Go's form, or whole days.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()?.checked_mul(86_400));
    let seconds = days.or_else(|| Some(parse_go(text)?.as_secs()));
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or("expected a duration of a second or more, such as 30m, 1h30m or 2d".to_owned())
}

pub(super) fn check(text: &str) -> Result<CheckName, String> {
    let Scope { cluster, namespace, check } = one_check(text)?;
    Ok(CheckName([cluster, namespace.unwrap_or_default(), check.unwrap_or_default()]))
}

pub(super) fn seconds(text: &str) -> Result<u64, String> {
    length(text).map(|length| length.as_secs())
}

pub(super) fn scope(text: &str) -> Result<Scope, String> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return Err("expected CLUSTER, CLUSTER/NAMESPACE or CLUSTER/NAMESPACE/CHECK".to_owned());
    }
    let part = |index: usize| parts.get(index).map(|part| (*part).to_owned());
    Ok(Scope { cluster: part(0).unwrap_or_default(), namespace: part(1), check: part(2) })
}
