#![no_main]

libfuzzer_sys::fuzz_target!(
    // Panics of the libraries below are caught and become errors; libFuzzer's own hook would end at each.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| dram_tests::hostile::onnx(bytes)
);
