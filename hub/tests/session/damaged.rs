//! The hub's data base on a disk that loses the end of what was written, or gives back something else.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Instant;

use active_monitor_core::view::Role;
use active_monitor_hub::store::sqlite::{FILE_NAME, SqliteStore};
use active_monitor_hub::store::{Store, StoreError};
use futures::FutureExt;

use super::*;

/// Reports of a batch, which is one commit.
const BATCH: u64 = 7;
const BATCHES: u64 = 40;

fn seeds() -> u64 {
    std::env::var("ACTIVE_MONITOR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

fn random(seed: u64) -> u64 {
    let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 3
}

/// Where what is written shall not outlast anything.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn batch(number: u64) -> Vec<Run> {
    (number * BATCH..(number + 1) * BATCH).map(|seq| report(seq + 1).run).collect()
}

/// Every run that the store has, by slot, however often.
async fn slots(store: &dyn Store) -> Result<Vec<Run>, StoreError> {
    let mut query = RunQuery { limit: 1000, ..RunQuery::default() };
    let mut runs = Vec::new();
    loop {
        let page = store.runs(&query).await?;
        runs.extend(page.items.into_iter().map(|item| item.run));
        query.before = page.next;
        if query.before.is_none() {
            runs.sort_by_key(|run| run.key.slot);
            return Ok(runs);
        }
    }
}

#[tokio::test]
async fn what_was_acked_before_the_byte_at_which_the_log_ends_is_there_and_it_opens_without_help() {
    let dir = folder();
    let (file, log) = (dir.path().join(FILE_NAME), dir.path().join("hub.sqlite-wal"));
    let store = SqliteStore::open(dir.path()).await.unwrap();
    // How long the log was when a batch was acked.
    let mut acked = Vec::new();
    for number in 0..BATCHES {
        store.record_runs("c1", batch(number), Timestamp::now()).await.unwrap();
        acked.push(usize::try_from(fs::metadata(&log).unwrap().len()).unwrap());
    }
    assert!(acked.is_sorted() && acked[0] < acked[acked.len() - 1], "one log, which grew: {acked:?}");
    let (base, whole) = (fs::read(&file).unwrap(), fs::read(&log).unwrap());
    let (first, rounds) = (acked[0], seeds() / 5);
    for seed in 0..rounds {
        let end = first + usize::try_from(random(seed)).unwrap() % (whole.len() - first + 1);
        let torn = folder();
        let mut bytes = whole[..end].to_vec();
        match seed % 3 {
            0 => {}
            // The file has its length already, and not its bytes.
            1 => bytes.resize(whole.len(), 0),
            _ => bytes.resize_with(whole.len(), || 0xa5),
        }
        fs::write(torn.path().join(FILE_NAME), &base).unwrap();
        fs::write(torn.path().join("hub.sqlite-wal"), bytes).unwrap();
        let store = SqliteStore::open(torn.path()).await.unwrap_or_else(|error| panic!("{seed}: {error:?}"));
        let there = slots(&store).await.unwrap();
        let safe = acked.iter().take_while(|&&length| length <= end).count();
        let all: Vec<Run> = (0..BATCHES).flat_map(batch).collect();
        assert!(there.len() >= safe * BATCH as usize, "{seed}: cut at {end}: {} of {safe} batches", there.len());
        assert_eq!(there.len() % BATCH as usize, 0, "{seed}: a batch is there or not");
        assert_eq!(there, all[..there.len()], "{seed}: what is there is what was written, in its order");
        store.record_runs("c1", batch(BATCHES), Timestamp::now()).await.unwrap();
        let store = opened_again(store, torn.path()).await.unwrap();
        assert_eq!(slots(&store).await.unwrap().len(), there.len() + BATCH as usize, "{seed}: it goes on");
    }
    println!("{rounds} ends of {} bytes", whole.len());
}

/// Closes a store and opens it again. A process that another test starts meanwhile has its lock until it has become its program.
async fn opened_again(store: SqliteStore, dir: &Path) -> Result<SqliteStore, StoreError> {
    store.close().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match SqliteStore::open(dir).await {
            Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => return opened,
        }
    }
}

/// What came of a store whose file has one bit flipped.
#[derive(Default, Debug)]
struct Found {
    /// It said that the file is damaged, at its start or when asked.
    said: u64,
    /// Another error.
    otherwise: u64,
    /// All is as it was written.
    harmless: u64,
    /// Something else is shown: SQLite keeps no sums of what is in its pages.
    unseen: u64,
}

/// Everything that a start reads, and the history.
async fn read_all(store: &SqliteStore) -> Result<Vec<Run>, StoreError> {
    store.clusters().await?;
    store.api_tokens().await?;
    store.definitions().await?;
    store.check_states("c1").await?;
    store.open_incidents().await?;
    store.lives().await?;
    store.audit_log(100).await?;
    store.sizes().await?;
    slots(store).await
}

async fn look(dir: PathBuf, all: Vec<Run>) -> Result<bool, StoreError> {
    let store = SqliteStore::open(&dir).await?;
    let is_whole = read_all(&store).await? == all;
    // An ack is no lie: what was taken is there.
    let taken = store.record_runs("c2", batch(BATCHES), Timestamp::now()).await?;
    let store = opened_again(store, &dir).await?;
    let query = RunQuery { cluster: Some("c2".into()), limit: 100, ..RunQuery::default() };
    let there = store.runs(&query).await?.items.len();
    assert!(there >= taken.new, "{there} of {taken:?}");
    Ok(is_whole)
}

#[tokio::test]
async fn a_flipped_bit_of_the_data_base_is_an_error_that_names_the_file_or_costs_what_it_is_in_and_nothing_panics() {
    let dir = folder();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let add = active_monitor_hub::store::ClusterRecord {
        name: "c1".into(),
        created_at: Timestamp::now(),
        ..Default::default()
    };
    store.put_cluster(&add).await.unwrap();
    store.save_check_states("c1", vec![(check("dns"), Default::default())], vec![]).await.unwrap();
    serve::create_token(&store, "admin", Role::Admin).await.unwrap();
    for number in 0..BATCHES {
        store.record_runs("c1", batch(number), Timestamp::now()).await.unwrap();
    }
    let all = slots(&store).await.unwrap();
    store.close().await;
    let whole = fs::read(dir.path().join(FILE_NAME)).unwrap();
    let mut found = Found::default();
    let rounds = seeds() / 2;
    for seed in 0..rounds {
        let random = usize::try_from(random(seed)).unwrap();
        let mut bytes = whole.clone();
        let (at, bit) = (random / 8 % whole.len(), 1 << (random % 8));
        bytes[at] ^= bit;
        let damaged = folder();
        fs::write(damaged.path().join(FILE_NAME), bytes).unwrap();
        let looked = AssertUnwindSafe(look(damaged.path().to_owned(), all.clone())).catch_unwind().await;
        match looked.unwrap_or_else(|_| panic!("seed {seed}, bit {bit:#x} of byte {at}")) {
            Ok(true) => found.harmless += 1,
            Ok(false) => found.unseen += 1,
            Err(error @ StoreError::Damaged(_)) => {
                assert!(error.to_string().contains(FILE_NAME), "{error}");
                assert!(error.to_string().contains("backup"), "{error}");
                found.said += 1;
            }
            Err(_) => found.otherwise += 1,
        }
    }
    println!("{rounds} flips in {} bytes: {found:?}", whole.len());
    assert!(found.said > 0, "{found:?}");
}
