//! Holds the checked-in generated code to the `.proto` files. `UPDATE=1 cargo test -p active-monitor-proto` rewrites it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

const PROTO: &str = "activemonitor/fleet/v1/session.proto";
const GENERATED: &str = "activemonitor.fleet.v1.rs";

#[test]
fn generated_code_is_what_the_proto_files_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile([root.join(PROTO)], [root]).unwrap();
    tonic_prost_build::configure().out_dir(out.path()).compile_fds(descriptors).unwrap();
    let fresh = fs::read_to_string(out.path().join(GENERATED)).unwrap();
    let kept = root.join("src/gen").join(GENERATED);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&kept, &fresh).unwrap();
    }
    let stored = fs::read_to_string(&kept).unwrap_or_default();
    assert!(stored == fresh, "{} is out of date: run with UPDATE=1", kept.display());
}
