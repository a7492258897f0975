//! What a server answers: the fields of each message, without its header. `None` is a message that is not what it should be:
//! too short, too long, or with a count of more than there is.

use core::time::Duration;

use super::fields::Fields;
use super::{LONGEST_NAME, VERSION};

/// What a file is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qid {
    /// `QTDIR`, `QTSYMLINK` and others, as bits.
    pub kind: u8,
    /// It changes when the file does, if the server cares.
    pub version: u32,
    /// No two files have the same.
    pub path: u64,
}

impl Qid {
    /// `QTDIR`
    const DIRECTORY: u8 = 0x80;

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(self) -> bool {
        self.kind & Self::DIRECTORY != 0
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            kind: fields.u8()?,
            version: fields.u32()?,
            path: fields.u64()?,
        })
    }
}

/// An answer without fields.
#[must_use]
pub fn nothing(payload: &[u8]) -> Option<()> {
    Fields(payload).end(())
}

/// Rlerror: a number of Linux's.
#[must_use]
pub fn error(payload: &[u8]) -> Option<u32> {
    let mut fields = Fields(payload);
    let errno = fields.u32()?;
    fields.end(errno)
}

/// Rversion: the longest message, if the server speaks our version.
#[must_use]
pub fn version(payload: &[u8]) -> Option<Option<u32>> {
    let mut fields = Fields(payload);
    let msize = fields.u32()?;
    let version = fields.string()?;
    fields.end((version == VERSION.as_bytes()).then_some(msize))
}

/// Rattach and Rmkdir.
#[must_use]
pub fn qid(payload: &[u8]) -> Option<Qid> {
    let mut fields = Fields(payload);
    let qid = Qid::read(&mut fields)?;
    fields.end(qid)
}

/// Rwalk: how many names were found, and the last thing that was. A server may find fewer than were asked for, not more.
#[must_use]
pub fn walk(payload: &[u8], names: usize) -> Option<(usize, Option<Qid>)> {
    let mut fields = Fields(payload);
    let count = usize::from(fields.u16()?);
    let mut last = None;
    for _ in 0..count {
        last = Some(Qid::read(&mut fields)?);
    }
    if count > names {
        return None;
    }
    fields.end((count, last))
}

/// Rlopen and Rlcreate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was opened.
    pub qid: Qid,
    /// The most that one request should read or write; 0: as much as fits into a message.
    pub io_unit: u32,
}

/// Rlopen and Rlcreate.
#[must_use]
pub fn opened(payload: &[u8]) -> Option<Opened> {
    let mut fields = Fields(payload);
    let opened = Opened {
        qid: Qid::read(&mut fields)?,
        io_unit: fields.u32()?,
    };
    fields.end(opened)
}

/// Rread and Rreaddir: the bytes, of which no more than `asked` may come.
#[must_use]
pub fn data(payload: &[u8], asked: u32) -> Option<&[u8]> {
    let mut fields = Fields(payload);
    let data = fields.data()?;
    fields.end(data).filter(|data| data.len() <= asked as usize)
}

/// Rwrite: how many bytes were written, which cannot be more than `asked`.
#[must_use]
pub fn written(payload: &[u8], asked: u32) -> Option<u32> {
    let mut fields = Fields(payload);
    let count = fields.u32()?;
    fields.end(count).filter(|count| *count <= asked)
}

/// Rgetattr, as far as it is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Type and permissions, as Linux's `st_mode`.
    pub mode: u32,
    /// The length in bytes.
    pub size: u64,
    /// Since 1970, when it was changed.
    pub modified: Duration,
}

/// Rgetattr.
#[must_use]
pub fn attributes(payload: &[u8]) -> Option<Attributes> {
    let mut fields = Fields(payload);
    let _valid = fields.u64()?;
    Qid::read(&mut fields)?;
    let mode = fields.u32()?;
    // uid and gid; nlink and rdev
    fields.bytes(4 + 4 + 8 + 8)?;
    let size = fields.u64()?;
    // blksize and blocks; atime
    fields.bytes(8 + 8 + 16)?;
    let (seconds, nanoseconds) = (fields.u64()?, fields.u64()?);
    // ctime and btime; gen and data_version
    fields.bytes(16 + 16 + 8 + 8)?;
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|ns| *ns < 1_000_000_000)?;
    fields.end(Attributes {
        mode,
        size,
        modified: Duration::new(seconds, nanoseconds),
    })
}

