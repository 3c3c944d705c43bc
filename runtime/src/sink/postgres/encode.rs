//! Rows in the two binary forms in which PostgreSQL takes many at once: the file of a `COPY ... FROM STDIN (FORMAT
//! binary)`, and an array per column. It refuses nothing and sends nothing.

use super::values::{Type, Values};

/// A column on its way into one of a table.
pub(super) struct Column<'a> {
    pub(super) values: Values<'a>,
    pub(super) to: Type,
}

impl Column<'_> {
    pub(super) fn refusal(&self, row: usize) -> Option<String> {
        self.values.refusal(row, self.to)
    }

    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        self.values.write(row, self.to, out);
    }
}

/// What a binary COPY begins with: the signature, no flags, no extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The rows of a COPY; each comes with the columns that it stands in.
pub(super) fn copy<'a>(rows: impl Iterator<Item = (&'a [Column<'a>], usize)>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(HEADER);
    for (columns, row) in rows {
        out.extend((columns.len() as i16).to_be_bytes());
        columns.iter().for_each(|column| column.write(row, &mut out));
    }
    out.extend((-1_i16).to_be_bytes());
    out
}

/// The array of one column over many rows, without a length of its own.
pub(super) fn array<'a>(to: Type, rows: impl ExactSizeIterator<Item = (&'a Column<'a>, usize)>) -> Vec<u8> {
    let mut out = Vec::new();
    // One dimension; there may be nulls; of which type; so many, counted from 1.
    out.extend(1_i32.to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    out.extend(to.oids().0.to_be_bytes());
    out.extend((rows.len() as i32).to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    rows.for_each(|(column, row)| column.write(row, &mut out));
    out
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_copy_is_a_signature_rows_and_an_end() {
        let (texts, numbers) = (StringArray::from(vec!["é", ""]), Int64Array::from(vec![Some(-2), None]));
        let columns = [
            Column { values: Values::Text(&texts), to: Type::Text },
            Column { values: Values::Int64(&numbers), to: Type::Int8 },
        ];
        let out = copy([0, 1].into_iter().map(|row| (&columns[..], row)));
        let expected = [
            &b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..],
            &[0, 2, 0, 0, 0, 2, 0xc3, 0xa9, 0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 254],
            &[0, 2, 0, 0, 0, 0, 255, 255, 255, 255],
            &[255, 255],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn an_array_says_its_type_and_length() {
        let column = Column { values: Values::Offsets(&[5, 6, 7]), to: Type::Int4 };
        let out = array(Type::Int4, [0, 2].into_iter().map(|row| (&column, row)));
        let expected = [
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1][..],
            &[0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 7],
        ];
        assert_eq!(out, expected.concat());
    }
}
