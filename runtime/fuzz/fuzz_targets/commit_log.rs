//! See `weir::fuzzing::any_commit_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::any_commit_log(bytes));
