//! The client against a small server. Rule numbers are those of the project's hardening list.

mod common;

use core::time::Duration;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use common::{Rig, now};
use fata_hypercall::{DomId, Errno};
use fata_xenstore::wire::{Access, MessageType, Packet, Permission, Reply, Request};
use fata_xenstore::{Error, decimal};

const MISSING: Error = Error::Refused(Errno::ENOENT);

#[test]
fn every_request_finds_its_answer() {
    let mut rig = Rig::new();
    let store = rig.client();
    rig.run(async move {
        store.write("data/a", "12").await?;
        store.write("data/b", b"\xff\0\xfe").await?;
        assert_eq!(store.read("data/b").await?, b"\xff\0\xfe", "values are bytes");
        assert_eq!(store.read_string("data/b").await, Err(Error::BadValue));
        assert_eq!(store.read_string("data/a").await?, "12");
        assert_eq!(store.read_number::<u16>("data/a", 0..=20).await?, 12);
        assert_eq!(
            store.read_number::<u16>("data/a", 0..=11).await,
            Err(Error::BadValue),
            "rule 69"
        );
        assert!(store.read_flag("data/a").await?);
        assert!(!store.read_flag("data/none").await?);
        assert_eq!(store.read_flag("data/b").await, Err(Error::BadValue));
        assert_eq!(store.read_optional("data/none").await?, None);
        assert_eq!(store.read("data/none").await, Err(MISSING), "rule 70");
        assert_eq!(store.list("data").await?, ["a", "b"]);
        store.mkdir("data/c").await?;
        store.remove("data/a").await?;
        assert_eq!(store.list("data").await?, ["b", "c"]);
        let permissions = [Permission {
            access: Access::None,
            domain: DomId(5),
        }];
        assert_eq!(store.permissions("data").await?, permissions);
        store.set_permissions("data", &permissions).await?;
        assert_eq!(store.domain_path(DomId(5)).await?, "/local/domain/5");
        assert!(store.is_domain_introduced(DomId(5)).await?);
        Ok::<_, Error>(())
    })
    .expect("all of it works");
    assert_eq!(rig.store.stats().pending, 0);
    assert_eq!(rig.store.stats().ignored, 0);
}

#[test]
fn bad_requests_are_refused_before_they_are_sent_rule_61() {
    let mut rig = Rig::new();
    let store = rig.client();
    rig.run(async move {
        assert_eq!(store.read("a//b").await, Err(Error::BadPath));
        assert_eq!(store.write("data/big", &[0; 4096]).await, Err(Error::TooLong));
        let path_and_nul = "data/big".len() + 1;
        assert_eq!(
            store.write("data/big", &vec![1; 4096 - path_and_nul]).await,
            Ok(()),
            "the last that fits"
        );
        let many = vec![
            Permission {
                access: Access::Both,
                domain: DomId(65535)
            };
            700
        ];
        assert_eq!(store.set_permissions("data", &many).await, Err(Error::TooLong));
        assert_eq!(store.stats().requests, 1);
    });
}

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
fn answers_may_come_in_any_order_and_sixteen_are_under_way() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let results = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let (store, results) = (rig.client(), Rc::clone(&results));
            rig.handle().spawn(async move {
                let value = store.read(&["n", &decimal::string(i)].concat()).await.expect("a value");
                results.borrow_mut().push((i, value));
            })
        })
        .collect();
    let mut seen = Vec::new();
    while results.borrow().len() < 40 {
        rig.settle();
        assert!(rig.server.inbox.len() <= 16);
        // The newest first.
        let letter = rig.server.inbox.pop_back().expect("there are more");
        let Request::Read(path) = letter.request() else {
            panic!("not a read")
        };
        seen.push(path.as_str()[1..].parse::<u64>().unwrap());
        rig.server.reply(&letter, &Reply::Value(path.as_str().as_bytes()));
        rig.settle();
    }
    for (i, value) in results.borrow().iter() {
        assert_eq!(value, format!("n{i}").as_bytes());
    }
    assert_eq!(rig.server.most_waiting, 16);
    assert!(
        seen[..3] == [15, 16, 17],
        "the waiting ones are sent in their order: {seen:?}"
    );
    drop(tasks);
    assert_eq!(rig.store.stats().pending, 0);
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
fn an_answer_of_another_type_is_an_error_of_its_request_only() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let (first, second) = (rig.client(), rig.client());
    let first = rig.handle().spawn(async move { first.mkdir("a").await });
    let second = rig.handle().spawn(async move { second.list("b").await });
    rig.settle();
    let letters: Vec<_> = rig.server.inbox.drain(..).collect();
    rig.server.send(Packet {
        kind: MessageType::READ,
        req_id: letters[0].req_id,
        tx_id: 0,
        payload: b"OK\0",
    });
    rig.server.send(Packet {
        kind: MessageType::ERROR,
        req_id: letters[1].req_id,
        tx_id: 0,
        payload: b"EWEIRD\0",
    });
    assert_eq!(rig.finish(first), Err(Error::BadMessage));
    assert_eq!(
        rig.finish(second),
        Err(Error::Refused(Errno::EIO)),
        "an unknown name counts as EIO"
    );
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
        let mut watch = watcher.watch("a").await?;
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
        let mut watch = store.watch("data").await?;
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

