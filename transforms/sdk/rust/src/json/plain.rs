//! Members as they mostly are: the next wanted key, and a text without escapes. What is anything else is left to the
//! grammar. Never calls anything, so that all it needs stays in registers.

use std::borrow::Cow;

use super::Value;
use crate::scan::{LANES, block_at, block_stops};

/// A wanted key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// In quotes and with the colon, if those fit into 16 bytes; `mask` says which of the 16 count.
    quoted: u128,
    mask: u128,
}

/// How far it went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    /// A key begins here, or white space before one; at the end of the object, what follows it.
    pub(super) at: usize,
    /// The place of the next wanted key.
    pub(super) next: usize,
    /// The closing brace was passed.
    pub(super) closed: bool,
}

impl Key {
    /// # Panics
    /// If the key has a character that JSON escapes.
    pub(super) const fn new(name: &'static str) -> Self {
        let key = name.as_bytes();
        // A key that is too long fits nothing.
        let fits = key.len() + 3 <= LANES;
        let (mut quoted, mut mask) = ([0; LANES], [0; LANES]);
        let mut at = 0;
        while at < key.len() {
            assert!(
                !matches!(key[at], b'"' | b'\\' | 0..0x20),
                "a wanted key has no character that JSON escapes"
            );
            if fits {
                (quoted[at + 1], mask[at + 1]) = (key[at], 0xff);
            }
            at += 1;
        }
        if fits {
            (quoted[0], mask[0]) = (b'"', 0xff);
            (quoted[at + 1], mask[at + 1]) = (b'"', 0xff);
            (quoted[at + 2], mask[at + 2]) = (b':', 0xff);
        } else {
            quoted[0] = 1;
        }
        Self { name, quoted: u128::from_le_bytes(quoted), mask: u128::from_le_bytes(mask) }
    }

    #[inline(always)]
    fn begins(&self, block: &[u8; LANES]) -> bool {
        u128::from_le_bytes(*block) & self.mask == self.quoted
    }
}

/// Passes members from `at` on as long as each has the next of `keys`, from `next` on, and a text without escapes;
/// puts the texts among the `values`.
#[inline(never)]
pub(super) fn pass<'a>(
    text: &'a str,
    at: usize,
    keys: &[Key],
    next: usize,
    values: &mut [Value<'a>],
) -> Passed {
    let bytes = text.as_bytes();
    let mut passed = Passed { at, next, closed: false };
    let Some(last) = bytes.len().checked_sub(LANES) else { return passed };
    let wanted = keys.len().min(values.len());
    // A loop over an iterator that skips and zips would keep its state in memory.
    while passed.next < wanted && !passed.closed {
        let (key, value) = (&keys[passed.next], &mut values[passed.next]);
        if !matches!(value, Value::Absent) {
            break;
        }
        let mut at = passed.at;
        if at > last || !key.begins(block_at(bytes, at)) {
            // One blank after the comma is nothing unusual.
            if at >= last || bytes[at] != b' ' || !key.begins(block_at(bytes, at + 1)) {
                break;
            }
            at += 1;
        }
        let mut start = at + key.name.len() + 4;
        if bytes.get(start - 1) != Some(&b'"') {
            // Nor is one after the colon.
            if !bytes[start - 1..].starts_with(b" \"") {
                break;
            }
            start += 1;
        }
        let Some(end) = plain_end(bytes, start, last) else { break };
        let Some([b'"', separator @ (b',' | b'}')]) = bytes.get(end..end + 2) else { break };
        #[expect(unsafe_code, reason = "to look for the two boundaries costs as much as a short text")]
        // SAFETY: there is a quote before `start` and one at `end`, which is not before `start`. Both are characters
        // of one byte, so that the text can be cut behind the one and before the other.
        let plain = unsafe { text.get_unchecked(start..end) };
        // `Absent` has nothing to be freed, which the compiler does not see.
        std::mem::forget(std::mem::replace(value, Value::Text(Cow::Borrowed(plain))));
        passed = Passed { at: end + 2, next: passed.next + 1, closed: *separator == b'}' };
    }
    passed
}

/// Index of the first quote, backslash or control byte from `at` on. The last block is read as a whole, and what is
/// before `at` in it passed over.
#[inline(always)]
fn plain_end(bytes: &[u8], at: usize, last: usize) -> Option<usize> {
    let mut at = at;
    // Most texts end within two blocks; whether in the first or the second, nobody can foretell.
    if at + LANES <= last {
        let stops = block_stops(block_at(bytes, at)) | block_stops(block_at(bytes, at + LANES)) << LANES;
        if stops != 0 {
            return Some(at + stops.trailing_zeros() as usize);
        }
        at += 2 * LANES;
    }
    while at < bytes.len() {
        let block = at.min(last);
        let stops = block_stops(block_at(bytes, block)) >> (at - block);
        if stops != 0 {
            return Some(at + stops.trailing_zeros() as usize);
        }
        at = block + LANES;
    }
    None
}
