//! Bytes that nobody was meant to see, looked for in everything that a peer can see.

use std::sync::atomic::Ordering::Acquire;

use fata_hypercall::abi::grant_table::{EntryV1, Flags};
use fata_hypercall::{Gfn, PAGE_SIZE};

use crate::domain::Domain;
use crate::memory::POISON;

/// So many in a row are no chance.
const RUN: usize = 8;

/// Where bytes of poisoned memory begin in what somebody else can see; `None`: there are none.
///
/// ```
/// use fata_sim::{POISON, find_poison};
/// assert_eq!(find_poison(&[1; 100]), None);
/// assert_eq!(find_poison(&[&[1; 100][..], &[POISON; 20]].concat()), Some(100));
/// ```
#[must_use]
pub fn find_poison(bytes: &[u8]) -> Option<usize> {
    bytes.windows(RUN).position(|window| window == [POISON; RUN])
}

impl Domain {
    /// From now on every page that the domain has granted to anybody is searched after each of its turns for
    /// [`POISON`], whole: freed pages are full of it, and with a [`PoisonHeap`](crate::PoisonHeap) all memory that was not
    /// written. It is a broken rule if there is any.
    pub fn watch_for_poison(&self) {
        self.state.watched_for_poison.set(true);
    }

    /// Searches what others can map.
    pub(crate) fn look_for_poison(&self) {
        let state = &self.state;
        let mut bytes = [0; PAGE_SIZE];
        for index in 0..state.config.grant_frames {
            for (reference, entry) in
                (index * EntryV1::PER_PAGE as u32..).zip(state.grant_page(index).into_iter().flatten())
            {
                if entry.flags.load(Acquire) & 3 != Flags::PERMIT_ACCESS.bits() {
                    continue;
                }
                let Some((run, page)) = state.memory.borrow().find(Gfn(entry.frame.load(Acquire).into())) else {
                    continue; // another rule's business
                };
                run.page(page).read(0, &mut bytes);
                // A run of twice the length has a whole aligned word in it, and words are fast.
                if bytes.as_chunks::<RUN>().0.contains(&[POISON; RUN]) {
                    let at = find_poison(&bytes).unwrap_or(0);
                    self.machine.violation(format!(
                        "{self:?}: grant {reference} shows memory that was not meant for anybody, from byte {at} on"
                    ));
                }
            }
        }
    }
}