#[test]
fn a_cancelled_request_keeps_its_place_until_its_answer_comes_rule_59() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let store = rig.client();
    let task = rig.handle().spawn(async move { store.read("a").await });
    rig.settle();
    task.cancel();
    rig.settle();
    assert_eq!(rig.store.stats().pending, 1, "an orphan");
    let letter = rig.server.inbox.pop_front().unwrap();
    rig.server.reply(&letter, &Reply::Value(b"late"));
    rig.settle();
    assert_eq!(rig.store.stats().pending, 0);
    assert_eq!(rig.store.stats().ignored, 0);

    // One that was not sent yet leaves nothing at all.
    let tasks: Vec<_> = (0..17)
        .map(|_| {
            let store = rig.client();
            rig.handle().spawn(async move { store.read("a").await })
        })
        .collect();
    rig.settle();
    assert_eq!(rig.store.stats().pending, 17);
    drop(tasks);
    assert_eq!(rig.store.stats().pending, 16);
}

#[test]
fn a_transaction_is_one_change() {
    let mut rig = Rig::new();
    let store = rig.client();
    let result = rig.run(async move {
        store
            .transaction(async |nodes| {
                nodes.write("data/a", "1").await?;
                nodes.write("data/b", "2").await?;
                assert_eq!(store.read_optional("data/a").await?, None, "nobody else sees it yet");
                nodes.read_string("data/b").await
            })
            .await
    });
    assert_eq!(result.as_deref(), Ok("2"));
    assert_eq!(rig.server.get("data/a"), Some("1"));
    assert_eq!(rig.server.open_transactions(), 0);
}

#[test]
fn eagain_is_retried_with_a_pause_and_boundedly_rule_64() {
    let mut rig = Rig::new();
    rig.server.refuse_commits = 3;
    let store = rig.client();
    let start = rig.handle().now();
    rig.run(async move { store.transaction(async |nodes| nodes.write("data/a", "1").await).await })
        .unwrap();
    assert_eq!(rig.server.get("data/a"), Some("1"));
    assert_eq!(rig.store.stats().retries, 3);
    assert_eq!(rig.handle().now() - start, Duration::from_millis(1 + 2 + 4));

    rig.server.refuse_commits = 1000;
    let store = rig.client();
    let result = rig.run(async move { store.transaction(async |nodes| nodes.write("data/b", "1").await).await });
    assert_eq!(result, Err(Error::Contended));
    assert_eq!(rig.server.refuse_commits, 1000 - 12);
    assert_eq!(rig.server.open_transactions(), 0);
}

#[test]
fn a_transaction_ends_on_every_path_rule_64() {
    let mut rig = Rig::new();
    let store = rig.client();
    let result = rig.run(async move {
        store
            .transaction(async |nodes| {
                nodes.write("data/a", "1").await?;
                nodes.read("data/none").await
            })
            .await
    });
    assert_eq!(result, Err(MISSING));
    rig.settle();
    assert_eq!((rig.server.open_transactions(), rig.server.aborted), (0, 1));
    assert_eq!(rig.server.get("data/a"), None);
}

/// Cancels a transaction after every possible number of turns: at each await, that is.
#[test]
fn a_transaction_that_is_dropped_is_aborted_rules_59_and_64() {
    let mut committed = 0;
    let mut dropped = 0;
    for turns in 0.. {
        let mut rig = Rig::new();
        let store = rig.client();
        let task = rig.handle().spawn(async move {
            store
                .transaction(async |nodes| {
                    nodes.write("data/a", "1").await?;
                    nodes.write("data/b", "2").await
                })
                .await
        });
        for _ in 0..turns {
            // Half a round each, so that cancelling comes between any two things.
            rig.server.turn();
            rig.ports.dispatch();
            rig.executor.turn();
        }
        let finished = task.is_finished();
        task.cancel();
        rig.settle();
        assert_eq!(rig.server.open_transactions(), 0, "after {turns} turns");
        assert_eq!(rig.store.stats().pending, 0, "after {turns} turns");
        match (rig.server.get("data/a"), rig.server.get("data/b")) {
            (Some("1"), Some("2")) => committed += 1,
            (None, None) => dropped += 1,
            half => panic!("half a transaction after {turns} turns: {half:?}"),
        }
        if finished {
            break;
        }
    }
    assert!(committed > 0 && dropped > 3, "{committed} committed, {dropped} dropped");
}

