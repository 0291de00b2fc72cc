//! The configuration of a node's programs, as files in its folder and as arguments.

use std::{ffi::OsString, fs, io, path::Path};

use serde_json::json;

use super::net::{BRIDGE, FIRST_POD_ADDRESS, NODE_ADDRESS, SUBNET};
use crate::cluster::SERVICE_IP;

/// The arguments of `unshare` that make the node's namespaces.
pub(super) const NAMESPACES: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// The line that says that the namespaces are set up.
pub(super) const INIT_DONE: &str = "the namespaces are set up";
/// What a shell does when the node has ended: the kernel has done the rest. The last pods may take a moment to die.
pub(super) const CLEANUP: &str = "\
for _ in $(seq 50); do \
    find /sys/fs/cgroup -depth -type d -path '*/active-monitor-testbed*' -exec rmdir {} + && break; sleep 0.1; \
done";

/// What a shell does to find out whether a container's files can be laid over its image's.
pub(super) const TRY_OVERLAY: &str = "\
mkdir lower upper work merged; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged";

/// Debian's static shell with arrays.
pub(super) const BASH: &str = "/bin/bash-static";
/// Debian's static shell and tools in one file.
pub(super) const BUSYBOX: &str = "/bin/busybox";
/// Debian's, which the image for certificates gets.
pub(super) const OPENSSL: &str = "/usr/bin/openssl";
/// Debian's, which serves names in pods.
pub(super) const SOCAT: &str = "/usr/bin/socat";
/// Where Debian keeps the network plug-ins.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";
/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.6";

pub(super) const INIT: &str = "init.sh";
pub(super) const REGISTRY: &str = "registry.json";
pub(super) const CONTAINERD: &str = "containerd.toml";
const KUBELET: &str = "kubelet.json";
const CONTAINERD_SOCKET: &str = "containerd.sock";
const API_SOCKET: &str = "api.sock";
const CGROUP: &str = "/active-monitor-testbed";
const REGISTRY_PORT: u16 = 5000;

/// The API server's URL as pods know it.
pub(super) fn api_server_url() -> String {
    format!("https://{SERVICE_IP}:443")
}

/// The image registry's URL.
pub(super) fn registry_url() -> String {
    format!("http://{NODE_ADDRESS}:{REGISTRY_PORT}")
}

/// `socat` from a socket file to the API server's port on the machine's loopback.
pub(super) fn api_socket(dir: &Path, port: u16) -> [String; 2] {
    [format!("UNIX-LISTEN:{},fork", dir.join(API_SOCKET).display()), format!("TCP:127.0.0.1:{port}")]
}

/// `socat` from the API server's service address to the socket file.
pub(super) fn api_for_pods(dir: &Path) -> [String; 2] {
    [
        format!("TCP-LISTEN:443,bind={SERVICE_IP},fork,reuseaddr"),
        format!("UNIX-CONNECT:{}", dir.join(API_SOCKET).display()),
    ]
}

/// The kubelet's arguments; all else is in its file.
pub(super) fn kubelet_args(dir: &Path, name: &str) -> [OsString; 6] {
    let flag = |name: &str, path: &Path| {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(path);
        flag
    };
    [
        flag("config", &dir.join(KUBELET)),
        flag("kubeconfig", &dir.join("kubelet.kubeconfig")),
        flag("root-dir", &dir.join("kubelet")),
        flag("cert-dir", &dir.join("kubelet-pki")),
        format!("--node-ip={NODE_ADDRESS}").into(),
        format!("--hostname-override={name}").into(),
    ]
}

/// Writes all configuration files; `ca_file` is the authority that the kubelet's callers are certified by, and
/// `snapshotter` one of containerd's.
pub(super) fn write(dir: &Path, ca_file: &Path, snapshotter: &str) -> io::Result<()> {
    let hosts = dir.join("hosts").join("_default");
    let cni = dir.join("cni");
    fs::create_dir_all(&hosts)?;
    fs::create_dir_all(&cni)?;
    fs::write(dir.join(INIT), init_script())?;
    fs::write(hosts.join("hosts.toml"), hosts_text())?;
    fs::write(cni.join("10-testbed.conflist"), cni_text())?;
    fs::write(dir.join(REGISTRY), registry_text(dir))?;
    fs::write(dir.join(CONTAINERD), containerd_text(dir, snapshotter))?;
    fs::write(dir.join(KUBELET), kubelet_text(dir, ca_file))
}

fn init_script() -> String {
    let values =
        [("SERVICE_IP", SERVICE_IP), ("NODE_ADDRESS", NODE_ADDRESS), ("BRIDGE", BRIDGE), ("INIT_DONE", INIT_DONE)];
    values.iter().fold(include_str!("init.sh").to_owned(), |script, (name, value)| script.replace(name, value))
}

/// Every image of whatever registry comes from the node's own.
fn hosts_text() -> String {
    let url = registry_url();
    format!("server = \"{url}\"\n\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

fn cni_text() -> String {
    let range = json!({ "subnet": SUBNET, "rangeStart": FIRST_POD_ADDRESS, "gateway": NODE_ADDRESS });
    let ipam = json!({ "type": "host-local", "ranges": [[range]], "routes": [{ "dst": "0.0.0.0/0" }] });
    let bridge = json!({ "type": "bridge", "bridge": BRIDGE, "ipam": ipam });
    json!({ "cniVersion": "0.4.0", "name": "testbed", "plugins": [bridge] }).to_string()
}

fn registry_text(dir: &Path) -> String {
    json!({
        "version": "0.1",
        "log": { "accesslog": { "disabled": true } },
        "storage": { "filesystem": { "rootdirectory": dir.join("registry") } },
        "http": { "addr": format!("{NODE_ADDRESS}:{REGISTRY_PORT}") },
    })
    .to_string()
}

fn containerd_text(dir: &Path, snapshotter: &str) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    // Without the right to raise priorities the out-of-memory scores that the kubelet asks for are refused, unless they
    // are restricted.
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"

[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{hosts}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
"#,
        root = path("containerd"),
        state = path("containerd-state"),
        socket = path(CONTAINERD_SOCKET),
        opt = path("opt"),
        cni = path("cni"),
        hosts = path("hosts"),
    )
}

fn kubelet_text(dir: &Path, ca_file: &Path) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzPort": 0,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": ca_file },
        },
        "authorization": { "mode": "Webhook" },
        "containerRuntimeEndpoint": format!("unix://{}", dir.join(CONTAINERD_SOCKET).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": CGROUP,
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "podLogsDir": dir.join("pod-logs"),
        "volumePluginDir": dir.join("volume-plugins"),
        "serializeImagePulls": false,
        // Nobody answers there: a name that is looked up is refused at once.
        "clusterDNS": [NODE_ADDRESS],
        "resolvConf": "",
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_script_has_all_its_values() {
        let script = init_script();
        for name in ["SERVICE_IP", "NODE_ADDRESS", "BRIDGE", "INIT_DONE"] {
            assert!(!script.contains(name), "{name} is left in {script}");
        }
        assert!(script.contains("ip address add 10.0.0.1/32 dev lo"), "{script}");
    }
}
