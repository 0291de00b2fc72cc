//! The images of a node's pods: packed from Debian's files and pushed into its registry over HTTP, in the formats of
//! the OCI image and distribution specifications.

use std::{
    env::consts::ARCH,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, LOCATION},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::config::{BASH, BUSYBOX, OPENSSL, PAUSE_IMAGE, SOCAT};
use crate::{
    cluster::argoexec_image,
    fleet::{binary, project},
    process,
    programs::{Program, Programs},
    run_dir::RunDir,
};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

const LIMIT: Duration = Duration::from_secs(60);

/// What `cowsay` prints, short of the speech's line breaks.
const COWSAY: &str = r#"#!/bin/sh
printf '  %s\n' "$*" | sed 's/[^ ]/_/g; s/ /_/g; s/^__/ /'
printf '< %s >\n' "$*"
cat <<'COW'
    \
     \    ##         .
       ## ## ##     ==
    ~~ {~~ ~~~~ ~~~ ~ /  ===-
        \______ o       __/
          \____________/
COW
"#;

/// Answers every question with the API server's service address: what a DNS server of a cluster does, in short.
const DNS: &str = r"#!/bin/sh
q=/tmp/query.$$
dd bs=512 count=1 of=$q 2>/dev/null
{ head -c 2 $q; printf '\201\200\0\1\0\1\0\0\0\0'; tail -c +13 $q; printf '\300\14\0\1\0\1\0\0\0\74\0\4\12\0\0\1'; } > $q.answer
cat $q.answer
rm -f $q $q.answer
";

/// An image whose `dns` serves names on port 53.
pub const DNS_IMAGE: &str = "docker.io/testbed/dns:1";

/// Builds the images that checks name and those that every pod needs, and pushes them.
pub(super) async fn push_all(run: &RunDir, dir: &Path, programs: &Programs, registry: &Registry) -> anyhow::Result<()> {
    let mut list = Command::new(BUSYBOX);
    list.arg("--list");
    let applets = process::output(run, list, "").await?;
    let tools = Root::new(dir.join("tools"))?.tools(&applets)?.layer(run).await?;
    let whalesay =
        Root::new(dir.join("whalesay"))?.tools(&applets)?.file("bin/bash", BASH)?.script("bin/cowsay", COWSAY)?;
    let whalesay = whalesay.layer(run).await?;
    let executor = programs.path(Program::Argoexec);
    let executor = Root::new(dir.join("argoexec"))?.file("bin/argoexec", executor)?.layer(run).await?;
    let kubectl = programs.path(Program::Kubectl);
    let kubectl = Root::new(dir.join("kubectl"))?.tools(&applets)?.program("bin/kubectl", kubectl, run).await?;
    let openssl = Root::new(dir.join("openssl"))?.tools(&applets)?.program("bin/openssl", OPENSSL, run).await?;
    let dns = Root::new(dir.join("dns"))?.tools(&applets)?.script("bin/answer", DNS)?;
    let dns = dns.script("bin/dns", "#!/bin/sh\nexec socat UDP-RECVFROM:53,fork EXEC:/bin/answer\n")?;
    let dns = dns.program("bin/socat", SOCAT, run).await?;

    registry.push("docker.io/library/alpine:latest", &tools, &[]).await?;
    registry.push("docker.io/tutum/dnsutils:latest", &tools, &[]).await?;
    registry.push("docker.io/docker/whalesay:latest", &whalesay, &[]).await?;
    // Stand-ins for the images of examples/checks, under their names: the tools are Debian's, kubectl the testbed's.
    registry.push("docker.io/library/busybox:1.37", &tools, &[]).await?;
    registry.push("docker.io/alpine/k8s:1.34.1", &kubectl.layer(run).await?, &[]).await?;
    registry.push("docker.io/alpine/openssl:3.5.4", &openssl.layer(run).await?, &[]).await?;
    registry.push(DNS_IMAGE, &dns.layer(run).await?, &[]).await?;
    registry.push(PAUSE_IMAGE, &tools, &["/bin/busybox", "sleep", "2147483647"]).await?;
    registry.push(&argoexec_image(), &executor, &["/bin/argoexec"]).await?;
    fs::remove_dir_all(dir).context("cannot remove the sources of the images")
}

/// Builds the image of a target of `deploy/Dockerfile` as that does, from a program that is built already, and pushes it
/// under the name that the charts give it.
pub(super) async fn push_own(run: &RunDir, dir: &Path, target: &str, registry: &Registry) -> anyhow::Result<()> {
    let program = format!("active-monitor-{target}");
    let dockerfile = fs::read_to_string(project().join("deploy/Dockerfile"))?;
    let entrypoint =
        entrypoint(&dockerfile, target).with_context(|| format!("no target {target} in the Dockerfile"))?;
    let root = Root { dir: dir.join(&program) };
    let mut collect = Command::new(project().join("deploy/image/collect.sh"));
    collect.arg(binary(&program)?).arg(&root.dir);
    process::output(run, collect, "").await.context("cannot collect the image's files")?;
    let layer = root.layer(run).await?;
    let name = format!("docker.io/library/{program}:{}", env!("CARGO_PKG_VERSION"));
    let entrypoint: Vec<&str> = entrypoint.iter().map(String::as_str).collect();
    registry.push(&name, &layer, &entrypoint).await?;
    fs::remove_dir_all(dir).context("cannot remove the sources of the image")
}

/// What the last stage of a target runs.
fn entrypoint(dockerfile: &str, target: &str) -> Option<Vec<String>> {
    let (_, stage) = dockerfile.split_once(&format!("\nFROM scratch AS {target}\n"))?;
    let mut stage = stage.lines().take_while(|line| !line.starts_with("FROM "));
    serde_json::from_str(stage.find_map(|line| line.strip_prefix("ENTRYPOINT "))?).ok()
}

/// A root file system in the making.
struct Root {
    dir: PathBuf,
}

impl Root {
    fn new(dir: PathBuf) -> anyhow::Result<Self> {
        for folder in ["bin", "etc", "root", "tmp"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        fs::set_permissions(dir.join("tmp"), Permissions::from_mode(0o1777))?;
        fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(dir.join("etc/group"), "root:x:0:\n")?;
        Ok(Self { dir })
    }

    /// Adds busybox under all its names, one a line of `applets`.
    fn tools(self, applets: &str) -> anyhow::Result<Self> {
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", self.dir.join("bin").join(applet))?;
        }
        self.file("bin/busybox", BUSYBOX)
    }

    fn file(self, to: &str, from: impl AsRef<Path>) -> anyhow::Result<Self> {
        let from = from.as_ref();
        fs::copy(from, self.dir.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(self)
    }

    /// Adds a program with the libraries that it is linked with, in the places where it looks for them.
    async fn program(self, to: &str, from: impl AsRef<Path>, run: &RunDir) -> anyhow::Result<Self> {
        let from = from.as_ref();
        let mut ldd = Command::new("ldd");
        ldd.arg(from);
        let libraries = process::output(run, ldd, "").await?;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = self.dir.join(library.trim_start_matches('/'));
            fs::create_dir_all(place.parent().context("a library has no folder")?)?;
            fs::copy(library, &place).with_context(|| format!("cannot copy {library}"))?;
        }
        self.file(to, from)
    }

    fn script(self, to: &str, text: &str) -> anyhow::Result<Self> {
        let path = self.dir.join(to);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(self)
    }

    async fn layer(self, run: &RunDir) -> anyhow::Result<Blob> {
        let archive = self.dir.with_added_extension("tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--file"]);
        tar.arg(&archive).arg("--directory").arg(&self.dir).arg(".");
        process::output(run, tar, "").await?;
        // A program, since an unoptimized build takes seconds for the executor.
        let mut hash = Command::new("sha256sum");
        hash.arg(&archive);
        let hash = process::output(run, hash, "").await?;
        let hash = hash.split_whitespace().next().context("sha256sum printed nothing")?;
        Ok(Blob { bytes: fs::read(&archive)?, digest: format!("sha256:{hash}") })
    }
}

