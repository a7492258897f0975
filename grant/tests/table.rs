//! Grants: what is given out, taken back, held back.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

use common::Machine;
use fata_grant::{Busy, Error, Pages, ReadOnly, ReadWrite, Shared, Stats, Table};
use fata_hypercall::{DomId, Gfn, GrantRef, PAGE_SIZE};
use proptest::prelude::*;

const BACKEND: DomId = DomId(3);

fn machine() -> (Machine, Table<Machine>) {
    let machine = Machine::new();
    (machine.clone(), Table::new(machine))
}

#[test]
fn an_entry_says_who_what_and_how() {
    let (machine, table) = machine();
    let pages = Pages::alloc(&machine, 2).unwrap();
    let shared = table.share(pages, BACKEND, ReadOnly).unwrap();
    let [a, b] = shared.references() else {
        panic!("two references")
    };
    assert_eq!(b.0, a.0 + 1, "consecutive: eight entries share a cache line");
    for (&reference, gfn) in shared.references().iter().zip(0x1000..) {
        assert_eq!(machine.flags(reference), 5, "permit_access | readonly");
        assert_eq!(machine.entry(reference).domid.load(SeqCst), 3);
        assert_eq!(machine.entry(reference).frame.load(SeqCst), gfn);
    }
    let writable = table.share_zeroed(1, BACKEND, ReadWrite).unwrap();
    assert_eq!(machine.flags(writable.reference(0)), 1, "permit_access");
}

#[test]
fn rule_30_references_of_the_toolstack_are_never_given_out() {
    let (machine, table) = machine();
    // Left by a kernel that ran before us.
    machine.entry(GrantRef(20)).flags.store(1, SeqCst);
    let shared = table.share_zeroed(503, BACKEND, ReadOnly).unwrap();
    assert!(shared.references().iter().all(|r| r.0 >= 8 && r.0 != 20 && r.0 < 512));
    assert_eq!(machine.frames_made(), 1);
    drop(shared);
    assert_eq!(machine.flags(GrantRef(20)), 1, "nor touched");
}

#[test]
fn rule_26_the_table_grows_to_its_limit_and_gives_the_pages_back_when_full() {
    let (machine, table) = machine();
    assert_eq!(machine.frames_made(), 0, "nothing is made before it is needed");
    let all = 4 * 512 - 8;
    let shared = table.share_zeroed(all, BACKEND, ReadWrite).unwrap();
    assert_eq!(
        table.stats(),
        Stats {
            frames: 4,
            max_frames: 4,
            in_use: all,
            free: 0,
            quarantined: 0,
            quarantined_pages: 0,
        }
    );
    assert_eq!(
        shared.references().iter().collect::<BTreeSet<_>>().len(),
        all,
        "all different"
    );

    let mut pages = Pages::alloc(&machine, 3).unwrap();
    pages.as_mut_slice()[5] = 9;
    let failed = table.share(pages, BACKEND, ReadOnly).unwrap_err();
    assert_eq!(failed.error, Error::Exhausted { wanted: 3, free: 0 });
    assert_eq!(failed.pages.as_slice()[5], 9);
    assert_eq!(table.reserve(1), Err(Error::Exhausted { wanted: 1, free: 0 }));

    drop(shared);
    assert!(table.share(failed.pages, BACKEND, ReadOnly).is_ok());
    assert_eq!(
        table.stats(),
        Stats {
            frames: 4,
            max_frames: 4,
            in_use: 0,
            free: all,
            quarantined: 0,
            quarantined_pages: 0,
        }
    );
    assert_eq!(machine.pages_used(), 0);
}

#[test]
fn a_limit_below_xens_holds() {
    let table = Table::with_limit(Machine::new(), 1);
    assert_eq!(table.reserve(505), Err(Error::Exhausted { wanted: 505, free: 504 }));
    assert_eq!(table.reserve(504), Ok(()));
}

#[test]
fn a_page_above_16_tib_is_refused() {
    let (machine, table) = machine();
    machine.set_next_gfn(1 << 32);
    let error = table.share_zeroed(1, BACKEND, ReadOnly).unwrap_err();
    assert_eq!(error, Error::TooHigh(Gfn(1 << 32)));
    assert_eq!(machine.pages_used(), 0);
}

