//! What Xen answers when it refuses.

use core::fmt;

/// A negative result of a hypercall, without its sign (xen/include/public/errno.h).
///
/// ```
/// use fata_hypercall::Errno;
/// assert_eq!(Errno::from_result(-22), Err(Errno::EINVAL));
/// assert_eq!(Errno::from_result(3), Ok(3));
/// assert_eq!(Errno::EINVAL.to_string(), "EINVAL");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub u16);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

        }

        /// All that have a name.
        const NAMES: &[(Errno, &str)] = &[$((Errno::$name, stringify!($name)),)*];
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such entry.
    ENOENT = 2,
    /// No such process; Xen: no such domain.
    ESRCH = 3,
    /// Input or output error.
    EIO = 5,
    /// Argument list too long; xenstored: the answer does not fit into one message.
    E2BIG = 7,
    /// Try again; xenstored: the transaction met another one.
    EAGAIN = 11,
    /// Out of memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad address.
    EFAULT = 14,
    /// Busy.
    EBUSY = 16,
    /// It exists already.
    EEXIST = 17,
    /// No such device.
    ENODEV = 19,
    /// Is a directory.
    EISDIR = 21,
    /// Invalid argument.
    EINVAL = 22,
    /// No space left; xenstored: over quota.
    ENOSPC = 28,
    /// Read-only.
    EROFS = 30,
    /// Out of range.
    ERANGE = 34,
    /// Not implemented by this Xen.
    ENOSYS = 38,
    /// Directory not empty.
    ENOTEMPTY = 39,
    /// Operation not supported.
    EOPNOTSUPP = 95,
    /// Already connected.
    EISCONN = 106,
}

impl Errno {
    /// The name Xen's header gives it, where it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(errno, _)| *errno == self).map(|(_, name)| *name)
    }

    /// The number that a name stands for: xenstored reports its errors by name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        NAMES
            .iter()
            .find(|(_, known)| known.as_bytes() == name)
            .map(|(errno, _)| *errno)
    }

    /// Splits a hypercall's result: negative numbers are errors.
    ///
    /// # Errors
    /// The errno that a negative `result` stands for. A number outside 1..=4095 becomes [`Errno::EIO`].
    pub fn from_result(result: i64) -> Result<u64, Self> {
        match u64::try_from(result) {
            Ok(value) => Ok(value),
            Err(_) => Err(match result.unsigned_abs() {
                n @ 1..=4095 => Self(n as u16),
                _ => Self::EIO,
            }),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}
