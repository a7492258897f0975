//! A server as small as it can be: no permissions, no quotas, and on request no manners.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use fata_grant::{ByteLayout, ByteRing};
use fata_hypercall::{DomId, Errno};
use fata_xenstore::wire::{
    Access, Assembler, MessageType, Names, Packet, Path, Permission, Reply, Request, WatchEvent,
};

use super::Machine;

type Tree = BTreeMap<String, Vec<u8>>;

/// A message that was received and not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub kind: MessageType,
    pub req_id: u32,
    pub tx_id: u32,
    pub payload: Vec<u8>,
}

impl Letter {
    pub fn packet(&self) -> Packet<'_> {
        Packet {
            kind: self.kind,
            req_id: self.req_id,
            tx_id: self.tx_id,
            payload: &self.payload,
        }
    }

    pub fn request(&self) -> Request<'_> {
        Request::parse(self.packet()).expect("the client sends what is valid")
    }
}

pub struct Server {
    machine: Rc<Machine>,
    ring: ByteRing,
    input: Assembler,
    output: VecDeque<u8>,
    /// Whether it answers by itself; if not, requests pile up in `inbox`.
    pub automatic: bool,
    pub inbox: VecDeque<Letter>,
    pub nodes: Tree,
    pub watches: Vec<(String, Vec<u8>)>,
    transactions: BTreeMap<u32, (Tree, u64)>,
    next_transaction: u32,
    changes: u64,
    /// So many commits fail with EAGAIN.
    pub refuse_commits: u32,
    /// Paths whose reads fail, and how.
    pub refuse: BTreeMap<String, Errno>,
    /// What was committed or written outside of a transaction, in order.
    pub log: Vec<(String, Vec<u8>)>,
    pub unwatched: u32,
    pub aborted: u32,
    /// Most requests that were ever unanswered.
    pub most_waiting: usize,
}

impl Server {
    pub fn new(machine: Rc<Machine>) -> Self {
        let ring = ByteRing::attach(ByteLayout::XENSTORE.other_end(), &machine.page)
            .unwrap_or_else(|_| ByteRing::attach(ByteLayout::CONSOLE, &machine.page).expect("zeroes"));
        Self {
            machine,
            ring,
            input: Assembler::new(),
            output: VecDeque::new(),
            automatic: true,
            inbox: VecDeque::new(),
            nodes: Tree::new(),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            next_transaction: 100,
            changes: 0,
            refuse_commits: 0,
            refuse: BTreeMap::new(),
            log: Vec::new(),
            unwatched: 0,
            aborted: 0,
            most_waiting: 0,
        }
    }

    pub fn open_transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Moves bytes and answers; `false` if there was nothing to do.
    pub fn turn(&mut self) -> bool {
        let machine = Rc::clone(&self.machine);
        let page = &machine.page;
        let mut moved = false;
        loop {
            let mut buffer = [0; 100];
            let wanted = self
                .input
                .wanted()
                .expect("the client keeps to the limit")
                .min(buffer.len());
            if wanted == 0 {
                let Packet {
                    kind,
                    req_id,
                    tx_id,
                    payload,
                } = self.input.packet().expect("a whole message");
                self.inbox.push_back(Letter {
                    kind,
                    req_id,
                    tx_id,
                    payload: payload.to_vec(),
                });
                self.most_waiting = self.most_waiting.max(self.inbox.len());
                self.input.clear();
                continue;
            }
            let Ok(len @ 1..) = self.ring.read(page, &mut buffer[..wanted]) else {
                break;
            };
            self.input.feed(&buffer[..len]).expect("the client keeps to the limit");
            moved = true;
        }
        while self.automatic {
            let Some(letter) = self.inbox.pop_front() else { break };
            self.answer(&letter);
        }
        let (bytes, _) = self.output.as_slices();
        if !bytes.is_empty()
            && let Ok(len @ 1..) = self.ring.write(page, bytes)
        {
            self.output.drain(..len);
            moved = true;
        }
        if moved {
            machine.signal();
        }
        moved
    }