/// Bytes and the name they have in a registry.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        Self { bytes, digest }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// An image registry without a login.
pub(super) struct Registry {
    url: String,
    client: Client,
}

impl Registry {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        // The machine's proxy knows nothing of the registry.
        let client = Client::builder().no_proxy().timeout(LIMIT).build()?;
        Ok(Self { url: url.to_owned(), client })
    }

    /// Whether it answers yet.
    pub(super) async fn answers(&self) -> anyhow::Result<Option<()>> {
        let status = self.client.get(format!("{}/v2/", self.url)).send().await?.status();
        Ok((status == StatusCode::OK).then_some(()))
    }

    /// Pushes an image of one layer under its full name; the registry drops the host's part, as its readers do.
    async fn push(&self, name: &str, layer: &Blob, entrypoint: &[&str]) -> anyhow::Result<()> {
        let (repository, tag) = repository_and_tag(name).with_context(|| format!("{name} is not a full image name"))?;
        let (config, manifest) = describe(layer, entrypoint);
        let manifest_url = format!("{}/v2/{repository}/manifests/{tag}", self.url);
        let pushed = async {
            self.upload(repository, layer).await?;
            self.upload(repository, &config).await?;
            let request = self.client.put(manifest_url).header(CONTENT_TYPE, MANIFEST_TYPE).body(manifest.to_string());
            anyhow::Ok(request.send().await?.error_for_status()?)
        };
        pushed.await.with_context(|| format!("cannot push {name}")).map(drop)
    }

    async fn upload(&self, repository: &str, blob: &Blob) -> anyhow::Result<()> {
        let begun = self.client.post(format!("{}/v2/{repository}/blobs/uploads/", self.url)).send().await?;
        let begun = begun.error_for_status()?;
        let place = begun.headers().get(LOCATION).context("the registry names no place for an upload")?;
        let mut place = Url::parse(place.to_str()?)?;
        place.query_pairs_mut().append_pair("digest", &blob.digest);
        let request = self.client.put(place).header(CONTENT_TYPE, "application/octet-stream").body(blob.bytes.clone());
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

/// The configuration of an image of one layer, and its manifest.
fn describe(layer: &Blob, entrypoint: &[&str]) -> (Blob, Value) {
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Entrypoint": entrypoint },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    });
    let config = Blob::new(config.to_string());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor(CONFIG_TYPE),
        "layers": [layer.descriptor(LAYER_TYPE)],
    });
    (config, manifest)
}

