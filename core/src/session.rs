//! The session between an agent and the hub: its frames as domain types, and one state machine for each end.
//!
//! Both machines are sans-IO: they take (now, input) and answer with outputs that a shell carries out. The wire form of
//! the frames is in the crate `active-monitor-proto`.

pub mod agent;
pub mod frame;
pub mod gaps;
pub mod hub;
pub mod pace;

#[cfg(test)]
pub(crate) mod simulation;
