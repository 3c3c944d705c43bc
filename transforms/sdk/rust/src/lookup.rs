//! Reference tables and look-ups in them. Never changes after `init`, never allocates to look up an ASCII text.

use crate::column::{Column, ColumnData, is_present};
use crate::declare::Table;

/// The tables that `init` gets.
#[derive(Debug, Default)]
pub struct Tables {
    tables: Vec<TableData>,
}

/// A reference table: the columns that `describe` asked for, in that order.
#[derive(Debug, Clone, PartialEq)]
pub struct TableData {
    pub name: String,
    pub rows: u32,
    pub columns: Vec<(String, Column)>,
}

/// Finds the row of a table that has a text in its key column.
#[derive(Debug)]
pub struct Lookup {
    case: Case,
    /// Open addressing: a slot has the hash of a key and its place in `keys` plus one; 0 is empty.
    slots: Vec<(u32, u32)>,
    /// The keys as they are compared, one after the other.
    text: String,
    /// Where each key ends in `text`, and its row.
    keys: Vec<(u32, u32)>,
}

/// How a look-up compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Byte by byte.
    Exact,
    /// By the upper-case forms, after Unicode's full mapping: `straße` is `STRASSE`.
    Ignored,
}

impl Tables {
    #[must_use]
    pub fn new(tables: Vec<TableData>) -> Self {
        Self { tables }
    }

    /// The table's data.
    ///
    /// # Errors
    /// That the pipeline gives no such table.
    pub fn get(&self, table: &Table) -> Result<&TableData, String> {
        self.find(table).ok_or_else(|| format!("table `{}` is missing", table.name))
    }

    /// The table's data, if the pipeline gives it.
    #[must_use]
    pub fn find(&self, table: &Table) -> Option<&TableData> {
        self.tables.iter().find(|given| given.name == table.name)
    }
}

impl TableData {
    /// A column by its name.
    ///
    /// # Errors
    /// That the table has no such column.
    pub fn column(&self, name: &str) -> Result<&Column, String> {
        let found = self.columns.iter().find(|(given, _)| given == name);
        found.map(|(_, column)| column).ok_or_else(|| format!("table `{}` has no column `{name}`", self.name))
    }

    /// The texts of a column, row by row.
    ///
    /// # Errors
    /// That the table has no such column, or none of texts.
    pub fn texts(&self, name: &str) -> Result<impl Iterator<Item = Option<&str>>, String> {
        let not_text = || format!("column `{name}` of table `{}` is not text", self.name);
        let column = self.column(name)?;
        let ColumnData::VarBytes(entries) = &column.data else { return Err(not_text()) };
        let text = std::str::from_utf8(&entries.data).map_err(|_| not_text())?;
        let bounds = entries.offsets.windows(2).enumerate();
        Ok(bounds.map(move |(row, bounds)| {
            is_present(&column.validity, row).then(|| &text[bounds[0] as usize..bounds[1] as usize])
        }))
    }

    /// A look-up by the texts of a column. Null is no key; of keys that are equal the first counts.
    ///
    /// # Errors
    /// That the table has no such column, or none of texts.
    pub fn lookup(&self, column: &str, case: Case) -> Result<Lookup, String> {
        Ok(Lookup::new(self.texts(column)?, case))
    }
}

impl Lookup {
    /// A look-up of the place that a text has in `keys`. `None` is no key; of equal keys the first counts.
    pub fn new<'k>(keys: impl IntoIterator<Item = Option<&'k str>>, case: Case) -> Self {
        let keys = keys.into_iter();
        let slots = vec![(0, 0); (keys.size_hint().0 * 2).next_power_of_two().max(16)];
        let mut lookup = Self { case, slots, text: String::new(), keys: Vec::new() };
        for (key, row) in keys.zip(0..) {
            match (key, case) {
                (None, _) => {}
                (Some(key), Case::Exact) => lookup.insert(key, row),
                (Some(key), Case::Ignored) => lookup.insert(&key.to_uppercase(), row),
            }
        }
        lookup
    }

    #[inline]
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    /// The row that has this text.
    #[inline]
    #[must_use]
    pub fn find(&self, text: &str) -> Option<u32> {
        match self.case {
            Case::Exact => self.probe(hash(text.as_bytes()), |key| key == text.as_bytes()),
            Case::Ignored => match hash_upper(text.as_bytes()) {
                Some(hash) => self.probe(hash, |key| is_upper_of(key, text.as_bytes())),
                None => self.find_upper(&text.to_uppercase()),
            },
        }
    }

    #[cold]
    fn find_upper(&self, upper: &str) -> Option<u32> {
        self.probe(hash(upper.as_bytes()), |key| key == upper.as_bytes())
    }

    #[inline]
    fn probe(&self, hash: u32, is: impl Fn(&[u8]) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                (_, 0) => return None,
                (other, place) if other == hash && is(self.key(place)) => {
                    return Some(self.keys[place as usize - 1].1);
                }
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[inline]
    fn key(&self, place: u32) -> &[u8] {
        let place = place as usize - 1;
        let start = place.checked_sub(1).map_or(0, |before| self.keys[before].0);
        &self.text.as_bytes()[start as usize..self.keys[place].0 as usize]
    }

    fn insert(&mut self, key: &str, row: u32) {
        let hash = hash(key.as_bytes());
        if self.probe(hash, |other| other == key.as_bytes()).is_some() {
            return;
        }
        self.text.push_str(key);
        self.keys.push((u32::try_from(self.text.len()).expect("a table is below 4 GiB"), row));
        if self.keys.len() * 2 > self.slots.len() {
            self.grow();
        }
        self.fill(hash, u32::try_from(self.keys.len()).expect("as many keys as rows"));
    }

    fn fill(&mut self, hash: u32, place: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].1 != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = (hash, place);
    }

    fn grow(&mut self) {
        let larger = vec![(0, 0); self.slots.len() * 2];
        for (hash, place) in std::mem::replace(&mut self.slots, larger) {
            if place != 0 {
                self.fill(hash, place);
            }
        }
    }
}

