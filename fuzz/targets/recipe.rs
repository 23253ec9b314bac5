#![no_main]

use std::path::Path;

use dram_models::Task;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Task::parse(&String::from_utf8_lossy(bytes), Path::new("recipe.toml"));
});
