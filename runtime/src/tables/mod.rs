//! Reference tables: what a transform looks up, as columns. They are loaded whole or not at all, and never change
//! while a plan runs.

mod columns;
mod csv;
pub mod file;
mod header;
mod parquet;
mod problem;
mod thrift;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::VarBytes;
pub use problem::{Problem, TableError};

/// How a table's file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Between the fields of a CSV file. Absent: [`crate::csv::detect_delimiter`].
    pub delimiter: Option<u8>,
    /// From the name of a wanted column to that of the file's column, exactly as the file has it. Wanted columns
    /// that are not here go by their own name, ignoring case, spaces, `_` and `-`.
    pub columns: BTreeMap<String, String>,
}

/// A table as a transform gets it in `init`.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// By this name the transform asked for it.
    pub name: String,
    /// Every column has as many.
    pub rows: u32,
    /// Those that the transform asked for, in that order.
    pub columns: Vec<TableColumn>,
    /// `sha256:` and the digest of the bytes it was loaded from.
    pub digest: Arc<str>,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableColumn {
    /// As the transform calls it.
    pub name: String,
    /// One per row, absent ones included.
    pub values: TableValues,
    /// Bit `i % 8`, least significant first, of byte `i / 8` says whether row `i` has a value. Empty: all have.
    pub validity: Vec<u8>,
}

/// The values of a column by their physical type. For an absent one of fixed size there is a zero, for one of
/// `VarBytes` no bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum TableValues {
    /// One bit per row, packed like [`TableColumn::validity`].
    Booleans(Vec<u8>),
    /// Also days since 1970-01-01.
    Int32s(Vec<i32>),
    /// Also microseconds since 1970-01-01T00:00:00Z.
    Int64s(Vec<i64>),
    /// IEEE 754, 64 bits; finite.
    Doubles(Vec<f64>),
    /// 16 bytes per row: a two's complement integer, little-endian.
    Decimals(Vec<u8>),
    /// Text, JSON and bytes. Its own `validity` stays empty; the column's counts.
    VarBytes(VarBytes),
}
