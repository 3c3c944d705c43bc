//! What holds for any bytes: one function per thing that reads what others wrote. Each is a law that panics where it
//! does not hold. `runtime/fuzz` calls them with bytes that a fuzzer makes up, and the tests here with the seeds.
//!
//! A law stands here if it needs nothing private, and next to what it is about if it does. Compiled to nothing but in
//! tests and with the feature `fuzzing`.

mod config;
mod json;
mod tables;

pub use self::config::any_pipeline_file;
pub use self::json::any_json;
pub use self::tables::{any_csv_table, any_parquet_table};

/// What a lying guest returns for a batch: see `sandbox::output`.
pub fn any_guest_output(bytes: &[u8]) {
    crate::sandbox::any_output(bytes);
}

/// An input file: see `source::format`.
pub fn any_input_file(bytes: &[u8]) {
    crate::source::format::fuzzing::any_file(bytes);
}

/// A record of the commit log, or a whole log: see `sink::files`.
pub fn any_commit_log(bytes: &[u8]) {
    crate::sink::files::fuzzing::any_log(bytes);
}

/// The values by which rows are put into directories: see `sink::files`.
pub fn any_directories(bytes: &[u8]) {
    crate::sink::files::fuzzing::any_directories(bytes);
}

/// A law by the name of its target in `runtime/fuzz`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("commit_log", any_commit_log),
    ("csv_table", any_csv_table),
    ("directories", any_directories),
    ("guest_output", any_guest_output),
    ("input_file", any_input_file),
    ("json", any_json),
    ("parquet_table", any_parquet_table),
    ("pipeline_file", any_pipeline_file),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn names(dir: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(dir).expect("the directory is part of the repository");
        let stem = |path: PathBuf| path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        entries.filter_map(|entry| stem(entry.expect("it can be read").path())).collect()
    }

    #[test]
    fn every_law_holds_for_the_seeds_of_its_target() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, law) in TARGETS {
            let files = fs::read_dir(seeds.join(name)).expect("each target has seeds");
            let files: Vec<PathBuf> = files.map(|file| file.expect("it can be read").path()).collect();
            assert!(files.len() > 2, "{name} has {} seeds", files.len());
            for file in files {
                let bytes = fs::read(&file).expect("it can be read");
                let held = std::panic::catch_unwind(|| law(&bytes));
                assert!(held.is_ok(), "{name}: the law does not hold for {}", file.display());
            }
        }
    }

    #[test]
    fn every_law_has_a_target_and_seeds_and_nothing_else_has() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let laws: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&fuzz.join("fuzz_targets")), laws);
        assert_eq!(names(&fuzz.join("seeds")), laws);
    }
}
