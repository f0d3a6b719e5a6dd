//! Marvin32, the hash of log entries, with the constant seed that the registry uses.

const SEED: u64 = 0x82EF_4D88_7A4E_55C5;

/// The hash of `data`.
pub(super) fn marvin32(data: &[u8]) -> u64 {
    let mut state = (SEED as u32, (SEED >> 32) as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        block(&mut state, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    let rest = words.remainder();
    last.iter_mut().zip(rest.iter().chain(&[0x80])).for_each(|(slot, byte)| *slot = *byte);
    block(&mut state, u32::from_le_bytes(last));
    block(&mut state, 0);
    u64::from(state.1) << 32 | u64::from(state.0)
}

fn block((low, high): &mut (u32, u32), word: u32) {
    *low = low.wrapping_add(word);
    *high ^= *low;
    *low = low.rotate_left(20).wrapping_add(*high);
    *high = high.rotate_left(9) ^ *low;
    *low = low.rotate_left(27).wrapping_add(*high);
    *high = high.rotate_left(19);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // computed by an independent implementation that also verifies the logs of real hives
        assert_eq!(marvin32(b""), 0xB39E_FCA4_0396_6E08);
        assert_eq!(marvin32(b"a"), 0x21A0_13C7_26F2_92F4);
        assert_eq!(marvin32(b"abcd"), 0x2009_4FB1_1A6C_D086);
        assert_eq!(marvin32(b"registry!"), 0xAAA0_8FB1_845E_C33A);
    }
}
