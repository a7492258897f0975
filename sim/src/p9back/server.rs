//! The protocol 9P2000.L from the server's side, strict about what the client does.
//!
//! Deliberately not the frontend's codec: two readings of one document find each other's mistakes.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::tree::{EBADF, EEXIST, EINVAL, EISDIR, ENOENT, ENOSPC, ENOTDIR, EOPNOTSUPP, Inode, Node};

/// A file that the client has a number for.
struct Open {
    node: Node,
    opened: bool,
}

/// What the client said and the server knows of it.
pub(super) struct Server {
    root: Node,
    fids: BTreeMap<u32, Open>,
    pub(super) msize: u32,
    /// The most that the server lets be agreed.
    largest: u32,
    /// Bytes that the files may have altogether.
    pub(super) room: Rc<std::cell::Cell<u64>>,
}

/// What a client did that no client may do.
pub(super) type Wrong = String;

/// The fields of a message that were not read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self, bytes: usize) -> Result<u64, Wrong> {
        let Some((field, rest)) = self.0.split_at_checked(bytes) else {
            return Err("a message that is too short".to_owned());
        };
        self.0 = rest;
        Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn u16(&mut self) -> Result<u16, Wrong> {
        Ok(self.number(2)? as u16)
    }

    fn u32(&mut self) -> Result<u32, Wrong> {
        Ok(self.number(4)? as u32)
    }

    fn u64(&mut self) -> Result<u64, Wrong> {
        self.number(8)
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let count = self.u16()?.into();
        let Some((field, rest)) = self.0.split_at_checked(count) else {
            return Err("a string longer than its message".to_owned());
        };
        self.0 = rest;
        String::from_utf8(field.to_vec()).map_err(|_| "a string that is none".to_owned())
    }

    fn name(&mut self) -> Result<String, Wrong> {
        let name = self.string()?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) || name.len() > 255 {
            return Err(format!("the name {name:?}"));
        }
        Ok(name)
    }
}

/// Fields of an answer.
#[derive(Default)]
struct Answer(Vec<u8>);

impl Answer {
    fn number(mut self, value: u64, bytes: usize) -> Self {
        self.0.extend(&value.to_le_bytes()[..bytes]);
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn qid(self, node: &Node) -> Self {
        let kind = if node.is_directory() { 0x80 } else { 0 };
        self.number(kind, 1).number(0, 4).number(Rc::as_ptr(node) as u64, 8)
    }

    fn done(self) -> Result<Vec<u8>, u32> {
        Ok(self.0)
    }
}

impl Server {
    pub(super) fn new(root: Node, largest: u32, room: Rc<std::cell::Cell<u64>>) -> Self {
        Self {
            root,
            fids: BTreeMap::new(),
            msize: 0,
            largest,
            room,
        }
    }

    /// How many files the client has numbers for, with the root.
    pub(super) fn fids(&self) -> usize {
        self.fids.len()
    }

    /// Does what a request wants. Gives the fields of the answer, or the number of the error.
    pub(super) fn serve(&mut self, kind: u8, fields: &[u8]) -> Result<Result<Vec<u8>, u32>, Wrong> {
        if kind != 100 && self.msize == 0 {
            return Err("a request before the version".to_owned());
        }
        let mut fields = Fields(fields);
        let answer = self.dispatch(kind, &mut fields)?;
        if fields.0.is_empty() {
            Ok(answer)
        } else {
            Err(format!("a message of type {kind} that is too long"))
        }
    }

    fn fid(&mut self, fields: &mut Fields<'_>) -> Result<&mut Open, Wrong> {
        let fid = fields.u32()?;
        self.fids
            .get_mut(&fid)
            .ok_or_else(|| format!("file {fid}, which is not there"))
    }

