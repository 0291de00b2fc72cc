//! One request to the API server: bounded in time, and its failure sorted by what it means for the caller.

use std::time::Duration;

/// A black-holed API server must not hold a worker: kube itself sets no limit.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server answered with an error, or could not be asked.
    #[error("{}", said(.0))]
    Kube(#[source] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// An object of our own making that does not fit its type.
    #[error("cannot encode the object")]
    Encode(#[source] serde_json::Error),
}

/// The API server's own sentence, which names the object and the rule, without the structure around it.
fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    error.to_string()
}

impl RequestError {
    fn code(&self) -> Option<u16> {
        match self {
            RequestError::Kube(kube::Error::Api(status)) => Some(status.code),
            RequestError::Kube(_) | RequestError::Timeout | RequestError::Encode(_) => None,
        }
    }

    /// 409: it exists, or it changed in between.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// 404.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 403: not allowed.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// An answer that the same request would get again: the object is refused as it is.
    pub fn is_final(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 404 | 405 | 413 | 422)) || matches!(self, RequestError::Encode(_))
    }
}

/// Waits for a request, within the limit.
///
/// # Errors
/// The request's own, or [`RequestError::Timeout`].
pub async fn request<T>(future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(answer) => answer.map_err(RequestError::Kube),
        Err(_) => Err(RequestError::Timeout),
    }
}