const ASCII: u64 = 0x7f7f_7f7f_7f7f_7f7f;

#[inline]
fn hash(text: &[u8]) -> u32 {
    words(text).fold(text.len() as u64, mix).finish()
}

/// The hash of the upper-case form; `None` unless all is ASCII.
#[inline]
fn hash_upper(text: &[u8]) -> Option<u32> {
    let mut state = text.len() as u64;
    for word in words(text) {
        if word & !ASCII != 0 {
            return None;
        }
        state = mix(state, upper(word));
    }
    Some(state.finish())
}

/// Upper-cases eight ASCII bytes: adding lifts the top bit of those from `a` on, and of those past `z`.
#[inline]
fn upper(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let from_a = word + EACH * (0x80 - b'a' as u64);
    let past_z = word + EACH * (0x7f - b'z' as u64);
    word ^ (from_a & !past_z & !ASCII) >> 2
}

/// Whether `key` is the upper-case form of `text`, which is ASCII.
#[inline]
fn is_upper_of(key: &[u8], text: &[u8]) -> bool {
    key.len() == text.len() && words(key).zip(words(text)).all(|(key, word)| key == upper(word))
}

/// The text in words of eight bytes. The last one has the last eight bytes, some of them a second time; a text too
/// short for that is filled up with zeros. So nothing is copied byte by byte, nor by a call.
#[inline]
fn words(text: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = text.as_chunks::<8>();
    let last = (!rest.is_empty()).then(|| last_word(text));
    whole.iter().copied().map(u64::from_le_bytes).chain(last)
}

#[inline]
fn last_word(text: &[u8]) -> u64 {
    match text.last_chunk() {
        Some(last) => u64::from_le_bytes(*last),
        None => text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[inline]
fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

trait Finish {
    fn finish(self) -> u32;
}

impl Finish for u64 {
    /// The high half of a product is the well mixed one.
    #[inline]
    fn finish(self) -> u32 {
        (self >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], case: Case, text: &str, expected: Option<u32>) {
        let lookup = Lookup::new(keys.iter().map(|key| Some(*key)), case);
        assert_eq!(lookup.find(text), expected, "{text:?} in {keys:?}, {case:?}");
    }

    #[test]
    fn a_text_is_found_in_the_row_that_has_it() {
        let cities = ["Boston", "New York", "San José", "", "STRASSE"];
        for case in [Case::Exact, Case::Ignored] {
            check(&cities, case, "Boston", Some(0));
            check(&cities, case, "San José", Some(2));
            check(&cities, case, "", Some(3));
            check(&cities, case, "Bosto", None);
            check(&cities, case, "Boston ", None);
        }
    }

    #[test]
    fn case_is_ignored_only_where_asked() {
        check(&["New York"], Case::Exact, "new york", None);
        check(&["New York"], Case::Ignored, "nEW yORK", Some(0));
        check(&["São Paulo"], Case::Ignored, "SÃO PAULO", Some(0));
        check(&["STRASSE"], Case::Ignored, "straße", Some(0));
        check(&["straße"], Case::Ignored, "Strasse", Some(0));
        check(&["[{`@"], Case::Ignored, "{[`@", None);
    }

    #[test]
    fn of_equal_keys_the_first_counts() {
        check(&["a", "A", "b"], Case::Ignored, "a", Some(0));
        check(&["a", "A", "b"], Case::Exact, "A", Some(1));
    }

    #[test]
    fn null_is_no_key() {
        let lookup = Lookup::new([None, Some("a")], Case::Exact);
        assert_eq!((lookup.find(""), lookup.find("a")), (None, Some(1)));
    }

    #[test]
    fn thousands_of_keys_are_all_found() {
        let keys: Vec<String> = (0..5000).map(|n| format!("City number {n}")).collect();
        let lookup = Lookup::new(keys.iter().map(|key| Some(key.as_str())), Case::Ignored);
        for (key, row) in keys.iter().zip(0..) {
            assert_eq!(lookup.find(&key.to_lowercase()), Some(row));
            assert_eq!(lookup.find(&format!("{key}.")), None);
        }
    }

    #[test]
    fn upper_is_that_of_ascii_for_every_byte() {
        for byte in 0..0x80_u8 {
            let word = u64::from_le_bytes([byte; 8]);
            assert_eq!(upper(word).to_le_bytes(), [byte.to_ascii_uppercase(); 8]);
        }
    }
}
