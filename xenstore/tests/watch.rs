//! Watches against a small server. Rule numbers are those of the project's hardening list.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::Rig;
use fata_hypercall::Errno;
use fata_xenstore::Error;
use fata_xenstore::wire::Reply;

#[test]
fn xsa_349_a_flood_of_events_is_one_rule_62() {
    let mut rig = Rig::new();
    let store = rig.client();
    let looks = Rc::new(RefCell::new(0));
    let counter = Rc::clone(&looks);
    let (gate, open) = (fata_events::Signal::new(), fata_events::Signal::new());
    let (entered, opened) = (gate.clone(), open.clone());
    let task = rig.handle().spawn(async move {
        let mut watch = store.watch("data").unwrap();
        loop {
            watch.changed().await.unwrap();
            *counter.borrow_mut() += 1;
            entered.raise();
            opened.after(0).await;
        }
    });
    rig.settle();
    assert_eq!(gate.count(), 1);
    let token = rig.server.watches[0].1.clone();
    for i in 0..10_000 {
        rig.server.fire(&format!("data/{i}"), &token);
        if i % 10 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    assert_eq!(rig.store.stats().events, 10_001);
    assert_eq!(*looks.borrow(), 1, "it is still busy with the first");
    open.raise();
    rig.settle();
    assert_eq!(*looks.borrow(), 2, "ten thousand events, one look");
    drop(task);
}

#[test]
fn watches_are_unwatched_exactly_once_rule_63() {
    let mut rig = Rig::new();
    for round in 1..=1000 {
        let store = rig.client();
        rig.run(async move {
            let mut watch = store.watch("data")?;
            watch.changed().await
        })
        .unwrap();
        rig.settle();
        assert_eq!(rig.server.watches.len(), 0);
        assert_eq!(rig.server.unwatched, round);
    }
    assert_eq!((rig.store.stats().watches, rig.store.stats().pending), (0, 0));
}

/// Drops a watch after every possible number of turns.
#[test]
fn a_watch_that_is_dropped_while_it_is_being_set_is_taken_back_rules_59_and_63() {
    for turns in 0..12 {
        let mut rig = Rig::new();
        let store = rig.client();
        let task = rig.handle().spawn(async move {
            let _watch = store.watch("data");
            core::future::pending::<()>().await;
        });
        for _ in 0..turns {
            rig.turn();
        }
        task.cancel();
        rig.settle();
        assert_eq!(rig.server.watches.len(), 0, "after {turns} turns");
        assert_eq!(rig.store.stats().watches, 0, "after {turns} turns");
        assert_eq!(rig.store.stats().pending, 0, "after {turns} turns");
        assert!(rig.server.unwatched <= 1);
    }
}

#[test]
fn a_refused_watch_is_an_error_and_leaves_nothing() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let store = rig.client();
    let task = rig.handle().spawn(async move { store.watch("data")?.changed().await });
    rig.settle();
    let letter = rig.server.inbox.pop_front().unwrap();
    rig.server.reply(&letter, &Reply::Error(Errno::ENOSPC));
    assert_eq!(rig.finish(task), Err(Error::Refused(Errno::ENOSPC)));
    rig.settle();
    assert_eq!(rig.store.stats().watches, 0);
    assert!(rig.server.inbox.is_empty(), "nothing is to be taken back");
}

#[test]
fn a_change_is_taken_once() {
    let mut rig = Rig::new();
    let mut watch = rig.client().watch("data").unwrap();
    assert!(!watch.take_changed());
    rig.settle();
    assert!(watch.take_changed(), "it was set");
    assert!(!watch.take_changed());
    rig.server.set("data/a", "1");
    rig.server.set("data/b", "2");
    rig.settle();
    assert!(watch.take_changed(), "two are one");
    assert!(!watch.take_changed());
}

#[test]
fn waiting_for_a_node_ends_with_any_other_refusal() {
    let mut rig = Rig::new();
    rig.server.refuse.insert("data/x".into(), Errno::EIO);
    let store = rig.client();
    let result = rig.run(async move { store.wait_for("data/x", |value| value.map(<[u8]>::to_vec)).await });
    assert_eq!(result, Err(Error::Refused(Errno::EIO)));
}

/// Nobody is there any more to hear that the watch was refused, and there is nothing to take back.
#[test]
fn a_watch_that_is_refused_after_it_was_dropped_leaves_nothing_rule_63() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let watch = rig.client().watch("data").unwrap();
    rig.settle();
    drop(watch);
    let letter = rig.server.inbox.pop_front().unwrap();
    rig.server.reply(&letter, &Reply::Error(Errno::ENOSPC));
    rig.settle();
    assert!(rig.server.inbox.is_empty());
    assert_eq!((rig.store.stats().watches, rig.store.stats().pending), (0, 0));
}

#[test]
fn missing_and_forbidden_nodes_are_waited_for_rule_68() {
    let mut rig = Rig::new();
    rig.server.refuse.insert("data/x".into(), Errno::EACCES);
    let store = rig.client();
    let task = rig.handle().spawn(async move {
        let good = |value: Option<&[u8]>| value.filter(|value| *value == b"go").map(<[u8]>::to_vec);
        store.wait_for("data/x", good).await
    });
    rig.settle();
    assert!(!task.is_finished());
    rig.server.refuse.clear();
    rig.server.set("data/x", "not yet");
    rig.settle();
    assert!(!task.is_finished());
    rig.server.set("data/x", "go");
    assert_eq!(rig.finish(task), Ok(b"go".to_vec()));
    rig.settle();
    assert_eq!(rig.server.watches.len(), 0);
}

#[test]
fn watches_of_a_kernel_before_us_are_reset() {
    let mut rig = Rig::new();
    rig.server.watches.push(("device".into(), b"old".to_vec()));
    rig.server.set("device/vif", "");
    rig.settle();
    assert_eq!(rig.store.stats().ignored, 1, "an event for somebody who is gone");
    let store = rig.client();
    let task = rig.handle().spawn(async move {
        let mut watch = store.watch("data")?;
        watch.changed().await?;
        store.reset_watches().await?;
        watch.changed().await // set again, it fires again
    });
    assert_eq!(rig.finish(task), Ok(()));
    assert!(rig.server.watches.iter().all(|(path, _)| path != "device"));
}
