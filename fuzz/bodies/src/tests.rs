//! Each target over its seeds and changes of them, the same each time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Inputs of each target, beside the seeds themselves.
const INPUTS: usize = 1_500;
/// The longest input, bytes.
const MAX_BYTES: usize = 4_096;

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];

        mod holds {
            $(#[test]
            fn $name() {
                super::run(stringify!($name), crate::$name::body);
            })*
        }
    };
}

targets!(
    cron,
    definition,
    git_folder,
    health_check,
    id_tokens,
    journal,
    label_selector,
    match_selectors,
    pushed,
    rest_bodies,
    samples,
    session_frames,
    signing_requests,
    tokens,
    workflow_source,
);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths
}

/// Those of the target, and what is for all.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dirs =
        ["seeds".to_owned(), format!("seeds/{target}"), "../examples".to_owned(), "../examples/checks".to_owned()];
    let paths = dirs.iter().flat_map(|dir| files(&root().join(dir)));
    paths.map(|path| fs::read(path).unwrap()).collect()
}

fn run(target: &str, body: fn(&[u8])) {
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| body(seed));
    let mut dice = Dice(target.bytes().fold(1, |seed, byte| seed.rotate_left(7) ^ u64::from(byte)));
    for number in 0..INPUTS {
        let input = dice.change(&seeds);
        // A test's output is shown where it fails.
        println!("input {number} of {target}: {}", input.escape_ascii());
        body(&input);
    }
}

/// A seeded sequence (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
    }

    /// A seed with one to six changes: bytes and pieces flipped, put in, taken out, doubled, or from another seed.
    fn change(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (self.0 % 8)),
                1 => bytes.insert(at, u8::try_from(self.below(256)).unwrap()),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    let piece = other[from..(from + 1 + self.below(40)).min(other.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    const SPECIAL: &[u8] = b"\0\n\"\\'`{}[](),:;=~!*?#&|<>%@-+.09aZ\xff\x80";
                    bytes.insert(at, SPECIAL[self.below(SPECIAL.len())]);
                }
            }
        }
        bytes.truncate(MAX_BYTES);
        bytes
    }
}

#[test]
fn each_target_of_the_fuzzer_is_run_here_too() {
    let named = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let found: BTreeSet<_> = files(&root().join("fuzz_targets")).into_iter().map(named).collect();
    assert!(found.iter().eq(TARGETS), "{found:?}");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is no binary of fuzz/Cargo.toml");
        let text = fs::read_to_string(root().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(text.contains(&format!("::{target}::body(bytes)")), "{target}");
    }
}

#[test]
fn changes_are_where_they_were_named() {
    assert_eq!(changed(b"abc", &[]), b"abc");
    assert_eq!(changed(b"abc", &[0, 1, 1]), b"acc");
    assert_eq!(changed(b"abc", &[0, 4, 1, 1]), b"ac");
    assert_eq!(changed(b"", &[0, 4, 1, 1]), b"");
}
