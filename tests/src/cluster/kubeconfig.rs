//! Kubeconfig files. They are written as JSON, which is YAML.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use super::pki::CertFiles;

/// How a client shows who it is.
pub(super) enum Credentials<'a> {
    Token(&'a str),
    Cert(&'a CertFiles),
}

/// Writes a kubeconfig whose one context is `cluster`, with `namespace` as its default.
pub(super) fn write(
    path: &Path,
    cluster: &str,
    (server, ca_file): (&str, &Path),
    credentials: Credentials<'_>,
    namespace: &str,
) -> io::Result<()> {
    let user = match credentials {
        Credentials::Token(token) => json!({ "token": token }),
        Credentials::Cert(files) => json!({ "client-certificate": files.cert, "client-key": files.key }),
    };
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": cluster, "cluster": { "server": server, "certificate-authority": ca_file } }],
        "users": [{ "name": cluster, "user": user }],
        "contexts": [{
            "name": cluster,
            "context": { "cluster": cluster, "user": cluster, "namespace": namespace },
        }],
        "current-context": cluster,
    });
    fs::write(path, format!("{config:#}\n"))
}
