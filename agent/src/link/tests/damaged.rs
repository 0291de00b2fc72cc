//! An identity of which the disk or the Secret gives back something else.

use super::*;
use crate::enrol::Identity;

#[tokio::test]
async fn each_flipped_bit_of_the_identity_is_said_or_changes_nothing_and_the_next_step_is_named() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    Agent::start(dir.path(), &process, Some(hub.token())).await.stop_when_connected().await;
    let path = dir.path().join("identity/identity.json");
    let bytes = std::fs::read(&path).unwrap();
    let whole: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let parts = ["certificate", "key", "ca", "tokenSha256"];
    let mut harmless = 0;
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit))) {
        let mut damaged = bytes.clone();
        damaged[at] ^= bit;
        match Identity::parse(&damaged) {
            Err(error) => assert!(error.to_string().contains("identity.json is damaged"), "{at} {bit:#x}: {error}"),
            Ok(identity) => {
                assert_eq!(identity.cluster(), "c1", "{at} {bit:#x}");
                let read: serde_json::Value = serde_json::from_slice(&damaged).unwrap();
                assert!(parts.iter().all(|part| read[part] == whole[part]), "{at} {bit:#x} is used as it is");
                harmless += 1;
            }
        }
    }
    println!("{} bits, {harmless} of them change nothing", bytes.len() * 8);

    // In the middle of the certificate: it can be read, and is not what was stored.
    let mut damaged = bytes.clone();
    let at = bytes.windows(10).position(|window| window == b"-----BEGIN").unwrap() + 200;
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    std::fs::write(&path, &damaged).unwrap();
    let config = LinkConfig {
        hub_address: "localhost:1".into(),
        enrolment_address: format!("localhost:{}", process.enrolment.port()),
        token: None,
        state_dir: dir.path().to_owned(),
        cluster_uid: "uid".into(),
        kubernetes_version: "v1.33.0".into(),
        policy: Vec::new(),
    };
    let identity_dir = dir.path().join("identity");
    let Err(error) = try_identity(&config, &identity_dir).await else { panic!("a damaged identity is used") };
    assert!(next_step(&error).contains("fleetcheck cluster token"), "{error}");
    // Its own token is spent; a new one makes a new identity.
    let next = format!("c1.{}.{}", second_secret(), hub.token().rsplit('.').next().unwrap());
    hub.state.lock().token_spent_by = None;
    let config = LinkConfig { token: Some(next), ..config };
    let (identity, _) = try_identity(&config, &identity_dir).await.unwrap();
    assert_eq!(identity.cluster(), "c1");
    assert!(Identity::load(&identity_dir).unwrap().is_some(), "it is stored in the place of the damaged one");
}
