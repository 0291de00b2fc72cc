//! The hub: the health of the whole fleet in one place.
//!
//! Agents come in through [`enrolment`] and [`ingest`], one task ([`owner`]) owns the fleet's state, [`store`] keeps what
//! must survive, and people read it all over HTTP.

pub mod alerts;
pub mod api;
pub mod auth;
pub mod authority;
pub mod backup;
pub mod ca;
pub mod config;
pub mod dashboard;
pub mod enrolment;
pub mod expected;
pub mod incidents;
pub mod ingest;
pub mod metrics;
pub mod owner;
pub mod refusals;
pub mod remote_write;
pub mod replicas;
pub mod resources;
pub mod retention;
pub mod revocations;
pub mod serve;
mod singletons;
pub mod source;
pub mod store;

mod clock;
mod desired;
mod marks;
mod recorder;
mod rollup;
mod saver;
#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "it is public where it comes from")]
mod skip;
mod trust;
mod uptime;

use std::sync::Arc;

/// What the people's side of the hub works with.
#[derive(Clone)]
pub struct AppState {
    /// Reads and changes the fleet.
    pub fleet: owner::FleetHandle,
    /// History, API tokens and the audit log.
    pub store: Arc<dyn store::Store>,
    /// The open incidents.
    pub incidents: incidents::OpenIncidents,
    /// The hub's CA.
    pub authority: Arc<authority::Authority>,
    /// The OpenID provider at which people log in, where there is one.
    pub oidc: Option<Arc<auth::oidc::Oidc>>,
    /// The watched folder, and what is Git's.
    pub source: Arc<source::Source>,
    /// The file of the routes of alerts, where there is one.
    pub routes_file: Option<std::path::PathBuf>,
    /// The hub's own metrics, which `/metrics` shows after those of the fleet.
    pub registry: prometheus::Registry,
    /// Whether people reach the hub over TLS: the cookie is then never sent in the clear.
    pub secure_cookies: bool,
}
