//! One request to the API server: bounded in time, and its failure sorted by what it means for the caller.

use std::time::Duration;

use crate::gate::Refusal;

/// A black-holed API server must not hold a worker: kube itself sets no limit. The gate bounds the time until an answer
/// begins, this all of it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server answered with an error, or could not be asked.
    #[error("{}", said(.0))]
    Kube(#[source] kube::Error),
    /// It was not sent, or not waited for.
    #[error("{0}")]
    Refused(Refusal),
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
    /// The HTTP status of the API server's answer, where there is one.
    pub fn code(&self) -> Option<u16> {
        match self {
            RequestError::Kube(kube::Error::Api(status)) => Some(status.code),
            RequestError::Kube(_) | RequestError::Refused(_) | RequestError::Timeout | RequestError::Encode(_) => None,
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

    /// The API server as a whole does not answer as it should: nothing that this request could mend.
    pub fn is_outage(&self) -> bool {
        match self {
            RequestError::Kube(kube::Error::Api(status)) => status.code == 429 || status.code >= 500,
            RequestError::Kube(_) | RequestError::Refused(_) | RequestError::Timeout => true,
            RequestError::Encode(_) => false,
        }
    }

    /// It was not sent, since the API server asked for a pause: in how long it may be. An answer that asks for one is not
    /// meant: a check whose requests get it each time must come more and more seldom, or it would keep all others waiting.
    pub fn deferral(&self) -> Option<Duration> {
        match self {
            RequestError::Refused(Refusal::Paused(left)) => Some(*left),
            RequestError::Refused(Refusal::Fenced | Refusal::NoAnswer) => None,
            RequestError::Kube(_) | RequestError::Timeout | RequestError::Encode(_) => None,
        }
    }

    /// Nothing came of it, for certain: it was not sent, or the API server refused to look at it, or to let it in.
    pub fn is_undone(&self) -> bool {
        matches!(self, RequestError::Refused(Refusal::Paused(_) | Refusal::Fenced))
            || matches!(self.code(), Some(403 | 429))
    }

    /// An answer that the same request would get again: the object is refused as it is.
    pub fn is_final(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 404 | 405 | 413 | 422)) || matches!(self, RequestError::Encode(_))
    }
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> RequestError {
        Refusal::behind(&error).map_or(RequestError::Kube(error), RequestError::Refused)
    }
}

/// Waits for a request, within the limit.
///
/// # Errors
/// The request's own, or [`RequestError::Timeout`].
pub async fn request<T>(future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(answer) => answer.map_err(RequestError::from),
        Err(_) => Err(RequestError::Timeout),
    }
}
