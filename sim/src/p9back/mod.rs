//! A 9pfs backend that behaves as QEMU's does (hw/9pfs/xen-9p-backend.c as facts): the same handshake, the same rings. It
//! serves a tree in memory, in any order that the protocol allows, and is strict about what the frontend does.

mod backend;
mod ring;
mod server;
mod tree;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use fata_hypercall::DomId;

use crate::domain::Domain;
use crate::netback::XenbusState;
use crate::sim::{Sim, Waker};
use crate::store::{Perm, domain_path};
use backend::Backend;
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
}

impl P9Trick {
    /// All of them.
    pub const ALL: [Self; 10] = [
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
    ];
}

/// The backend of one shared directory. Clones are the same backend.
#[derive(Clone)]
pub struct P9Back {
    backend: Rc<RefCell<Backend>>,
    waker: Waker,
}

impl Sim {
    /// Adds a shared directory to a domain, with the nodes that libxl writes, and starts its backend.
    #[must_use = "the handle is how a test looks at the backend"]
    pub fn add_share(&self, domain: &Domain, config: P9Config) -> P9Back {
        let directory = format!("{}/device/9pfs", domain_path(domain.id()));
        let index = (0..).find(|index| self.store().read(&format!("{directory}/{index}")).is_none());
        let index = index.unwrap_or(0);
        let (front, back) = self.write_share_nodes(domain.id(), index, &config.tag);
        let tag = config.tag.clone();
        let mut made = None;
        let waker = self.add_service(&format!("9pfs for {}", domain.id()), |waker| {
            let backend = Backend::new(self, domain.id(), front, back, config, waker);
            let backend = Rc::new(RefCell::new(backend));
            made = Some(Rc::clone(&backend));
            move || backend.borrow_mut().step()
        });
        let backend = made.expect("made above");
        self.stalls.watch({
            let backend = Rc::clone(&backend);
            move || backend.borrow().due()
        });
        let share = P9Back { backend, waker };
        self.when_restored(domain, {
            let (share, domain) = (share.clone(), domain.clone());
            move |sim: &Self| {
                if !share.backend.borrow().is_removed() {
                    let (front, back) = sim.write_share_nodes(domain.id(), index, &tag);
                    share.backend.borrow_mut().move_to(domain.id(), front, back);
                    share.waker.wake();
                }
            }
        });
        share
    }

    /// The nodes that libxl makes for a shared directory.
    fn write_share_nodes(&self, id: DomId, index: u32, tag: &str) -> (String, String) {
        let front = format!("{}/device/9pfs/{index}", domain_path(id));
        let back = format!("{}/backend/9pfs/{}/{index}", domain_path(DomId::DOM0), id.0);
        let id_text = id.0.to_string();
        let front_perms = [Perm::none(id), Perm::read(DomId::DOM0)];
        let back_perms = [Perm::none(DomId::DOM0), Perm::read(id)];
        self.node(&back, "", &back_perms);
        for (key, value) in [
            ("frontend", front.as_str()),
            ("frontend-id", &id_text),
            ("online", "1"),
            ("path", "/srv/share"),
            ("security_model", "none"),
            ("state", "1"),
        ] {
            self.node(&format!("{back}/{key}"), value, &back_perms);
        }
        self.node(&front, "", &front_perms);
        for (key, value) in [
            ("backend", back.as_str()),
            ("backend-id", "0"),
            ("tag", tag),
            ("state", "1"),
        ] {
            self.node(&format!("{front}/{key}"), value, &front_perms);
        }
        (front, back)
    }

    /// Takes the device away, as `xl destroy` of a part of the domain would.
    pub fn remove_share(&self, share: &P9Back) {
        let (front, back) = share.backend.borrow_mut().remove();
        let _ = self.store().remove(&front);
        let _ = self.store().remove(&back);
    }
}

impl P9Back {
    /// The backend's own state.
    #[must_use]
    pub fn state(&self) -> XenbusState {
        self.backend.borrow().state()
    }

    /// Both ends are connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state() == XenbusState::Connected
    }

    /// How often that was the case anew.
    #[must_use]
    pub fn connects(&self) -> u32 {
        self.backend.borrow().connects
    }

    /// Requests that were answered, or taken back.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.backend.borrow().served
    }

    /// Requests that the guest took back.
    #[must_use]
    pub fn taken_back(&self) -> u64 {
        self.backend.borrow().taken_back
    }

    /// Files that the guest has numbers for, with the root directory.
    #[must_use]
    pub fn fids(&self) -> usize {
        self.backend.borrow().fids()
    }

    /// Makes it break the rules once in so many answers, in one of these ways; 0: never.
    pub fn set_malice(&self, one_in: u64, tricks: &'static [P9Trick]) {
        self.backend.borrow_mut().malice = (one_in, tricks);
    }

    /// Rules that it broke.
    #[must_use]
    pub fn tricks(&self) -> u64 {
        self.backend.borrow().tricks
    }

    /// It answers nothing any more, and lets nothing go. Or it goes on.
    pub fn set_silent(&self, silent: bool) {
        self.backend.borrow_mut().silent = silent;
        self.waker.wake();
    }

    /// Its process dies: mappings and ports are gone, and the store still says what it said.
    pub fn crash(&self) {
        self.backend.borrow_mut().crash();
    }

    /// It starts anew, whether it has crashed before or not, and takes the ring as it finds it.
    pub fn restart(&self) {
        self.backend.borrow_mut().restart();
        self.waker.wake();
    }

    /// Has it say something else than it would of what it offers, from the start on.
    pub fn set_key(&self, key: &str, value: &str) {
        self.backend
            .borrow_mut()
            .offers
            .insert(key.to_owned(), value.to_owned());
    }

    /// Bytes that the files may have, each.
    pub fn set_room(&self, bytes: u64) {
        self.backend.borrow().room.set(bytes);
    }

    /// Makes or replaces a file, in a directory that is there.
    ///
    /// # Panics
    /// If it is not there.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.backend.borrow().root.find(directory).expect("a directory");
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
        let directory = self.backend.borrow().root.find(directory).expect("a directory");
        directory.add(name, Inode::directory()).expect("a new name");
    }

    /// A file's bytes, if there is such a file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        match &self.backend.borrow().root.find(path)?.content {
            Content::File(bytes) => Some(bytes.borrow().clone()),
            Content::Directory(_) => None,
        }
    }

    /// The names in a directory, if there is such a directory.
    #[must_use]
    pub fn list(&self, path: &str) -> Option<Vec<String>> {
        match &self.backend.borrow().root.find(path)?.content {
            Content::File(_) => None,
            Content::Directory(entries) => Some(entries.borrow().keys().cloned().collect()),
        }
    }
}

impl fmt::Debug for P9Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P9Back({:?})", self.state())
    }
}
