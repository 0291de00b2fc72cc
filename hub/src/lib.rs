//! The hub: the health of the whole fleet in one place.
//!
//! Agents come in through [`enrolment`] and [`ingest`], one task ([`owner`]) owns the fleet's state, [`store`] keeps what
//! must survive, and people read it all over HTTP.

pub mod api;
pub mod auth;
pub mod ca;
pub mod config;
pub mod dashboard;
pub mod enrolment;
pub mod ingest;
pub mod metrics;
pub mod owner;
pub mod serve;
pub mod store;

mod desired;
mod saver;

use std::sync::Arc;

/// What the people's side of the hub works with.
#[derive(Clone)]
pub struct AppState {
    /// Reads and changes the fleet.
    pub fleet: owner::FleetHandle,
    /// History, API tokens and the audit log.
    pub store: Arc<dyn store::Store>,
    /// The hub's own metrics, which `/metrics` shows after those of the fleet.
    pub registry: prometheus::Registry,
    /// Whether people reach the hub over TLS: the cookie is then never sent in the clear.
    pub secure_cookies: bool,
}
