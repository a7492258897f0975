//! What xenstored answers (xen/docs/misc/xenstore.txt; xen/tools/xenstored as facts). No ring here: requests and
//! replies are byte strings.

use std::collections::{BTreeMap, VecDeque};

use fata_hypercall::{DomId, Errno};

use super::perms::Perm;
use super::tree::{Change, Transaction, Tree};
use super::watches::Watch;
use super::wire::{
    ABSOLUTE_PATH_MAX, Header, Operation, PAYLOAD_MAX, RELATIVE_PATH_MAX, first_string, message, strings,
};
use crate::rng::Rng;

/// Limits for a guest, with the daemon's own defaults.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Nodes it may own.
    pub nodes: usize,
    /// Watches.
    pub watches: usize,
    /// Transactions open at a time.
    pub transactions: usize,
    /// Bytes in a value.
    pub node_size: usize,
    /// Nodes that one transaction may look at or change.
    pub transaction_nodes: usize,
    /// Requests whose answers it has not taken, before no more are read.
    pub requests: usize,
    /// Entries in a list of permissions.
    pub perms: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            watches: 128,
            transactions: 10,
            node_size: 2048,
            transaction_nodes: 1024,
            requests: 20,
            perms: 5,
        }
    }
}

/// One guest's connection.
#[derive(Default)]
pub(super) struct Connection {
    transactions: BTreeMap<u32, Transaction>,
    pub(super) events: VecDeque<Vec<u8>>,
}

/// The daemon's state.
pub(crate) struct Server {
    tree: Tree,
    last_generation: u64,
    last_transaction: u32,
    pub(super) watches: Vec<Watch>,
    pub(super) connections: BTreeMap<DomId, Connection>,
    pub(crate) quota: Quota,
    /// Transactions that shall end in EAGAIN without a reason.
    pub(crate) refuse_commits: u32,
    pub(crate) faults: StoreFaults,
    pub(super) rng: Rng,
}

/// What a daemon may do to its clients, though it seldom does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFaults {
    /// Once in so many times a commit is refused with EAGAIN without a conflict; 0: never.
    pub refuse_commit_one_in: u64,
    /// Once in so many times a watch event comes twice; 0: never.
    pub repeat_watch_one_in: u64,
}

/// The payload of a reply, or an error.
pub(super) type Reply = Result<Vec<u8>, Errno>;

pub(super) fn ok() -> Reply {
    Ok(b"OK\0".to_vec())
}

pub(crate) fn domain_path(domain: DomId) -> String {
    format!("/local/domain/{}", domain.0)
}

/// Makes a path absolute, or says what is wrong with it.
pub(super) fn absolute(path: &str, domain: DomId) -> Result<String, Errno> {
    let relative = !path.starts_with('/');
    let letters = path
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte));
    let limit = if relative { RELATIVE_PATH_MAX } else { ABSOLUTE_PATH_MAX };
    if path.is_empty() || path.len() > limit || !letters || path.contains("//") || path.len() > 1 && path.ends_with('/')
    {
        return Err(Errno::EINVAL);
    }
    Ok(if relative {
        format!("{}/{path}", domain_path(domain))
    } else {
        path.to_owned()
    })
}

