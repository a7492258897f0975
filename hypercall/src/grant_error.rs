//! What Xen answers when it refuses something about a grant.

use core::fmt;

/// Why Xen refused an operation on a grant (`GNTST_*`, xen/include/public/grant_table.h).
///
/// ```
/// use fata_hypercall::GrantError;
/// assert_eq!(GrantError::from_status(0), Ok(()));
/// assert_eq!(GrantError::from_status(-3), Err(GrantError::BadReference));
/// assert_eq!(GrantError::BadReference.to_string(), "GNTST -3 (BadReference)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum GrantError {
    /// Not permitted in this way, such as writing by a read-only grant; or whatever has no number of its own.
    General = -1,
    /// No such domain.
    BadDomain = -2,
    /// No such reference, or the entry grants nothing to us.
    BadReference = -3,
    /// No such mapping.
    BadHandle = -4,
    /// Nothing can be mapped at this address.
    BadVirtualAddress = -5,
    /// The same for devices.
    BadDeviceAddress = -6,
    /// The I/O MMU is full.
    NoDeviceSpace = -7,
    /// We may not do this.
    PermissionDenied = -8,
    /// The frame in the entry is not a page of the granter.
    BadPage = -9,
    /// Offset and length leave the page.
    BadCopyArgument = -10,
    /// An address that is too large.
    AddressTooBig = -11,
    /// Not now: the page is on its way back into memory.
    Again = -12,
    /// No place left to map anything at, or no handle.
    NoSpace = -13,
}

impl GrantError {
    const ALL: [Self; 13] = [
        Self::General,
        Self::BadDomain,
        Self::BadReference,
        Self::BadHandle,
        Self::BadVirtualAddress,
        Self::BadDeviceAddress,
        Self::NoDeviceSpace,
        Self::PermissionDenied,
        Self::BadPage,
        Self::BadCopyArgument,
        Self::AddressTooBig,
        Self::Again,
        Self::NoSpace,
    ];

    /// Splits the status of an operation: numbers below zero are errors.
    ///
    /// # Errors
    /// What `status` stands for; [`General`](Self::General) if it is no number that we know.
    pub fn from_status(status: i16) -> Result<(), Self> {
        if status >= 0 {
            return Ok(());
        }
        let known = Self::ALL.into_iter().find(|error| *error as i16 == status);
        Err(known.unwrap_or(Self::General))
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GNTST {} ({self:?})", *self as i16)
    }
}

impl core::error::Error for GrantError {}
