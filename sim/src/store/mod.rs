//! xenstored: the tree, the protocol, a ring per domain, and a door for the toolstack and the backends.

mod perms;
mod ring;
mod server;
mod tree;
mod watches;
mod wire;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fata_hypercall::{DomId, Errno, GrantError, Port};

pub use perms::Perm;
pub(crate) use ring::{Connection, is_busy, prepare};
use server::Server;
pub(crate) use server::domain_path;
pub use server::{Quota, StoreFaults};
use watches::LocalEvents;
pub use wire::Operation;

use crate::domain::Domain;
use crate::grants::Access;
use crate::rng::Rng;
use crate::sim::{Next, Waker};
use crate::toolstack::STORE_GRANT;

/// The daemon, as the toolstack and the backends in dom0 use it: with every right, and without a ring.
#[derive(Clone)]
pub struct Store {
    shared: Rc<Shared>,
}

struct Shared {
    server: RefCell<Server>,
    connections: RefCell<Vec<Connection>>,
    waker: Waker,
    stopped: std::cell::Cell<bool>,
}

impl Store {
    pub(crate) fn new(waker: Waker) -> Self {
        let rng = Rng::new(waker.machine().below(u64::MAX));
        let shared = Shared {
            server: RefCell::new(Server::new(rng)),
            connections: RefCell::default(),
            waker,
            stopped: std::cell::Cell::new(false),
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// A node's value; `None` if there is no such node.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.shared
            .server
            .borrow()
            .tree()
            .get(path)
            .map(|node| node.value.clone())
    }

    /// A node's value as text; `None` if there is no such node or it is not text.
    #[must_use]
    pub fn read_text(&self, path: &str) -> Option<String> {
        self.read(path).and_then(|value| String::from_utf8(value).ok())
    }

    /// Names of a node's children.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        self.shared
            .server
            .borrow()
            .tree()
            .children(path)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// A node's permissions; empty if there is no such node.
    #[must_use]
    pub fn perms(&self, path: &str) -> Vec<Perm> {
        self.shared
            .server
            .borrow()
            .tree()
            .get(path)
            .map_or_else(Vec::new, |node| node.perms.clone())
    }

    /// Writes a node and makes what is missing above it.
    ///
    /// # Errors
    /// None for dom0, as long as the path is absolute.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Errno> {
        let result = self
            .shared
            .server
            .borrow_mut()
            .write(DomId::DOM0, 0, path, Some(value.as_ref()));
        self.shared.waker.wake();
        result
    }

    /// Removes a node and all below it.
    ///
    /// # Errors
    /// `ENOENT` if there is nothing above it either.
    pub fn remove(&self, path: &str) -> Result<(), Errno> {
        let result = self.shared.server.borrow_mut().remove(DomId::DOM0, 0, path);
        self.shared.waker.wake();
        result
    }

    /// Sets a node's permissions: the owner first.
    ///
    /// # Errors
    /// `ENOENT` if there is no such node.
    pub fn set_perms(&self, path: &str, perms: &[Perm]) -> Result<(), Errno> {
        let result = self
            .shared
            .server
            .borrow_mut()
            .set_perms(DomId::DOM0, 0, path, perms.to_vec());
        self.shared.waker.wake();
        result
    }

    /// Watches a path: `waker` is woken when it or anything below it changes, and once at once.
    #[must_use]
    pub fn watch(&self, path: &str, waker: &Waker) -> StoreWatch {
        let events = LocalEvents::default();
        self.shared
            .server
            .borrow_mut()
            .watch_locally(path, Rc::clone(&events), waker.clone());
        StoreWatch {
            store: self.clone(),
            events,
        }
    }

    /// The limits for guests.
    pub fn set_quota(&self, quota: Quota) {
        self.shared.server.borrow_mut().quota = quota;
    }

    /// The next `count` commits of guests' transactions fail with EAGAIN.
    pub fn refuse_commits(&self, count: u32) {
        self.shared.server.borrow_mut().refuse_commits = count;
    }

    /// From now on guests are served as badly as this.
    pub fn set_faults(&self, faults: StoreFaults) {
        self.shared.server.borrow_mut().faults = faults;
    }

    /// Stops the daemon, or lets it go on: while it is stopped, requests stay in their rings.
    pub fn set_stopped(&self, stopped: bool) {
        self.shared.stopped.set(stopped);
        self.shared.waker.wake();
    }

    /// The watches of a guest: path and token.
    #[must_use]
    pub fn watches_of(&self, domain: DomId) -> Vec<(String, String)> {
        self.shared.server.borrow().watches_of(domain)
    }

    /// How many transactions a guest has open.
    #[must_use]
    pub fn transactions_of(&self, domain: DomId) -> usize {
        self.shared.server.borrow().transactions_of(domain)
    }

    /// XS_INTRODUCE: connects the daemon to a domain's ring.
    pub(crate) fn introduce(&self, dom0: &Domain, domain: DomId, port: Port) -> Result<(), GrantError> {
        let page = dom0.map_grant(domain, STORE_GRANT, Access::Write)?;
        let local = dom0.bind_interdomain(domain, port).map_err(|_| GrantError::General)?;
        dom0.own_port(local, &self.shared.waker);
        self.shared.server.borrow_mut().introduce(domain);
        self.shared
            .connections
            .borrow_mut()
            .push(Connection::new(domain, local, dom0.clone(), page));
        self.shared.waker.wake();
        Ok(())
    }

    /// XS_RELEASE: the domain is gone.
    pub(crate) fn release(&self, dom0: &Domain, domain: DomId) {
        self.shared.server.borrow_mut().release(domain);
        self.shared.connections.borrow_mut().retain(|connection| {
            if connection.domain == domain {
                let _ = dom0.machine.close(&dom0.state, connection.port);
            }
            connection.domain != domain
        });
        self.shared.waker.wake();
    }

    /// What waits for somebody who sleeps, while all sleep.
    pub(crate) fn due(&self) -> Option<String> {
        let (connections, server) = (self.shared.connections.borrow(), self.shared.server.borrow());
        if self.shared.stopped.get() {
            return None;
        }
        connections.iter().find_map(|connection| connection.due(&server))
    }

    /// One step of the daemon: something for one of the domains that want something.
    pub(crate) fn step(&self, dom0: &Domain) -> Next {
        if self.shared.stopped.get() {
            return Next::Sleep;
        }
        let mut connections = self.shared.connections.borrow_mut();
        for connection in connections.iter() {
            dom0.take_pending(connection.port);
        }
        let mut server = self.shared.server.borrow_mut();
        let mut busy: Vec<&mut Connection> = connections
            .iter_mut()
            .filter(|connection| connection.has_work(&server))
            .collect();
        if busy.is_empty() {
            return Next::Sleep;
        }
        let chosen = dom0.machine.below(busy.len() as u64) as usize;
        busy[chosen].step(&mut server);
        Next::Again
    }
}

/// A watch of a service in dom0. Dropping it ends it.
pub struct StoreWatch {
    store: Store,
    events: LocalEvents,
}

impl StoreWatch {
    /// The next path that changed.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        self.events.borrow_mut().pop_front()
    }

    /// Whether anything changed since the last time.
    #[must_use]
    pub fn take(&self) -> bool {
        let events: VecDeque<String> = std::mem::take(&mut *self.events.borrow_mut());
        !events.is_empty()
    }
}

impl Drop for StoreWatch {
    fn drop(&mut self) {
        self.store.shared.server.borrow_mut().unwatch_locally(&self.events);
    }
}

#[cfg(test)]
mod tests;
