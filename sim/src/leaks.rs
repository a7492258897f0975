//! What a domain still holds, and what it should never have done with its pages.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Acquire;

use fata_hypercall::abi::grant_table::{EntryV1, Flags, RESERVED_ENTRIES};
use fata_hypercall::{DomId, Gfn, GrantRef, Port, SharedPage};

use crate::domain::{Domain, DomainState};
use crate::memory::Scribble;
use crate::ports::PortState;

/// What a domain holds beyond what the toolstack gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Pages allocated and not freed.
    pub pages: usize,
    /// Grants that permit access, and to whom.
    pub grants: Vec<(GrantRef, DomId)>,
    /// Grants that a peer has mapped.
    pub mappings: Vec<(GrantRef, DomId)>,
    /// Pages of other domains that it has mapped.
    pub foreign: usize,
    /// Open ports, without those of the console and the store.
    pub ports: Vec<(Port, PortState)>,
    /// Watches in xenstored: path and token.
    pub watches: Vec<(String, String)>,
    /// Transactions in xenstored that were not ended.
    pub transactions: usize,
}

impl Leaks {
    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing leaked");
        }
        if self.pages > 0 {
            write!(f, "{} pages allocated; ", self.pages)?;
        }
        list(f, "grants active", &self.grants, |(reference, peer)| {
            format!("{reference} for {peer}")
        })?;
        list(f, "grants mapped", &self.mappings, |(reference, peer)| {
            format!("{reference} by {peer}")
        })?;
        if self.foreign > 0 {
            write!(f, "{} foreign pages mapped; ", self.foreign)?;
        }
        list(f, "ports open", &self.ports, |(port, state)| {
            format!("{port} {state:?}")
        })?;
        list(f, "watches registered", &self.watches, |(path, token)| {
            format!("{path:?} token {token:?}")
        })?;
        if self.transactions > 0 {
            write!(f, "{} transactions open; ", self.transactions)?;
        }
        Ok(())
    }
}

fn list<T>(f: &mut fmt::Formatter<'_>, what: &str, items: &[T], show: impl Fn(&T) -> String) -> fmt::Result {
    const SHOWN: usize = 8;
    if items.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = items.iter().take(SHOWN).map(show).collect();
    let more = if items.len() > SHOWN { ", ..." } else { "" };
    write!(f, "{} {what} ({}{more}); ", items.len(), shown.join(", "))
}

impl DomainState {
    fn active_grants(&self) -> impl Iterator<Item = (GrantRef, &EntryV1)> + '_ {
        (0..self.config.grant_frames)
            .filter_map(|index| Some((index, self.grant_page(index)?)))
            .flat_map(|(index, page)| {
                let first = index * EntryV1::PER_PAGE as u32;
                (first..).map(GrantRef).zip(page).filter(|(reference, entry)| {
                    reference.0 >= RESERVED_ENTRIES && entry.flags.load(Acquire) & 3 == Flags::PERMIT_ACCESS.bits()
                })
            })
    }

    /// What Xen's own books show. xenstored's are added by the simulator.
    pub(crate) fn leaks(&self) -> Leaks {
        let prepared = [&self.console, &self.store].map(|ring| ring.get().map(|ring| ring.port.get()));
        let entries = self.active_grants();
        Leaks {
            pages: self.memory.borrow().used(),
            grants: entries
                .map(|(reference, entry)| (reference, DomId(entry.domid.load(Acquire))))
                .collect(),
            mappings: self
                .pins
                .borrow()
                .iter()
                .filter(|(reference, ..)| *reference >= RESERVED_ENTRIES)
                .map(|(reference, _, peer)| (GrantRef(reference), peer))
                .collect(),
            foreign: self.foreign.borrow().len(),
            ports: self
                .ports
                .borrow()
                .open_ports()
                .filter(|(port, _)| !prepared.contains(&Some(*port)))
                .collect(),
            watches: Vec::new(),
            transactions: 0,
        }
    }
}

impl Domain {
    /// Looks through the whole grant table for what no driver may do: one page granted twice, or a grant of
    /// something that is no page of the domain any more.
    pub(crate) fn audit(&self) {
        let mut granted = BTreeMap::new();
        for (reference, entry) in self.state.active_grants() {
            let frame = entry.frame.load(Acquire);
            if self.state.memory.borrow().find(Gfn(u64::from(frame))).is_none() {
                self.machine.violation(format!(
                    "{self:?}: grant {reference} is of frame {frame:#x}, which is not its page"
                ));
            }
            if let Some(first) = granted.insert(frame, reference) {
                self.machine.violation(format!(
                    "{self:?} granted frame {frame:#x} twice, as {first} and {reference}"
                ));
            }
        }
        let scribbles = self.state.memory.borrow().scribbles();
        self.report_scribbles(&scribbles);
    }

    pub(crate) fn report_scribbles(&self, scribbles: &[Scribble]) {
        for Scribble { gfn, offset } in scribbles {
            self.machine.violation(format!(
                "{self:?}: somebody wrote to freed frame {gfn:#x} at byte {offset}"
            ));
        }
    }

    /// A page may be freed only when nobody can reach it.
    pub(crate) fn check_free(&self, first: NonNull<SharedPage>, count: usize) {
        let Ok(frames) = self.state.memory.borrow().gfns(first, count) else {
            return;
        };
        for (reference, entry) in self.state.active_grants() {
            let frame = entry.frame.load(Acquire);
            if frames.contains(&u64::from(frame)) {
                self.machine.violation(format!(
                    "{self:?} freed frame {frame:#x}, which grant {reference} still grants"
                ));
            }
        }
        for (reference, frame, peer) in self.state.pins.borrow().iter() {
            if frames.contains(&u64::from(frame)) {
                self.machine.violation(format!(
                    "{self:?} freed frame {frame:#x}, which {peer} has mapped by grant {reference}"
                ));
            }
        }
    }
}
