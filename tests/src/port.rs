//! Loopback ports that nobody else takes between the choice and the use.
//!
//! Ports lie below the kernel's ephemeral range, so no `bind(0)` elsewhere gets one. Among testbeds, of any user and
//! any run folder, a port belongs to whoever holds the abstract Unix socket of its number: the kernel frees that
//! name when its holder dies.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use anyhow::anyhow;
use rand::Rng as _;

const TRIES: usize = 200;

/// One loopback TCP port, held until dropped.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _held: UnixListener,
}

impl PortLease {
    /// Where the ports are.
    pub const RANGE: std::ops::Range<u16> = 20_000..32_000;

    /// Takes a free port.
    ///
    /// # Errors
    /// When 200 random tries find none.
    pub fn take() -> anyhow::Result<Self> {
        let mut rng = rand::rng();
        (0..TRIES)
            .find_map(|_| Self::try_take(rng.random_range(Self::RANGE)))
            .ok_or_else(|| anyhow!("no free loopback port in {:?} after {TRIES} tries", Self::RANGE))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// Takes this port; `None` where it is held or in use.
    pub fn try_take(port: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("active-monitor-testbed-port-{port}")).ok()?;
        let held = UnixListener::bind_addr(&name).ok()?;
        // Bound without SO_REUSEADDR tricks and dropped at once: it only shows that no other program listens there.
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self { port, _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_by_one() {
        let lease = PortLease::take().unwrap();
        let port = lease.number();
        assert!(PortLease::RANGE.contains(&port));
        assert!(PortLease::try_take(port).is_none());
        drop(lease);
        assert!(PortLease::try_take(port).is_some());
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let (listener, port) = PortLease::RANGE
            .rev()
            .find_map(|port| Some((TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?, port)))
            .unwrap();
        assert!(PortLease::try_take(port).is_none());
        drop(listener);
    }
}
