//! Looks over the metadata of a Parquet file before its reader does, which passes over lists of truth values one by one
//! without reading a byte for any: a few bytes could keep it busy for days. Nothing in a footer or in front of a page is
//! such a list. What is wrong otherwise is for the reader to say.
//!
//! Source: the Thrift compact protocol, github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.

/// Structs within structs; deeper ones are left to the reader, which has a limit of its own.
const DEPTH: u32 = 64;

/// What a struct says, as far as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Struct {
    /// Bytes that it takes.
    pub(super) len: usize,
    /// The number in its field 3: of a page's header, the bytes of the page behind it.
    pub(super) third: Option<i64>,
}

/// Why a struct is not looked at any further.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has a list, set or map of truth values.
    TruthValues,
    /// It is none, or breaks off.
    Damaged,
}

/// Goes through the struct that `bytes` begin with.
pub(super) fn walk(bytes: &[u8]) -> Result<Struct, Stop> {
    let mut walk = Walk { bytes, at: 0 };
    let third = walk.fields(DEPTH)?;
    Ok(Struct { len: walk.at, third })
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn fields(&mut self, depth: u32) -> Result<Option<i64>, Stop> {
        let (mut id, mut third) = (0_i64, None);
        loop {
            let begin = self.byte()?;
            if begin == 0 {
                return Ok(third);
            }
            id = match begin >> 4 {
                0 => zigzag(self.number()?),
                more => id.wrapping_add(i64::from(more)),
            };
            let number = self.value(begin & 15, depth)?;
            if id == 3 {
                third = number;
            }
        }
    }

    /// Passes over a value; tells it if it is a whole number.
    fn value(&mut self, kind: u8, depth: u32) -> Result<Option<i64>, Stop> {
        match kind {
            // A field's truth value stands in its kind.
            1 | 2 => {}
            3 => self.pass(1)?,
            4..=6 => return Ok(Some(zigzag(self.number()?))),
            7 => self.pass(8)?,
            8 => {
                let n = self.number()?;
                self.pass(n)?;
            }
            9 | 10 => {
                let begin = self.byte()?;
                let n = if begin >> 4 == 15 { self.number()? } else { u64::from(begin >> 4) };
                self.entries(n, &[begin & 15], depth)?;
            }
            11 => {
                let n = self.number()?;
                let kinds = if n == 0 { 0 } else { self.byte()? };
                self.entries(n, &[kinds >> 4, kinds & 15], depth)?;
            }
            12 if depth > 0 => drop(self.fields(depth - 1)?),
            13 => self.pass(16)?,
            _ => return Err(Stop::Damaged),
        }
        Ok(None)
    }

    /// Each takes a byte at least, so that there are no more than bytes.
    fn entries(&mut self, n: u64, kinds: &[u8], depth: u32) -> Result<(), Stop> {
        if n > 0 && kinds.iter().any(|kind| matches!(kind, 1 | 2)) {
            return Err(Stop::TruthValues);
        }
        for _ in 0..n {
            for kind in kinds {
                // Lists of lists go deeper as structs do.
                self.value(*kind, depth.checked_sub(1).ok_or(Stop::Damaged)?)?;
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.bytes.get(self.at).copied().ok_or(Stop::Damaged)?;
        self.at += 1;
        Ok(byte)
    }

    fn pass(&mut self, n: impl TryInto<usize>) -> Result<(), Stop> {
        let end = n.try_into().ok().and_then(|n| self.at.checked_add(n));
        self.at = end.filter(|end| *end <= self.bytes.len()).ok_or(Stop::Damaged)?;
        Ok(())
    }

    fn number(&mut self) -> Result<u64, Stop> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Stop::Damaged)
    }
}

fn zigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_is_walked_to_its_end_and_its_third_field_is_told() {
        // Field 1: 5, field 3: -2, field 4: a list of two texts, field 5: a struct with a truth value, field 6: a map.
        let bytes =
            [0x15, 10, 0x25, 3, 0x19, 0x28, 1, b'a', 0, 0x1c, 0x11, 0, 0x1b, 1, 0x58, 2, 1, b'x', 0, 99];
        assert_eq!(walk(&bytes), Ok(Struct { len: bytes.len() - 1, third: Some(-2) }));
        for end in 0..bytes.len() - 1 {
            assert_eq!(walk(&bytes[..end]), Err(Stop::Damaged), "{end}");
        }
    }

    #[test]
    fn truth_values_in_a_list_set_or_map_are_told_however_many_they_are() {
        for bytes in [
            &[0x19, 0x11][..],
            &[0x1a, 0xf2, 0xff, 0xff, 0xff, 0xff, 7],
            &[0x1b, 1, 0x51],
            &[0x1c, 0x19, 0x12],
        ] {
            assert_eq!(walk(bytes), Err(Stop::TruthValues), "{bytes:?}");
        }
        assert_eq!(walk(&[0x19, 0x01, 0]), Ok(Struct { len: 3, third: None }));
    }

    #[test]
    fn depth_ends_before_the_stack_does() {
        assert_eq!(walk(&[0x1c; 1_000_000]), Err(Stop::Damaged));
        assert_eq!(walk(&[0x19; 1_000_000]), Err(Stop::Damaged));
    }
}
