//! The client against a small server. Rule numbers are those of the project's hardening list.

mod common;

use core::time::Duration;
use std::cell::RefCell;
use std::rc::Rc;

use common::Rig;
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

/// An answer to a request that still waits for its turn is none: nobody can have read it.
#[test]
fn an_answer_before_the_request_was_sent_is_ignored_rule_61() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let tasks: Vec<_> = (0..17)
        .map(|_| {
            let store = rig.client();
            rig.handle().spawn(async move { store.read("a").await })
        })
        .collect();
    rig.settle();
    let mut early = rig.server.inbox.back().unwrap().clone();
    early.req_id += 1;
    rig.server.reply(&early, &Reply::Value(b"early"));
    rig.settle();
    assert_eq!(rig.store.stats().ignored, 1);
    while let Some(letter) = rig.server.inbox.pop_front() {
        rig.server.reply(&letter, &Reply::Value(b"true"));
        rig.settle();
    }
    for task in tasks {
        assert_eq!(rig.finish(task), Ok(b"true".to_vec()));
    }
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
    assert_eq!(rig.store.stats().requests, 6, "start, four operations, one end");
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

/// xenstored refuses a domain's eleventh.
#[test]
fn four_transactions_are_under_way_at_a_time() {
    let mut rig = Rig::new();
    let gate = fata_events::Signal::new();
    let tasks: Vec<_> = (0..10)
        .map(|i| {
            let (store, gate) = (rig.client(), gate.clone());
            rig.handle().spawn(async move {
                let path = ["data/", &decimal::string(i)].concat();
                store
                    .transaction(async |nodes| {
                        gate.after(0).await;
                        nodes.read_optional(&path).await.map(drop)
                    })
                    .await
            })
        })
        .collect();
    rig.settle();
    assert_eq!(rig.server.open_transactions(), 4);
    gate.raise();
    for task in tasks {
        assert_eq!(rig.finish(task), Ok(()));
    }
}

/// A transaction does not outlive its connection: what is asked for in it later would be somebody else's, or nobody's.
#[test]
fn a_transaction_ends_with_its_connection_rule_64() {
    let mut rig = Rig::new();
    let store = rig.client();
    let result = rig.run(async move {
        store
            .transaction(async |nodes| {
                nodes.write("data/a", "1").await?;
                store.reset_watches().await?; // the server forgets transactions too
                nodes.write("data/b", "2").await
            })
            .await
    });
    assert_eq!(result, Err(Error::Disconnected));
    rig.settle();
    assert_eq!(
        rig.store.stats().requests,
        3,
        "start, write, reset: nothing more is sent, nor is it aborted"
    );
    assert_eq!((rig.server.get("data/a"), rig.server.get("data/b")), (None, None));
}

#[test]
fn of_several_nodes_those_that_are_missing_or_forbidden_have_no_value() {
    let mut rig = Rig::new();
    rig.server.set("data/a", "1");
    rig.server.refuse.insert("data/b".into(), Errno::EACCES);
    rig.server.refuse.insert("data/c".into(), Errno::EPERM);
    rig.server.refuse.insert("data/e".into(), Errno::EIO);
    let paths = ["a", "b", "c", "d", "e"].map(|name| format!("data/{name}"));
    let store = rig.client();
    let readable = paths[..4].to_vec();
    let values = rig.run(async move { store.read_all(&readable).await });
    assert_eq!(values, Ok(vec![Some(b"1".to_vec()), None, None, None]));
    let store = rig.client();
    let all = rig.run(async move { store.read_all(&paths).await });
    assert_eq!(all, Err(Error::Refused(Errno::EIO)));
}

/// Short names, of which a list of 256 KiB would hold 128 Ki, each in memory of its own.
#[test]
fn a_list_of_too_many_names_is_refused_rule_65() {
    for (count, outcome) in [(1024, Ok(1024)), (1025, Err(Error::TooLong))] {
        let mut rig = Rig::new();
        for name in 0..count {
            rig.server.set(&format!("data/many/{name:x}"), "");
        }
        let store = rig.client();
        let list = rig.run(async move { store.list("data/many").await });
        assert_eq!(list.map(|names| names.len()), outcome);
    }
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
