//! What may name a node.

use super::{ABSOLUTE_PATH_MAX, RELATIVE_PATH_MAX};
use crate::Error;

/// A path that the server will accept: absolute, relative to `/local/domain/<us>`, or special (`@releaseDomain`).
///
/// ```
/// use fata_xenstore::wire::Path;
/// assert_eq!(Path::new("device/vif/0")?.as_str(), "device/vif/0");
/// assert!(Path::new("/").is_ok());
/// for wrong in ["", "a//b", "a/", "a b", "naïve"] {
///     assert!(Path::new(wrong).is_err());
/// }
/// # Ok::<(), fata_xenstore::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path<'a>(&'a str);

impl<'a> Path<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`Error::BadPath`].
    pub fn new(text: &'a str) -> Result<Self, Error> {
        let limit = if text.starts_with('/') {
            ABSOLUTE_PATH_MAX
        } else {
            RELATIVE_PATH_MAX
        };
        let fits = !text.is_empty() && text.len() <= limit;
        let shaped = text == "/" || !text.ends_with('/');
        let mut before = 0;
        let clean = text.bytes().all(|c| {
            let doubled = c == b'/' && before == b'/';
            before = c;
            c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'@') || (c == b'/' && !doubled)
        });
        if fits && shaped && clean {
            Ok(Self(text))
        } else {
            Err(Error::BadPath)
        }
    }

    /// Checks bytes that came from somewhere.
    ///
    /// # Errors
    /// [`Error::BadPath`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::new(core::str::from_utf8(bytes).map_err(|_| Error::BadPath)?)
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_xs_wire_h() {
        let long = "a".repeat(RELATIVE_PATH_MAX);
        assert!(Path::new(&long).is_ok());
        assert_eq!(Path::new(&(long + "a")), Err(Error::BadPath));
        let long = "/".to_string() + &"a".repeat(ABSOLUTE_PATH_MAX - 1);
        assert!(Path::new(&long).is_ok());
        assert_eq!(Path::new(&(long + "a")), Err(Error::BadPath));
    }

    #[test]
    fn every_other_byte_is_refused() {
        for byte in 0..=255_u8 {
            let allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@');
            assert_eq!(
                Path::from_bytes(&[b'a', byte, b'b']).is_ok(),
                allowed || byte == b'/',
                "{byte:#x}"
            );
        }
    }
}