    fn dispatch(&mut self, kind: u8, fields: &mut Fields<'_>) -> Result<Result<Vec<u8>, u32>, Wrong> {
        let answer = Answer::default();
        Ok(match kind {
            100 => {
                let (msize, version) = (fields.u32()?, fields.string()?);
                self.fids.clear();
                self.msize = msize.min(self.largest);
                let version = if version == "9P2000.L" {
                    version
                } else {
                    "unknown".to_owned()
                };
                let answer = answer.number(self.msize.into(), 4).number(version.len() as u64, 2);
                answer.bytes(version.as_bytes()).done()
            }
            104 => {
                let (fid, _afid) = (fields.u32()?, fields.u32()?);
                let (_uname, _aname, _uid) = (fields.string()?, fields.string()?, fields.u32()?);
                let root = Rc::clone(&self.root);
                let answer = answer.qid(&root);
                self.insert(fid, root)?;
                answer.done()
            }
            110 => self.walk(fields)?,
            12 => {
                let open = self.fid(fields)?;
                let flags = fields.u32()?;
                if open.opened {
                    return Err("a file opened twice".to_owned());
                }
                match (open.node.bytes(), flags & 0o200_000 != 0) {
                    (Ok(_), true) => return Ok(Err(ENOTDIR)),
                    (Err(_), _) if flags & 3 != 0 => return Ok(Err(EISDIR)),
                    (Ok(bytes), _) if flags & 0o1000 != 0 => bytes.borrow_mut().clear(),
                    _ => {}
                }
                open.opened = true;
                answer.qid(&open.node).number(0, 4).done()
            }
            14 => {
                let open = self.fid(fields)?;
                let (name, _flags) = (fields.name()?, fields.u32()?);
                let (_mode, _gid) = (fields.u32()?, fields.u32()?);
                let file = Inode::file(Vec::new());
                if let Err(errno) = open.node.add(&name, Rc::clone(&file)) {
                    return Ok(Err(errno));
                }
                *open = Open {
                    node: file,
                    opened: true,
                };
                answer.qid(&open.node).number(0, 4).done()
            }
            116 => {
                let most = self.msize;
                let open = self.fid(fields)?;
                let (offset, count) = (fields.u64()?, fields.u32()?);
                if !open.opened || count + 11 > most {
                    return Err(format!("a read of {count} bytes, opened: {}", open.opened));
                }
                let bytes = match open.node.bytes() {
                    Ok(bytes) => bytes.borrow(),
                    Err(errno) => return Ok(Err(errno)),
                };
                let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = bytes.len().min(begin + count as usize);
                answer.number((end - begin) as u64, 4).bytes(&bytes[begin..end]).done()
            }
            118 => self.write(fields)?,
            24 => {
                let open = self.fid(fields)?;
                let _mask = fields.u64()?;
                let (mode, size) = match open.node.bytes() {
                    Ok(bytes) => (0o100_644, bytes.borrow().len() as u64),
                    Err(_) => (0o40_755, 4096),
                };
                let answer = answer.number(0x7ff, 8).qid(&open.node).number(mode, 4);
                let answer = answer.bytes(&[0; 4 + 4 + 8 + 8]).number(size, 8).bytes(&[0; 16 + 16]);
                answer.number(1_700_000_000, 8).number(5, 8).bytes(&[0; 48]).done()
            }
            26 => self.set_attributes(fields)?,
            40 => {
                let most = self.msize;
                let open = self.fid(fields)?;
                let (offset, count) = (fields.u64()?, fields.u32()?);
                if !open.opened || count + 11 > most {
                    return Err("a directory read that was not opened, or too much of it".to_owned());
                }
                match open.node.entries() {
                    Ok(entries) => {
                        let data = list(&open.node, &entries.borrow(), offset, count as usize);
                        answer.number(data.len() as u64, 4).bytes(&data).done()
                    }
                    Err(errno) => Err(errno),
                }
            }
            50 => {
                let (open, _datasync) = (self.fid(fields)?.opened, fields.u32()?);
                if open { answer.done() } else { Err(EBADF) }
            }
            72 => {
                let open = self.fid(fields)?;
                let (name, _mode, _gid) = (fields.name()?, fields.u32()?, fields.u32()?);
                let directory = Inode::directory();
                match open.node.add(&name, Rc::clone(&directory)) {
                    Ok(()) => answer.qid(&directory).done(),
                    Err(errno) => Err(errno),
                }
            }
            76 => {
                let open = self.fid(fields)?;
                let (name, flags) = (fields.name()?, fields.u32()?);
                open.node.remove(&name, flags == 0x200).map(|()| answer.0)
            }
            74 => {
                let from = Rc::clone(&self.fid(fields)?.node);
                let name = fields.name()?;
                let to = Rc::clone(&self.fid(fields)?.node);
                rename(&from, &name, &to, &fields.name()?).map(|()| answer.0)
            }
            8 => {
                self.fid(fields)?;
                let answer = answer.number(0, 4).number(4096, 4).number(1000, 8);
                answer.number(500, 8).number(400, 8).bytes(&[0; 28]).done()
            }
            120 => {
                let fid = fields.u32()?;
                match self.fids.remove(&fid) {
                    Some(_) => answer.done(),
                    // A walk that was taken back may or may not have been made.
                    None => Err(EBADF),
                }
            }
            _ => Err(EOPNOTSUPP),
        })
    }

