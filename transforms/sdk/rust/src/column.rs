//! Columns in the layouts of the contract (Arrow's), filled row by row. Never knows what a field means.

/// Byte strings in one buffer; the layout of `var-bytes` in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VarBytes {
    /// One more than there are entries; the first is 0.
    pub offsets: Vec<u32>,
    pub data: Vec<u8>,
    /// Bit i says whether entry i is present; empty if all are.
    pub validity: Vec<u8>,
}

/// The physical values of a column; see the contract for the layouts.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnData {
    /// One bit per row, the least significant first.
    Booleans(Vec<u8>),
    S32s(Vec<i32>),
    S64s(Vec<i64>),
    F64s(Vec<f64>),
    /// 16 bytes per row, little-endian.
    S128s(Vec<u8>),
    VarBytes(VarBytes),
}

/// The values of one field, one per row.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub data: ColumnData,
    /// Bit i says whether row i is present; empty if all are.
    pub validity: Vec<u8>,
}

/// A column being filled. Only a [`Cell`](crate::Cell) writes to it, and always a whole cell.
#[derive(Debug)]
pub struct ColumnBuilder {
    column: Column,
    rows: usize,
}

impl Default for VarBytes {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new(), validity: Vec::new() }
    }
}

impl VarBytes {
    /// Appends an entry; `None` is an absent one.
    ///
    /// # Panics
    /// If all entries together exceed the 4 GiB that offsets can tell.
    #[inline]
    pub fn push(&mut self, entry: Option<&[u8]>) {
        let row = self.offsets.len() - 1;
        push_present(&mut self.validity, row, entry.is_some());
        self.append(entry.unwrap_or_default());
    }

    #[inline(always)]
    fn append(&mut self, entry: &[u8]) {
        append(&mut self.data, entry);
        self.close();
    }

    /// Ends an entry whose bytes have been written to `data` already.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.offsets.push(u32::try_from(self.data.len()).expect("one column of a batch is below 4 GiB"));
    }
}

impl<'a> FromIterator<Option<&'a [u8]>> for VarBytes {
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|entry| all.push(entry));
        all
    }
}

impl ColumnBuilder {
    /// An empty column for values such as `data` holds; `data` itself has to be empty.
    pub(crate) fn new(data: ColumnData) -> Self {
        Self { column: Column { data, validity: Vec::new() }, rows: 0 }
    }

    pub(crate) fn finish(self) -> Column {
        self.column
    }

    pub(crate) fn boolean(&mut self, value: Option<bool>) {
        let ColumnData::Booleans(bits) = &mut self.column.data else { wrong_type() };
        push_bit(bits, self.rows, value.unwrap_or_default());
        self.next(value.is_some());
    }

    #[inline]
    pub(crate) fn s32(&mut self, value: Option<i32>) {
        let ColumnData::S32s(values) = &mut self.column.data else { wrong_type() };
        values.push(value.unwrap_or_default());
        self.next(value.is_some());
    }

    #[inline]
    pub(crate) fn s64(&mut self, value: Option<i64>) {
        let ColumnData::S64s(values) = &mut self.column.data else { wrong_type() };
        values.push(value.unwrap_or_default());
        self.next(value.is_some());
    }

    #[inline]
    pub(crate) fn f64(&mut self, value: Option<f64>) {
        let ColumnData::F64s(values) = &mut self.column.data else { wrong_type() };
        values.push(value.unwrap_or_default());
        self.next(value.is_some());
    }

    pub(crate) fn s128(&mut self, value: Option<i128>) {
        let ColumnData::S128s(bytes) = &mut self.column.data else { wrong_type() };
        bytes.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
        self.next(value.is_some());
    }

    /// Always inlined: each function entered costs a transform a look at the clock that may interrupt it.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, value: Option<&[u8]>) {
        let ColumnData::VarBytes(entries) = &mut self.column.data else { wrong_type() };
        entries.append(value.unwrap_or_default());
        self.next(value.is_some());
    }

    #[inline]
    fn next(&mut self, present: bool) {
        push_present(&mut self.column.validity, self.rows, present);
        self.rows += 1;
    }
}