#[test]
fn a_commit_that_is_dropped_before_it_is_sent_becomes_an_abort_rule_64() {
    let mut rig = Rig::new();
    let store = rig.client();
    let gate = fata_events::Signal::new();
    let opened = gate.clone();
    let task = rig.handle().spawn(async move {
        store
            .transaction(async |nodes| {
                nodes.write("data/a", "1").await?;
                opened.after(0).await;
                Ok(())
            })
            .await
    });
    rig.settle();
    // Sixteen others are under way, so the commit has to wait.
    rig.server.automatic = false;
    let others: Vec<_> = (0..16)
        .map(|_| {
            let store = rig.client();
            rig.handle().spawn(async move { store.read("x").await })
        })
        .collect();
    rig.settle();
    gate.raise();
    rig.settle();
    assert_eq!(rig.store.stats().pending, 17);
    task.cancel();
    rig.server.automatic = true;
    rig.settle();
    assert_eq!((rig.server.open_transactions(), rig.server.aborted), (0, 1));
    assert_eq!(rig.server.get("data/a"), None);
    drop(others);
}

#[test]
fn a_long_list_comes_in_parts_rule_65() {
    let mut rig = Rig::new();
    let names: Vec<String> = (0..900).map(|i| format!("a-rather-long-name-{i:04}")).collect();
    for name in &names {
        rig.server.set(&format!("data/many/{name}"), "");
    }
    let store = rig.client();
    assert_eq!(rig.run(async move { store.list("data/many").await }), Ok(names));
    let quiet = rig.store.stats().requests;
    assert!(quiet > 4);

    // It changes while it is read: everything starts again.
    let store = rig.client();
    let task = rig.handle().spawn(async move { store.list("data/many").await });
    while rig.store.stats().requests < quiet + 4 {
        rig.turn();
    }
    rig.server.set("data/many/zzz", "");
    let list = rig.finish(task).unwrap();
    assert_eq!(list.len(), 901);
    assert!(rig.store.stats().requests > 2 * quiet);
    assert_eq!(list.iter().collect::<std::collections::BTreeSet<_>>().len(), 901);
}

#[test]
fn a_flood_of_events_is_one_rule_62() {
    let mut rig = Rig::new();
    let store = rig.client();
    let looks = Rc::new(RefCell::new(0));
    let counter = Rc::clone(&looks);
    let (gate, open) = (fata_events::Signal::new(), fata_events::Signal::new());
    let (entered, opened) = (gate.clone(), open.clone());
    let task = rig.handle().spawn(async move {
        let mut watch = store.watch("data").await.unwrap();
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
fn watches_are_unwatched_exactly_once_rule_63() {
    let mut rig = Rig::new();
    for round in 1..=1000 {
        let store = rig.client();
        rig.run(async move {
            let mut watch = store.watch("data").await?;
            watch.changed().await
        })
        .unwrap();
        rig.settle();
        assert_eq!(rig.server.watches.len(), 0);
        assert_eq!(rig.server.unwatched, round);
    }
    assert_eq!((rig.store.stats().watches, rig.store.stats().pending), (0, 0));
}

/// Drops the future of `watch` after every possible number of turns.
#[test]
fn a_watch_that_is_dropped_while_it_is_being_set_is_taken_back_rules_59_and_63() {
    for turns in 0..12 {
        let mut rig = Rig::new();
        let store = rig.client();
        let task = rig.handle().spawn(async move {
            let _watch = store.watch("data").await;
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
    let task = rig.handle().spawn(async move { store.watch("data").await.map(|_| ()) });
    rig.settle();
    let letter = rig.server.inbox.pop_front().unwrap();
    rig.server.reply(&letter, &Reply::Error(Errno::ENOSPC));
    assert_eq!(rig.finish(task), Err(Error::Refused(Errno::ENOSPC)));
    rig.settle();
    assert_eq!(rig.store.stats().watches, 0);
    assert!(rig.server.inbox.is_empty(), "nothing is to be taken back");
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
        let mut watch = store.watch("data").await?;
        watch.changed().await?;
        store.reset_watches().await?;
        watch.changed().await // set again, it fires again
    });
    assert_eq!(rig.finish(task), Ok(()));
    assert!(rig.server.watches.iter().all(|(path, _)| path != "device"));
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
