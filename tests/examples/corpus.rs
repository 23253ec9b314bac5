//! Writes the sound inputs of every fuzz target to files, for a fuzzer to start from:
//! `cargo run --release --example corpus -- fuzz/corpus`.

use std::path::Path;

use dram_tests::hostile::ENTRIES;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "fuzz/corpus".to_owned());
    for entry in ENTRIES {
        let folder = Path::new(&folder).join(entry.name);
        std::fs::create_dir_all(&folder)?;
        for bytes in (entry.seeds)() {
            // As libFuzzer does, each is named by what it holds.
            std::fs::write(folder.join(&blake3::hash(&bytes).to_hex()[..16]), bytes)?;
        }
    }
    Ok(())
}