/// Appends `entry`. Most are short, and a call that copies costs more than they do: these go in two parts of a fixed
/// length, of which the second covers the end of the first.
#[inline(always)]
fn append(data: &mut Vec<u8>, entry: &[u8]) {
    match entry.len() {
        33.. => data.extend_from_slice(entry),
        16.. => append_in_two::<16>(data, entry),
        8.. => append_in_two::<8>(data, entry),
        4.. => append_in_two::<4>(data, entry),
        2.. => append_in_two::<2>(data, entry),
        _ => data.extend(entry.first()),
    }
}

/// Appends an `entry` of `PART` bytes up to twice as many.
#[inline(always)]
fn append_in_two<const PART: usize>(data: &mut Vec<u8>, entry: &[u8]) {
    if let (Some(first), Some(last)) = (entry.first_chunk::<PART>(), entry.last_chunk::<PART>()) {
        let start = data.len();
        data.extend_from_slice(first);
        data.truncate(start + entry.len() - PART);
        data.extend_from_slice(last);
    }
}

#[cold]
fn wrong_type() -> ! {
    unreachable!("a column is built for the type of the cells that go into it")
}

/// Says whether `row`, the next one, is present. The bitmap stays empty up to the first absent row.
#[inline]
pub(crate) fn push_present(bitmap: &mut Vec<u8>, row: usize, present: bool) {
    if !present && bitmap.is_empty() {
        all_present(bitmap, row);
    }
    if !present || !bitmap.is_empty() {
        push_bit(bitmap, row, present);
    }
}

#[cold]
fn all_present(bitmap: &mut Vec<u8>, rows: usize) {
    bitmap.resize(rows / 8, 0xff);
    if !rows.is_multiple_of(8) {
        bitmap.push((1 << (rows % 8)) - 1);
    }
}

/// Appends bit number `at`; the bits before it are there.
#[inline]
pub(crate) fn push_bit(bitmap: &mut Vec<u8>, at: usize, bit: bool) {
    match bitmap.last_mut() {
        Some(last) if !at.is_multiple_of(8) => *last |= u8::from(bit) << (at % 8),
        _ => bitmap.push(u8::from(bit)),
    }
}

/// Bit `at` of a bitmap in which no bytes mean "all set".
#[inline]
pub(crate) fn is_present(bitmap: &[u8], at: usize) -> bool {
    bitmap.is_empty() || bitmap[at / 8] >> (at % 8) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(present: &[bool], expected: &[u8]) {
        let mut bitmap = Vec::new();
        for (row, present) in present.iter().enumerate() {
            push_present(&mut bitmap, row, *present);
        }
        assert_eq!(bitmap, expected);
        assert!(present.iter().enumerate().all(|(row, present)| is_present(&bitmap, row) == *present));
    }

    #[test]
    fn a_bitmap_is_empty_while_all_rows_are_present() {
        check(&[], &[]);
        check(&[true; 20], &[]);
    }

    #[test]
    fn the_first_absent_row_makes_the_rows_before_it_present() {
        check(&[false], &[0]);
        check(&[true, false], &[0b01]);
        check(&[true, true, false, true], &[0b1011]);
        check(&[[true; 8].as_slice(), &[false]].concat(), &[0xff, 0]);
        check(&[[true; 9].as_slice(), &[false, true]].concat(), &[0xff, 0b101]);
    }

    #[test]
    fn an_entry_of_any_length_is_appended_whole() {
        let text: Vec<u8> = (0..100).collect();
        let mut data = b"before".to_vec();
        for len in 0..text.len() {
            data.truncate(6);
            append(&mut data, &text[..len]);
            assert_eq!(data, [b"before", &text[..len]].concat());
        }
    }

    #[test]
    fn an_absent_entry_has_no_bytes() {
        let entries: VarBytes = [Some(b"ab".as_slice()), None, Some(b"")].into_iter().collect();
        assert_eq!(entries.offsets, [0, 2, 2, 2]);
        assert_eq!(entries.data, b"ab");
        assert_eq!(entries.validity, [0b101]);
    }
}
