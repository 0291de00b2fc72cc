//! The testbed: real Kubernetes control planes on loopback, with Argo Workflows, for end-to-end tests and the demo.
//!
//! [`Testbed::start`] gives clusters that live as long as the value does; everything it starts dies with the process
//! that owns it, however that ends. The programs are built once from Go modules into a cache ([`Programs`]).
//! This crate may touch its cache folder, its run folders under the temporary folder, and loopback ports.

pub mod api_proxy;
pub mod audit;
pub mod bench;
pub mod charts;
pub mod cluster;
pub mod daemon;
pub mod demo;
mod docs;
pub mod faketime;
pub mod fleet;
pub mod netns;
pub mod node;
pub mod port;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod run_dir;
pub mod shell;
pub mod skip;
pub mod testbed;
pub mod tunnel;
pub mod wait;

pub use cluster::Cluster;
pub use fleet::{Agent, Crd, Hub};
pub use process::Process;
pub use programs::{Program, Programs};
pub use testbed::{Options, Testbed};

/// Installs the process-wide TLS provider; calling it again does nothing.
pub fn init() {
    // An error only says that a provider is installed already, which is what is wanted.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
