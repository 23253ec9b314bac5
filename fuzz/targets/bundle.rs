#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dram_tests::hostile::bundle(bytes));
