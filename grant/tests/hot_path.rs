//! What happens for every packet allocates nothing.

mod common;
#[path = "../../events/tests/common/counting.rs"]
mod counting;

use common::Machine;
use counting::allocations;
use fata_grant::{FrontRing, ReadWrite, Table};
use fata_hypercall::DomId;

#[test]
fn reclaim_push_and_pop_allocate_nothing() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let mut pool = table.share_zeroed(8, DomId::DOM0, ReadWrite).unwrap();
    let page = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    let mut ring = FrontRing::<_, u64, u64>::new(page);
    let before = allocations();
    for i in 0..1000 {
        pool.reclaim(i % 8).unwrap()[0] = 1;
        pool.regrant(i % 8);
        let _ = ring.push(&1);
        let _ = ring.publish();
        let _ = ring.pop().unwrap();
    }
    assert_eq!(allocations() - before, 0);
}

/// However many there were: what comes back finds its place. And what has come back leaves no room behind that grows.
#[test]
fn giving_back_allocates_nothing_and_leaves_nothing() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let share = || table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    let runs: Vec<_> = (0..1200).map(|_| share()).collect();
    assert!(table.stats().frames > 2);
    let before = allocations();
    for run in runs {
        drop(run.revoke().unwrap());
    }
    assert_eq!(allocations() - before, 0);
    let mut cost = (0..5000).map(|_| {
        let before = allocations();
        drop(share().revoke().unwrap());
        allocations() - before
    });
    let first = cost.next();
    assert!(cost.all(|cost| Some(cost) == first));
}

#[test]
fn a_violation_allocates_nothing() {
    let machine = Machine::new();
    let table = Table::new(machine.clone());
    let runs: Vec<_> = (0..20)
        .map(|_| table.share_zeroed(4, DomId::DOM0, ReadWrite).unwrap())
        .collect();
    for run in &runs {
        machine.map(run.reference(2), 8);
    }
    let before = allocations();
    for run in runs {
        assert!(run.revoke().is_err());
    }
    assert_eq!(allocations() - before, 0, "room in quarantine is kept for every run");
    assert_eq!(table.stats().quarantined, 20);
}
