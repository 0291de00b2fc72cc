//! Embeds the dashboard: `dashboard/dist` where `make dashboard` has built it, else a page that says how to.
//!
//! It reads those folders and writes one file to OUT_DIR. It runs no npm: cargo alone must build a hub.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let dashboard = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("dashboard");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let dist = dashboard.join("dist");
    let (assets, watched) = if dist.join("index.html").is_file() {
        (dist.clone(), dist)
    } else {
        // A watched path that does not exist would rebuild the hub each time; its parent sees `dist` appear.
        (dashboard.join("unbuilt"), dashboard)
    };
    println!("cargo::rerun-if-changed={}", watched.display());
    println!("cargo::rerun-if-changed=build.rs");
    embed(&assets, &out_dir)?;
    Ok(())
}

/// Writes `dashboard.rs`: the assets as an expression, which `src/dashboard.rs` includes. They are embedded in debug
/// builds too, so that tests see what a release serves.
fn embed(assets: &Path, out_dir: &Path) -> Result<(), std::io::Error> {
    let code = memory_serve::assets_to_code(&assets.display().to_string(), assets, out_dir, true, |_| {});
    fs::write(out_dir.join("dashboard.rs"), code)
}
