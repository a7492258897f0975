//! What the toolstack asks of a domain.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::Rig;
use fata_hypercall::Errno;
use fata_xenstore::Error;
use fata_xenstore::control::{Control, Request, Sysrq};

#[test]
fn shutdown_requests_are_taken_once() {
    let mut rig = Rig::new();
    let store = rig.client();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    let task = rig.handle().spawn(async move {
        let mut control = Control::new(&store, false)?;
        loop {
            let request = control.next().await?;
            log.borrow_mut().push(request);
        }
        #[expect(unreachable_code, reason = "it gives the block its type")]
        Ok::<(), Error>(())
    });
    rig.settle();
    assert_eq!(rig.server.get("control/feature-poweroff"), Some("1"));
    assert_eq!(rig.server.get("control/feature-reboot"), Some("1"));
    for wish in ["poweroff", "halt", "reboot", "suspend", "crash", "dance", ""] {
        rig.server.set("control/shutdown", wish);
        rig.settle();
        let left = match wish {
            "poweroff" | "halt" | "reboot" => "", // acknowledged
            other => other,
        };
        assert_eq!(rig.server.get("control/shutdown"), Some(left));
    }
    assert_eq!(rig.server.get("control/feature-suspend"), None, "not announced");
    let expected = [
        Request::PowerOff,
        Request::Halt,
        Request::Reboot,
        Request::Suspend,
        Request::Crash,
        Request::Other,
    ];
    assert_eq!(*seen.borrow(), expected);
    drop(task);
}

#[test]
fn a_toolstack_that_forbids_things_is_put_up_with() {
    let mut rig = Rig::new();
    for path in ["control/feature-poweroff", "control/feature-reboot"] {
        rig.server.refuse.insert(path.into(), Errno::EACCES);
    }
    let store = rig.client();
    let task = rig
        .handle()
        .spawn(async move { Control::new(&store, true)?.next().await });
    rig.settle();
    rig.server.set("control/shutdown", "reboot");
    assert_eq!(rig.finish(task), Ok(Request::Reboot));
}

#[test]
fn a_domain_that_can_be_saved_says_so() {
    let mut rig = Rig::new();
    let store = rig.client();
    let task = rig
        .handle()
        .spawn(async move { Control::new(&store, true)?.next().await });
    rig.settle();
    assert_eq!(rig.server.get("control/feature-suspend"), Some("1"));
    rig.server.set("control/shutdown", "suspend");
    assert_eq!(rig.finish(task), Ok(Request::Suspend));
    assert_eq!(rig.server.get("control/shutdown"), Some(""), "acknowledged");
}

#[test]
fn a_letter_is_taken_once_and_junk_is_none() {
    let mut rig = Rig::new();
    let store = rig.client();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    let task = rig.handle().spawn(async move {
        let mut letters = Sysrq::new(&store)?;
        loop {
            let letter = letters.next().await?;
            log.borrow_mut().push(letter);
        }
        #[expect(unreachable_code, reason = "it gives the block its type")]
        Ok::<(), Error>(())
    });
    rig.settle();
    for value in ["m", "", "\0", "\u{7}", "h", "crash"] {
        rig.server.set("control/sysrq", value);
        rig.settle();
        if value.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            assert_eq!(rig.server.get("control/sysrq"), Some(""), "{value:?}");
        }
    }
    assert_eq!(*seen.borrow(), b"mhc");
    drop(task);
}
