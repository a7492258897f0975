//! A log message as a line of the console.

use core::fmt::{self, Write};
use core::time::Duration;

use log::Record;

use crate::args::short_target;

/// Writes `[   0.012345] INFO net: the message` and a line's end.
///
/// The line is put together on the stack and given to `write` in pieces of up to 256 bytes: it needs no heap, which
/// may be exhausted, and holds nothing that a message which logs while it is being formatted could find in use.
pub(crate) fn log_line(write: &dyn Fn(&[u8]), uptime: Duration, record: &Record<'_>) {
    let mut line = Line {
        write,
        buffer: [0; 256],
        length: 0,
    };
    // A message's Display may fail; what came so far is shown, and nobody could be told.
    let _ = stamp(&mut line, uptime);
    let target = short_target(record.target());
    let _ = line.write_str(record.level().as_str());
    let _ = line.write_str(" ");
    let _ = line.write_str(target.split(':').next().unwrap_or(target));
    let _ = line.write_str(": ");
    let _ = match record.args().as_str() {
        Some(text) => line.write_str(text),
        None => line.write_fmt(*record.args()),
    };
    let _ = line.write_str("\n");
    line.flush();
}

/// `[   0.012345] `: seconds since the program started.
fn stamp(line: &mut Line<'_>, uptime: Duration) -> fmt::Result {
    write!(line, "[{:4}.{:06}] ", uptime.as_secs(), uptime.subsec_micros())
}

/// Gathers pieces of text.
struct Line<'a> {
    write: &'a dyn Fn(&[u8]),
    buffer: [u8; 256],
    length: usize,
}

impl Line<'_> {
    fn flush(&mut self) {
        if let Some(bytes) = self.buffer.get(..self.length).filter(|bytes| !bytes.is_empty()) {
            (self.write)(bytes);
        }
        self.length = 0;
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.buffer.len() {
                self.flush();
            }
            if let Some(place) = self.buffer.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use core::cell::RefCell;
    use log::Level;

    fn line(uptime: Duration, target: &str, args: fmt::Arguments<'_>) -> String {
        let out = RefCell::new(alloc::vec::Vec::new());
        let record = Record::builder().level(Level::Info).target(target).args(args).build();
        log_line(&|bytes| out.borrow_mut().extend_from_slice(bytes), uptime, &record);
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn the_format() {
        assert_eq!(
            line(Duration::from_micros(12345), "fata_net::tcp", format_args!("up")),
            "[   0.012345] INFO net: up\n"
        );
        assert_eq!(
            line(Duration::from_secs(12345), "app", format_args!("{}", 7)),
            "[12345.000000] INFO app: 7\n"
        );
    }

    #[test]
    fn long_messages_are_whole() {
        let text = "x".repeat(1000);
        assert!(line(Duration::ZERO, "a", format_args!("{text}!")).ends_with(&(text + "!\n")));
    }

    /// A value whose Display logs: the inner line comes out whole, before the rest of the outer one.
    #[test]
    fn a_message_may_log() {
        struct Chatty;
        impl fmt::Display for Chatty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&line(Duration::ZERO, "inner", format_args!("nested")).to_string())
            }
        }
        assert!(line(Duration::ZERO, "outer", format_args!("{Chatty}")).contains("INFO inner: nested\n"));
    }
}
