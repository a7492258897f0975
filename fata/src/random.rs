//! Unpredictable numbers.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::convert::Infallible;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;

/// The machine's cryptographically secure random numbers: ChaCha20, seeded from what the processor gave at boot.
///
/// It implements the traits of `rand_core` 0.10, so that the crate `rand` and cryptographic crates take it as it is.
/// Clones share one stream.
///
/// ```
/// use fata::random::Random;
/// use rand_core::Rng;
/// # let mut random = Random::from_seed([7; 32]);
/// let token = random.next_u64();
/// assert_ne!(token, random.next_u64());
/// ```
#[derive(Clone)]
pub struct Random(Rc<RefCell<ChaCha20Rng>>);

impl Random {
    /// A stream that begins where `entropy` says: numbers from sources of which any may be weak, and one should be good.
    ///
    /// ```
    /// use fata::random::Random;
    /// use rand_core::Rng;
    /// let sources = [b"what the processor says".as_slice(), &0x1234_u64.to_le_bytes()].concat();
    /// let mut random = Random::from_entropy(&sources);
    /// assert_ne!(random.next_u64(), Random::from_entropy(b"something else").next_u64());
    /// ```
    #[must_use]
    pub fn from_entropy(entropy: &[u8]) -> Self {
        Self::from_seed(seed(entropy))
    }

    /// A stream that this seed decides. As good as the seed: an application takes
    /// `Env::random` instead.
    #[must_use]
    pub fn from_seed(seed: [u8; SEED_BYTES]) -> Self {
        Self(Rc::new(RefCell::new(ChaCha20Rng::from_seed(seed))))
    }

    /// Replaces the key by one drawn from the stream, so that who reads the memory later learns nothing about what
    /// was drawn before.
    pub fn forget(&self) {
        let mut stream = self.0.borrow_mut();
        let mut seed = [0; SEED_BYTES];
        stream.fill_bytes(&mut seed);
        *stream = ChaCha20Rng::from_seed(seed);
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.borrow_mut().next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.borrow_mut().next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.borrow_mut().fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

impl core::fmt::Debug for Random {
    /// Says nothing about the state.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Random")
    }
}

/// A seed out of what was gathered.
///
/// Each 32 bytes are added to the key (exclusive or), and the key's own ChaCha20 stream gives the next key. So what came
/// before cannot be taken out again by a source that is in an enemy's hands, and one good source is enough.
fn seed(entropy: &[u8]) -> [u8; SEED_BYTES] {
    let mut key = [0; SEED_BYTES];
    for (index, chunk) in entropy.chunks(SEED_BYTES).enumerate() {
        key.iter_mut().zip(chunk).for_each(|(key, byte)| *key ^= byte);
        let mut stream = ChaCha20Rng::from_seed(key);
        // The stream number separates equal chunks at different places, and their lengths.
        stream.set_stream((index as u64 + 1) << 8 | chunk.len() as u64);
        stream.fill_bytes(&mut key);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_the_entropy_counts() {
        let base = [0; 72];
        let mut seen = alloc::vec![seed(&base)];
        for bit in 0..8 * base.len() {
            let mut other = base;
            other[bit / 8] ^= 1 << (bit % 8);
            let other = seed(&other);
            assert!(!seen.contains(&other), "bit {bit}");
            seen.push(other);
        }
        assert_ne!(seed(b"a"), seed(b"a\0"));
        assert_ne!(seed(&[0; 32]), seed(&[0; 64]));
        assert_ne!(seed(&[[1; 32], [2; 32]].concat()), seed(&[[2; 32], [1; 32]].concat()));
    }

    #[test]
    fn the_same_seed_gives_the_same_stream_and_clones_share_it() {
        let mut one = Random::from_seed([3; 32]);
        let mut other = Random::from_seed([3; 32]);
        let mut clone = one.clone();
        let drawn = [one.next_u64(), clone.next_u64()];
        assert_eq!(drawn, [other.next_u64(), other.next_u64()]);
        assert_ne!(drawn[0], drawn[1]);
    }

    #[test]
    fn forgetting_changes_the_key() {
        let mut one = Random::from_seed([3; 32]);
        let mut other = Random::from_seed([3; 32]);
        one.forget();
        assert_ne!(one.next_u64(), other.next_u64());
    }
}
