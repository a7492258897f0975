//! Finding connections by their names.

use core::hash::Hasher as _;
use core::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;
use rand_core::Rng;
use siphasher::sip::SipHasher13;

use crate::{Error, Result};

/// A connection's name, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// Numbers, found by the names of what they number, in a time that does not depend on how many there are.
///
/// Peers choose the names. The hash is SipHash with a random key, as in Linux's and Rust's own tables, so nobody can
/// choose names that get into each other's way. The names themselves lie where the numbers lead.
pub(crate) struct Names {
    table: HashTable<Entry>,
    key: SipHasher13,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    number: u32,
}

impl Entry {
    /// `hashbrown` looks at the lowest and at the highest bits.
    fn spread(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl Names {
    pub(crate) fn new(random: &mut dyn Rng) -> Self {
        Self {
            table: HashTable::new(),
            key: SipHasher13::new_with_keys(random.next_u64(), random.next_u64()),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The number for this name; `is` says whether it is the name of a number.
    pub(crate) fn find(&self, name: &Tuple, is: &dyn Fn(u32) -> bool) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let wanted = self.entry(name, 0);
        let found = self
            .table
            .find(wanted.spread(), |entry| entry.hash == wanted.hash && is(entry.number));
        found.map(|entry| entry.number)
    }

    /// Adds a name that is not in use.
    pub(crate) fn insert(&mut self, name: &Tuple, number: u32) -> Result<()> {
        self.table
            .try_reserve(1, Entry::spread)
            .map_err(|_| Error::OutOfMemory)?;
        let entry = self.entry(name, number);
        self.table.insert_unique(entry.spread(), entry, Entry::spread);
        Ok(())
    }

    /// Removes a name, unless it belongs to another number by now.
    pub(crate) fn remove(&mut self, name: &Tuple, number: u32) {
        let entry = self.entry(name, number);
        if let Ok(found) = self.table.find_entry(entry.spread(), |other| other.number == number) {
            found.remove();
        }
    }

    fn entry(&self, name: &Tuple, number: u32) -> Entry {
        let mut hasher = self.key;
        for address in [name.local.ip(), name.remote.ip()] {
            match address {
                IpAddr::V4(address) => hasher.write_u32(address.to_bits()),
                IpAddr::V6(address) => {
                    let bits = address.to_bits();
                    hasher.write_u64((bits >> 64) as u64);
                    hasher.write_u64(bits as u64);
                }
            }
        }
        hasher.write_u32(u32::from(name.local.port()) << 16 | u32::from(name.remote.port()));
        Entry {
            hash: hasher.finish() as u32,
            number,
        }
    }
}
