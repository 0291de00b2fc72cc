//! The pure half of Active-Monitor Fleet: types, decisions, the session protocol and the fleet's state.
//!
//! Nothing here reads a clock, opens a file or a socket, or draws a random number: `now` and whatever was observed are
//! arguments. That is what lets one test drive the agent's loop, both ends of a session and the hub's state by hand.

pub mod alert;
pub mod capacity;
pub mod care;
pub mod check;
pub mod clock;
pub mod command;
pub mod decide;
pub mod definition;
pub mod dependency;
pub mod document;
pub mod fleet;
pub mod gitops;
pub mod health;
pub mod healthcheck;
pub mod incident;
pub mod invariants;
pub mod lease;
pub mod manifest;
pub mod names;
pub mod ownership;
pub mod policy;
#[cfg(test)]
mod random;
pub mod rbac;
pub mod redact;
pub mod report;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod scope;
pub mod self_test;
pub mod session;
pub mod state;
pub mod status;
pub mod uptime;
pub mod version;
pub mod view;
pub mod workflow;
