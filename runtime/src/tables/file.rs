//! A reference table from the bytes of a file, whatever its format. It never opens a file: a plan keeps the bytes.

use super::csv::read as read_csv;
use super::parquet::read as read_parquet;
use super::problem::{Problem, TableError};
use super::{Table, TableOptions};
use crate::description::TableNeed;

/// Makes the table that `need` describes from the bytes of a CSV or a Parquet file; they tell which. Columns that nobody
/// wants are left out.
///
/// # Errors
/// [`TableError`], for the first thing that is wrong.
pub fn load(need: &TableNeed, bytes: &[u8], options: &TableOptions) -> Result<Table, TableError> {
    let read = match bytes {
        _ if i32::try_from(bytes.len()).is_err() => Err(Problem::TooLarge(bytes.len())),
        _ if is_parquet(bytes) => read_parquet(need, bytes, options),
        _ => read_csv(need, bytes, options),
    };
    read.map_err(|problem| TableError { table: need.name.clone(), problem })
}

/// One that was cut off has no mark at its end, but no text has such bytes.
fn is_parquet(bytes: &[u8]) -> bool {
    const MARK: &[u8] = b"PAR1";
    let is_text = |byte: &u8| *byte >= b' ' || byte.is_ascii_whitespace();
    bytes.starts_with(MARK) && (bytes.ends_with(MARK) || !bytes.iter().all(is_text))
}
