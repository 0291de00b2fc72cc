//! The commands that ask a hub, against one that this test plays over HTTP on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod commands;
mod definitions;
mod errors;
mod hub;
mod lists;
mod sources;
