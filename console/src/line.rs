//! The least that a terminal needs to type a line on: echo, erasing, line ends.

use alloc::string::String;
use alloc::vec::Vec;

/// The longest line that can be typed, in bytes. What is typed beyond it is ignored.
pub const MAX_LINE: usize = 1024;

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
/// Moves back, overwrites, moves back.
const ERASE: &[u8] = b"\x08 \x08";

/// A line while it is typed.
#[derive(Default)]
pub(crate) struct Line {
    bytes: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it is part of the same line end.
    after_return: bool,
}

impl Line {
    /// Takes one byte. `echo` is told what the terminal shall show. Gives the line when it is complete.
    pub(crate) fn push(&mut self, byte: u8, mut echo: impl FnMut(&[u8])) -> Option<String> {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                echo(b"\n");
                let line = core::mem::take(&mut self.bytes);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            BACKSPACE | DELETE if self.erase() => echo(ERASE),
            b'\t' | b' '..=b'~' | 0x80.. if self.bytes.len() < MAX_LINE => {
                self.bytes.push(byte);
                echo(&[byte]);
            }
            _ => {}
        }
        None
    }

    /// Removes the last character; a character of several bytes as a whole. `false` if there is none.
    fn erase(&mut self) -> bool {
        while let Some(byte) = self.bytes.pop() {
            let continues = byte & 0xc0 == 0x80;
            if !continues {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `bytes`; gives the lines, the echo, and what is left of an unfinished line.
    fn type_in(bytes: &[u8]) -> (Vec<String>, Vec<u8>, Vec<u8>) {
        let mut line = Line::default();
        let mut echo = Vec::new();
        let lines = bytes
            .iter()
            .filter_map(|&byte| line.push(byte, |bytes| echo.extend_from_slice(bytes)))
            .collect();
        (lines, echo, line.bytes)
    }

    #[test]
    fn every_line_end_ends_one_line() {
        assert_eq!(type_in(b"a\rb\nc\r\nd\r\re").0, ["a", "b", "c", "d", ""]);
    }

    #[test]
    fn backspace_erases_whole_characters_and_stops_at_the_start() {
        let (lines, echo, _) = type_in("hé\x7f\x7f\x7f\x08ok\r".as_bytes());
        assert_eq!(lines, ["ok"]);
        assert_eq!(echo, "hé\x08 \x08\x08 \x08ok\n".as_bytes());
    }

    #[test]
    fn a_line_has_an_end_and_control_bytes_are_ignored() {
        let long = [b'x'; 3 * MAX_LINE];
        let (_, echo, rest) = type_in(&long);
        assert_eq!((echo.len(), rest.len()), (MAX_LINE, MAX_LINE));
        assert_eq!(type_in(b"\x1b\x00a\xff\n").0, ["a\u{fffd}"]);
    }
}
