//! The real program and where its settings come from.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

/// The address that a hub with these settings refuses to listen on: everybody could reach it, in plain HTTP.
fn refused(env: Option<&str>, flag: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("hub.yaml");
    let text = format!("data-dir: {}\npeople-plaintext: true\npeople-listen: 0.0.0.0:1\n", dir.path().display());
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_active-monitor-hub"));
    command.env("ACTIVE_MONITOR_CONFIG", &config);
    if let Some(env) = env {
        command.env("ACTIVE_MONITOR_PEOPLE_LISTEN", env);
    }
    if let Some(flag) = flag {
        command.args(["--people-listen", flag]);
    }
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.trim_end().rsplit(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    assert_eq!(refused(None, None), "0.0.0.0:1");
    assert_eq!(refused(Some("0.0.0.0:2"), None), "0.0.0.0:2");
    assert_eq!(refused(Some("0.0.0.0:2"), Some("0.0.0.0:3")), "0.0.0.0:3");
}

/// What `active-monitor-hub revoked` prints, where it succeeds.
fn revoked(data_dir: &Path, env: Option<&Path>) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_active-monitor-hub"));
    command.arg("revoked").arg("--data-dir").arg(data_dir);
    if let Some(env) = env {
        command.env("ACTIVE_MONITOR_REVOCATIONS_FILE", env);
    }
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_was_revoked_is_printed_from_the_file_that_the_hub_keeps_it_in() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere.json");
    assert_eq!(revoked(dir.path(), None).as_deref(), Some("{}\n"), "nothing was revoked yet");
    assert_eq!(revoked(dir.path(), Some(&elsewhere)), None, "a mistake in the path is no empty file");
    std::fs::write(&elsewhere, "{\"clusters\": {}}").unwrap();
    assert_eq!(revoked(dir.path(), Some(&elsewhere)).as_deref(), Some("{\"clusters\": {}}"));
}
