//! The fuzz target's corpus, and mutations of it, on a stable compiler.

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// Mutations of each file. The seed is fixed, so a failure can be repeated.
const MUTATIONS: usize = 300;
const SEED: u64 = 0x006e_6174_7300;

/// What the protocol gives a meaning to.
const WORDS: [&[u8]; 16] = [
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
];

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/parse");
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

#[test]
fn every_file_of_the_corpus_keeps_the_promises() {
    let corpus = corpus();
    assert!(corpus.len() >= 20, "the corpus has only {} files", corpus.len());
    for (name, input) in &corpus {
        assert!(
            embedded_bus::check_bytes(input) > 0 || name.ends_with("endless_line"),
            "{name} holds no operation"
        );
    }
}

#[test]
fn mutations_of_the_corpus_keep_the_promises() {
    let corpus = corpus();
    let mut random = Rng::with_seed(SEED);
    for (name, input) in &corpus {
        for number in 0..MUTATIONS {
            let mut mutated = input.clone();
            for _ in 0..random.usize(1..8) {
                let other = &corpus[random.usize(..corpus.len())].1;
                mutate(&mut random, &mut mutated, other);
            }
            let checked = std::panic::catch_unwind(|| embedded_bus::check_bytes(&mutated));
            assert!(
                checked.is_ok(),
                "mutation {number} of {name} broke a promise: {:?}",
                String::from_utf8_lossy(&mutated)
            );
        }
    }
}
