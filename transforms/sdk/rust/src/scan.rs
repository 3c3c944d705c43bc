//! Finds bytes, 16 at a time: where the plain part of a JSON string ends, or one byte. Never reads outside the slice.

/// Index of the first quote, backslash or control byte from `at` on; the length of `bytes` if there is none.
#[inline(always)]
pub(crate) fn plain_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<LANES>) {
        let stops = block_stops(block);
        if stops != 0 {
            return at + stops.trailing_zeros() as usize;
        }
        at += LANES;
    }
    last_block(bytes, at)
}

/// Fewer than a block is left: take the last whole block instead, and pass over what was seen.
#[inline(always)]
fn last_block(bytes: &[u8], at: usize) -> usize {
    let Some(block) = bytes.last_chunk::<LANES>() else { return short(bytes, at) };
    let seen = at + LANES - bytes.len();
    if seen >= LANES {
        return bytes.len();
    }
    match block_stops(block) >> seen {
        0 => bytes.len(),
        stops => at + stops.trailing_zeros() as usize,
    }
}

fn short(bytes: &[u8], at: usize) -> usize {
    let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes[at..].iter().position(stops).map_or(bytes.len(), |plain| at + plain)
}

/// Index of the first `wanted`.
#[inline(always)]
pub(crate) fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    let Some(last) = bytes.len().checked_sub(LANES) else { return find_short(bytes, wanted) };
    let mut at = 0;
    loop {
        // The last block is taken whole; what was seen of it before has none.
        let block = last.min(at);
        let found = block_finds(block_at(bytes, block), wanted);
        if found != 0 {
            return Some(block + found.trailing_zeros() as usize);
        }
        at += LANES;
        if at >= bytes.len() {
            return None;
        }
    }
}

/// In less than a block: in the first eight or four bytes, then in the last ones.
#[inline(always)]
fn find_short(bytes: &[u8], wanted: u8) -> Option<usize> {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return word_finds(*first, wanted)
            .or_else(|| word_finds(*last, wanted).map(|at| bytes.len() + at - 8));
    }
    if let (Some([a, b, c, d]), Some([e, f, g, h])) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let at = word_finds([*a, *b, *c, *d, *e, *f, *g, *h], wanted)?;
        return Some(if at < 4 { at } else { bytes.len() + at - 8 });
    }
    bytes.iter().position(|byte| *byte == wanted)
}

/// What was `wanted` becomes zero, and subtracting one lifts the top bit of zeros. It can lift that of bytes behind
/// them too, so that only the first counts.
#[inline(always)]
fn word_finds(word: [u8; 8], wanted: u8) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word) ^ (EACH * u64::from(wanted));
    let found = word.wrapping_sub(EACH) & !word & (EACH << 7);
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

pub(crate) const LANES: usize = 16;

/// The bytes from `at` on.
///
/// # Panics
/// If there are fewer.
#[inline(always)]
pub(crate) fn block_at(bytes: &[u8], at: usize) -> &[u8; LANES] {
    bytes[at..].first_chunk().expect("a whole block")
}

/// Bit i: byte i of the block is a quote, a backslash or a control byte.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn block_stops(block: &[u8; LANES]) -> u32 {
    use std::arch::x86_64::*;
    #[expect(
        unsafe_code,
        reason = "an unaligned load of the 16 bytes that the array has; SSE2 is in every x86-64"
    )]
    // SAFETY: the reference is valid for 16 bytes, and the load asks for no alignment.
    let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    #[expect(unsafe_code, reason = "SSE2 arithmetic on registers; SSE2 is in every x86-64")]
    // SAFETY: as above; nothing here touches memory.
    unsafe {
        let quote = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
    }
}

/// Bit i: byte i of the block is a quote, a backslash or a control byte.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
pub(crate) fn block_stops(block: &[u8; LANES]) -> u32 {
    use std::arch::wasm32::*;
    #[expect(unsafe_code, reason = "an unaligned load of the 16 bytes that the array has")]
    // SAFETY: the reference is valid for 16 bytes, and the load asks for no alignment.
    let block = unsafe { v128_load(block.as_ptr().cast()) };
    let quote = u8x16_eq(block, u8x16_splat(b'"'));
    let backslash = u8x16_eq(block, u8x16_splat(b'\\'));
    let control = u8x16_lt(block, u8x16_splat(0x20));
    u32::from(u8x16_bitmask(v128_or(v128_or(quote, backslash), control)))
}

/// Bit i: byte i of the block is a quote, a backslash or a control byte.
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
#[inline(always)]
pub(crate) fn block_stops(block: &[u8; LANES]) -> u32 {
    block
        .iter()
        .enumerate()
        .fold(0, |stops, (at, byte)| stops | u32::from(matches!(byte, b'"' | b'\\' | 0..0x20)) << at)
}

/// Bit i: byte i of the block is `wanted`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn block_finds(block: &[u8; LANES], wanted: u8) -> u32 {
    use std::arch::x86_64::*;
    #[expect(
        unsafe_code,
        reason = "an unaligned load of the 16 bytes that the array has; SSE2 is in every x86-64"
    )]
    // SAFETY: the reference is valid for 16 bytes, and the load asks for no alignment.
    let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    #[expect(unsafe_code, reason = "SSE2 arithmetic on registers; SSE2 is in every x86-64")]
    // SAFETY: as above; nothing here touches memory.
    unsafe {
        _mm_movemask_epi8(_mm_cmpeq_epi8(block, _mm_set1_epi8(wanted as i8))) as u32
    }
}

/// Bit i: byte i of the block is `wanted`.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
fn block_finds(block: &[u8; LANES], wanted: u8) -> u32 {
    use std::arch::wasm32::*;
    #[expect(unsafe_code, reason = "an unaligned load of the 16 bytes that the array has")]
    // SAFETY: the reference is valid for 16 bytes, and the load asks for no alignment.
    let block = unsafe { v128_load(block.as_ptr().cast()) };
    u32::from(u8x16_bitmask(u8x16_eq(block, u8x16_splat(wanted))))
}

/// Bit i: byte i of the block is `wanted`.
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
#[inline(always)]
fn block_finds(block: &[u8; LANES], wanted: u8) -> u32 {
    block.iter().enumerate().fold(0, |found, (at, byte)| found | u32::from(*byte == wanted) << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_is_found_wherever_it_stands() {
        for len in 0..50 {
            for from in 0..=len {
                assert_eq!(plain_end(&vec![b'a'; len], from), len);
                for (stop, at) in
                    [b'"', b'\\', 0, 0x1f].into_iter().flat_map(|s| (0..len).map(move |at| (s, at)))
                {
                    let mut bytes = vec![0x7f; len];
                    bytes[at] = stop;
                    assert_eq!(plain_end(&bytes, from), if at < from { len } else { at });
                }
            }
        }
    }

    #[test]
    fn the_first_of_a_byte_is_found_wherever_it_stands() {
        for len in 0..50 {
            let mut bytes = vec![b'-'; len];
            assert_eq!(find(&bytes, b','), None);
            for at in (0..len).rev() {
                bytes[at] = b',';
                assert_eq!(find(&bytes, b','), Some(at), "{at} of {len}");
            }
            for at in 1..len {
                bytes[..at].fill(b'-');
                assert_eq!(find(&bytes, b','), Some(at), "{at} of {len}");
            }
        }
    }

    #[test]
    fn bytes_from_0x20_on_are_plain() {
        let plain: Vec<u8> = (0x20..=0xff).filter(|byte| !matches!(byte, b'"' | b'\\')).collect();
        assert_eq!(plain_end(&plain, 0), plain.len());
    }
}
