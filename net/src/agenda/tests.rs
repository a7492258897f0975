use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(ticks: u64) -> Instant {
    Instant::from_nanos(ticks * TICK)
}

#[derive(Clone, Debug)]
enum Op {
    Set(Id, Option<u64>),
    SetBefore(Id, u64),
    Touch(Id),
    Pass(u64),
}

const SOCKETS: Id = 8;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..SOCKETS, prop::option::of(0..100_u64)).prop_map(|(id, due)| Op::Set(id, due)),
        2 => (0..SOCKETS, 0..100_u64).prop_map(|(id, due)| Op::SetBefore(id, due)),
        1 => (0..SOCKETS).prop_map(Op::Touch),
        2 => (0..20_u64).prop_map(Op::Pass),
    ]
}

proptest! {
    /// Against a map: every timer fires when it is due, once, and no other; nobody is ready twice; and what is held for
    /// timers that moved is bounded.
    #[test]
    fn fires_like_a_map(ops in prop::collection::vec(op(), 0..400)) {
        let mut agenda = Agenda::default();
        agenda.reserve(SOCKETS as usize).unwrap();
        let mut due: BTreeMap<Id, u64> = BTreeMap::new();
        let mut ready: Vec<Id> = Vec::new();
        let mut now = 0;
        for op in ops {
            match op {
                Op::Set(id, None) => {
                    agenda.set_timer(id, None);
                    due.remove(&id);
                }
                Op::Set(id, Some(after)) => {
                    agenda.set_timer(id, Some(at(now + after)));
                    due.insert(id, now + after);
                }
                Op::SetBefore(id, after) => {
                    agenda.set_timer_before(id, at(now + after));
                    let due = due.entry(id).or_insert(u64::MAX);
                    *due = (now + after).min(*due);
                }
                Op::Touch(id) => {
                    agenda.touch(id);
                    if !ready.contains(&id) {
                        ready.push(id);
                    }
                }
                Op::Pass(time) => {
                    now += time;
                    let mut fired: Vec<Id> = core::iter::from_fn(|| agenda.next_due(at(now))).collect();
                    fired.sort_unstable();
                    let expected: Vec<Id> = due.iter().filter(|(_, due)| **due <= now).map(|(id, _)| *id).collect();
                    due.retain(|_, due| *due > now);
                    prop_assert_eq!(fired, expected);
                    if let Some(next) = due.values().min() {
                        prop_assert!(agenda.next_timer().is_some_and(|timer| timer <= at(*next)));
                    }
                    prop_assert_eq!(agenda.ready(), ready.len());
                    let turn: Vec<Id> = core::iter::from_fn(|| agenda.next_ready()).collect();
                    prop_assert_eq!(&turn, &ready);
                    ready.clear();
                }
            }
            prop_assert!(agenda.timers.len() <= 2 * SOCKETS as usize);
        }
    }
}

#[test]
fn a_timer_that_moves_away_with_every_packet_stays_where_it_is() {
    let mut agenda = Agenda::default();
    agenda.reserve(1).unwrap();
    for packet in 0..1000 {
        agenda.set_timer(0, Some(at(1_000 + packet)));
    }
    assert_eq!(agenda.timers.len(), 1);
    assert_eq!(agenda.next_due(at(1_998)), None);
    assert_eq!(agenda.next_due(at(1_999)), Some(0));
}

#[test]
fn a_timer_is_never_early() {
    let mut agenda = Agenda::default();
    agenda.reserve(1).unwrap();
    agenda.set_timer(0, Some(at(5) + core::time::Duration::from_nanos(1)));
    assert_eq!((agenda.next_timer(), agenda.next_due(at(5))), (Some(at(6)), None));
    assert_eq!(agenda.next_due(at(6)), Some(0));
}
