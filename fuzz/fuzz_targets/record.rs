#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyturn_fuzz::record(data));
