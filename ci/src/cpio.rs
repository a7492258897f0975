//! Writing archives in cpio's "newc" format, which Linux unpacks as its initial RAM disk
//! (linux: Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes an archive; every path is relative to `/` and has no leading slash.
///
/// Parent folders are added by themselves. All times are 0 and all owners root, so equal content is an equal archive.
///
/// ```
/// use fata_ci::cpio::Archive;
/// let mut archive = Archive::new(Vec::new());
/// archive.file("etc/hostname", 0o644, b"dom0\n")?;
/// archive.link("bin/sh", "dash")?;
/// let bytes = archive.finish()?;
/// assert!(bytes.starts_with(b"070701"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive that is written to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a folder, with its parents.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER | 0o755, (0, 0), &[])
    }

    /// Adds a file with the permissions `mode`.
    ///
    /// # Errors
    /// Those of the writer; [`io::ErrorKind::InvalidInput`] from 4 GiB on, which the format cannot hold.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, FILE | (mode & 0o7777), (0, 0), content)
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device, readable and writable for root.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Writes the trailer and returns the writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, "too large for cpio");
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        if mode != 0 {
            // Distinct, because Linux takes equal inode numbers with several links for hard links.
            self.inode += 1;
        }
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        self.out.write_all(b"070701")?;
        let (major, minor) = device;
        for field in [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
            write!(self.out, "{field:08X}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(110 + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// The header with its name and the content each end on a multiple of 4.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        let zeros = [0; 3];
        self.out
            .write_all(zeros.get(..written.wrapping_neg() % 4).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: (path, mode, content).
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let start = bytes.as_ptr() as usize;
        let mut entries = Vec::new();
        loop {
            assert_eq!((bytes.as_ptr() as usize - start) % 4, 0);
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let body = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), body);
                return entries;
            }
            entries.push((name, mode, bytes[body..body + size].to_vec()));
            bytes = &bytes[(body + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/one", 0o755, b"12345").unwrap();
        archive.link("a/b/two", "one").unwrap();
        archive.character_device("dev/null", 1, 3).unwrap();
        let entries = read(&archive.finish().unwrap());
        let names: Vec<_> = entries.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            names,
            [
                ("a", 0o040_755),
                ("a/b", 0o040_755),
                ("a/b/one", 0o100_755),
                ("a/b/two", 0o120_777),
                ("dev", 0o040_755),
                ("dev/null", 0o020_600),
            ]
        );
        assert_eq!(entries[2].2, b"12345");
        assert_eq!(entries[3].2, b"one");
    }

    #[test]
    fn every_length_is_padded() {
        for length in 0..9 {
            let mut archive = Archive::new(Vec::new());
            archive.file(&"n".repeat(length + 1), 0o644, &vec![7; length]).unwrap();
            let entries = read(&archive.finish().unwrap());
            assert_eq!(entries[0].2, vec![7; length]);
        }
    }
}
