//! See `weir::fuzzing::any_input_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::any_input_file(bytes));