impl Server {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            faults: StoreFaults::default(),
            rng,
            tree: Tree::new(),
            last_generation: 0,
            last_transaction: 0,
            watches: Vec::new(),
            connections: BTreeMap::new(),
            quota: Quota::default(),
            refuse_commits: 0,
        }
    }

    pub(crate) fn introduce(&mut self, domain: DomId) {
        self.connections.insert(domain, Connection::default());
        self.fire(&[Change {
            path: "@introduceDomain".to_owned(),
            exact: true,
            perms: vec![Perm::none(DomId::DOM0)],
        }]);
    }

    pub(crate) fn release(&mut self, domain: DomId) {
        self.connections.remove(&domain);
        self.reset_watches(domain);
        self.fire(&[Change {
            path: "@releaseDomain".to_owned(),
            exact: true,
            perms: vec![Perm::none(DomId::DOM0)],
        }]);
    }

    pub(crate) fn transactions_of(&self, domain: DomId) -> usize {
        self.connections
            .get(&domain)
            .map_or(0, |connection| connection.transactions.len())
    }

    /// The next watch event for a guest: a whole message.
    pub(crate) fn next_event(&mut self, domain: DomId) -> Option<Vec<u8>> {
        self.connections.get_mut(&domain)?.events.pop_front()
    }

    pub(crate) fn has_event(&self, domain: DomId) -> bool {
        self.connections
            .get(&domain)
            .is_some_and(|connection| !connection.events.is_empty())
    }

    /// Answers one request of a guest: a whole message.
    pub(crate) fn request(&mut self, domain: DomId, header: Header, payload: &[u8]) -> Vec<u8> {
        let reply = match Operation::from_number(header.kind) {
            Some(operation) => self
                .serve(domain, operation, header.transaction, payload)
                .map(|reply| (operation, reply)),
            None => Err(Errno::ENOSYS),
        };
        let reply = reply.and_then(|(operation, reply)| {
            if reply.len() > PAYLOAD_MAX {
                Err(Errno::E2BIG)
            } else {
                Ok((operation, reply))
            }
        });
        match reply {
            Ok((operation, reply)) => message(operation, header.request, header.transaction, &reply),
            Err(errno) => {
                let name = format!("{}\0", errno.name().unwrap_or("EIO"));
                message(Operation::Error, header.request, header.transaction, name.as_bytes())
            }
        }
    }

    fn serve(&mut self, who: DomId, operation: Operation, tx: u32, payload: &[u8]) -> Reply {
        match operation {
            Operation::Directory => {
                let path = absolute(one_string(payload)?, who)?;
                self.look(who, tx, &path)?;
                let names = self.view(who, tx)?.children(&path);
                Ok(names.iter().flat_map(|name| name.bytes().chain([0])).collect())
            }
            Operation::DirectoryPart => self.directory_part(who, tx, payload),
            Operation::Read => {
                let path = absolute(one_string(payload)?, who)?;
                self.look(who, tx, &path)?;
                Ok(self.view(who, tx)?.access(&path, who, false)?.value.clone())
            }
            Operation::GetPerms => {
                let path = absolute(one_string(payload)?, who)?;
                self.look(who, tx, &path)?;
                let node = self.view(who, tx)?.access(&path, who, false)?;
                Ok(node
                    .perms
                    .iter()
                    .flat_map(|perm| perm.text().into_bytes().into_iter().chain([0]))
                    .collect())
            }
            Operation::Watch => self.watch(who, payload),
            Operation::Unwatch => self.unwatch(who, payload),
            Operation::TransactionStart => self.transaction_start(who, tx, payload),
            Operation::TransactionEnd => self.transaction_end(who, tx, payload),
            Operation::GetDomainPath => {
                let id: u16 = one_string(payload)?.parse().map_err(|_| Errno::EINVAL)?;
                Ok(format!("{}\0", domain_path(DomId(id))).into_bytes())
            }
            Operation::Write => {
                let (path, value) = first_string(payload).ok_or(Errno::EINVAL)?;
                let path = absolute(path, who)?;
                self.write(who, tx, &path, Some(value))?;
                ok()
            }
            Operation::Mkdir => {
                let path = absolute(one_string(payload)?, who)?;
                self.write(who, tx, &path, None)?;
                ok()
            }
            Operation::Rm => {
                let path = absolute(one_string(payload)?, who)?;
                self.remove(who, tx, &path)?;
                ok()
            }
            Operation::SetPerms => {
                let parts = strings(payload).ok_or(Errno::EINVAL)?;
                let (path, list) = parts.split_first().ok_or(Errno::EINVAL)?;
                let perms: Option<Vec<_>> = list.iter().map(|text| Perm::parse(text)).collect();
                let perms = perms.filter(|list| !list.is_empty()).ok_or(Errno::EINVAL)?;
                let path = absolute(path, who)?;
                self.set_perms(who, tx, &path, perms)?;
                ok()
            }
            Operation::ResetWatches => {
                self.reset_watches(who);
                if let Some(connection) = self.connections.get_mut(&who) {
                    connection.transactions.clear();
                }
                ok()
            }
            Operation::Introduce | Operation::Release | Operation::IsDomainIntroduced => Err(Errno::EACCES),
            Operation::WatchEvent | Operation::Error => Err(Errno::ENOSYS),
        }
    }

    // Reading

    fn transaction(&mut self, who: DomId, tx: u32) -> Result<Option<&mut Transaction>, Errno> {
        if tx == 0 {
            return Ok(None);
        }
        let connection = self.connections.get_mut(&who).ok_or(Errno::ENOENT)?;
        connection.transactions.get_mut(&tx).map(Some).ok_or(Errno::ENOENT)
    }

    fn view(&mut self, who: DomId, tx: u32) -> Result<&Tree, Errno> {
        if tx == 0 {
            return Ok(&self.tree);
        }
        self.transaction(who, tx)?
            .map(|transaction| &transaction.view)
            .ok_or(Errno::ENOENT)
    }

    /// Checks that `who` may read a path, and remembers in the transaction that it looked.
    fn look(&mut self, who: DomId, tx: u32, path: &str) -> Result<(), Errno> {
        let limit = self.quota.transaction_nodes;
        if let Some(transaction) = self.transaction(who, tx)? {
            transaction.looked_at(path);
            if transaction.nodes() > limit {
                return Err(Errno::ENOSPC);
            }
        }
        self.view(who, tx)?.access(path, who, false).map(drop)
    }

    fn directory_part(&mut self, who: DomId, tx: u32, payload: &[u8]) -> Reply {
        let parts = strings(payload).ok_or(Errno::EINVAL)?;
        let [path, offset] = parts[..] else {
            return Err(Errno::EINVAL);
        };
        let offset: usize = offset.parse().map_err(|_| Errno::EINVAL)?;
        let path = absolute(path, who)?;
        self.look(who, tx, &path)?;
        let tree = self.view(who, tx)?;
        let all: Vec<u8> = tree
            .children(&path)
            .iter()
            .flat_map(|name| name.bytes().chain([0]))
            .collect();
        let mut reply = format!("{}\0", tree.generation(&path).unwrap_or(0)).into_bytes();
        // Whole names as far as they fit; an empty name says that this was the end.
        let room = PAYLOAD_MAX - reply.len() - 1;
        let rest = all.get(offset..).ok_or(Errno::EINVAL)?;
        let part = match rest.get(..room) {
            None => rest,
            Some(cut) => &cut[..cut.iter().rposition(|&byte| byte == 0).map_or(0, |at| at + 1)],
        };
        reply.extend_from_slice(part);
        if part.len() == rest.len() {
            reply.push(0);
        }
        Ok(reply)
    }

    // Writing

    fn generation(&mut self) -> u64 {
        self.last_generation += 1;
        self.last_generation
    }

    /// Applies `change` to the transaction's view or to the tree itself, and fires or keeps the watch events.
    fn modify(
        &mut self,
        who: DomId,
        tx: u32,
        change: impl FnOnce(&mut Tree, u64) -> Result<(Vec<String>, Vec<Change>), Errno>,
    ) -> Result<(), Errno> {
        let generation = self.generation();
        let limit = self.quota.transaction_nodes;
        if let Some(transaction) = self.transaction(who, tx)? {
            if transaction.nodes() >= limit {
                return Err(Errno::ENOSPC);
            }
            let (paths, changes) = change(&mut transaction.view, generation)?;
            for path in &paths {
                transaction.changed(path);
            }
            transaction.changes.extend(changes);
        } else {
            let (_, changes) = change(&mut self.tree, generation)?;
            self.fire(&changes);
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, who: DomId, tx: u32, path: &str, value: Option<&[u8]>) -> Result<(), Errno> {
        let quota = self.quota;
        if who != DomId::DOM0 && value.is_some_and(|value| value.len() > quota.node_size) {
            return Err(Errno::ENOSPC);
        }
        self.modify(who, tx, |tree, generation| {
            let is_new = tree.get(path).is_none();
            if who != DomId::DOM0 && is_new && tree.owned_by(who) >= quota.nodes {
                return Err(Errno::ENOSPC);
            }
            let paths = tree.write(path, value, who, generation)?;
            let perms = tree.get(path).map(|node| node.perms.clone()).unwrap_or_default();
            // MKDIR of what is there changes nothing.
            let changes = if is_new || value.is_some() {
                vec![Change {
                    path: path.to_owned(),
                    exact: false,
                    perms,
                }]
            } else {
                Vec::new()
            };
            Ok((paths, changes))
        })
    }

    pub(crate) fn remove(&mut self, who: DomId, tx: u32, path: &str) -> Result<(), Errno> {
        if path == "/" {
            return Err(Errno::EINVAL);
        }
        self.modify(who, tx, |tree, generation| {
            let above = super::tree::parent(path);
            match tree.access(path, who, true) {
                Ok(_) => {}
                // A missing node is as good as removed, if there is a place where it could be.
                Err(Errno::ENOENT) => {
                    return tree
                        .access(above, who, false)
                        .map(|_| (vec![above.to_owned()], Vec::new()));
                }
                Err(errno) => return Err(errno),
            }
            let gone = tree.remove(path, generation);
            let mut paths: Vec<String> = gone.iter().map(|(path, _)| path.clone()).collect();
            paths.push(above.to_owned());
            let changes = gone.into_iter().map(|(gone, node)| Change {
                exact: gone != path,
                path: gone,
                perms: node.perms.clone(),
            });
            Ok((paths, changes.collect()))
        })
    }

    pub(crate) fn set_perms(&mut self, who: DomId, tx: u32, path: &str, perms: Vec<Perm>) -> Result<(), Errno> {
        if who != DomId::DOM0 && perms.len() > self.quota.perms {
            return Err(Errno::ENOSPC);
        }
        self.modify(who, tx, |tree, generation| {
            let node = tree.access(path, who, true)?;
            // Only the owner, and nobody can give a node away.
            let owner = node.perms.first().map(|perm| perm.domain);
            if who != DomId::DOM0 && owner != Some(who) {
                return Err(Errno::EACCES);
            }
            if who != DomId::DOM0 && perms.first().map(|perm| perm.domain) != owner {
                return Err(Errno::EPERM);
            }
            let change = Change {
                path: path.to_owned(),
                exact: false,
                perms: perms.clone(),
            };
            tree.set_perms(path, perms, generation);
            Ok((vec![path.to_owned()], vec![change]))
        })
    }

    // Transactions

    fn transaction_start(&mut self, who: DomId, tx: u32, payload: &[u8]) -> Reply {
        if payload != [0] {
            return Err(Errno::EINVAL);
        }
        if tx != 0 {
            return Err(Errno::EBUSY);
        }
        let limit = self.quota.transactions;
        let transaction = Transaction::new(&self.tree);
        let connection = self.connections.get_mut(&who).ok_or(Errno::EINVAL)?;
        if connection.transactions.len() >= limit {
            return Err(Errno::ENOSPC);
        }
        // Never 0, which means "no transaction".
        self.last_transaction = self.last_transaction.checked_add(1).unwrap_or(1);
        connection.transactions.insert(self.last_transaction, transaction);
        Ok(format!("{}\0", self.last_transaction).into_bytes())
    }

    fn transaction_end(&mut self, who: DomId, tx: u32, payload: &[u8]) -> Reply {
        let commit = match payload {
            b"T\0" => true,
            b"F\0" => false,
            _ => return Err(Errno::EINVAL),
        };
        let connection = self.connections.get_mut(&who).ok_or(Errno::EINVAL)?;
        let transaction = connection.transactions.remove(&tx).ok_or(Errno::ENOENT)?;
        if commit {
            if self.refuse_commits > 0 {
                self.refuse_commits -= 1;
                return Err(Errno::EAGAIN);
            }
            if self.rng.one_in(self.faults.refuse_commit_one_in) {
                return Err(Errno::EAGAIN);
            }
            let changes = transaction.commit(&mut self.tree)?;
            self.fire(&changes);
        }
        ok()
    }

    // For services in dom0

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// The only string of a payload.
fn one_string(payload: &[u8]) -> Result<&str, Errno> {
    match strings(payload).as_deref() {
        Some(&[only]) => Ok(only),
        _ => Err(Errno::EINVAL),
    }
}