/// Rstatfs, as far as it is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in a block.
    pub block: u32,
    /// Blocks altogether.
    pub blocks: u64,
    /// Blocks that are free for everybody.
    pub available: u64,
}

/// Rstatfs.
#[must_use]
pub fn space(payload: &[u8]) -> Option<Space> {
    let mut fields = Fields(payload);
    let _type = fields.u32()?;
    let block = fields.u32()?;
    let blocks = fields.u64()?;
    let _free = fields.u64()?;
    let available = fields.u64()?;
    // files and ffree; fsid; namelen
    fields.bytes(8 + 8 + 8 + 4)?;
    fields.end(Space {
        block,
        blocks,
        available,
    })
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub qid: Qid,
    /// Where the next entry is.
    pub offset: u64,
    /// Linux's `DT_`.
    pub kind: u8,
    /// Its name, which is one: not empty, and without `/` and NUL. It need not be text.
    pub name: &'a [u8],
}

/// The entries in the data of an Rreaddir. `None` among them: one that is not what it should be, and the last.
#[derive(Clone, Debug)]
pub struct Entries<'a>(Fields<'a>);

impl<'a> Entries<'a> {
    /// Of these data.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self(Fields(data))
    }

    fn read(&mut self) -> Option<Entry<'a>> {
        let entry = Entry {
            qid: Qid::read(&mut self.0)?,
            offset: self.0.u64()?,
            kind: self.0.u8()?,
            name: self.0.string()?,
        };
        let is_name =
            (1..=LONGEST_NAME).contains(&entry.name.len()) && !entry.name.iter().any(|byte| matches!(byte, b'/' | 0));
        is_name.then_some(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_none() {
            self.0 = Fields(&[]);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn answers_are_as_the_document_says() {
        assert_eq!(version(b"\0\x20\0\0\x08\x009P2000.L"), Some(Some(8192)));
        assert_eq!(version(b"\0\x20\0\0\x07\0unknown"), Some(None));
        assert_eq!(error(b"\x02\0\0\0"), Some(2));
        let directory = b"\x80\x01\0\0\0\x02\0\0\0\0\0\0\0";
        let expected = Qid {
            kind: 0x80,
            version: 1,
            path: 2,
        };
        assert_eq!(qid(directory), Some(expected));
        assert!(expected.is_directory());
        let walked = [b"\x01\0", &directory[..]].concat();
        assert_eq!(walk(&walked, 1), Some((1, Some(expected))));
        assert_eq!(walk(&walked, 0), None, "more than asked for");
        assert_eq!(walk(b"\0\0", 3), Some((0, None)));
        assert_eq!(data(b"\x02\0\0\0ab", 2), Some(&b"ab"[..]));
        assert_eq!(data(b"\x02\0\0\0ab", 1), None, "more than asked for");
        assert_eq!(written(b"\x02\0\0\0", 2), Some(2));
        assert_eq!(written(b"\x03\0\0\0", 2), None, "more than asked for");
    }

    #[test]
    fn an_answer_that_is_too_short_or_too_long_is_none() {
        let long = [0; 200];
        type IsSome = fn(&[u8]) -> bool;
        let lengths: [(usize, IsSome); 9] = [
            (0, |bytes| nothing(bytes).is_some()),
            (4, |bytes| error(bytes).is_some()),
            (6, |bytes| version(bytes).is_some()),
            (13, |bytes| qid(bytes).is_some()),
            (17, |bytes| opened(bytes).is_some()),
            (4, |bytes| data(bytes, 9).is_some()),
            (153, |bytes| attributes(bytes).is_some()),
            (60, |bytes| space(bytes).is_some()),
            (2, |bytes| walk(bytes, 9).is_some()),
        ];
        for (length, is_some) in lengths {
            for tried in 0..long.len() {
                assert_eq!(
                    is_some(&long[..tried]),
                    tried == length,
                    "{tried} bytes instead of {length}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_ends_the_list() {
        let entry = |name: &str| {
            let mut bytes = alloc::vec![0; 22];
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.bytes());
            bytes
        };
        for bad in ["", "a/b", "/", "nul\0"] {
            let data = [entry("good"), entry(bad), entry("good")].concat();
            let names: Vec<_> = Entries::new(&data).map(|entry| entry.map(|entry| entry.name)).collect();
            assert_eq!(names, [Some(&b"good"[..]), None], "{bad:?}");
        }
    }
}
