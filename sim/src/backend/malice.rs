//! Whether a backend breaks the rules in the middle of honest work.

use std::fmt;

use crate::domain::Domain;

/// How often a backend breaks the rules, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Malice<T: 'static> {
    /// Once in so many steps; 0: never.
    pub one_in: u64,
    /// Out of these, by chance.
    pub tricks: &'static [T],
}

impl<T: Copy> Malice<T> {
    /// An honest backend.
    pub const NONE: Self = Self { one_in: 0, tricks: &[] };

    /// The next step's trick, if there is one.
    pub(crate) fn choose(self, dom0: &Domain) -> Option<T> {
        if self.tricks.is_empty() || !dom0.machine.one_in(self.one_in) {
            return None;
        }
        let index = dom0.machine.below(self.tricks.len() as u64);
        self.tricks.get(index as usize).copied()
    }
}

impl<T: fmt::Debug> fmt::Debug for Malice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.one_in {
            0 => f.write_str("honest"),
            n => write!(f, "1 in {n} of {:?}", self.tricks),
        }
    }
}

/// Any value for a key in the store: what a parser may not expect.
pub(super) fn junk(dom0: &Domain) -> Vec<u8> {
    let machine = &dom0.machine;
    let any = |len: u64| (0..len).map(|_| machine.below(256) as u8).collect();
    match machine.below(8) {
        0 => Vec::new(),
        1 => any(1 + machine.below(8)),
        2 => any(2048),
        3 => b"-1".to_vec(),
        4 => b"18446744073709551616".to_vec(),
        5 => b"1 ".to_vec(),
        6 => b"00:16:3e:00:00:0g".to_vec(),
        _ => machine.below(10).to_string().into_bytes(),
    }
}
