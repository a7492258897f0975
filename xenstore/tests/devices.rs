//! Which devices a domain has.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::Rig;
use fata_hypercall::Errno;
use fata_xenstore::xenbus::Devices;
use fata_xenstore::{Client, Error};

#[test]
fn devices_are_listed_in_order() {
    let mut rig = Rig::new();
    let list = |client: Client| async move { Devices::new(&client, "vif")?.list().await };
    let client = rig.client();
    assert_eq!(rig.run(list(client)), Ok(vec![]));
    for id in ["10", "2", "0", "junk", "4294967296"] {
        rig.server.set(&format!("device/vif/{id}/state"), "1");
    }
    let client = rig.client();
    assert_eq!(rig.run(list(client)), Ok(vec![0, 2, 10]));
}

#[test]
fn a_directory_of_devices_may_be_missing_but_not_forbidden() {
    let mut rig = Rig::new();
    rig.server.automatic = false;
    let store = rig.client();
    let listing = rig
        .handle()
        .spawn(async move { Devices::new(&store, "vif")?.list().await });
    rig.settle();
    let _watch = rig.server.inbox.pop_front().unwrap();
    let letter = rig.server.inbox.pop_front().unwrap();
    rig.server
        .reply(&letter, &fata_xenstore::wire::Reply::Error(Errno::EACCES));
    assert_eq!(rig.finish(listing), Err(Error::Refused(Errno::EACCES)));
}

#[test]
fn devices_come_and_go() {
    let mut rig = Rig::new();
    rig.server.set("device/vif/0/state", "1");
    let client = rig.client();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    rig.handle()
        .spawn(async move {
            let mut devices = Devices::new(&client, "vif").unwrap();
            while devices.changed().await.is_ok() {
                let there = devices.list().await.unwrap();
                log.borrow_mut().push(there);
            }
        })
        .detach();
    rig.settle();
    assert_eq!(seen.take(), [[0]], "ready the first time");
    rig.server.set("device/vif/1/state", "1");
    rig.settle();
    assert_eq!(seen.take(), [[0, 1]]);
    rig.server.remove("device/vif/0");
    rig.settle();
    assert_eq!(seen.take(), [[1]]);
    rig.server.remove("device/vif");
    rig.settle();
    assert_eq!(seen.take(), [[0; 0]]);
}
