//! Numbers as Xenstore writes them: unsigned, decimal, nothing around them.
//!
//! By hand, because `core::fmt` would cost an image more than the rest of this crate's wire format together.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Appends `number` in decimal.
///
/// ```
/// let mut path = b"device/vif/".to_vec();
/// fata_xenstore::decimal::push(&mut path, 10);
/// assert_eq!(path, b"device/vif/10");
/// ```
pub fn push(to: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    to.extend(digits.iter().skip(first));
}

/// `number` in decimal.
///
/// ```
/// assert_eq!(fata_xenstore::decimal::string(4095), "4095");
/// ```
#[must_use]
pub fn string(number: u64) -> String {
    let mut bytes = Vec::with_capacity(20);
    push(&mut bytes, number);
    // Digits are always text, so the default is never taken.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Reads a whole value as a number; `None` for signs, spaces, other characters, nothing at all, too much, or a
/// number outside `range`. The value is usually a peer's.
///
/// ```
/// use fata_xenstore::decimal::parse;
/// assert_eq!(parse(b"1500", 68..=65_521), Some(1500));
/// assert_eq!(parse(b"67", 68..=65_521), None);
/// assert_eq!(parse(b"+1500", 68..=65_521), None);
/// assert_eq!(parse(b"18446744073709551616", 0..=u64::MAX), None, "2^64 is one too many");
/// ```
#[must_use]
pub fn parse(text: &[u8], range: RangeInclusive<u64>) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let number = text.iter().try_fold(0_u64, |sum, &c| match c {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(c - b'0')),
        _ => None,
    })?;
    range.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_written_and_read() {
        for n in [0, 1, 9, 10, 99, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            assert_eq!(string(n), n.to_string());
            assert_eq!(parse(string(n).as_bytes(), 0..=u64::MAX), Some(n));
        }
    }

    #[test]
    fn junk_is_refused_rule_69() {
        for junk in [
            "",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x1",
            "1\0",
            "1\n",
            "99999999999999999999999",
            "\u{661}",
        ] {
            assert_eq!(parse(junk.as_bytes(), 0..=u64::MAX), None, "{junk:?}");
        }
    }
}
