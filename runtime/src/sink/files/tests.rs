//! The file sink against the laws of all sinks, crashes at every failpoint, and lost answers.

use std::fs;
use std::path::{Path, PathBuf};

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use tempfile::TempDir;

use super::*;
use crate::sink::conformance::{self, Owner, Seen, World, at, batch, check_laws, delivered, part, permanent};

/// A directory that processes write to, and its readers.
struct Directory {
    root: TempDir,
    format: Format,
}

impl Directory {
    fn new(format: Format) -> Self {
        Self { root: tempfile::tempdir().unwrap(), format }
    }

    fn config(&self) -> FilesConfig {
        FilesConfig { format: self.format, ..FilesConfig::new(self.root.path(), "p", "lake") }
    }

    fn open(&self) -> FilesSink {
        FilesSink::open(self.config()).unwrap()
    }

    /// The files that a reader finds: those below no directory that begins with `_`.
    fn files(&self) -> Vec<PathBuf> {
        files_below(self.root.path(), &|name| !name.starts_with('_'))
    }

    fn log(&self) -> PathBuf {
        self.root.path().join("_weir/p/lake/id-1/0/log")
    }

    fn staged(&self) -> Vec<PathBuf> {
        files_below(&self.root.path().join("_weir/p/lake/id-1/0/staging"), &|_| true)
    }
}

fn files_below(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries.map(Result::unwrap).filter(|entry| wanted(&entry.file_name().to_string_lossy())) {
        match entry.path().is_dir() {
            true => files.extend(files_below(&entry.path(), wanted)),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    files
}

impl World for Directory {
    fn process(&self) -> Box<dyn Sink> {
        Box::new(self.open())
    }

    fn visible(&self) -> Vec<Seen> {
        let mut rows: Vec<_> = self.files().iter().flat_map(|path| read(path)).collect();
        rows.sort();
        rows
    }
}

fn read(path: &Path) -> Vec<Seen> {
    let target = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    match path.extension().unwrap().to_str().unwrap() {
        "parquet" => read_parquet(path).iter().flat_map(|rows| seen(&target, rows)).collect(),
        _ => read_json(path).iter().map(|row| seen_json(&target, row)).collect(),
    }
}

fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

fn read_json(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn seen(target: &str, rows: &RecordBatch) -> Vec<Seen> {
    let offsets = rows.column_by_name("weir_offset").unwrap().as_primitive::<Int64Type>();
    let index = rows.column_by_name("weir_index").unwrap().as_primitive::<Int32Type>();
    let texts = conformance::texts(rows).into_iter().enumerate();
    texts.map(|(i, text)| (target.to_owned(), offsets.value(i), index.value(i), text)).collect()
}

fn seen_json(target: &str, row: &serde_json::Value) -> Seen {
    let number = |key: &str| row[key].as_i64().unwrap();
    let text = row["text"].as_str().unwrap_or_default().to_owned();
    (target.to_owned(), number("weir_offset"), number("weir_index") as i32, text)
}

#[test]
fn parquet_files_obey_every_law() {
    check_laws(|| Directory::new(Format::Parquet));
}

#[test]
fn json_files_obey_every_law() {
    check_laws(|| Directory::new(Format::JsonLines));
}
