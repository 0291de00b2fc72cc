//! What a program asks for again and again is sent again only where it changed: `ETag` and `If-None-Match`.
//!
//! The tag of something that people write is `W/"VERSION.REST"`: the version is that of what they wrote, the rest follows from all
//! that the answer says. A write is judged by the version alone ([`Expects`](super::extract::Expects)), so that nothing
//! that the clusters say meanwhile stands in its way.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use super::problem::ApiError;

/// The version of what a person wrote, in the extensions of an answer that shows it.
#[derive(Clone, Debug)]
pub struct Version(pub String);

/// Gives each JSON answer to a GET its tag, and each that shows something versioned; answers 304 where the caller has it already.
pub async fn unchanged(request: Request, next: Next) -> Response {
    let known = (request.method() == Method::GET).then(|| request.headers().clone());
    let response = next.run(request).await;
    match known {
        Some(known) if is_document(&response) => tagged(&known, response).await,
        None if response.extensions().get::<Version>().is_some() => tagged(&HeaderMap::new(), response).await,
        Some(_) | None => response,
    }
}

/// A whole answer in memory, and no stream.
fn is_document(response: &Response) -> bool {
    let json = HeaderValue::from_static("application/json");
    response.status() == StatusCode::OK && response.headers().get(header::CONTENT_TYPE) == Some(&json)
}

async fn tagged(known: &HeaderMap, response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // The handler wrote it in one piece, so that this copies nothing.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return ApiError::Internal.into_response() };
    let version = parts.extensions.get().map(|Version(version)| format!("{version}.")).unwrap_or_default();
    // Weak, since it may be compressed on its way.
    let tag = format!("W/\"{version}{}\"", hex::encode(&Sha256::digest(&bytes)[..16]));
    let has_it = known.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value, &tag));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    if !has_it {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts.status = StatusCode::NOT_MODIFIED;
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::empty())
}

/// Whether the value of `If-None-Match` names the tag, by the weak comparison of RFC 9110.
fn names(value: &HeaderValue, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let listed = value.to_str().unwrap_or_default();
    listed.trim() == "*" || listed.split(',').any(|one| opaque(one) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_among_others_whatever_its_strength() {
        for (value, expected) in [
            ("W/\"ab\"", true),
            ("\"ab\"", true),
            ("\"x\", W/\"ab\"", true),
            ("*", true),
            ("\"abc\"", false),
            ("ab", false),
            ("", false),
        ] {
            assert_eq!(names(&HeaderValue::from_static(value), "W/\"ab\""), expected, "{value}");
        }
    }
}