    // What a test can have it say

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
    }

    pub fn send(&mut self, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes).expect("a valid message");
        self.send_bytes(&bytes);
    }

    pub fn reply(&mut self, letter: &Letter, reply: &Reply<'_>) {
        let mut payload = Vec::new();
        reply.encode(&mut payload);
        let kind = if matches!(reply, Reply::Error(_)) {
            MessageType::ERROR
        } else {
            letter.kind
        };
        self.send(Packet {
            kind,
            req_id: letter.req_id,
            tx_id: letter.tx_id,
            payload: &payload,
        });
    }

    pub fn fire(&mut self, path: &str, token: &[u8]) {
        let mut payload = Vec::new();
        WatchEvent {
            path: path.as_bytes(),
            token,
        }
        .encode(&mut payload);
        self.send(Packet {
            kind: MessageType::WATCH_EVENT,
            req_id: 0,
            tx_id: 0,
            payload: &payload,
        });
    }

    // The tree, as the toolstack and backends change it

    pub fn set(&mut self, path: &str, value: &str) {
        insert(&mut self.nodes, path, value.as_bytes());
        self.changed(path);
    }

    pub fn get(&self, path: &str) -> Option<&str> {
        self.nodes
            .get(path)
            .map(|value| std::str::from_utf8(value).expect("text"))
    }

    pub fn remove(&mut self, path: &str) {
        remove(&mut self.nodes, path);
        self.changed(path);
    }

    fn changed(&mut self, path: &str) {
        self.changes += 1;
        let below = |upper: &str, lower: &str| lower == upper || lower.starts_with(&format!("{upper}/"));
        for (watched, token) in self.watches.clone() {
            if below(&watched, path) {
                self.fire(path, &token);
            } else if below(path, &watched) {
                self.fire(&watched, &token);
            }
        }
    }

    fn tree(&mut self, tx_id: u32) -> Option<&mut Tree> {
        match tx_id {
            0 => Some(&mut self.nodes),
            id => self.transactions.get_mut(&id).map(|(tree, _)| tree),
        }
    }

    pub fn answer(&mut self, letter: &Letter) {
        match self.act(letter) {
            Ok(reply) => self.reply(letter, &reply),
            Err(errno) => self.reply(letter, &Reply::Error(errno)),
        }
        if let Request::Watch { path, token, .. } = letter.request() {
            self.fire(path.as_str(), token);
        }
    }

    fn act<'a>(&mut self, letter: &'a Letter) -> Result<Reply<'a>, Errno> {
        let tx_id = letter.tx_id;
        let missing = Errno::ENOENT;
        match letter.request() {
            Request::Read(path) => {
                if let Some(&errno) = self.refuse.get(path.as_str()) {
                    return Err(errno);
                }
                let value = self
                    .tree(tx_id)
                    .ok_or(missing)?
                    .get(path.as_str())
                    .ok_or(missing)?
                    .clone();
                Ok(Reply::Value(value.leak()))
            }
            Request::Write { path, value } => {
                if let Some(&errno) = self.refuse.get(path.as_str()) {
                    return Err(errno);
                }
                insert(self.tree(tx_id).ok_or(missing)?, path.as_str(), value);
                if tx_id == 0 {
                    self.log.push((path.as_str().into(), value.to_vec()));
                    self.changed(path.as_str());
                }
                Ok(Reply::Ok)
            }
            Request::Mkdir(path) => {
                self.tree(tx_id)
                    .ok_or(missing)?
                    .entry(path.as_str().into())
                    .or_default();
                Ok(Reply::Ok)
            }
            Request::Rm(path) => {
                remove(self.tree(tx_id).ok_or(missing)?, path.as_str());
                Ok(Reply::Ok)
            }
            Request::Directory(path) => {
                let names = self.names(tx_id, path)?;
                if names.len() > 4096 {
                    Err(Errno::E2BIG)
                } else {
                    Ok(Reply::Names(names_of(names)))
                }
            }
            Request::DirectoryPart { path, offset } => {
                let names = self.names(tx_id, path)?;
                let mut part = names[(offset as usize).min(names.len())..].to_vec();
                if part.len() > 4000 {
                    let end = part[..4000].iter().rposition(|&b| b == 0).expect("a name") + 1;
                    part.truncate(end);
                } else {
                    part.push(0);
                }
                Ok(Reply::Part {
                    generation: self.changes.to_string().leak().as_bytes(),
                    names: names_of(part),
                })
            }
            Request::GetPerms(_) => Ok(Reply::Permissions(vec![Permission {
                access: Access::None,
                domain: DomId(5),
            }])),
            Request::SetPerms { .. } => Ok(Reply::Ok),
            Request::Watch { path, token, .. } => {
                let entry = (path.as_str().to_string(), token.to_vec());
                if self.watches.contains(&entry) {
                    return Err(Errno::EEXIST);
                }
                self.watches.push(entry);
                Ok(Reply::Ok)
            }
            Request::Unwatch { path, token } => {
                self.unwatched += 1;
                let before = self.watches.len();
                self.watches
                    .retain(|(p, t)| (p.as_str(), t.as_slice()) != (path.as_str(), token));
                if self.watches.len() < before {
                    Ok(Reply::Ok)
                } else {
                    Err(missing)
                }
            }
            Request::TransactionStart => {
                self.next_transaction += 1;
                self.transactions
                    .insert(self.next_transaction, (self.nodes.clone(), self.changes));
                Ok(Reply::Transaction(self.next_transaction))
            }
            Request::TransactionEnd(commit) => {
                let (tree, changes) = self.transactions.remove(&tx_id).ok_or(missing)?;
                if !commit {
                    self.aborted += 1;
                    return Ok(Reply::Ok);
                }
                if self.refuse_commits > 0 {
                    self.refuse_commits -= 1;
                    return Err(Errno::EAGAIN);
                }
                if changes != self.changes {
                    return Err(Errno::EAGAIN);
                }
                let old = std::mem::replace(&mut self.nodes, tree.clone());
                for (path, value) in tree {
                    if old.get(&path) != Some(&value) {
                        self.changed(&path);
                        self.log.push((path, value));
                    }
                }
                Ok(Reply::Ok)
            }
            Request::GetDomainPath(domain) => {
                let path: &'static str = format!("/local/domain/{}", domain.0).leak();
                Ok(Reply::Path(Path::new(path).expect("a path")))
            }
            Request::IsDomainIntroduced(domain) => Ok(Reply::Flag(domain.0 < 10)),
            Request::ResetWatches => {
                self.watches.clear();
                self.transactions.clear();
                Ok(Reply::Ok)
            }
            Request::GetFeature | Request::GetQuota(_) => Err(Errno::ENOSYS),
        }
    }

    fn names(&mut self, tx_id: u32, path: Path<'_>) -> Result<Vec<u8>, Errno> {
        let prefix = format!("{}/", path.as_str());
        let tree = self.tree(tx_id).ok_or(Errno::ENOENT)?;
        let mut names: Vec<&str> = tree
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix)?.split('/').next())
            .collect();
        names.dedup();
        if names.is_empty() && !tree.contains_key(path.as_str()) {
            return Err(Errno::ENOENT);
        }
        Ok(names.iter().flat_map(|name| name.bytes().chain([0])).collect())
    }
}

fn names_of(bytes: Vec<u8>) -> Names<'static> {
    Names::parse(bytes.leak()).expect("names")
}

fn insert(tree: &mut Tree, path: &str, value: &[u8]) {
    for (at, _) in path.match_indices('/').filter(|&(at, _)| at > 0) {
        tree.entry(path[..at].into()).or_default();
    }
    tree.insert(path.into(), value.to_vec());
}

fn remove(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|key, _| key != path && !key.starts_with(&below));
}
