//! What two domains do to a ring and to a grant at the same time, in every order that the memory model allows.
//!
//! Run by `cargo fata test loom`. The code under test is the crate's own, compiled with loom's atomics; a page is modelled
//! word by word (hypercall/src/page_model.rs). Each model was seen to fail, on the changes that are named with it.
#![cfg(loom)]

mod common;

use std::rc::Rc;

use common::Machine;
use fata_grant::{BackRing, Busy, FrontRing, ReadWrite, Table};
use fata_hypercall::sync::Ordering::{AcqRel, Relaxed, Release};
use fata_hypercall::{DomId, GrantRef, SharedPage};
use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// Somebody who sleeps until notified. A notification that is never sent is a deadlock, which loom reports.
#[derive(Default)]
struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The producer looks at whether the consumer sleeps, after it has published; the consumer looks for more, after it has
/// said that it goes to sleep. One of them sees the other.
///
/// Fails without the fence in `publish`, without the fence in `enable_events`, with the look before the announcement, and
/// when the producer's index is stored or loaded with relaxed ordering: then slots are taken before they are filled.
#[test]
fn the_final_check_loses_no_notification() {
    loom::model(|| {
        const MESSAGES: u32 = 2;
        let page = Rc::new(SharedPage::new_zeroed());
        let mut front = FrontRing::<_, u64, u32>::new(Rc::clone(&page));
        let mut back = BackRing::<_, u64, u32>::attach(page).unwrap();
        let bell = Rc::new(Doorbell::default());
        let frontend = thread::spawn({
            let bell = Rc::clone(&bell);
            move || {
                for message in 1..=MESSAGES {
                    front.push(&u64::from(message)).unwrap();
                    if front.publish() {
                        bell.ring();
                    }
                }
            }
        });
        let mut taken = 0;
        loop {
            while let Some(message) = back.pop().unwrap() {
                taken += 1;
                assert_eq!(message, taken.into(), "a slot that is not filled yet");
            }
            if taken == MESSAGES {
                break;
            }
            if !back.enable_events(1).unwrap() {
                bell.sleep();
            }
        }
        frontend.join().unwrap();
    });
}

/// What Xen does when a peer maps a grant (`_set_status_v1` in xen/common/grant_table.c): sees that it is permitted and
/// marks it used, in one step.
fn map(machine: &Machine, reference: GrantRef) -> bool {
    let flags = &machine.entry(reference).flags;
    let mut now = flags.load(Relaxed);
    loop {
        if now & 1 == 0 {
            return false;
        }
        match flags.compare_exchange(now, now | 24, AcqRel, Relaxed) {
            Ok(_) => return true,
            Err(other) => now = other,
        }
    }
}

fn unmap(machine: &Machine, reference: GrantRef) {
    machine.entry(reference).flags.fetch_and(!24, Release);
}

/// A peer that maps a granted page, writes to it and lets it go. `contents` stands for the page's bytes: loom fails when
/// two use them at once, or one without seeing what the other did before.
fn peer(machine: &Machine, reference: GrantRef, contents: &Rc<UnsafeCell<u32>>) -> thread::JoinHandle<()> {
    let (machine, contents) = (machine.clone(), Rc::clone(contents));
    thread::spawn(move || {
        if map(&machine, reference) {
            // SAFETY: that nobody else uses it is what is being tested.
            contents.with_mut(|bytes| unsafe { *bytes += 1 });
            unmap(&machine, reference);
        }
    })
}

/// The receive path: a page is ours from `reclaim` to `regrant`, whatever the peer does meanwhile.
///
/// Fails when `end_access` looks and then stores, instead of comparing and swapping (XSA-396), when its swap is relaxed,
/// and when `regrant` stores with relaxed ordering.
#[test]
fn xsa_396_a_reclaimed_page_is_ours_until_it_is_granted_again() {
    loom::model(|| {
        let machine = Machine::new();
        let table = Table::new(machine.clone());
        let mut shared = table.share_zeroed(1, DomId(0), ReadWrite).unwrap();
        let contents = Rc::new(UnsafeCell::new(0));
        let peer = peer(&machine, shared.reference(0), &contents);
        if shared.reclaim(0).is_ok() {
            // SAFETY: as above.
            contents.with_mut(|bytes| unsafe { *bytes += 1 });
            shared.regrant(0);
        }
        peer.join().unwrap();
    });
}

/// A page is ours again when `revoke` says so, or when the quarantine lets it go.
///
/// Fails on the same changes to `end_access`, and when a busy page is given back nevertheless.
#[test]
fn a_page_leaves_the_quarantine_when_the_peer_has_let_it_go() {
    loom::model(|| {
        let machine = Machine::new();
        let table = Table::new(machine.clone());
        let shared = table.share_zeroed(1, DomId(0), ReadWrite).unwrap();
        let contents = Rc::new(UnsafeCell::new(0));
        let peer = peer(&machine, shared.reference(0), &contents);
        match shared.revoke() {
            // Freed in the end, when nobody is there any more who could be interleaved with that.
            Ok(pages) => std::mem::forget(pages),
            Err(Busy) => {
                while table.retry_quarantine() > 0 {
                    thread::yield_now();
                }
            }
        }
        // SAFETY: as above.
        contents.with_mut(|bytes| unsafe { *bytes += 1 });
        peer.join().unwrap();
    });
}
