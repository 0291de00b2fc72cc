//! What handlers take from a request. axum's own extractors, their refusals as problems.

use std::collections::BTreeMap;

use active_monitor_core::definition::parse::parse;
use active_monitor_core::definition::{FleetHealthCheck, select};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::{StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::problem::ApiError;
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
    size: Option<PageSize>,
) -> (Vec<T>, Option<K>) {
    let size = size.map_or(usize::MAX, |PageSize(size)| size);
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
