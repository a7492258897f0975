//! What a client asks.

use alloc::vec::Vec;

use super::{HEADER, NO_TAG, VERSION, kind};

/// `P9_NOFID`: no file.
const NO_FID: u32 = u32::MAX;
/// As whom files are made: root, as the toolstack's model "none" has it.
const ROOT: u32 = 0;
/// `AT_REMOVEDIR`
const REMOVE_DIRECTORY: u32 = 0x200;
/// `P9_GETATTR_BASIC`: all that `stat` tells.
const BASIC: u64 = 0x7ff;
/// `P9_SETATTR_SIZE`
const SIZE: u32 = 8;

/// A request. A `fid` is a number of the client's choice for a file at the server.
///
/// Names must not be longer than [`LONGEST_NAME`](super::LONGEST_NAME), and there may be
/// [`WALK_NAMES`](super::WALK_NAMES) of them in a walk: then every request without data fits into the smallest message.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's document")]
pub enum Request<'a> {
    /// Agree on 9P2000.L and on the longest message.
    Version { msize: u32 },
    /// `fid` becomes the root directory.
    Attach { fid: u32 },
    /// The request with this tag is to have no answer any more.
    Flush { tag: u16 },
    /// `new_fid` becomes what is found from `fid` on by these names. Without a name it becomes the same as `fid`.
    Walk {
        fid: u32,
        new_fid: u32,
        names: &'a [&'a str],
    },
    /// Opens `fid`.
    Open { fid: u32, flags: u32 },
    /// `fid`, a directory, becomes a new file in it, which is open.
    Create {
        fid: u32,
        name: &'a str,
        flags: u32,
        mode: u32,
    },
    /// Reads a file.
    Read { fid: u32, offset: u64, count: u32 },
    /// Writes a file.
    Write { fid: u32, offset: u64, data: &'a [u8] },
    /// Attributes.
    GetAttributes { fid: u32 },
    /// Makes a file longer or shorter.
    SetSize { fid: u32, size: u64 },
    /// Entries of an open directory, from the one with this offset on.
    ReadDirectory { fid: u32, offset: u64, count: u32 },
    /// Makes a directory.
    MakeDirectory { fid: u32, name: &'a str, mode: u32 },
    /// Removes a file, or an empty directory.
    Remove { fid: u32, name: &'a str, directory: bool },
    /// Moves what is called `from` in one directory to `to` in another.
    Rename {
        from_fid: u32,
        from: &'a str,
        to_fid: u32,
        to: &'a str,
    },
    /// Waits until everything is on the disk.
    Sync { fid: u32 },
    /// Figures of the file system.
    Space { fid: u32 },
    /// `fid` stands for nothing any more.
    Clunk { fid: u32 },
}

impl Request<'_> {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Version { .. } => kind::VERSION,
            Self::Attach { .. } => kind::ATTACH,
            Self::Flush { .. } => kind::FLUSH,
            Self::Walk { .. } => kind::WALK,
            Self::Open { .. } => kind::OPEN,
            Self::Create { .. } => kind::CREATE,
            Self::Read { .. } => kind::READ,
            Self::Write { .. } => kind::WRITE,
            Self::GetAttributes { .. } => kind::GETATTR,
            Self::SetSize { .. } => kind::SETATTR,
            Self::ReadDirectory { .. } => kind::READDIR,
            Self::MakeDirectory { .. } => kind::MKDIR,
            Self::Remove { .. } => kind::UNLINKAT,
            Self::Rename { .. } => kind::RENAMEAT,
            Self::Sync { .. } => kind::FSYNC,
            Self::Space { .. } => kind::STATFS,
            Self::Clunk { .. } => kind::CLUNK,
        }
    }

    /// The longest answer that there can be, in bytes.
    #[must_use]
    pub const fn longest_answer(&self) -> u32 {
        HEADER as u32
            + match self {
                Self::Version { .. } => 4 + 2 + VERSION.len() as u32,
                Self::Attach { .. } | Self::MakeDirectory { .. } => 13,
                Self::Walk { names, .. } => 2 + 2 + 13 * names.len() as u32,
                Self::Open { .. } | Self::Create { .. } => 13 + 4,
                Self::Read { count, .. } | Self::ReadDirectory { count, .. } => 4 + *count,
                Self::GetAttributes { .. } => 153,
                Self::Space { .. } => 60,
                // An error has four bytes.
                _ => 4,
            }
    }

    /// The whole message. Its tag is that which belongs to no request; see [`set_tag`](Self::set_tag).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Message(Vec::new());
        message.u32(0);
        message.u8(self.kind());
        message.u16(NO_TAG);
        self.fields(&mut message);
        let size = message.0.len() as u32;
        if let Some(field) = message.0.first_chunk_mut() {
            *field = size.to_le_bytes();
        }
        message.0
    }

    /// Writes a tag into a message.
    pub fn set_tag(message: &mut [u8], tag: u16) {
        if let Some([.., low, high]) = message.first_chunk_mut::<HEADER>() {
            [*low, *high] = tag.to_le_bytes();
        }
    }

    fn fields(&self, to: &mut Message) {
        match *self {
            Self::Version { msize } => {
                to.u32(msize);
                to.string(VERSION);
            }
            Self::Attach { fid } => {
                to.u32(fid);
                to.u32(NO_FID);
                to.string("root");
                to.string("");
                to.u32(ROOT);
            }
            Self::Flush { tag } => to.u16(tag),
            Self::Walk { fid, new_fid, names } => {
                to.u32(fid);
                to.u32(new_fid);
                to.u16(names.len() as u16);
                names.iter().for_each(|name| to.string(name));
            }
            Self::Open { fid, flags } => {
                to.u32(fid);
                to.u32(flags);
            }
            Self::Create { fid, name, flags, mode } => {
                to.u32(fid);
                to.string(name);
                to.u32(flags);
                to.u32(mode);
                to.u32(ROOT);
            }
            Self::Read { fid, offset, count } | Self::ReadDirectory { fid, offset, count } => {
                to.u32(fid);
                to.u64(offset);
                to.u32(count);
            }
            Self::Write { fid, offset, data } => {
                to.u32(fid);
                to.u64(offset);
                to.u32(data.len() as u32);
                to.0.extend_from_slice(data);
            }
            Self::GetAttributes { fid } => {
                to.u32(fid);
                to.u64(BASIC);
            }
            Self::SetSize { fid, size } => {
                to.u32(fid);
                to.u32(SIZE);
                // Mode, user and group, which stay.
                to.0.extend([0; 3 * 4]);
                to.u64(size);
                // Both times, which the server keeps.
                to.0.extend([0; 4 * 8]);
            }
            Self::MakeDirectory { fid, name, mode } => {
                to.u32(fid);
                to.string(name);
                to.u32(mode);
                to.u32(ROOT);
            }
            Self::Remove { fid, name, directory } => {
                to.u32(fid);
                to.string(name);
                to.u32(if directory { REMOVE_DIRECTORY } else { 0 });
            }
            Self::Rename {
                from_fid,
                from,
                to_fid,
                to: name,
            } => {
                to.u32(from_fid);
                to.string(from);
                to.u32(to_fid);
                to.string(name);
            }
            Self::Sync { fid } => {
                to.u32(fid);
                to.u32(0); // not only the data
            }
            Self::Space { fid } | Self::Clunk { fid } => to.u32(fid),
        }
    }
}

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Names are short: see [`Request`].
    fn string(&mut self, value: &str) {
        self.u16(value.len() as u16);
        self.0.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Header, LONGEST_NAME, SMALLEST_MSIZE, WALK_NAMES};
    use super::*;
    use alloc::string::String;

    /// Bytes as the protocol's document has them.
    #[test]
    fn messages_are_as_the_document_says() {
        let version = Request::Version { msize: 8192 }.encode();
        assert_eq!(version, b"\x15\0\0\0\x64\xff\xff\0\x20\0\0\x08\x009P2000.L");
        let mut walk = Request::Walk {
            fid: 1,
            new_fid: 2,
            names: &["a", "bc"],
        }
        .encode();
        Request::set_tag(&mut walk, 0x0304);
        assert_eq!(walk, b"\x18\0\0\0\x6e\x04\x03\x01\0\0\0\x02\0\0\0\x02\0\x01\0a\x02\0bc");
        let write = Request::Write {
            fid: 5,
            offset: 6,
            data: b"xyz",
        };
        assert_eq!(
            write.encode(),
            b"\x1a\0\0\0\x76\xff\xff\x05\0\0\0\x06\0\0\0\0\0\0\0\x03\0\0\0xyz"
        );
        let set_size = Request::SetSize { fid: 1, size: 9 }.encode();
        assert_eq!(set_size.len(), HEADER + 60);
        assert_eq!(set_size.get(27..35), Some(&b"\x09\0\0\0\0\0\0\0"[..]));
    }

    #[test]
    fn whatever_is_not_data_fits_into_the_smallest_message() {
        let name = String::from_utf8(alloc::vec![b'n'; LONGEST_NAME]).unwrap();
        let names = [name.as_str(); WALK_NAMES];
        for request in [
            Request::Walk {
                fid: 1,
                new_fid: 2,
                names: &names,
            },
            Request::Rename {
                from_fid: 1,
                from: &name,
                to_fid: 2,
                to: &name,
            },
        ] {
            let message = request.encode();
            assert!(message.len() <= SMALLEST_MSIZE as usize);
            assert!(request.longest_answer() <= SMALLEST_MSIZE);
            let header = Header::parse(message.first_chunk().unwrap());
            assert_eq!(header.size as usize, message.len());
            assert_eq!((header.kind, header.tag), (request.kind(), NO_TAG));
        }
    }
}
