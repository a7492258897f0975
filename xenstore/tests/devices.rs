//! Which devices a domain has.

mod common;

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
    let letter = rig.server.inbox.pop_front().unwrap();
    rig.server
        .reply(&letter, &fata_xenstore::wire::Reply::Error(Errno::EACCES));
    assert_eq!(rig.finish(listing), Err(Error::Refused(Errno::EACCES)));
}
