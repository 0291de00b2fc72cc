//! What handlers take from a request. axum's own extractors, their refusals as problems.

use std::collections::BTreeMap;

use active_monitor_core::definition::parse::parse;
use active_monitor_core::definition::{FleetHealthCheck, select};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::problem::ApiError;
use crate::expected::Expected;
use crate::store::MAX_PAGE;

/// A JSON body.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(ApiError))]
pub struct Json<T>(pub T);

/// Values from the query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub struct Query<T>(pub T);

/// Values from the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub struct Path<T>(pub T);

/// Items in an answer.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Limit(pub u32);

impl Default for Limit {
    fn default() -> Self {
        Limit(100)
    }
}

impl TryFrom<String> for Limit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(Limit(limit)),
            _ => Err(format!("must be a whole number from 1 to {MAX_PAGE}")),
        }
    }
}

/// Position in a history that has numbers.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Before(pub i64);

impl TryFrom<String> for Before {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(id) if id >= 0 => Ok(Before(id)),
            _ => Err("must be a whole number, the `next` of another page".to_owned()),
        }
    }
}

/// Items in a page of what is in memory.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct PageSize(pub usize);

/// The largest page of what is in memory.
pub const MAX_PAGE_SIZE: usize = 10_000;

impl Default for PageSize {
    fn default() -> Self {
        PageSize(1000)
    }
}

impl TryFrom<String> for PageSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(size) if (1..=MAX_PAGE_SIZE).contains(&size) => Ok(PageSize(size)),
            _ => Err(format!("must be a whole number from 1 to {MAX_PAGE_SIZE}")),
        }
    }
}

/// The first `size` of what is in order and comes after the key `after`, and the key of the last one where there are more.
pub fn page<K: Ord + Clone, T>(
    all: impl Iterator<Item = (K, T)>,
    after: Option<&K>,
    PageSize(size): PageSize,
) -> (Vec<T>, Option<K>) {
    let mut rest = all.filter(|(key, _)| after.is_none_or(|after| key > after)).peekable();
    let (mut items, mut last) = (Vec::new(), None);
    while items.len() < size {
        let Some((key, item)) = rest.next() else { return (items, None) };
        items.push(item);
        last = Some(key);
    }
    (items, last.filter(|_| rest.peek().is_some()))
}

/// A label selector in the form that kubectl knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Selector(LabelSelector);

impl Selector {
    /// Whether it picks what has these labels.
    pub fn picks(&self, labels: &BTreeMap<String, String>) -> bool {
        select::matches(&self.0, labels)
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        select::parse(&text).map(Selector)
    }
}

/// What the caller expects of what it changes.
pub struct Expects(pub Expected);

impl<S: Sync> FromRequestParts<S> for Expects {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        expects(&parts.headers)
            .map(Expects)
            .map_err(|text| ApiError::Unreadable(StatusCode::BAD_REQUEST, text.to_owned()))
    }
}

fn expects(headers: &HeaderMap) -> Result<Expected, &'static str> {
    let values = |name: HeaderName| {
        let texts = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
        texts.flat_map(|text| text.split(',')).map(str::trim).collect::<Vec<_>>()
    };
    match (values(header::IF_MATCH).as_slice(), values(header::IF_NONE_MATCH).as_slice()) {
        ([], []) => Ok(Expected::Anything),
        ([], ["*"]) => Ok(Expected::Nothing),
        ([], _) => Err("If-None-Match: only * is known where something is changed"),
        (["*"], []) => Ok(Expected::Something),
        (tags, []) => {
            let versions: Option<Vec<String>> = tags.iter().map(|tag| version_in(tag)).collect();
            versions
                .map(Expected::Version)
                .ok_or("If-Match: must be * or an ETag as an answer to a GET has it, with its quotes")
        }
        (_, _) => Err("If-Match and If-None-Match: give one of them"),
    }
}

/// The part of a tag that a write is judged by. Whoever compressed the answer may have made the tag weak or strong.
fn version_in(tag: &str) -> Option<String> {
    let quoted = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    quoted.split('.').next().map(str::to_owned)
}

/// A definition, as JSON or YAML.
pub struct DefinitionBody(pub FleetHealthCheck);

impl<S: Send + Sync> FromRequest<S> for DefinitionBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !matches!(kind.as_str(), "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml") {
            return Err(ApiError::Unreadable(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/json or application/yaml".to_owned(),
            ));
        }
        let bytes = Bytes::from_request(request, state).await?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| ApiError::Unreadable(StatusCode::BAD_REQUEST, "the body is not UTF-8".to_owned()))?;
        Ok(DefinitionBody(parse(text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_read_from_the_tags_of_answers() {
        let versions = |all: &[&str]| Ok(Expected::Version(all.iter().map(|one| (*one).to_owned()).collect()));
        let read = |headers: &[(HeaderName, &str)]| {
            expects(&HeaderMap::from_iter(headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()))))
        };
        let (matches, none) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(read(&[]), Ok(Expected::Anything));
        assert_eq!(read(&[(none.clone(), "*")]), Ok(Expected::Nothing));
        assert_eq!(read(&[(matches.clone(), "*")]), Ok(Expected::Something));
        assert_eq!(read(&[(matches.clone(), "W/\"ab.cd\"")]), versions(&["ab"]));
        assert_eq!(read(&[(matches.clone(), "\"ab.cd\", W/\"ef\"")]), versions(&["ab", "ef"]));
        for wrong in ["ab.cd", "\"ab", "", "*, \"ab\"", "\"a\" x"] {
            assert!(read(&[(matches.clone(), wrong)]).unwrap_err().starts_with("If-Match: must be"), "{wrong}");
        }
        assert!(read(&[(none.clone(), "\"ab\"")]).unwrap_err().starts_with("If-None-Match: only *"));
        assert!(read(&[(none, "*"), (matches, "*")]).unwrap_err().ends_with("give one of them"));
    }
}
