//! Lists that are longer than a message.

use alloc::vec::Vec;

use super::Names;
use crate::{Error, memory};

/// What one more piece means for a [`DirectoryParts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartProgress {
    /// Ask for the piece at this offset.
    Continue(u32),
    /// That was the last.
    Complete,
}

/// Puts a list of children together from the answers to DIRECTORY_PART.
///
/// Each piece names the node's generation. When it differs from the last one, the list changed in between and
/// everything starts again, [`RESTARTS`](Self::RESTARTS) times at most. The last piece ends with an empty name.
///
/// ```
/// use fata_xenstore::wire::{DirectoryParts, Names, PartProgress};
/// let mut parts = DirectoryParts::new();
/// assert_eq!(parts.add(b"17", Names::parse(b"a\0bb\0")?)?, PartProgress::Continue(5));
/// assert_eq!(parts.add(b"17", Names::parse(b"ccc\0\0")?)?, PartProgress::Complete);
/// assert_eq!(parts.into_names(), b"a\0bb\0ccc\0");
/// # Ok::<(), fata_xenstore::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct DirectoryParts {
    generation: Vec<u8>,
    names: Vec<u8>,
    restarts: u8,
}

impl DirectoryParts {
    /// How often a list may change while it is read.
    pub const RESTARTS: u8 = 8;
    /// Longest list that is put together. A node of stock daemons has 1000 children at most, and its own size limits
    /// their names; a peer that sends more is not served with our memory.
    pub const MAX: usize = 256 * 1024;

    /// Nothing yet; ask for offset 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what one more answer says: see [`Reply::Part`](super::Reply::Part).
    ///
    /// # Errors
    /// * [`Error::Contended`]: the list changed too often.
    /// * [`Error::TooLong`]: the list is longer than [`MAX`](Self::MAX).
    /// * [`Error::NoMemory`].
    pub fn add(&mut self, generation: &[u8], names: Names<'_>) -> Result<PartProgress, Error> {
        if self.generation != generation {
            let restart = !self.names.is_empty();
            self.generation = memory::copy(generation)?;
            if restart {
                self.names.clear();
                self.restarts += 1;
                return if self.restarts > Self::RESTARTS {
                    Err(Error::Contended)
                } else {
                    Ok(PartProgress::Continue(0))
                };
            }
        }
        let (names, complete) = match names.as_bytes() {
            [] | [0] => (&[][..], true),
            [names @ .., 0, 0] => (names, true),
            names => (names, false),
        };
        if self.names.len() + names.len() + 1 > Self::MAX {
            return Err(Error::TooLong);
        }
        memory::extend(&mut self.names, names)?;
        if complete {
            if self.names.last().is_some_and(|&last| last != 0) {
                memory::push(&mut self.names, 0)?;
            }
            return Ok(PartProgress::Complete);
        }
        Ok(PartProgress::Continue(self.names.len() as u32))
    }

    /// The whole list, each name with its NUL.
    #[must_use]
    pub fn into_names(self) -> Vec<u8> {
        self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(parts: &mut DirectoryParts, generation: &str, names: &[u8]) -> Result<PartProgress, Error> {
        parts.add(generation.as_bytes(), Names::parse(names)?)
    }

    #[test]
    fn a_change_starts_again_boundedly_rule_65() {
        let mut parts = DirectoryParts::new();
        assert_eq!(add(&mut parts, "1", b"aa\0"), Ok(PartProgress::Continue(3)));
        assert_eq!(add(&mut parts, "2", b"bb\0"), Ok(PartProgress::Continue(0)));
        assert_eq!(add(&mut parts, "2", b"x\0\0"), Ok(PartProgress::Complete));
        assert_eq!(parts.into_names(), b"x\0");

        // Each change after the first look is a start again.
        let mut parts = DirectoryParts::new();
        for generation in 0..=DirectoryParts::RESTARTS {
            let start_again = add(&mut parts, &generation.to_string(), b"a\0");
            assert_eq!(
                start_again,
                Ok(PartProgress::Continue(if generation == 0 { 2 } else { 0 }))
            );
            if generation > 0 {
                assert_eq!(
                    add(&mut parts, &generation.to_string(), b"a\0"),
                    Ok(PartProgress::Continue(2))
                );
            }
        }
        assert_eq!(add(&mut parts, "last", b"a\0"), Err(Error::Contended));
    }

    #[test]
    fn the_longest_list_fits_and_no_longer_one() {
        for (last, outcome) in [(0, Ok(PartProgress::Complete)), (1, Err(Error::TooLong))] {
            let mut parts = DirectoryParts::new();
            let mut piece = vec![b'a'; 4096];
            piece[4095] = 0;
            for _ in 0..DirectoryParts::MAX / 4096 - 1 {
                add(&mut parts, "1", &piece).unwrap();
            }
            // The last name, its NUL, and the empty name that ends the list.
            let mut piece = vec![b'a'; 4095 + last];
            piece.extend([0, 0]);
            assert_eq!(add(&mut parts, "1", &piece), outcome);
        }
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let mut parts = DirectoryParts::new();
        let mut piece = vec![b'a'; 4000];
        piece.push(0);
        let end = (0..100).find_map(|_| add(&mut parts, "1", &piece).err());
        assert_eq!(end, Some(Error::TooLong));
    }

    #[test]
    fn empty_lists_and_pieces() {
        assert_eq!(add(&mut DirectoryParts::new(), "1", b"\0"), Ok(PartProgress::Complete));
        assert_eq!(
            add(&mut DirectoryParts::new(), "1", b""),
            Ok(PartProgress::Complete),
            "no progress: the last"
        );
        assert_eq!(
            add(&mut DirectoryParts::new(), "1", b"a"),
            Err(Error::BadMessage),
            "a name must end"
        );
    }
}
