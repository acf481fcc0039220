//! The corpora of the fuzz targets, and mutations of them, on a stable compiler.

use std::fs;
use std::path::Path;

use fastrand::Rng;
use harness::fuzz::{TARGETS, Target};

/// Mutations per file. The seed is fixed, so a failure is repeatable.
const MUTATIONS: usize = 300;
const SEED: u64 = 0x006d_6573_7361_6765;

/// Tokens with a meaning in one of the formats.
const WORDS: [&[u8]; 43] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b".",
    b"*",
    b">",
    b"PUB ",
    b"HPUB ",
    b"SUB ",
    b"UNSUB ",
    b"999999999",
    b"0",
    b"-1",
    b"PING\r\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b":",
    b",",
    b"null",
    b"1e999",
    b"\"i\":1,",
    b"\"op\":\"auth\"",
    b"\"c\":\"a\"",
    b"=2E",
    b"=",
    b"[edge]",
    b"[[keys]]",
    b"Basic ",
    b"sha256:",
    b"MC_EDGE__LISTEN=",
    b"\x81\x80\0\0\0\0",
    b"\x89\x80\0\0\0\0",
    b"\x88\x80\0\0\0\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\0",
];

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a readable file")))
        .collect();
    // The order of a folder differs between machines.
    files.sort();
    files
}

fn mutate(random: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let at = random.usize(..=input.len());
    match random.u8(..6) {
        0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        1 if at < input.len() => drop(input.remove(at)),
        2 => input.truncate(at),
        3 => drop(input.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
        4 => drop(input.splice(at..at, other[random.usize(..=other.len())..].iter().copied())),
        _ => input.insert(at, random.u8(..)),
    }
}

/// Runs a corpus as it is, and mutated; returns the number of files in which the parser understood something.
fn run((name, check): Target) -> usize {
    let corpus = corpus(name);
    let mut random = Rng::with_seed(SEED);
    let mut understood = 0;
    for (file, input) in &corpus {
        understood += usize::from(check(input) > 0);
        for number in 0..MUTATIONS {
            let mut mutated = input.clone();
            for _ in 0..random.usize(1..8) {
                let other = &corpus[random.usize(..corpus.len())].1;
                mutate(&mut random, &mut mutated, other);
            }
            let kept = std::panic::catch_unwind(|| check(&mutated));
            assert!(
                kept.is_ok(),
                "mutation {number} of {file} broke a promise: {:?}",
                String::from_utf8_lossy(&mutated)
            );
        }
    }
    understood
}

macro_rules! targets {
    ($($test:ident: $name:literal, $least:literal;)*) => {$(
        #[test]
        fn $test() {
            let target = TARGETS.into_iter().find(|(name, _)| *name == $name).expect("it is a target");
            let understood = run(target);
            assert!(understood >= $least, "something was understood in {understood} files only");
        }
    )*};
}

targets! {
    the_embedded_bus_keeps_its_promises_to_any_client: "bus", 20;
    the_edge_keeps_its_promises_to_any_device: "client", 15;
    the_publisher_api_keeps_its_promises_to_any_publisher: "publish", 6;
    keys_are_read_or_refused: "key", 6;
    subjects_lead_to_the_channel_that_they_came_from: "subject", 6;
    envelopes_are_read_as_they_were_written: "envelope", 6;
    a_configuration_is_used_or_every_fault_named: "config", 4;
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, _) in TARGETS {
        assert!(!corpus(name).is_empty(), "{name}");
        let program =
            fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).expect("it has a program");
        assert!(program.contains(&format!("harness::fuzz::{name}(")), "{name}");
    }
}