#[test]
fn revoked_pages_come_back_as_they_were_left() {
    let (machine, table) = machine();
    let shared = table.share_zeroed(1, BACKEND, ReadWrite).unwrap();
    let reference = shared.reference(0);
    shared.page(0).write(100, b"peer");
    let pages = shared.revoke().unwrap();
    assert_eq!(machine.flags(reference), 0);
    assert_eq!(&pages.as_slice()[100..104], b"peer");
}

#[test]
fn xsa_403_pages_are_zeroed_when_the_peer_changes() {
    let (machine, table) = machine();
    let mut shared = table
        .share(Pages::alloc(&machine, 1).unwrap(), BACKEND, ReadOnly)
        .unwrap();
    assert!(shared.bytes().iter().all(|&b| b == 0), "and before the first grant");
    shared.bytes_mut()[PAGE_SIZE - 1] = 1;
    let shared = table.share(shared.revoke().unwrap(), BACKEND, ReadOnly).unwrap();
    assert_eq!(shared.bytes()[PAGE_SIZE - 1], 1, "the same peer has seen it already");
    let shared = table.share(shared.revoke().unwrap(), DomId(4), ReadOnly).unwrap();
    assert_eq!(shared.bytes()[PAGE_SIZE - 1], 0);
}

#[test]
fn msa_02_a_busy_page_is_neither_freed_nor_reused() {
    let (machine, table) = machine();
    let shared = table.share_zeroed(3, BACKEND, ReadWrite).unwrap();
    let [first, second, third] = shared.references()[..] else {
        panic!()
    };
    machine.map(second, 8 | 16);
    assert_eq!(shared.revoke().unwrap_err(), Busy);
    assert_eq!(
        (machine.flags(first), machine.flags(third)),
        (0, 0),
        "the peer keeps no more than it holds"
    );
    assert_eq!(machine.pages_used(), 3);
    assert_eq!(table.stats().quarantined, 1);

    assert_eq!(table.retry_quarantine(), 1, "still mapped");
    let rest = table.share_zeroed(table.stats().free, BACKEND, ReadWrite).unwrap();
    assert!(!rest.references().contains(&second));

    machine.unmap(second);
    assert_eq!(table.retry_quarantine(), 0);
    drop(rest);
    assert_eq!(machine.pages_used(), 0);
    assert_eq!(
        table.stats(),
        Stats {
            frames: 1,
            max_frames: 4,
            in_use: 0,
            free: 504,
            quarantined: 0,
            quarantined_pages: 0,
        }
    );
}

#[test]
fn a_shared_run_dropped_while_busy_goes_to_quarantine_too() {
    let (machine, table) = machine();
    let shared = table.share_zeroed(1, BACKEND, ReadOnly).unwrap();
    let reference = shared.reference(0);
    machine.map(reference, 8);
    drop(shared);
    assert_eq!((machine.pages_used(), table.stats().quarantined), (1, 1));
    // Even the end of the table does not free what the peer can read.
    drop(table);
    assert_eq!(machine.pages_used(), 1);
}

#[test]
fn reclaim_ends_access_and_grants_the_same_reference_again() {
    let (machine, table) = machine();
    let mut shared = table.share_zeroed(2, BACKEND, ReadWrite).unwrap();
    let reference = shared.reference(1);
    shared.page(1).write(0, b"frame");
    let page = shared.reclaim(1).unwrap();
    assert_eq!(machine.flags(reference), 0);
    assert_eq!(&page[..5], b"frame");
    page[0] = b'F';
    assert_eq!(
        &shared.reclaim(1).unwrap()[..5],
        b"Frame",
        "it is ours until it is granted again"
    );
    shared.regrant(1);
    assert_eq!(machine.flags(reference), 1);
    assert_eq!(shared.page(1).get(0), Some(*b"Frame"));
    assert_eq!(machine.entry(reference).domid.load(SeqCst), 3);
}

