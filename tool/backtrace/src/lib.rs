//! From what a guest left behind to functions and lines: a crash report on its console, or a core that
//! `xl dump-core` or `on_crash = "coredump-destroy"` wrote.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let image = fata_backtrace::Image::open("dist/http.debug".as_ref())?;
//! let console = std::fs::File::open("/var/log/xen/console/guest-http.log")?;
//! print!("{}", fata_backtrace::explain(&image, console)?);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod dump;
mod error;
mod image;
mod registers;
mod report;
mod stack;

use std::fmt::Write as _;
use std::io::{Read, Seek};

use object::read::ReadCache;

pub use error::Error;
pub use image::Image;

use dump::Dump;
use registers::Registers;
use stack::Step;

/// What every ELF file begins with, and no console log.
const ELF: &[u8] = b"\x7fELF";

/// Says where in the source the guest was: `input` is a text with crash reports, or a core.
///
/// # Errors
/// See [`Error`].
pub fn explain(image: &Image, mut input: impl Read + Seek) -> Result<String, Error> {
    let mut magic = Vec::new();
    input.by_ref().take(ELF.len() as u64).read_to_end(&mut magic)?;
    input.rewind()?;
    if magic == ELF {
        return core(image, &ReadCache::new(input));
    }
    let mut text = Vec::new();
    input.read_to_end(&mut text)?;
    reports(image, &String::from_utf8_lossy(&text))
}

/// The crash reports in a text.
fn reports(image: &Image, text: &str) -> Result<String, Error> {
    let reports = report::parse(text);
    if reports.is_empty() {
        return Err(Error::NoReport);
    }
    let mut out = String::new();
    for (nth, report) in reports.iter().enumerate() {
        if nth > 0 {
            out.push('\n');
        }
        for line in &report.lines {
            line_of(&mut out, format_args!("{line}"));
        }
        for (nth, &address) in report.addresses.iter().enumerate() {
            // What the guest prints of a caller lies within the call already.
            image.describe(&mut out, nth, address, address);
        }
        if report.addresses.is_empty() {
            line_of(&mut out, format_args!("the report ends before its backtrace"));
        }
    }
    Ok(out)
}

/// Every virtual CPU in a core.
fn core<R: Read + Seek>(image: &Image, data: &ReadCache<R>) -> Result<String, Error> {
    let dump = Dump::parse(data)?;
    if let Some(address) = image.differs(|address, to| dump.read(address, to)) {
        return Err(Error::WrongImage { address });
    }
    let mut out = String::new();
    for (nth, registers) in dump.vcpus().iter().enumerate() {
        // What was never started has never been anywhere.
        if nth > 0 && *registers == Registers::default() {
            continue;
        }
        line_of(&mut out, format_args!("virtual CPU {nth}:\n{registers}"));
        let steps = stack::walk(registers, image, |address| dump.word(address));
        let mut frame = 0;
        for step in &steps {
            match step {
                Step::At(address) => image.describe(&mut out, frame, *address, *address),
                Step::Caller(address) => image.describe(&mut out, frame, *address, address - 1),
                Step::Fault {
                    vector,
                    error,
                    registers,
                } => {
                    line_of(
                        &mut out,
                        format_args!("fault: vector {vector}, error {error:#x}, at\n{registers}"),
                    );
                    continue;
                }
            }
            frame += 1;
        }
        if steps.len() == stack::STEPS_MAX {
            line_of(&mut out, format_args!("there is more, which is not shown"));
        }
    }
    Ok(out)
}

/// Writing to a string cannot fail.
fn line_of(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests;
