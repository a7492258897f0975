//! A directory tree in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Linux's numbers for what can go wrong with files.
pub(super) const ENOENT: u32 = 2;
pub(super) const EBADF: u32 = 9;
pub(super) const EEXIST: u32 = 17;
pub(super) const ENOTDIR: u32 = 20;
pub(super) const EISDIR: u32 = 21;
pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;
pub(super) const ENOTEMPTY: u32 = 39;
pub(super) const EOPNOTSUPP: u32 = 95;

pub(super) type Node = Rc<Inode>;

/// A file or a directory.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    File(RefCell<Vec<u8>>),
    Directory(RefCell<BTreeMap<String, Node>>),
}

impl Inode {
    pub(super) fn file(bytes: Vec<u8>) -> Node {
        Rc::new(Self {
            content: Content::File(RefCell::new(bytes)),
        })
    }

    pub(super) fn directory() -> Node {
        Rc::new(Self {
            content: Content::Directory(RefCell::default()),
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }

    pub(super) fn bytes(&self) -> Result<&RefCell<Vec<u8>>, u32> {
        match &self.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(EISDIR),
        }
    }

    pub(super) fn entries(&self) -> Result<&RefCell<BTreeMap<String, Node>>, u32> {
        match &self.content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) => Err(ENOTDIR),
        }
    }

    pub(super) fn child(&self, name: &str) -> Result<Node, u32> {
        self.entries()?.borrow().get(name).cloned().ok_or(ENOENT)
    }

    /// Adds a name, which must be a new one.
    pub(super) fn add(&self, name: &str, node: Node) -> Result<(), u32> {
        let mut entries = self.entries()?.borrow_mut();
        if entries.contains_key(name) {
            return Err(EEXIST);
        }
        entries.insert(name.to_owned(), node);
        Ok(())
    }

    pub(super) fn remove(&self, name: &str, directory: bool) -> Result<(), u32> {
        let node = self.child(name)?;
        match (&node.content, directory) {
            (Content::File(_), true) => return Err(ENOTDIR),
            (Content::Directory(_), false) => return Err(EISDIR),
            (Content::Directory(entries), true) if !entries.borrow().is_empty() => return Err(ENOTEMPTY),
            _ => {}
        }
        self.entries()?.borrow_mut().remove(name);
        Ok(())
    }

    /// What is found by a path of names.
    pub(super) fn find(self: &Rc<Self>, path: &str) -> Option<Node> {
        let names = path.split('/').filter(|name| !name.is_empty());
        let mut node = Rc::clone(self);
        for name in names {
            node = node.child(name).ok()?;
        }
        Some(node)
    }
}