#[test]
fn xsa_396_a_page_in_use_is_not_reclaimed() {
    let (machine, table) = machine();
    let mut shared = table.share_zeroed(1, BACKEND, ReadWrite).unwrap();
    let reference = shared.reference(0);
    machine.map(reference, 8);
    assert!(shared.reclaim(0).is_err());
    assert_eq!(machine.flags(reference), 1 | 8, "what Xen wrote is untouched");
    shared.regrant(0);
    assert_eq!(machine.flags(reference), 1 | 8, "there was nothing to grant again");
    machine.unmap(reference);
    assert!(shared.reclaim(0).is_ok());
    assert_eq!(machine.flags(reference), 0);
    assert!(shared.revoke().is_ok(), "and can be revoked as it is");
}

/// A peer maps and unmaps as fast as it can while we revoke: whoever wins, a page that was revoked is not in use, and
/// a page in use is not freed.
#[test]
fn xsa_396_revoke_race() {
    let (machine, table) = machine();
    let mut busy = 0;
    for _ in 0..200 {
        let shared: Shared<_, ReadWrite> = table.share_zeroed(1, BACKEND, ReadWrite).unwrap();
        let reference = shared.reference(0);
        let flags = &machine.entry(reference).flags;
        std::thread::scope(|scope| {
            // Xen, on behalf of the peer.
            let peer = scope.spawn(move || {
                for _ in 0..50 {
                    let seen = flags.load(SeqCst);
                    if seen & 1 == 0 {
                        return;
                    }
                    if flags.compare_exchange(seen, seen | 8 | 16, SeqCst, SeqCst).is_ok() {
                        std::hint::spin_loop();
                        let before = flags.fetch_and(!24, SeqCst);
                        assert_eq!(before & 25, 25, "revoked while mapped");
                    }
                }
            });
            if shared.revoke().is_err() {
                busy += 1;
            }
            peer.join().unwrap();
        });
        table.retry_quarantine();
        assert_eq!(machine.flags(reference), 0);
    }
    assert_eq!(
        (machine.pages_used(), table.stats().quarantined, table.stats().in_use),
        (0, 0, 0),
        "{busy} were busy"
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Share(usize),
    Map(usize),
    Unmap(usize),
    Revoke(usize),
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..40_usize).prop_map(Step::Share),
        any::<usize>().prop_map(Step::Map),
        any::<usize>().prop_map(Step::Unmap),
        any::<usize>().prop_map(Step::Revoke),
        Just(Step::Retry),
    ]
}

proptest! {
    /// No page is both free and granted (the machine checks on every free); every reference is in exactly one place.
    #[test]
    fn rule_21_references_are_conserved(steps in prop::collection::vec(step(), 1..120)) {
        let (machine, table) = machine();
        let mut shares = Vec::new();
        let mut mapped = Vec::new();
        for step in steps {
            match step {
                Step::Share(pages) => shares.extend(table.share_zeroed(pages, BACKEND, ReadWrite)),
                Step::Map(n) if !shares.is_empty() => {
                    let shared: &Shared<_, _> = &shares[n % shares.len()];
                    let reference = shared.reference(n % shared.len());
                    machine.map(reference, 8);
                    mapped.push(reference);
                }
                Step::Unmap(n) if !mapped.is_empty() => {
                    let reference = mapped.swap_remove(n % mapped.len());
                    if !mapped.contains(&reference) {
                        machine.unmap(reference);
                    }
                }
                Step::Revoke(n) if !shares.is_empty() => {
                    let shared = shares.swap_remove(n % shares.len());
                    let busy = shared.references().iter().any(|r| mapped.contains(r));
                    prop_assert_eq!(shared.revoke().is_err(), busy);
                }
                Step::Retry => { table.retry_quarantine(); }
                _ => {}
            }
            let stats = table.stats();
            prop_assert_eq!(stats.in_use, shares.iter().map(Shared::len).sum::<usize>());
            if stats.frames > 0 {
                prop_assert_eq!(stats.in_use + stats.free + stats.quarantined, stats.frames as usize * 512 - 8);
            }
            for reference in &mapped {
                prop_assert!(machine.flags(*reference) & 9 == 9, "never taken away from a peer that holds it");
            }
        }
        for reference in mapped.drain(..) {
            machine.unmap(reference);
        }
        shares.clear();
        prop_assert_eq!(table.retry_quarantine(), 0);
        prop_assert_eq!(machine.pages_used(), 0);
    }
}

