//! Watches: who is told of which change (xen/docs/misc/xenstore.txt, "Watches").

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fata_hypercall::{DomId, Errno};

use super::perms::rights;
use super::server::{Reply, Server, absolute, domain_path, ok};
use super::tree::{Change, is_within};
use super::wire::{Operation, message, strings};
use crate::sim::Waker;

/// Paths that changed, as a service in dom0 sees them.
pub(crate) type LocalEvents = Rc<RefCell<VecDeque<String>>>;

pub(super) enum Watcher {
    /// A guest, by its ring.
    Guest {
        domain: DomId,
        given: String,
        token: String,
    },
    /// A service in this process.
    Local { events: LocalEvents, waker: Waker },
}

pub(super) struct Watch {
    pub(super) path: String,
    pub(super) watcher: Watcher,
}

impl Server {
    pub(crate) fn watches_of(&self, domain: DomId) -> Vec<(String, String)> {
        let mine = |watch: &Watch| match &watch.watcher {
            Watcher::Guest {
                domain: owner,
                given,
                token,
            } if *owner == domain => Some((given.clone(), token.clone())),
            _ => None,
        };
        self.watches.iter().filter_map(mine).collect()
    }

    pub(super) fn watch(&mut self, who: DomId, payload: &[u8]) -> Reply {
        let parts = strings(payload).ok_or(Errno::EINVAL)?;
        let [given, token] = parts[..] else {
            return Err(Errno::EINVAL);
        };
        if given.starts_with('@') {
            return Err(Errno::EACCES);
        }
        let path = absolute(given, who)?;
        let mine = self.watches_of(who);
        if mine.iter().any(|(path, other)| path == given && other == token) {
            return Err(Errno::EEXIST);
        }
        if mine.len() >= self.quota.watches {
            return Err(Errno::ENOSPC);
        }
        let watcher = Watcher::Guest {
            domain: who,
            given: given.to_owned(),
            token: token.to_owned(),
        };
        self.watches.push(Watch { path, watcher });
        // It fires once at once.
        self.queue_event(who, given, token);
        ok()
    }

    pub(super) fn unwatch(&mut self, who: DomId, payload: &[u8]) -> Reply {
        let parts = strings(payload).ok_or(Errno::EINVAL)?;
        let [given, token] = parts[..] else {
            return Err(Errno::EINVAL);
        };
        let is_it = |watch: &Watch| {
            matches!(&watch.watcher, Watcher::Guest { domain, given: path, token: name }
                if *domain == who && path == given && name == token)
        };
        let index = self.watches.iter().position(is_it).ok_or(Errno::ENOENT)?;
        self.watches.remove(index);
        ok()
    }

    pub(super) fn reset_watches(&mut self, who: DomId) {
        self.watches
            .retain(|watch| !matches!(&watch.watcher, Watcher::Guest { domain, .. } if *domain == who));
    }

    /// A watch by a service in dom0. Fires once at once, too.
    pub(crate) fn watch_locally(&mut self, path: &str, events: LocalEvents, waker: Waker) {
        events.borrow_mut().push_back(path.to_owned());
        waker.wake();
        self.watches.push(Watch {
            path: path.to_owned(),
            watcher: Watcher::Local { events, waker },
        });
    }

    pub(crate) fn unwatch_locally(&mut self, events: &LocalEvents) {
        self.watches
            .retain(|watch| !matches!(&watch.watcher, Watcher::Local { events: e, .. } if Rc::ptr_eq(e, events)));
    }

    fn queue_event(&mut self, domain: DomId, path: &str, token: &str) {
        if let Some(connection) = self.connections.get_mut(&domain) {
            let payload = format!("{path}\0{token}\0");
            let event = message(Operation::WatchEvent, 0, 0, payload.as_bytes());
            if self.rng.one_in(self.faults.repeat_watch_one_in) {
                connection.events.push_back(event.clone());
            }
            connection.events.push_back(event);
        }
    }

    pub(super) fn fire(&mut self, changes: &[Change]) {
        for change in changes {
            let mut events = Vec::new();
            for watch in &self.watches {
                let hit = if change.exact {
                    watch.path == change.path
                } else {
                    is_within(&change.path, &watch.path)
                };
                match &watch.watcher {
                    _ if !hit => {}
                    Watcher::Local { events, waker } => {
                        events.borrow_mut().push_back(change.path.clone());
                        waker.wake();
                    }
                    Watcher::Guest { domain, given, token } => {
                        if rights(&change.perms, *domain).0 {
                            events.push((*domain, as_registered(&change.path, given, *domain), token.clone()));
                        }
                    }
                }
            }
            for (domain, path, token) in events {
                self.queue_event(domain, &path, &token);
            }
        }
    }
}

/// A changed path as the watcher wrote it: relative if it registered a relative one.
fn as_registered(path: &str, given: &str, domain: DomId) -> String {
    if given.starts_with('/') {
        return path.to_owned();
    }
    let prefix = format!("{}/", domain_path(domain));
    path.strip_prefix(&prefix).unwrap_or(path).to_owned()
}
