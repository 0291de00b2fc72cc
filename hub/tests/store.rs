//! The store's contract, on SQLite and on a real PostgreSQL server, and the way from one to the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says by a panic what is wrong")]

#[path = "store/backends.rs"]
mod backends;
#[path = "store/contract.rs"]
mod contract;
#[path = "store/migrations.rs"]
mod migrations;
#[path = "store/postgres.rs"]
mod postgres;
#[path = "store/readers.rs"]
mod readers;
#[path = "store/replicas.rs"]
mod replicas;
#[path = "store/samples.rs"]
mod samples;
#[path = "store/sizes.rs"]
mod sizes;
#[path = "store/transfer.rs"]
mod transfer;
#[path = "store/whole_hub.rs"]
mod whole_hub;
