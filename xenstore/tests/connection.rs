//! The ring and the connection over it, in good days and bad. Rule numbers are those of the project's hardening list.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Rig, now};
use fata_xenstore::Error;
use fata_xenstore::wire::{MessageType, Packet, Reply};

#[test]
fn offsets_are_taken_as_found_rule_66() {
    let mut rig = Rig::prepared(|page| {
        page.write(0, &[0xee; 2048]);
        for offset in [2048, 2052, 2056, 2060] {
            page.store_u32(offset, 0xffff_fff0, Ordering::SeqCst);
        }
    });
    let store = rig.client();
    rig.run(async move {
        for i in 0..200 {
            let value = vec![i as u8; i * 7];
            store.write("data/x", &value).await?;
            assert_eq!(store.read("data/x").await?, value);
        }
        Ok::<_, Error>(())
    })
    .expect("across the wrap of the indices");
    assert!(
        rig.machine.page.load_u32(2052, Ordering::SeqCst).unwrap() < 1 << 30,
        "they have wrapped"
    );
}

#[test]
fn what_belongs_to_nothing_is_counted_and_ignored_rule_61() {
    let mut rig = Rig::new();
    rig.settle();
    for kind in [2, 4, 15, 16, 20, 27, 0xffff, u32::MAX] {
        for payload in [&b""[..], b"x", b"x\0", b"x\0y\0", b"a\x001\0", &[0xff; 4096]] {
            rig.server.send(Packet {
                kind: MessageType(kind),
                req_id: 0xdead_0000 ^ kind,
                tx_id: 9,
                payload,
            });
            rig.settle();
        }
    }
    assert_eq!(rig.store.stats().ignored, 8 * 6);
    let store = rig.client();
    assert_eq!(rig.run(async move { store.write("data/a", "1").await }), Ok(()));
}

#[test]
fn a_length_beyond_the_limit_ends_the_connection_rule_61() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let store = rig.client();
    let waiter = rig.handle().spawn(async move { store.read("a").await });
    rig.settle();
    rig.server
        .send_bytes(&[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0]); // 4097
    assert_eq!(rig.finish(waiter), Err(Error::TooLong));
    let runner = rig.runner.take().unwrap();
    assert_eq!(rig.finish(runner), Error::TooLong);
    let store = rig.client();
    assert_eq!(
        now(store.read("a")),
        Some(Err(Error::TooLong)),
        "later requests hear of it at once"
    );
}

#[test]
fn impossible_indices_end_the_connection_rule_61() {
    let mut rig = Rig::new();
    let (store, watcher) = (rig.client(), rig.client());
    let waiter = rig.handle().spawn(async move {
        let mut watch = watcher.watch("a")?;
        watch.changed().await?;
        watch.changed().await
    });
    rig.settle();
    rig.server.automatic = false;
    let reader = rig.handle().spawn(async move { store.read("a").await });
    rig.settle();
    let consumed = rig.machine.page.load_u32(2056, Ordering::SeqCst).unwrap();
    rig.machine
        .page
        .store_u32(2060, consumed.wrapping_add(1025), Ordering::SeqCst);
    rig.machine.signal();
    assert_eq!(rig.finish(waiter), Err(Error::BadRing));
    assert_eq!(rig.finish(reader), Err(Error::BadRing));
}

#[test]
fn a_server_that_stopped_says_so_to_everybody() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = rig.client();
            rig.handle().spawn(async move { store.read("a").await })
        })
        .collect();
    rig.settle();
    rig.machine.page.store_u32(2072, 3, Ordering::SeqCst);
    rig.machine.signal();
    rig.settle();
    assert!(
        !tasks[0].is_finished(),
        "without the feature bit the field means nothing"
    );
    rig.machine.page.store_u32(2064, 2, Ordering::SeqCst);
    rig.machine.signal();
    for task in tasks {
        assert_eq!(rig.finish(task), Err(Error::ServerStopped(3)));
    }
}

#[test]
fn nobody_waits_for_a_connection_that_nobody_serves() {
    let mut rig = Rig::new();
    let store = rig.client();
    rig.server.automatic = false;
    let waiter = rig.handle().spawn(async move { store.read("a").await });
    rig.settle();
    drop(rig.runner.take());
    assert_eq!(rig.finish(waiter), Err(Error::Stopped));
}

#[test]
fn a_reconnect_under_way_at_the_start_is_waited_for() {
    let mut rig = Rig::prepared(|page| {
        page.store_u32(2068, 1, Ordering::SeqCst);
        page.store_u32(2052, 77, Ordering::SeqCst); // nonsense, until it is over
    });
    let store = rig.client();
    let writer = rig.handle().spawn(async move { store.write("data/a", "1").await });
    for _ in 0..10 {
        rig.machine.signal(); // spuriously
        rig.ports.dispatch();
        rig.executor.turn();
    }
    assert!(!writer.is_finished());
    assert_eq!(rig.machine.kicks.get(), 0);
    let machine = Rc::clone(&rig.machine);
    machine.page.store_u32(2052, 0, Ordering::SeqCst);
    rig.server = common::Server::new(Rc::clone(&machine));
    machine.page.store_u32(2068, 0, Ordering::SeqCst);
    machine.signal();
    assert_eq!(rig.finish(writer), Ok(()));
}

