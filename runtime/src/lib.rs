//! What the binaries share and that knows nothing of their domain: logging, supervised tasks and shutdown, TLS listeners,
//! admin endpoints.

pub mod admin;
pub mod cut;
pub mod http;
pub mod logging;
pub mod tasks;
pub mod tls;
pub mod traces;
