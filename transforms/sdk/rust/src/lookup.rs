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
    /// Open addressing: a slot has a byte of its key's hash; 0 is empty. What is not in the table is mostly told by
    /// these alone, which stay in the processor's caches.
    tags: Vec<u8>,
    /// The place in `keys` of the key in each slot.
    places: Vec<u32>,
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
        let expected = keys.size_hint().0;
        let slots = (expected * 2).next_power_of_two().max(16);
        let (tags, places) = (vec![0; slots], vec![0; slots]);
        let mut lookup = Self { case, tags, places, text: String::new(), keys: Vec::with_capacity(expected) };
        for (key, row) in keys.zip(0..) {
            match (key, case) {
                (None, _) => {}
                (Some(key), Case::Exact) => lookup.insert(key, row),
                (Some(key), Case::Ignored) => lookup.insert_upper(key, row),
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
                None => self.find_upper(text),
            },
        }
    }

    #[inline(never)]
    fn find_upper(&self, text: &str) -> Option<u32> {
        let mut short = [0; 64];
        let long;
        let upper = match upper_into(text, &mut short) {
            Some(len) => &short[..len],
            None => {
                long = text.to_uppercase();
                long.as_bytes()
            }
        };
        self.probe(hash(upper), |key| key == upper)
    }

    #[inline(always)]
    fn probe(&self, hash: u32, is: impl Fn(&[u8]) -> bool) -> Option<u32> {
        let mask = self.tags.len() - 1;
        let (tag, mut at) = (tag(hash), hash as usize & mask);
        loop {
            match self.tags[at] {
                0 => return None,
                other if other == tag && is(self.key(self.places[at])) => {
                    return Some(self.keys[self.places[at] as usize].1);
                }
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[inline]
    fn key(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.keys[before].0);
        &self.text.as_bytes()[start as usize..self.keys[place].0 as usize]
    }

    fn insert(&mut self, key: &str, row: u32) {
        let hash = hash(key.as_bytes());
        if self.probe(hash, |other| other == key.as_bytes()).is_none() {
            self.text.push_str(key);
            self.add(hash, row);
        }
    }

    /// The upper-case form of a key.
    fn insert_upper(&mut self, key: &str, row: u32) {
        let Some(hash) = hash_upper(key.as_bytes()) else { return self.insert(&key.to_uppercase(), row) };
        if self.probe(hash, |other| is_upper_of(other, key.as_bytes())).is_none() {
            let start = self.text.len();
            self.text.push_str(key);
            self.text[start..].make_ascii_uppercase();
            self.add(hash, row);
        }
    }

    /// Puts the key in, which ends the text.
    fn add(&mut self, hash: u32, row: u32) {
        self.keys.push((u32::try_from(self.text.len()).expect("a table is below 4 GiB"), row));
        if self.keys.len() * 2 > self.tags.len() {
            self.grow();
        } else {
            self.fill(hash, self.keys.len() - 1);
        }
    }

    fn fill(&mut self, hash: u32, place: usize) {
        let mask = self.tags.len() - 1;
        let mut at = hash as usize & mask;
        while self.tags[at] != 0 {
            at = (at + 1) & mask;
        }
        self.tags[at] = tag(hash);
        self.places[at] = u32::try_from(place).expect("as many keys as rows");
    }

    fn grow(&mut self) {
        let slots = self.tags.len() * 2;
        (self.tags, self.places) = (vec![0; slots], vec![0; slots]);
        for place in 0..self.keys.len() {
            self.fill(hash(self.key(place as u32)), place);
        }
    }
}

/// The bits that hardly choose the slot. Never 0.
#[inline]
fn tag(hash: u32) -> u8 {
    (hash >> 24) as u8 | 1
}

/// Writes the upper-case form of `text`, and tells its length; `None` if there is no room for it.
fn upper_into(text: &str, to: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    for character in text.chars() {
        let upper = match character {
            '\0'..='\x7f' => character.to_ascii_uppercase(),
            // The letters of Western Europe: the standard library looks for each of them in a long table.
            'à'..='ö' | 'ø'..='þ' => char::from(character as u8 - 0x20),
            'À'..='Þ' => character,
            _ => {
                for upper in character.to_uppercase() {
                    len += upper.encode_utf8(to.get_mut(len..len + 4)?).len();
                }
                continue;
            }
        };
        len += upper.encode_utf8(to.get_mut(len..len + 4)?).len();
    }
    Some(len)
}

const ASCII: u64 = 0x7f7f_7f7f_7f7f_7f7f;

#[inline]
fn hash(text: &[u8]) -> u32 {
    fold_words(text, text.len() as u64, mix).finish()
}

/// The hash of the upper-case form; `None` unless all is ASCII.
#[inline]
fn hash_upper(text: &[u8]) -> Option<u32> {
    let (state, all) = fold_words(text, (text.len() as u64, 0), |(state, all), word| {
        (mix(state, upper(word & ASCII)), all | word)
    });
    (all & !ASCII == 0).then(|| state.finish())
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

/// The text in words of eight bytes, one at least. The last one has the last eight bytes, some of them a second time.
/// So nothing is copied byte by byte, nor by a call.
#[inline(always)]
fn words(text: &[u8]) -> impl Iterator<Item = u64> {
    let last = text.len().saturating_sub(8);
    (0..text.len().div_ceil(8).max(1)).map(move |i| match text[last.min(8 * i)..].first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => short_word(text),
    })
}

/// What [`words`] folds to. Up to 16 bytes take no loop.
#[inline(always)]
fn fold_words<S>(text: &[u8], state: S, fold: impl Fn(S, u64) -> S) -> S {
    let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) else {
        return fold(state, short_word(text));
    };
    let mut state = fold(state, u64::from_le_bytes(*first));
    if text.len() > 16 {
        let (whole, _) = text[8..text.len() - 1].as_chunks();
        state = whole.iter().fold(state, |state, word| fold(state, u64::from_le_bytes(*word)));
    }
    if text.len() > 8 { fold(state, u64::from_le_bytes(*last)) } else { state }
}

/// A text of less than eight bytes, as a word that no other of its length has.
#[inline(always)]
fn short_word(text: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    match *text {
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a] => u64::from(a),
        _ => 0,
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
        // Also where only one of them has a letter that is none of ASCII.
        check(&["straße", "strasse"], Case::Ignored, "STRASSE", Some(0));
        check(&["strasse", "straße"], Case::Ignored, "straße", Some(0));
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
    fn the_upper_case_of_every_character_is_that_of_the_standard_library() {
        for character in '\0'..='\u{1ffff}' {
            let (text, mut upper) = (character.to_string(), [0; 16]);
            let len = upper_into(&text, &mut upper).unwrap();
            assert_eq!(&upper[..len], text.to_uppercase().as_bytes(), "{character:?}");
        }
    }

    #[test]
    fn a_long_text_is_found_in_upper_case_too() {
        let long = "é".repeat(100);
        check(&["É", &long], Case::Ignored, &long.to_uppercase(), Some(1));
        check(&["É", &long], Case::Ignored, &long, Some(1));
    }

    #[test]
    fn upper_is_that_of_ascii_for_every_byte() {
        for byte in 0..0x80_u8 {
            let word = u64::from_le_bytes([byte; 8]);
            assert_eq!(upper(word).to_le_bytes(), [byte.to_ascii_uppercase(); 8]);
        }
    }
}
