//! See `weir::fuzzing::any_guest_output`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::any_guest_output(bytes));
