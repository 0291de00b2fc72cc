//! The dashboard's files, served from memory. It touches nothing else: the pages read the API as any other client does.
//!
//! Who mounts this sets the security headers. The pages need no more than `default-src 'self'`: nothing in them is
//! inline, and nothing comes from elsewhere.

use axum::Router;
use axum::http::StatusCode;
use memory_serve::{Asset, CacheControl, MemoryServe};

/// Made by `build.rs`.
const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

const INDEX: &str = "/index.html";

/// The addresses of the pages, all of them the same document: `dashboard/src/route.svelte.ts` tells them apart.
const PAGES: [&str; 8] = [
    "/grid",
    "/changes",
    "/windows",
    "/definitions",
    "/checks/{namespace}/{check}",
    "/clusters/{cluster}",
    "/clusters/{cluster}/checks/{namespace}/{check}",
    "/clusters/{cluster}/checks/{namespace}/{check}/runs/{run}",
];

/// The dashboard at `/`. Any path that no route of the hub knows gets the document too, with status 404: the page then
/// says so in words. Call it once: it leaks the decompressed files.
pub fn router() -> Router {
    let mut serve = MemoryServe::new(ASSETS)
        .index_file(Some(INDEX))
        .fallback(Some(INDEX))
        .fallback_status(StatusCode::NOT_FOUND)
        .html_cache_control(CacheControl::NoCache)
        // Every other file has a hash of its content in its name.
        .cache_control(CacheControl::Long);
    for page in PAGES {
        serve = serve.add_alias(page, INDEX);
    }
    serve.into_router()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderMap, Request, header};
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str, headers: &[(header::HeaderName, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let response = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn every_page_is_the_one_document() {
        let (status, _, index) = get("/", &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(index.contains("<title>Fleet health"), "{index}");
        for path in [
            "/grid",
            "/changes",
            "/windows",
            "/definitions",
            "/checks/kube-system/dns",
            "/clusters/eu-1",
            "/clusters/eu-1/checks/kube-system/dns",
            "/clusters/eu-1/checks/kube-system/dns/runs/7",
        ] {
            let (status, headers, body) = get(path, &[]).await;
            assert_eq!((status, &body), (StatusCode::OK, &index), "{path}");
            assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        }
    }

    #[tokio::test]
    async fn an_unknown_path_is_not_found() {
        let (status, ..) = get("/assets/of-an-older-build.js", &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn an_unchanged_document_is_not_sent_again() {
        let (_, headers, _) = get("/", &[]).await;
        let etag = headers[header::ETAG].to_str().unwrap().to_owned();
        let (status, _, body) = get("/grid", &[(header::IF_NONE_MATCH, &etag)]).await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    }

    #[test]
    fn nothing_needs_more_than_the_hub_itself() {
        for asset in ASSETS.iter().filter(|asset| asset.content_type == "text/html") {
            let html = std::fs::read_to_string(asset.path).unwrap();
            assert!(!html.contains("style=") && !html.contains("<style"), "{}: inline style", asset.route);
            assert!(!html.contains("://") && !html.contains("<script>"), "{}: inline or foreign code", asset.route);
        }
    }
}