#[test]
fn a_lost_connection_is_made_anew_and_watches_are_set_again() {
    let mut rig = Rig::new();
    rig.machine.page.store_u32(2064, 1 | 2, Ordering::SeqCst);
    let store = rig.client();
    let changes = Rc::new(RefCell::new(0));
    let counter = Rc::clone(&changes);
    let watcher = rig.handle().spawn(async move {
        let mut watch = store.watch("data")?;
        loop {
            watch.changed().await?;
            *counter.borrow_mut() += 1;
        }
        #[expect(unreachable_code, reason = "it gives the block its type")]
        Ok::<(), Error>(())
    });
    rig.settle();
    assert_eq!(*changes.borrow(), 1);

    rig.server.automatic = false;
    let store = rig.client();
    let waiter = rig.handle().spawn(async move { store.read("a").await });
    rig.settle();
    let machine = Rc::clone(&rig.machine);
    machine.page.store_u32(2072, 1, Ordering::SeqCst);
    machine.signal();
    assert_eq!(rig.finish(waiter), Err(Error::Disconnected));
    assert_eq!(
        machine.page.load_u32(2068, Ordering::SeqCst),
        Some(1),
        "the guest asked for a reconnect"
    );

    for offset in [2048, 2052, 2056, 2060, 2072] {
        machine.page.store_u32(offset, 0, Ordering::SeqCst);
    }
    rig.server = common::Server::new(Rc::clone(&machine));
    machine.page.store_u32(2068, 0, Ordering::SeqCst);
    machine.signal();
    rig.settle();
    assert_eq!(rig.server.watches.len(), 1);
    assert_eq!(*changes.borrow(), 2, "set again, it fires again");
    rig.server.set("data/x", "1");
    rig.settle();
    assert_eq!(*changes.borrow(), 3);
    drop(watcher);
    rig.settle();
    assert_eq!(rig.server.watches.len(), 0);
    assert_eq!(rig.store.stats().reconnects, 1);

    // Broken again before a single message: that is for good.
    let machine = Rc::clone(&rig.machine);
    let consumed = machine.page.load_u32(2056, Ordering::SeqCst).unwrap();
    machine
        .page
        .store_u32(2060, consumed.wrapping_add(5000), Ordering::SeqCst);
    machine.signal();
    rig.settle();
    machine.page.store_u32(2068, 0, Ordering::SeqCst);
    machine.signal();
    let runner = rig.runner.take().unwrap();
    assert_eq!(rig.finish(runner), Error::BadRing);
}

/// One turn of the loop takes a bounded bite, however fast the server refills the ring.
#[test]
fn a_flood_does_not_keep_others_from_their_turn_rule_54() {
    let mut rig = Rig::new();
    rig.settle();
    for _ in 0..200 {
        rig.server.send(Packet {
            kind: MessageType(99),
            req_id: 5,
            tx_id: 0,
            payload: b"",
        });
    }
    rig.server.turn(); // 64 messages fit into the ring
    rig.ports.dispatch();
    rig.executor.turn();
    assert_eq!(rig.store.stats().ignored, 32);
    rig.executor.turn();
    assert_eq!(rig.store.stats().ignored, 64);
    rig.settle();
    assert_eq!(rig.store.stats().ignored, 200);
}

#[test]
fn an_idle_client_neither_signals_nor_runs() {
    let mut rig = Rig::new();
    let store = rig.client();
    rig.run(async move { store.write("data/a", "1").await }).unwrap();
    rig.settle();
    let (kicks, polls) = (rig.machine.kicks.get(), rig.executor.stats().polls);
    for _ in 0..100 {
        rig.turn();
    }
    assert_eq!((rig.machine.kicks.get(), rig.executor.stats().polls), (kicks, polls));
}

/// Rule 55, XSA-391: a daemon that signals all the time and says nothing costs a look now and then, and is heard when it
/// does say something; from then on at once.
#[test]
fn xsa_391_a_store_daemon_that_signals_and_says_nothing() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    for round in 0..3 {
        let store = rig.client();
        let reader = rig.handle().spawn(async move { store.read("data/a").await });
        rig.settle();
        let looks = rig.executor.stats().polls;
        for _ in 0..1000 {
            rig.machine.signal();
            rig.ports.dispatch();
            rig.executor.turn();
        }
        let looks = rig.executor.stats().polls - looks;
        assert!((10..100).contains(&looks), "{looks} looks in round {round}");
        let letter = rig.server.inbox.pop_front().unwrap();
        rig.server.reply(&letter, &Reply::Value(b"1"));
        rig.settle();
        assert!(!reader.is_finished(), "it is not listened to at the moment");
        rig.machine.pass(Duration::from_millis(10));
        assert_eq!(rig.finish(reader), Ok(b"1".to_vec()));
    }
}
