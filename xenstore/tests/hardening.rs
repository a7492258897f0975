//! Rules of the hardening list that concern every request.

mod common;

use std::time::Duration;

use common::Rig;
use fata_hypercall::{DomId, Errno};
use fata_xenstore::Error;
use fata_xenstore::wire::Reply;

/// Rule 70, XS 789134c: what the server refuses, whoever asked is told, for each thing that can be asked.
#[test]
fn xs_789134c_every_refusal_reaches_its_caller() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let denied = Error::Refused(Errno::EACCES);
    let store = rig.client();
    let asked = rig.handle().spawn(async move {
        vec![
            store.read("a").await.map(drop),
            store.read_optional("a").await.map(drop),
            store.read_string("a").await.map(drop),
            store.read_number("a", 0..=9_u32).await.map(drop),
            store.read_flag("a").await.map(drop),
            store.write("a", "1").await,
            store.list("a").await.map(drop),
            store.mkdir("a").await,
            store.remove("a").await,
            store.permissions("a").await.map(drop),
            store.set_permissions("a", &[]).await,
            store.domain_path(DomId(1)).await.map(drop),
            store.is_domain_introduced(DomId(1)).await.map(drop),
            store.reset_watches().await,
            async { store.watch("a")?.changed().await }.await,
            store.transaction(async |_| Ok(())).await,
        ]
    });
    for _ in 0..16 {
        rig.settle();
        let letter = rig.server.inbox.pop_front().expect("one request at a time");
        rig.server.reply(&letter, &Reply::Error(Errno::EACCES));
    }
    let outcomes = rig.finish(asked);
    assert_eq!(outcomes, vec![Err(denied); 16]);
}

/// Rule 70: and what ends the connection reaches everybody who waits, and everybody who comes later.
#[test]
fn rule_70_the_end_of_the_connection_reaches_everybody() {
    let mut rig = Rig::new();
    let (reader, watcher, changer) = (rig.client(), rig.client(), rig.client());
    let watching = rig.handle().spawn(async move {
        let mut watch = watcher.watch("a")?;
        loop {
            watch.changed().await?;
        }
        #[expect(unreachable_code, reason = "it gives the block its type")]
        Ok::<(), Error>(())
    });
    rig.settle();
    rig.server.automatic = false;
    let reading = rig.handle().spawn(async move { reader.read("a").await.map(drop) });
    let changing = rig
        .handle()
        .spawn(async move { changer.transaction(async |_| Ok(())).await });
    rig.settle();
    drop(rig.runner.take());
    for task in [watching, reading, changing] {
        assert_eq!(rig.finish(task), Err(Error::Stopped));
    }
    let late = rig.client();
    assert_eq!(rig.run(async move { late.write("a", "1").await }), Err(Error::Stopped));
}

/// XSA-349, rule 62: what a flood of watch events leaves behind does not grow with it, whoever reads and whoever does not.
#[test]
fn xsa_349_a_flood_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let store = rig.client();
    let watching = rig.handle().spawn(async move {
        let unread = store.watch("data/unread").unwrap();
        let mut read = store.watch("data/read").unwrap();
        let mut looks = 0;
        while looks < 5 {
            read.changed().await.unwrap();
            looks += 1;
            store.handle().sleep(Duration::from_secs(1)).await;
        }
        drop(unread);
        looks
    });
    rig.settle();
    let tokens: Vec<_> = rig.server.watches.iter().map(|(_, token)| token.clone()).collect();
    assert_eq!(tokens.len(), 2);
    for i in 0..50_000 {
        rig.server.fire("data/read/x", &tokens[i % 2]);
        if i % 64 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    let stats = rig.store.stats();
    assert_eq!((stats.watches, stats.pending), (2, 0));
    assert_eq!(stats.events, 50_002);
    rig.server.set("data/read/x", "1");
    drop(watching);
    rig.settle();
    assert_eq!(rig.store.stats().watches, 0);
}
