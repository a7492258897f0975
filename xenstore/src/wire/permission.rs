//! Who may do what with a node.

use alloc::vec::Vec;

use fata_hypercall::DomId;

use super::split_nul;
use crate::{Error, decimal, memory};

/// What one entry of a node's permissions allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `n`: nothing.
    None,
    /// `r`: reading.
    Read,
    /// `w`: writing.
    Write,
    /// `b`: both.
    Both,
}

/// One entry of a node's permissions, written `r5`.
///
/// The first of a node's entries is special: its domain owns the node and may do everything, and its access is that
/// of all domains that no other entry names.
///
/// ```
/// use fata_hypercall::DomId;
/// use fata_xenstore::wire::{Access, Permission};
/// let permission = Permission::parse(b"r5").unwrap();
/// assert_eq!(permission, Permission { access: Access::Read, domain: DomId(5) });
/// assert!(Permission::parse(b"x5").is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What is allowed.
    pub access: Access,
    /// To whom.
    pub domain: DomId,
}

impl Permission {
    /// Reads one entry, without its NUL.
    ///
    /// # Errors
    /// [`Error::BadMessage`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let parse = || {
            let (letter, number) = text.split_first()?;
            let access = match letter {
                b'n' => Access::None,
                b'r' => Access::Read,
                b'w' => Access::Write,
                b'b' => Access::Both,
                _ => return None,
            };
            let domain = decimal::parse(number, 0..=u64::from(u16::MAX))?;
            Some(Self {
                access,
                domain: DomId(domain as u16),
            })
        };
        parse().ok_or(Error::BadMessage)
    }

    /// Appends the entry and its NUL.
    pub fn encode(self, to: &mut Vec<u8>) {
        to.push(match self.access {
            Access::None => b'n',
            Access::Read => b'r',
            Access::Write => b'w',
            Access::Both => b'b',
        });
        decimal::push(to, u64::from(self.domain.0));
        to.push(0);
    }

    /// Reads a list of at least one entry.
    pub(crate) fn parse_list(mut bytes: &[u8]) -> Result<Vec<Self>, Error> {
        let mut list = Vec::new();
        while !bytes.is_empty() {
            let (entry, rest) = split_nul(bytes).ok_or(Error::BadMessage)?;
            memory::push(&mut list, Self::parse(entry)?)?;
            bytes = rest;
        }
        if list.is_empty() {
            Err(Error::BadMessage)
        } else {
            Ok(list)
        }
    }
}