    fn insert(&mut self, fid: u32, node: Node) -> Result<(), Wrong> {
        match self.fids.insert(fid, Open { node, opened: false }) {
            None => Ok(()),
            Some(_) => Err(format!("the number {fid} for a second file")),
        }
    }

    fn walk(&mut self, fields: &mut Fields<'_>) -> Result<Result<Vec<u8>, u32>, Wrong> {
        let (fid, new_fid, count) = (fields.u32()?, fields.u32()?, fields.u16()?);
        if count > 16 {
            return Err(format!("a walk of {count} names"));
        }
        let Some(Open { node, opened: false }) = self.fids.get(&fid) else {
            return Err(format!("a walk from {fid}, which is not there, or open"));
        };
        let names = (0..count).map(|_| fields.name()).collect::<Result<Vec<_>, _>>()?;
        let mut node = Rc::clone(node);
        let mut answer = Answer::default();
        let mut found = 0;
        for name in &names {
            match node.child(name) {
                Ok(child) => node = child,
                Err(errno) if found == 0 => return Ok(Err(errno)),
                Err(_) => break,
            }
            found += 1;
            answer = answer.qid(&node);
        }
        if found == names.len() {
            if fid == new_fid {
                self.fids.remove(&fid);
            }
            self.insert(new_fid, node)?;
        }
        Ok(Ok(Answer::default().number(found as u64, 2).bytes(&answer.0).0))
    }

    fn write(&mut self, fields: &mut Fields<'_>) -> Result<Result<Vec<u8>, u32>, Wrong> {
        let room = self.room.get();
        let open = self.fid(fields)?;
        let (offset, count) = (fields.u64()?, fields.u32()?);
        let data = std::mem::take(&mut fields.0);
        if !open.opened || data.len() != count as usize {
            return Err(format!("a write of {count} bytes with {}", data.len()));
        }
        let mut bytes = match open.node.bytes() {
            Ok(bytes) => bytes.borrow_mut(),
            Err(errno) => return Ok(Err(errno)),
        };
        if offset + u64::from(count) > room {
            return Ok(Err(ENOSPC));
        }
        let (begin, end) = (offset as usize, offset as usize + data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[begin..end].copy_from_slice(data);
        Ok(Ok(Answer::default().number(count.into(), 4).0))
    }

    fn set_attributes(&mut self, fields: &mut Fields<'_>) -> Result<Result<Vec<u8>, u32>, Wrong> {
        let room = self.room.get();
        let open = self.fid(fields)?;
        let valid = fields.u32()?;
        for _ in 0..3 {
            fields.u32()?;
        }
        let size = fields.u64()?;
        for _ in 0..4 {
            fields.u64()?;
        }
        Ok(match open.node.bytes() {
            Ok(_) if valid != 8 => Err(EINVAL),
            Ok(_) if size > room => Err(ENOSPC),
            Ok(bytes) => {
                bytes.borrow_mut().resize(size as usize, 0);
                Ok(Vec::new())
            }
            Err(errno) => Err(errno),
        })
    }
}

/// Entries from an offset on, as many as fit; `.` and `..` are the first two.
fn list(directory: &Node, entries: &BTreeMap<String, Node>, offset: u64, most: usize) -> Vec<u8> {
    let own = [(".", directory), ("..", directory)];
    let all = own
        .into_iter()
        .chain(entries.iter().map(|(name, node)| (name.as_str(), node)));
    let mut data = Answer::default();
    for ((name, node), next) in all.zip(1..).skip(offset as usize) {
        if data.0.len() + 24 + name.len() > most {
            break;
        }
        let kind = if node.is_directory() { 4 } else { 8 };
        data = data.qid(node).number(next, 8).number(kind, 1);
        data = data.number(name.len() as u64, 2).bytes(name.as_bytes());
    }
    data.0
}

fn rename(from: &Node, name: &str, to: &Node, new: &str) -> Result<(), u32> {
    let node = from.child(name)?;
    match to.child(new) {
        Ok(old) if Rc::ptr_eq(&old, &node) => return Ok(()),
        Ok(old) if old.is_directory() || node.is_directory() => return Err(EEXIST),
        Ok(_) => to.remove(new, false)?,
        Err(ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    from.entries()?.borrow_mut().remove(name);
    to.add(new, node)
}
