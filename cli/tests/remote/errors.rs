//! What is said, and the exit code of the process, when the hub cannot be asked.

use std::net::TcpListener;

use crate::hub::{Hub, TOKEN, binary, fleet};

/// The exit code, and the error stream's only line.
fn fails(command: &mut assert_cmd::Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(err.lines().count(), 1, "{err}");
    (output.status.code(), err)
}

#[test]
fn the_process_exits_as_the_command_says() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(fleet());
    let command = |token: &str, args: &[&str]| {
        let mut command = binary(home.path());
        command.args(args).env("FLEETCHECK_HUB", hub.url()).env("FLEETCHECK_TOKEN", token);
        command
    };
    assert_eq!(command(TOKEN, &["checks"]).output().unwrap().status.code(), Some(0));
    assert_eq!(command(TOKEN, &["status"]).output().unwrap().status.code(), Some(1));

    let (code, err) = fails(&mut command("wrong", &["status"]));
    assert_eq!(
        (code, err.as_str()),
        (Some(2), "error: the hub refused the token: unknown token; make one with `active-monitor-hub token create`\n")
    );
    let (code, err) = fails(&mut command("amf_viewer", &["cluster", "remove", "east"]));
    assert_eq!(code, Some(2));
    assert_eq!(err, "error: the token may not do that: it needs the role admin; use one with a higher role\n");
    let (code, err) = fails(&mut command("amf_broken", &["status"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("does not answer like a hub: status 502 Bad Gateway, <html>"), "{err}");
    let (_, err) = fails(&mut command("a\nb", &["status"]));
    assert!(err.contains("characters that no token has"), "{err}");
    assert_eq!(binary(home.path()).arg("nonsense").output().unwrap().status.code(), Some(2));
}

#[test]
fn a_hub_that_is_not_there_is_said_to_be() {
    let home = tempfile::tempdir().unwrap();
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = binary(home.path());
    let (code, err) = fails(command.args(["status", "--token", "x", "--hub", &format!("http://{address}")]));
    assert_eq!(code, Some(2));
    assert!(
        err.contains(&format!("cannot reach the hub at http://{address}/")) && err.contains("is it running"),
        "{err}"
    );
}

#[test]
fn what_is_not_configured_is_named() {
    let home = tempfile::tempdir().unwrap();
    let (code, err) = fails(binary(home.path()).arg("status"));
    assert_eq!(code, Some(2));
    assert!(err.contains("--hub") && err.contains("FLEETCHECK_HUB") && err.contains("fleetcheck/config.yaml"), "{err}");
    let (_, err) = fails(binary(home.path()).args(["status", "--hub", "https://127.0.0.1:1"]));
    assert!(err.contains("--token-file") && err.contains("active-monitor-hub token create"), "{err}");
    let (_, err) = fails(binary(home.path()).args(["status", "--token", "x", "--hub", "http://192.0.2.1:1"]));
    assert!(err.contains("unencrypted"), "{err}");
    let args = ["status", "--token", "x", "--hub", "https://127.0.0.1:1", "--ca-file", "/dev/null"];
    let (_, err) = fails(binary(home.path()).args(args));
    assert!(err.contains("no PEM certificate"), "{err}");
}

#[test]
fn the_configuration_file_is_enough() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(fleet());
    let folder = home.path().join(".config/fleetcheck");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
    std::fs::write(folder.join("config.yaml"), format!("hub: {}\ntoken_file: token\n", hub.url())).unwrap();
    assert_eq!(binary(home.path()).arg("checks").output().unwrap().status.code(), Some(0));

    let mut command = binary(home.path());
    let (_, err) = fails(command.arg("checks").env("FLEETCHECK_TOKEN", "wrong"));
    assert!(err.contains("the hub refused the token"), "the environment goes before the file: {err}");
    std::fs::write(folder.join("config.yaml"), "hub: a\ntokenfile: b\n").unwrap();
    let (_, err) = fails(binary(home.path()).arg("checks"));
    assert!(err.contains("config.yaml is not a configuration") && err.contains("tokenfile"), "{err}");
}

#[test]
fn a_proxy_is_not_asked_for_a_hub_on_this_machine() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(fleet());
    let mut command = binary(home.path());
    command.args(["checks", "--token", TOKEN, "--hub", &hub.url()]).env("http_proxy", "http://127.0.0.1:9");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}
