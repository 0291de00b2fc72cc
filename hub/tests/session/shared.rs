//! What replicas that start at the same time have in common: the CA, the first token, and one of them that does what only one
//! may do.

use active_monitor_core::view::CaStage;

use super::*;
use crate::postgres::Database;

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_have_one_ca_and_one_first_token_and_change_the_ca_together() {
    let test = "replicas_that_start_at_once_have_one_ca_and_one_first_token_and_change_the_ca_together";
    let Some(database) = Database::create(test).await else { return };
    let (url, dirs) = (database.url(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let flags = ["--store", url.as_str(), "--replicated"];
    let (one, two) =
        tokio::join!(Running::start_with(dirs[0].path(), &flags), Running::start_with(dirs[1].path(), &flags));
    let trust = |hub: &Running| hub.hub.authority.trust();
    assert_eq!(trust(&one).ca.fingerprint(), trust(&two).ca.fingerprint());
    let tokens = dirs.iter().filter(|dir| dir.path().join(serve::ADMIN_TOKEN_FILE).exists()).count();
    assert_eq!(tokens, 1, "a second would make the first one void");

    one.hub.authority.roll(CaStage::Stable, false, &one.hub.fleet).await.unwrap();
    // Who has not seen it yet looks before it changes anything.
    let late = two.hub.authority.roll(CaStage::Stable, false, &two.hub.fleet).await;
    assert!(late.err().unwrap().to_string().contains("Introduced"));
    assert_eq!(trust(&two).bundle(), trust(&one).bundle());
    two.hub.authority.roll(CaStage::Introduced, false, &two.hub.fleet).await.unwrap();
    eventually("the change that the other made", || trust(&one).stage() == CaStage::Switched).await;
    assert_eq!(trust(&one).ca.fingerprint(), trust(&two).ca.fingerprint());

    // A third brings a CA of its own, which is not the fleet's.
    let third = TempDir::new().unwrap();
    Running::start(third.path()).await.stop().await;
    let three = Running::start_with(third.path(), &flags).await;
    assert_eq!(trust(&three).ca.fingerprint(), trust(&one).ca.fingerprint());
    for hub in [one, two, three] {
        hub.stop().await;
    }
}
