//! See `weir::fuzzing::any_csv_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::any_csv_table(bytes));
