//! Why a file is not the table that is wanted, in words that say where and what would do. It reads no file.

/// Why a file is not the table that a transform wants.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("table {table}: {problem}")]
pub struct TableError {
    /// The table's name.
    pub table: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a table's file. Lines count from 1, the header's included.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No header.
    #[error("the file is empty; its first line must name the columns")]
    Empty,
    /// Positions have 31 bits.
    #[error("the file has {0} bytes, and a table may have 2147483647")]
    TooLarge(usize),
    /// The same for what a Parquet file holds.
    #[error("the file has {0} rows, or in a column so many bytes, and a table may have 2147483647")]
    TooMany(i64),
    /// Another encoding.
    #[error(
        "line {line} is not UTF-8; save the file as UTF-8 (it may be in Latin-1, Windows-1252 or UTF-16)"
    )]
    NotUtf8 {
        /// Where.
        line: usize,
    },
    /// A quoted field that does not end, or goes on behind its end.
    #[error(
        "a quote in the row at line {line} is not closed where its field ends; a quote inside quotes is written twice"
    )]
    Quotes {
        /// Where the row begins.
        line: usize,
    },
    /// A row of another width.
    #[error("the row at line {line} has {fields} fields, the header has {header}")]
    Ragged {
        /// Where the row begins.
        line: usize,
        /// Fields in it.
        fields: usize,
        /// Fields in the header.
        header: usize,
    },
    /// A wanted column is not in the header.
    #[error("no column for {column}: the file has no column \"{looked_for}\"{}, only {header}; name the right one under columns", meant(.nearest))]
    Missing {
        /// The wanted column.
        column: String,
        /// What it goes by.
        looked_for: String,
        /// All that there are.
        header: String,
        /// The one that may be meant.
        nearest: Option<String>,
    },
    /// Two columns could be the wanted one.
    #[error(
        "two columns for {column}: \"{first}\" and \"{second}\"; name one of them under columns, or rename one"
    )]
    Twice {
        /// The wanted column.
        column: String,
        /// A column of the file.
        first: String,
        /// Another.
        second: String,
    },
    /// A column is given a header that nobody wants.
    #[error("columns names {column}, which the transform does not want{}", meant(.nearest))]
    NotWanted {
        /// The name.
        column: String,
        /// The one that may be meant.
        nearest: Option<String>,
    },
    /// A value of a Parquet file is not of the declared type, or is not there. Rows count from 1.
    #[error("column {column} of row {row} is {value} and has to be {wanted}")]
    RowValue {
        /// Which row.
        row: usize,
        /// The wanted column.
        column: String,
        /// The value, or its beginning.
        value: String,
        /// What would do.
        wanted: String,
    },
    /// A column of a Parquet file is of a type that cannot become the declared one.
    #[error("column {column} is of type {found}, and has to hold {wanted}")]
    Type {
        /// The wanted column.
        column: String,
        /// Its type in the file.
        found: String,
        /// What would do.
        wanted: String,
    },
    /// Something that looks like a Parquet file is none that can be read.
    #[error("the Parquet file cannot be read: {0}")]
    Parquet(String),
    /// A Parquet file that is compressed in another way.
    #[error(
        "the Parquet file is compressed with {0}, which is not read here; write it again with zstd or uncompressed"
    )]
    Codec(String),
    /// A Parquet file that says a lot in few bytes.
    #[error("the first {rows} rows have more than {most} bytes unpacked, and a table may have no more")]
    Unpacked {
        /// How far it was read.
        rows: usize,
        /// What is allowed.
        most: u64,
    },
    /// A delimiter for a file that has none.
    #[error("the file is a Parquet file, which has no delimiter; leave `delimiter` out")]
    Delimiter,
    /// A cell is not of the declared type.
    #[error("column {column} of the row at line {line} is \"{cell}\" and has to be {wanted}")]
    Value {
        /// Where the row begins.
        line: usize,
        /// The wanted column.
        column: String,
        /// The cell, or its beginning.
        cell: String,
        /// What would do.
        wanted: String,
    },
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (is \"{name}\" meant?)")).unwrap_or_default()
}

/// The name most like `name`, if one is like it at all.
pub(super) fn nearest(name: &str, names: &[&str]) -> Option<String> {
    let close = |other: &&&str| distance(name, other) <= 1 + name.chars().count() / 3;
    names.iter().filter(close).min_by_key(|other| distance(name, other)).map(|&other| other.to_owned())
}

/// How many letters to insert, leave out or change, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
