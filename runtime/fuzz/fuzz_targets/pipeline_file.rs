//! See `weir::fuzzing::any_pipeline_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::any_pipeline_file(bytes));
