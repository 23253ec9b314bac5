#![no_main]

use std::path::Path;

use dram_models::recipe::Recipe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Recipe::parse(&String::from_utf8_lossy(bytes), Path::new("recipe.toml"));
});