/// Splits `host/repository:tag`.
fn repository_and_tag(name: &str) -> Option<(&str, &str)> {
    let (_host, path) = name.split_once('/')?;
    path.rsplit_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_as_container_runtimes_do() {
        assert_eq!(repository_and_tag("docker.io/docker/whalesay:latest"), Some(("docker/whalesay", "latest")));
        assert_eq!(repository_and_tag(PAUSE_IMAGE), Some(("pause", "3.6")));
        assert_eq!(repository_and_tag("alpine"), None);
    }

    #[test]
    fn a_target_says_what_it_runs() {
        let text =
            "FROM a AS b\nENTRYPOINT [\"no\"]\nFROM scratch AS hub\nENTRYPOINT [\"/bin/hub\"]\nFROM scratch AS last\n";
        assert_eq!(entrypoint(text, "hub"), Some(vec!["/bin/hub".to_owned()]));
        assert_eq!(entrypoint(text, "last"), None);
        assert_eq!(entrypoint(text, "b"), None);
    }

    #[test]
    fn the_dockerfile_copies_what_is_there_and_every_crate() {
        let dockerfile = fs::read_to_string(project().join("deploy/Dockerfile")).unwrap();
        let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
        let sources = copies.filter(|copy| !copy.contains("--from=")).flat_map(|copy| {
            let (sources, _to) = copy.rsplit_once(' ').unwrap();
            sources.split(' ').map(str::to_owned)
        });
        let sources: Vec<String> = sources.collect();
        for source in &sources {
            assert!(project().join(source).exists(), "{source}");
        }
        let manifest = fs::read_to_string(project().join("Cargo.toml")).unwrap();
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
        for member in serde_json::from_str::<Vec<String>>(members).unwrap() {
            assert!(sources.contains(&member), "the Dockerfile lacks {member}");
        }
    }

    #[test]
    fn a_manifest_names_its_blobs() {
        let layer = Blob::new("layer");
        let (config, manifest) = describe(&layer, &["/bin/true"]);
        assert_eq!(manifest["config"]["digest"], config.digest);
        assert_eq!(manifest["config"]["size"], config.bytes.len());
        assert_eq!(manifest["layers"][0]["digest"], "sha256:".to_owned() + &hex::encode(Sha256::digest("layer")));
        let config: Value = serde_json::from_slice(&config.bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], layer.digest);
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/true"]));
    }
}
