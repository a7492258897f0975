//! What is in a directory.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;

use crate::common::Common;
use crate::fid::Fid;
use crate::wire::{self, Entries, Request, reply};
use crate::{Error, Kind};

/// The names in a directory, in the host's order, without `.` and `..`. It holds one message of them at a time, however many
/// there are.
///
/// Dropping it gives the directory back.
#[derive(Debug)]
pub struct ReadDir {
    common: Rc<Common>,
    fid: Rc<Fid>,
    longest: u32,
    /// Where the next message begins; `None` after the last.
    offset: Option<u64>,
    entries: VecDeque<Entry>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name. What is not text on the host has replacement characters, and cannot be opened by that name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

impl ReadDir {
    pub(crate) fn new(common: Rc<Common>, fid: Rc<Fid>, longest: u32) -> Self {
        Self {
            common,
            fid,
            longest,
            offset: Some(0),
            entries: VecDeque::new(),
        }
    }

    /// The next one; `None` after the last. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`Share`](crate::Share); [`Error::Stale`].
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Ok(Some(entry));
            }
            let Some(offset) = self.offset else { return Ok(None) };
            let count = self.longest;
            let request = Request::ReadDirectory {
                fid: self.fid.number,
                offset,
                count,
            };
            let parse = |answer: &[u8]| list(reply::data(answer, count)?);
            (self.entries, self.offset) = self.common.ask(&self.fid, None, request, parse).await?;
        }
    }
}

/// What an entry is. Some file systems do not say, and then the server's own word has to do.
fn kind(entry: &wire::Entry<'_>) -> Kind {
    match entry.kind {
        0 if entry.qid.is_directory() => Kind::Directory,
        0 if entry.qid.kind == 0 => Kind::File,
        kind => Kind::from_type(kind.into()),
    }
}

/// The entries in a message, and where the next one begins, unless this is the last.
fn list(data: &[u8]) -> Option<(VecDeque<Entry>, Option<u64>)> {
    let (mut entries, mut next) = (VecDeque::new(), None);
    for entry in Entries::new(data) {
        let entry = entry?;
        next = Some(entry.offset);
        if entry.name != b"." && entry.name != b".." {
            entries.push_back(Entry {
                name: String::from_utf8_lossy(entry.name).into_owned(),
                kind: kind(&entry),
            });
        }
    }
    Some((entries, next))
}
