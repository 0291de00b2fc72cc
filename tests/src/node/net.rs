//! The node's network: a bridge in its own network namespace, to which the pods and one link to the machine are tied.
//!
//! The addresses are of the range kept for benchmarks of networks (RFC 2544), which no real network uses. The
//! link is there for the API server to reach the kubelet, and for the owner to fill the image registry.

/// The network of the node, its pods and the machine's end of the link.
pub const SUBNET: &str = "198.18.0.0/24";
/// The machine's end of the link.
pub const MACHINE_ADDRESS: &str = "198.18.0.1";
/// The node's own address.
pub const NODE_ADDRESS: &str = "198.18.0.2";
/// The first address that a pod gets.
pub const FIRST_POD_ADDRESS: &str = "198.18.0.10";
/// The name of the machine's end of the link.
pub const LINK: &str = "am-testbed";

pub(super) const BRIDGE: &str = "pods";
const UPLINK: &str = "uplink";

/// The arguments with which `nsenter` runs a program in the namespaces of the `unshare` with this process number.
pub(super) fn enter_args(pid: u32) -> [String; 4] {
    // `unshare` itself stays in the old process namespace; it has made a new one for its child.
    let [mnt, net] = ["mnt", "net"].map(|kind| format!("/proc/{pid}/ns/{kind}"));
    [
        format!("--mount={mnt}"),
        format!("--net={net}"),
        format!("--pid=/proc/{pid}/ns/pid_for_children"),
        "--".to_owned(),
    ]
}

/// Shell lines that make the link, to be run on the machine. The kernel removes the link some time after its network
/// namespace has ended: a node that begins may find its predecessor's.
pub(super) fn link_outside(pid: u32) -> String {
    format!(
        "ip link delete {LINK} 2>/dev/null || true\n\
         ip link add {LINK} type veth peer name {UPLINK} netns {pid}\n\
         ip address add {MACHINE_ADDRESS}/24 dev {LINK}\n\
         ip link set {LINK} up\n"
    )
}

/// The command that ties the link to the bridge, to be run in the namespaces.
pub(super) fn link_inside() -> String {
    format!("ip link set {UPLINK} master {BRIDGE} up")
}
