//! A 9pfs backend that behaves as QEMU's does (hw/9pfs/xen-9p-backend.c as facts): the same handshake, the same rings. It
//! serves a tree in memory, in any order that the protocol allows, and is strict about what the frontend does.

mod driver;
mod ring;
mod server;
mod tree;

use crate::backend::{Backend, Malice};
use crate::domain::Domain;
use crate::sim::Sim;
pub use driver::P9Driver;
use tree::{Content, Inode};

/// A shared directory as an `xl` configuration describes it, and what its backend offers.
#[derive(Clone, Debug)]
pub struct P9Config {
    /// What the guest calls it.
    pub tag: String,
    /// `max-ring-page-order`
    pub max_order: u32,
    /// The longest message that the server agrees to.
    pub msize: u32,
}

impl Default for P9Config {
    /// What QEMU offers, under the name `share`.
    fn default() -> Self {
        Self {
            tag: "share".to_owned(),
            max_order: 9,
            msize: 1 << 20,
        }
    }
}

/// One way to break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum P9Trick {
    /// A message of an impossible length.
    Size,
    /// An answer to nothing.
    Tag,
    /// An answer of another type.
    Kind,
    /// An answer whose fields are any bytes, or too few.
    Fields,
    /// An answer twice.
    Twice,
    /// An index that claims more than the ring has.
    Index,
    /// The ring's order and references are overwritten, which are the guest's to write and not to read. The answer is right.
    Scribble,
    /// A request that is never answered.
    Silent,
    /// The connection is closed in the middle.
    Close,
    /// Any bytes instead of an answer.
    Junk,
    /// The state goes back, or to what is no state.
    JunkState,
}

impl P9Trick {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Size,
        Self::Tag,
        Self::Kind,
        Self::Fields,
        Self::Twice,
        Self::Index,
        Self::Scribble,
        Self::Silent,
        Self::Close,
        Self::Junk,
        Self::JunkState,
    ];
}

/// The backend of one shared directory.
pub type P9Back = Backend<P9Driver>;

impl Sim {
    /// Adds a shared directory to a domain, with the nodes that libxl writes, and starts its backend.
    #[must_use = "the handle is how a test looks at the backend"]
    pub fn add_share(&self, domain: &Domain, config: P9Config) -> P9Back {
        self.add_device(domain, |_, _| P9Driver::new(config))
    }
}

impl P9Back {
    /// How often both ends were connected anew.
    #[must_use]
    pub fn connects(&self) -> u32 {
        self.driver().connects
    }

    /// Requests that were answered, or taken back.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.driver().served
    }

    /// Requests that the guest took back.
    #[must_use]
    pub fn taken_back(&self) -> u64 {
        self.driver().taken_back
    }

    /// Files that the guest has numbers for, with the root directory.
    #[must_use]
    pub fn fids(&self) -> usize {
        self.driver().fids()
    }

    /// Makes it break the rules once in so many answers, in one of these ways; 0: never.
    pub fn set_malice(&self, one_in: u64, tricks: &'static [P9Trick]) {
        self.driver_mut().malice = Malice { one_in, tricks };
    }

    /// Rules that it broke.
    #[must_use]
    pub fn tricks(&self) -> u64 {
        self.driver().tricks
    }

    /// Has it say something else than it would of what it offers, from the start on.
    pub fn set_key(&self, key: &str, value: &str) {
        self.driver_mut().offers.insert(key.to_owned(), value.to_owned());
    }

    /// Bytes that the files may have, each.
    pub fn set_room(&self, bytes: u64) {
        self.driver().room.set(bytes);
    }

    /// Makes or replaces a file, in a directory that is there.
    ///
    /// # Panics
    /// If it is not there.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.driver().root.find(directory).expect("a directory");
        let entries = directory.entries().expect("a directory");
        entries
            .borrow_mut()
            .insert(name.to_owned(), Inode::file(bytes.to_vec()));
    }

    /// Makes a directory, in one that is there.
    ///
    /// # Panics
    /// If it is not there.
    pub fn create_dir(&self, path: &str) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.driver().root.find(directory).expect("a directory");
        directory.add(name, Inode::directory()).expect("a new name");
    }

    /// A file's bytes, if there is such a file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        match &self.driver().root.find(path)?.content {
            Content::File(bytes) => Some(bytes.borrow().clone()),
            Content::Directory(_) => None,
        }
    }

    /// The names in a directory, if there is such a directory.
    #[must_use]
    pub fn list(&self, path: &str) -> Option<Vec<String>> {
        match &self.driver().root.find(path)?.content {
            Content::File(_) => None,
            Content::Directory(entries) => Some(entries.borrow().keys().cloned().collect()),
        }
    }
}