#[test]
#[should_panic(expected = "has an owner")]
fn rule_75_a_domain_has_one_table() {
    let machine = Machine::new();
    let _first = Table::new(machine.clone());
    let _second = Table::new(machine);
}

#[test]
fn a_table_that_is_gone_makes_room_for_another() {
    let machine = Machine::new();
    drop(Table::new(machine.clone()));
    assert_eq!(Table::new(machine).stats().in_use, 0);
}

#[test]
fn sharing_empties_the_quarantine() {
    let (machine, table) = machine();
    let shared = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    let reference = shared.reference(0);
    machine.map(reference, 8);
    assert!(shared.revoke().is_err());
    assert_eq!((table.stats().quarantined, table.stats().quarantined_pages), (1, 1));
    machine.unmap(reference);
    let _next = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    assert_eq!((table.stats().quarantined, table.stats().quarantined_pages), (0, 0));
}

/// What one peer keeps is not held against another.
#[test]
fn a_peer_that_keeps_pages_gets_no_more() {
    let (machine, table) = machine();
    let (bad, good) = (DomId(3), DomId::DOM0);
    for pages in [200, 56, 1] {
        assert_eq!(table.check_quarantine(bad), Ok(()));
        let shared = table.share_zeroed(pages, bad, ReadWrite).unwrap();
        machine.map(shared.reference(0), 8);
        assert!(shared.revoke().is_err());
    }
    assert_eq!(
        table.check_quarantine(bad),
        Err(Error::Quarantine { peer: bad, pages: 257 })
    );
    assert_eq!(table.check_quarantine(good), Ok(()));
}

#[test]
fn one_at_a_time_tends_the_quarantine() {
    let (machine, table) = machine();
    assert!(table.tend_quarantine().is_none(), "there is nothing to do");
    let shared = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    let reference = shared.reference(0);
    machine.map(reference, 8);
    assert!(shared.revoke().is_err());
    let tender = table.tend_quarantine().unwrap();
    assert!(table.tend_quarantine().is_none());
    drop(tender);
    let tender = table.tend_quarantine().unwrap();
    assert_eq!(tender.retry(), 1);
    machine.unmap(reference);
    assert_eq!(tender.retry(), 0);
    drop(tender);
    assert!(table.tend_quarantine().is_none());
}

/// After a restore Xen's table is empty: what was shared before can be dropped as ever, and is granted to nobody again.
#[test]
fn a_grant_of_a_former_life_reaches_nobody() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let mut receive = table.share_zeroed(2, DomId::DOM0, ReadWrite).unwrap();
    let busy = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    machine.map(busy.reference(0), 8);
    assert!(busy.revoke().is_err());
    receive.reclaim(0).unwrap()[0] = 7;
    let stats = table.stats();
    assert_eq!((stats.in_use, stats.quarantined), (2, 1));

    for reference in 8..512 {
        for field in [
            &machine.entry(GrantRef(reference)).flags,
            &machine.entry(GrantRef(reference)).domid,
        ] {
            field.store(0, SeqCst);
        }
        machine.entry(GrantRef(reference)).frame.store(0, SeqCst);
    }
    table.resume();
    let stats = table.stats();
    assert_eq!(
        (stats.in_use, stats.quarantined),
        (2, 0),
        "nobody maps anything any more"
    );
    receive.regrant(0);
    receive.regrant(1);
    for &reference in receive.references() {
        assert_eq!(machine.flags(reference), 0, "granted, and to whom?");
    }
    assert_eq!(receive.reclaim(0).unwrap()[0], 7);
    let other = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    assert!(!receive.references().contains(&other.reference(0)));
    drop(receive);
    assert_eq!(machine.flags(other.reference(0)), 1);
    drop(other);
    assert_eq!((table.stats().in_use, machine.pages_used()), (0, 0));
}
