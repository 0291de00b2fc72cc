//! The wire format between agent and hub: generated messages and services, and the conversions to the domain types.
//!
//! `v1` is generated from `activemonitor/fleet/v1/session.proto` and checked in; `tests/generated.rs` makes it again and
//! compares. No other crate handles generated messages: they convert at their socket and work with the types of core.

pub mod convert;

/// Messages, clients and servers of `activemonitor.fleet.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]
pub mod v1 {
    include!("gen/activemonitor.fleet.v1.rs");
}

pub use convert::WireError;
pub use v1::enrolment_client::EnrolmentClient;
pub use v1::enrolment_server::{Enrolment, EnrolmentServer};
pub use v1::fleet_client::FleetClient;
pub use v1::fleet_server::{Fleet, FleetServer};
pub use v1::{CertificateReply, EnrolRequest, RenewRequest};
