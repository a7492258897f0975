//! The image with its symbols.

use std::fs;
use std::ops::Range;
use std::path::Path;

use addr2line::Loader;
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{LittleEndian, Object, ObjectSection, SectionKind};

use crate::error::Error;
use crate::line_of;

/// Code is compared with the core's in pieces of this size.
const PIECE: usize = 4096;

/// An image that was built with `cargo fata build`: the file `NAME.debug`.
pub struct Image {
    symbols: Loader,
    /// The executable section, and where it lies.
    code: Vec<u8>,
    range: Range<u64>,
}

impl Image {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::NoSymbols`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |why: String| Error::Image { path: path.into(), why };
        let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let elf = ElfFile::<FileHeader64<LittleEndian>>::parse(bytes.as_slice())
            .map_err(|error| failed(error.to_string()))?;
        if elf.section_by_name(".debug_info").is_none() {
            return Err(Error::NoSymbols { path: path.into() });
        }
        let code = elf.sections().find(|section| section.kind() == SectionKind::Text);
        let code = code.ok_or_else(|| failed("has no code".into()))?;
        let data = code.data().map_err(|error| failed(error.to_string()))?;
        let end = code.address().checked_add(data.len() as u64);
        let end = end.ok_or_else(|| failed("has code behind the last address".into()))?;
        Ok(Self {
            symbols: Loader::new(path).map_err(|error| failed(error.to_string()))?,
            range: code.address()..end,
            code: data.to_vec(),
        })
    }

    /// Whether code is there.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        self.range.contains(&address)
    }

    /// Whether a return address is that of what calls the fault handler.
    pub(crate) fn is_fault_stub(&self, address: u64) -> bool {
        self.symbols.find_symbol(address - 1) == Some("fata_fault_stubs")
    }

    /// Where the function begins that has this address.
    pub(crate) fn function(&self, address: u64) -> Option<u64> {
        Some(self.symbols.find_symbol_info(address)?.address())
    }

    /// A byte of code.
    pub(crate) fn code_byte(&self, address: u64) -> Option<u8> {
        let offset = address.checked_sub(self.range.start)?;
        self.code.get(usize::try_from(offset).ok()?).copied()
    }

    /// The first address at which memory, which `read` fills a buffer from, holds other code. What cannot be read is not
    /// different.
    pub(crate) fn differs(&self, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<u64> {
        let mut buffer = [0; PIECE];
        for (piece, address) in self.code.chunks(PIECE).zip((self.range.start..).step_by(PIECE)) {
            let there = &mut buffer[..piece.len()];
            if read(address, there) && piece != there {
                let offset = piece.iter().zip(there.iter()).take_while(|(a, b)| a == b).count();
                return Some(address + offset as u64);
            }
        }
        None
    }

    /// Prints frame `nth`: the address, and the functions and lines of the code at `lookup`, inlined ones first.
    pub(crate) fn describe(&self, out: &mut String, nth: usize, address: u64, lookup: u64) {
        // Broken debugging information is none.
        let mut frames = self.symbols.find_frames(lookup).ok();
        let mut functions: Vec<(Option<String>, Option<String>)> = Vec::new();
        while let Some(frame) = frames.as_mut().and_then(|frames| frames.next().ok().flatten()) {
            let name = frame.function.as_ref().and_then(|name| name.demangle().ok());
            functions.push((name.map(Into::into), frame.location.as_ref().and_then(place)));
        }
        if functions.is_empty() {
            functions.push((None, None));
        }
        // Line tables have names without modules. The function that the others were inlined into has a symbol.
        if let (Some(symbol), Some((name, _))) = (self.symbol(lookup), functions.last_mut()) {
            *name = Some(symbol);
        }
        let mut head = format!("{nth:>3} {address:#018x}");
        for (name, place) in functions {
            line_of(out, format_args!("{head} {}", name.as_deref().unwrap_or("?")));
            if let Some(place) = place {
                line_of(out, format_args!("{:22}   at {place}", ""));
            }
            head = " ".repeat(22);
        }
    }

    /// The symbol that code at this address belongs to.
    fn symbol(&self, address: u64) -> Option<String> {
        let symbol = self.is_code(address).then(|| self.symbols.find_symbol(address))??;
        Some(addr2line::demangle_auto(symbol.into(), None).into_owned())
    }
}

/// FILE:LINE:COLUMN, as far as it is known.
fn place(location: &addr2line::Location<'_>) -> Option<String> {
    let file = location.file?;
    Some(match (location.line, location.column) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(line), None) => format!("{file}:{line}"),
        (None, _) => file.to_owned(),
    })
}
