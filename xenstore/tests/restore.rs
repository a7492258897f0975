//! A domain that is suspended, and goes on with a server that has never heard of it.

mod common;

use std::rc::Rc;

use common::{Rig, Server, now};
use fata_xenstore::Error;

/// Has the domain go on in a new one.
fn restore(rig: &mut Rig) {
    rig.server = Server::new(Rc::clone(&rig.machine));
    rig.ports.resume();
    rig.store.resume(&rig.ports).expect("the ring and the port are there");
}

#[test]
fn it_falls_quiet_and_goes_on() {
    let mut rig = Rig::new();
    rig.settle();
    rig.server.automatic = false;
    let store = rig.client();
    let asked = rig.handle().spawn(async move { store.write("data/a", "1").await });
    rig.settle();
    assert_eq!(rig.server.inbox.len(), 1);

    let quiet = {
        let store = rig.store.clone();
        rig.handle().spawn(async move { store.quiet().await })
    };
    let store = rig.client();
    let later = rig.handle().spawn(async move { store.write("data/b", "2").await });
    rig.settle();
    assert!(!quiet.is_finished(), "one answer is missing");
    assert_eq!(rig.server.inbox.len(), 1, "nothing further is asked");

    rig.server.automatic = true;
    rig.settle();
    assert_eq!(now(asked), Some(Ok(Ok(()))));
    assert!(quiet.is_finished() && !later.is_finished());
    assert_eq!(rig.server.get("data/b"), None);
    drop(now(quiet));
    rig.settle();
    assert_eq!(now(later), Some(Ok(Ok(()))), "a cancelled suspend goes on where it was");
    assert_eq!(rig.server.get("data/b"), Some("2"));
}

/// What was asked a moment before is said before: the toolstack waits for its wish to be taken.
#[test]
fn what_was_asked_before_is_said_before() {
    let mut rig = Rig::new();
    rig.settle();
    let store = rig.store.clone();
    let quiet = rig.handle().spawn(async move {
        let said = store.write("control/shutdown", "");
        let quiet = store.quiet().await;
        (said.await, quiet)
    });
    rig.settle();
    assert!(quiet.is_finished());
    assert_eq!(rig.server.get("control/shutdown"), Some(""));
}

/// Half an event of the old server's is not read as the beginning of something by the new one.
#[test]
fn a_new_server_hears_of_the_watches_again() {
    let mut rig = Rig::new();
    let mut watch = rig.client().watch("control/shutdown").unwrap();
    rig.settle();
    assert!(watch.take_changed());
    let quiet = {
        let store = rig.store.clone();
        rig.handle().spawn(async move { store.quiet().await })
    };
    rig.settle();
    let quiet = now(quiet).unwrap().unwrap();
    let store = rig.client();
    let waits = rig.handle().spawn(async move { store.write("data/a", "1").await });
    rig.executor.turn();
    rig.server.send_bytes(b"half a message of a server that is no more");
    rig.server.turn();
    restore(&mut rig);
    drop(quiet);
    rig.settle();
    assert_eq!(rig.server.watches.len(), 1);
    assert!(watch.take_changed(), "it fires when it is set");
    assert_eq!(
        now(waits),
        Some(Ok(Err(Error::Restored))),
        "what was to be said is of another life"
    );
    let store = rig.client();
    assert_eq!(rig.run(async move { store.write("data/a", "1").await }), Ok(()));
    assert_eq!(rig.store.stats().ignored, 0);
    rig.server.set("control/shutdown", "poweroff");
    rig.settle();
    assert!(watch.take_changed());
}

/// Who begins a transaction before, and comes to its first request after, has the old life's values in his hands.
#[test]
fn a_transaction_does_not_reach_into_the_next_life() {
    let mut rig = Rig::new();
    rig.server.refuse_commits = 1;
    let store = rig.client();
    let task = rig.handle().spawn(async move {
        store
            .transaction(async |nodes| nodes.write("device/vif/0/tx-ring-ref", "9").await)
            .await
    });
    rig.settle(); // the first attempt was refused, and the second is a moment away
    assert!(!task.is_finished());
    let quiet = {
        let store = rig.store.clone();
        rig.handle().spawn(async move { store.quiet().await })
    };
    rig.settle();
    restore(&mut rig);
    drop(now(quiet));
    assert_eq!(rig.finish(task), Err(Error::Restored));
    assert_eq!(rig.server.get("device/vif/0/tx-ring-ref"), None);
}

/// Whoever waits for a node sees it in the new domain's directory.
#[test]
fn waiting_for_a_node_goes_on() {
    let mut rig = Rig::new();
    let store = rig.client();
    let task = rig
        .handle()
        .spawn(async move { store.wait_for("memory/target", |value| value.map(<[u8]>::to_vec)).await });
    rig.settle();
    restore(&mut rig);
    rig.settle();
    rig.server.set("memory/target", "8192");
    assert_eq!(rig.finish(task), Ok(b"8192".to_vec()));
}
