//! ChaCha20's block function (RFC 8439, section 2.3), with the 64-bit counter and stream number of the original.
//!
//! By hand, because the crates that have it are made for speed: they unroll and vectorise it into more code than the
//! whole console takes. The tests compare it with the crate `rand_chacha`.

/// A key with a stream number: a run of 2^64 blocks.
pub(super) struct ChaCha20 {
    key: [u8; 32],
    stream: u64,
    block: u64,
}

/// "expand 32-byte k"
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The words that each quarter round of a double round works on: the columns, then the diagonals.
const QUARTERS: [[u8; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];

impl ChaCha20 {
    pub(super) const fn new(key: [u8; 32], stream: u64) -> Self {
        Self { key, stream, block: 0 }
    }

    /// The next 64 bytes.
    pub(super) fn next(&mut self) -> [u8; 64] {
        let mut input = [0; 16];
        let (constants, rest) = input.split_at_mut(4);
        let (key, rest) = rest.split_at_mut(8);
        constants.copy_from_slice(&CONSTANTS);
        for (word, bytes) in key.iter_mut().zip(self.key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let numbers = [self.block, self.stream].map(|n| [n as u32, (n >> 32) as u32]);
        rest.copy_from_slice(numbers.as_flattened());
        self.block = self.block.wrapping_add(1);

        let mut words = input;
        for _ in 0..10 {
            for quarter in QUARTERS {
                quarter_round(&mut words, quarter.map(|index| usize::from(index) % 16));
            }
        }
        let mut output = [0; 64];
        for ((bytes, word), input) in output.as_chunks_mut().0.iter_mut().zip(words).zip(input) {
            *bytes = word.wrapping_add(input).to_le_bytes();
        }
        output
    }
}

fn quarter_round(words: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (to, from, by, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        words[to] = words[to].wrapping_add(words[from]);
        words[by] = (words[by] ^ words[to]).rotate_left(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    proptest! {
        #[test]
        fn it_is_what_rand_chacha_says(key: [u8; 32], stream: u64) {
            let mut other = ChaCha20Rng::from_seed(key);
            other.set_stream(stream);
            let mut one = ChaCha20::new(key, stream);
            for _ in 0..5 {
                let mut expected = [0; 64];
                other.fill_bytes(&mut expected);
                prop_assert_eq!(one.next(), expected);
            }
        }
    }
}
