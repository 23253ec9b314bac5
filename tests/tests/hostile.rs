//! Bytes from outside, whatever they are, end in a result within bounds.

use std::time::{Duration, Instant};

use dram_tests::hostile::{ENTRIES, mutations};

/// Mutations of each entry's seeds: what fits half a minute.
const MUTATIONS: usize = 250;

/// The slowest call there may be. A call takes milliseconds; the machine may be busy.
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn mutated_inputs_neither_panic_nor_hang() {
    for entry in ENTRIES {
        let seeds = (entry.seeds)();
        for (index, bytes) in seeds.iter().cloned().chain(mutations(&seeds, MUTATIONS)).enumerate()
        {
            let started = Instant::now();
            if std::panic::catch_unwind(|| (entry.call)(&bytes)).is_err() {
                let path = std::env::temp_dir().join(format!("dram-{}-{index}", entry.name));
                std::fs::write(&path, &bytes).expect("a file");
                panic!("{} input {index} panics; it is kept in `{}`", entry.name, path.display());
            }
            assert!(
                started.elapsed() < LONGEST,
                "{} input {index}: {:?}",
                entry.name,
                started.elapsed()
            );
        }
    }
}
