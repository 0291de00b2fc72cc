//! Which addresses a source may come from. Names are resolved here, so that a connection goes to exactly the addresses
//! that were looked at, however often a name changes its mind.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The operator's say on addresses. What is denied stays denied; what is allowed is allowed though it be private.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Private, link-local and loopback addresses too.
    pub allow_private: bool,
    /// Private networks that are open.
    pub allowed: Vec<IpNet>,
    /// Networks that are not, such as those of services and pods.
    pub denied: Vec<IpNet>,
}

impl Addresses {
    /// Whether a source may come from there.
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.denied) && (self.allow_private || within(&self.allowed) || !is_private(address))
    }

    /// Whether the host of a URL may be asked: a name may, since its addresses are looked at when it is resolved.
    pub fn permit_host(&self, host: &str) -> bool {
        host.trim_matches(['[', ']']).parse().map_or(true, |address| self.permit(address))
    }
}

/// Addresses that are this host's, this network's, or nobody's; those of the clouds' metadata services are among them.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_documentation()
        // 224.0.0.0/4 is multicast, what is above it is reserved.
        || a >= 224
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
}

fn is_private_v6(v6: Ipv6Addr) -> bool {
    let [first, second, ..] = v6.segments();
    // Only 2000::/3 is the internet's. In it, 2001::/32 (Teredo) and 2002::/16 (6to4) carry an IPv4 address that the
    // check above would not see, and 2001:db8::/32 is for documents. 64:ff9b::/96, which does too, is outside.
    first & 0xe000 != 0x2000 || first == 0x2002 || (first == 0x2001 && (second == 0 || second == 0x0db8))
}

/// Asks for the addresses of a name.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// As the host does.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

/// Resolves names, and leaves of the answers those that are permitted.
pub(super) struct Resolver {
    pub(super) addresses: Arc<Addresses>,
    pub(super) lookup: Lookup,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses.clone();
        let found = (self.lookup)(name.as_str().to_owned());
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found = found.await.map_err(|error| format!("{name} cannot be resolved: {error}"))?;
            let permitted: Vec<SocketAddr> = found.into_iter().filter(|found| addresses.permit(found.ip())).collect();
            if permitted.is_empty() {
                return Err(format!("{name} has no address that the agent may fetch from").into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(addresses: &Addresses, address: &str) -> bool {
        addresses.permit(address.parse().unwrap())
    }

    #[test]
    fn private_addresses_are_known_in_every_spelling() {
        let public = Addresses::default();
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "0.0.0.0",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2001::7f00:1",
            "2001:db8::1",
        ] {
            assert!(!permits(&public, address), "{address}");
        }
        for address in ["1.1.1.1", "2606:4700::1", "172.32.0.1", "100.128.0.1", "::ffff:1.1.1.1"] {
            assert!(permits(&public, address), "{address}");
        }
    }

    #[test]
    fn what_is_denied_stays_denied_and_what_is_allowed_opens_nothing_else() {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let some = Addresses {
            allow_private: false,
            allowed: networks(&["10.1.0.0/16"]),
            denied: networks(&["10.1.2.0/24", "34.0.0.0/16", "2600:1::/32"]),
        };
        for (address, permitted) in [
            ("10.1.0.1", true),
            ("::ffff:10.1.0.1", true),
            ("10.1.2.1", false),
            ("::ffff:10.1.2.1", false),
            ("10.2.0.1", false),
            ("34.0.1.1", false),
            ("34.1.0.1", true),
            ("2600:1::5", false),
        ] {
            assert_eq!(permits(&some, address), permitted, "{address}");
        }
        let all = Addresses { allow_private: true, ..some };
        assert!(permits(&all, "169.254.169.254") && !permits(&all, "10.1.2.1"));
        assert!(all.permit_host("example.com") && all.permit_host("[::1]") && !all.permit_host("10.1.2.1"));
    }
}
