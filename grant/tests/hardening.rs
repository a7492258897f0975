//! What a hostile peer does to a ring's page between any two of our accesses to it, and to pages that are taken back.

mod common;

use std::borrow::Borrow;
use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;

use common::Machine;
use fata_grant::{Busy, FrontRing, Pages, ReadOnly, ReadWrite, RingError, Table};
use fata_hypercall::{DomId, PAGE_SIZE, SharedPage};

const RSP_PROD: usize = 8;
const SLOTS: usize = 64;

/// A ring page that its peer rewrites before every access of ours: each slot says which access it is.
struct Restless<'a> {
    page: &'a SharedPage,
    accesses: &'a Cell<u32>,
}

impl Borrow<SharedPage> for Restless<'_> {
    fn borrow(&self) -> &SharedPage {
        let access = self.accesses.get() + 1;
        self.accesses.set(access);
        for slot in (SLOTS..PAGE_SIZE).step_by(4) {
            self.page.store_u32(slot, access, SeqCst);
        }
        self.page
    }
}

/// XSA-155: a slot is looked at once. A second look would see something else.
#[test]
fn xsa_155_a_slot_is_read_once() {
    let (page, accesses) = (SharedPage::new_zeroed(), Cell::new(0));
    let restless = Restless {
        page: &page,
        accesses: &accesses,
    };
    let mut ring = FrontRing::<_, u32, u32>::new(restless);
    for _ in 0..32 {
        ring.push(&0).unwrap();
    }
    let _ = ring.publish();
    page.store_u32(RSP_PROD, 32, SeqCst);
    for response in 0..32 {
        let before = accesses.get();
        let value = ring.pop().unwrap().unwrap();
        // The first of a batch reads the producer, once as well.
        let first = u32::from(response == 0);
        assert_eq!(accesses.get() - before, 1 + first);
        assert_eq!(value, accesses.get(), "what was copied at the one look");
    }
}

/// Rule 2: the peer's producer is read once for each batch, and what was read is what is used.
#[test]
fn xsa_155_a_producer_is_read_once() {
    struct Moving<'a>(&'a SharedPage, &'a Cell<u32>);
    impl Borrow<SharedPage> for Moving<'_> {
        fn borrow(&self) -> &SharedPage {
            // Honest at the first look, impossible from the second on.
            let look = self.1.get() + 1;
            self.1.set(look);
            self.0
                .store_u32(RSP_PROD, if look == 1 { 3 } else { 0x8000_0000 }, SeqCst);
            self.0
        }
    }
    let (page, looks) = (SharedPage::new_zeroed(), Cell::new(u32::MAX / 2));
    let mut ring = FrontRing::<_, u32, u32>::new(Moving(&page, &looks));
    for _ in 0..8 {
        ring.push(&0).unwrap();
    }
    let _ = ring.publish();
    looks.set(0);
    for _ in 0..3 {
        assert!(ring.pop().unwrap().is_some(), "three were vouched for");
    }
    let error = RingError {
        claimed: 0x8000_0000,
        own: 3,
        limit: 5,
    };
    assert_eq!(ring.pop(), Err(error), "the next look sees the lie");
}

/// XSA-396, rule 22: a page that is in use is reported at once, however often one asks; nobody waits for a peer.
#[test]
fn xsa_396_a_busy_revoke_does_not_wait() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let mut shared = table.share_zeroed(1, DomId(3), ReadWrite).unwrap();
    machine.map(shared.reference(0), 16);
    for _ in 0..1000 {
        assert_eq!(shared.reclaim(0).unwrap_err(), Busy);
    }
    assert_eq!(shared.revoke().unwrap_err(), Busy);
    assert_eq!(table.retry_quarantine(), 1);
}

/// XSA-403 (CVE-2022-33741): what is granted is whole pages that hold nothing else, each with a reference of its own.
#[test]
fn xsa_403_granted_memory_is_whole_pages_of_its_own() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let mut pages = Pages::alloc(&machine, 3).unwrap();
    assert_eq!(
        (pages.as_slice().len(), pages.as_mut_slice().len()),
        (3 * PAGE_SIZE, 3 * PAGE_SIZE)
    );
    assert_eq!(pages.as_slice().as_ptr().addr() % PAGE_SIZE, 0);
    assert!(pages.as_slice().iter().all(|&byte| byte == 0));
    pages.as_mut_slice().fill(7);
    let shared = table.share(pages, DomId(3), ReadWrite).unwrap();
    for (index, &reference) in shared.references().iter().enumerate() {
        let frame = machine.entry(reference).frame.load(SeqCst);
        assert_eq!(frame, 0x1000 + index as u32);
    }
    let mut readable = table.share_zeroed(3, DomId(3), ReadOnly).unwrap();
    assert_eq!(
        (readable.bytes().len(), readable.bytes_mut().len()),
        (3 * PAGE_SIZE, 3 * PAGE_SIZE)
    );
    let neighbour = Pages::alloc(&machine, 1).unwrap();
    let range = neighbour.as_slice().as_ptr_range();
    let page = shared.page(2).as_ptr().cast_const();
    assert!(!range.contains(&page) && !range.contains(&page.wrapping_add(PAGE_SIZE - 1)));
}

/// XSA-405: pages that go back to the allocator are ours alone again, whatever became of the device before. (That they
/// are is checked by the machine, which looks through its grant table at each free.)
#[test]
fn xsa_405_no_page_is_freed_while_it_is_granted() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let shared = table.share_zeroed(4, DomId(3), ReadWrite).unwrap();
    let busy = table.share_zeroed(4, DomId(3), ReadWrite).unwrap();
    machine.map(busy.reference(3), 8);
    let kept = busy.reference(3);
    drop((shared, busy));
    assert_eq!(machine.pages_used(), 4, "the busy run is kept whole");
    machine.unmap(kept);
    drop(table.share_zeroed(1, DomId(3), ReadWrite).unwrap());
    assert_eq!(machine.pages_used(), 0);
}
