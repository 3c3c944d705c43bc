//! See `weir::fuzzing::any_directories`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::any_directories(bytes));
