//! A network namespace: a second host on this machine, behind a link that can be cut, made lossy or slow.
//!
//! It hangs on two links. The faults are on the one that agents use; the other stays good, so that a test can ask its hub
//! at any time. All rules live inside of the namespace and go with it. Needs root and Debian's iproute2 and iptables.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::port::PortLease;

/// Host names of namespaces begin so; a number follows.
const PREFIX: &str = "am-";
/// The links' ends inside of the namespace.
const FAULTY: &str = "faulty";
const GOOD: &str = "good";
/// Blocks of eight addresses are counted from here, a block a namespace and half of it a link.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 0);

/// Which packets a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those into the namespace.
    In,
    /// Those out of it.
    Out,
}

/// A namespace; dropping it removes it.
pub struct Netns {
    name: String,
    number: u32,
    _lease: PortLease,
}

impl Netns {
    /// Makes a namespace, and removes those that a killed test has left.
    ///
    /// # Errors
    /// When the system refuses: who runs it is not root, or a program is missing.
    pub fn create() -> anyhow::Result<Netns> {
        remove_left_over();
        let lease = PortLease::take()?;
        let number = u32::from(lease.number() - PortLease::RANGE.start);
        let netns = Netns { name: format!("{PREFIX}{}", lease.number()), number, _lease: lease };
        let name = &netns.name;
        ip(&["netns", "add", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        for (link, inside) in [(0, FAULTY), (1, GOOD)] {
            let outside = netns.outside(link);
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", inside, "netns", name])?;
            ip(&["addr", "add", &format!("{}/30", netns.address(link, 1)), "dev", &outside])?;
            ip(&["link", "set", &outside, "up"])?;
            ip(&["-n", name, "addr", "add", &format!("{}/30", netns.address(link, 2)), "dev", inside])?;
            ip(&["-n", name, "link", "set", inside, "up"])?;
        }
        Ok(netns)
    }

    /// The host's address on the link that has the faults.
    pub fn faulty_address(&self) -> Ipv4Addr {
        self.address(0, 2)
    }

    /// The host's address on the link that stays good.
    pub fn good_address(&self) -> Ipv4Addr {
        self.address(1, 2)
    }

    /// The arguments of `ip` that run a program in the namespace.
    pub fn exec(&self, program: &Path) -> Vec<String> {
        vec!["netns".into(), "exec".into(), self.name.clone(), program.display().to_string()]
    }

    /// Drops packets of the link's one direction: this share of them, by chance, or with `None` all of them.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn lose(&self, direction: Direction, share: Option<f64>) -> anyhow::Result<()> {
        let (chain, interface) = match direction {
            Direction::In => ("INPUT", "-i"),
            Direction::Out => ("OUTPUT", "-o"),
        };
        let mut rule = vec!["-A", chain, interface, FAULTY];
        let share = share.map(|share| share.to_string());
        if let Some(share) = &share {
            rule.extend(["-m", "statistic", "--mode", "random", "--probability", share]);
        }
        rule.extend(["-j", "DROP"]);
        self.iptables(&rule)
    }

    /// Both directions of the link carry only so many kilobits a second.
    ///
    /// # Errors
    /// When tc fails.
    pub fn limit(&self, kbit: u32) -> anyhow::Result<()> {
        let rate = format!("{kbit}kbit");
        let outside = self.outside(0);
        let shape = |device| vec!["qdisc", "replace", "dev", device, "root", "tbf", "rate", &rate, "burst", "4kb"];
        let queue = ["latency", "2s"];
        run(Command::new("tc").args(["-n", &self.name]).args(shape(FAULTY)).args(queue))?;
        run(Command::new("tc").args(shape(&outside)).args(queue))
    }

    /// Ends every fault.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn heal(&self) -> anyhow::Result<()> {
        let outside = self.outside(0);
        // Without a limit there is nothing to remove, which tc calls an error.
        let _no_limit = run(Command::new("tc").args(["-n", &self.name, "qdisc", "del", "dev", FAULTY, "root"]));
        let _no_limit = run(Command::new("tc").args(["qdisc", "del", "dev", &outside, "root"]));
        self.iptables(&["-F"])
    }

    fn iptables(&self, rule: &[&str]) -> anyhow::Result<()> {
        run(Command::new("ip").args(["netns", "exec", &self.name, "iptables", "-w"]).args(rule))
    }

    fn outside(&self, link: u32) -> String {
        format!("am{}x{link}", self.number)
    }

    fn address(&self, link: u32, host: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + self.number * 8 + link * 4 + host)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("network namespace {} is left: {error:#}", self.name);
        }
    }
}

/// Why there can be no namespace here; `None` where there can.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root: no network namespaces");
    }
    let found =
        |program: &str| ["/usr/sbin", "/sbin"].iter().any(|folder| PathBuf::from(folder).join(program).exists());
    (!["ip", "tc", "iptables"].into_iter().all(found))
        .then_some("ip, tc or iptables is missing: apt-get install iproute2 iptables")
}

/// A namespace whose number nobody holds was left by a test that was killed.
fn remove_left_over() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let number = name.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
        if number.is_some_and(|number| PortLease::try_take(number).is_some()) {
            let _gone_meanwhile = ip(&["netns", "del", &name]);
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(args))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
