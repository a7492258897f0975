//! What `xl network-detach` and `xl network-attach` do to a guest's interface, without what else takes them a second each.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::store::Store;
use crate::vif;

/// For a backend, or a frontend, to do its part.
const LIMIT: Duration = Duration::from_secs(30);

/// Another Ethernet address than the toolstack gave.
const MAC: &str = "00:16:3e:00:ff:03";

/// Takes the interface `device/vif/0` from a domain and gives it another one, so many times.
pub(crate) fn run(domain: u16, cycles: u64) -> io::Result<()> {
    let front = format!("/local/domain/{domain}/device/vif/0");
    let back = format!("/local/domain/0/backend/vif/{domain}/0");
    let mut store = Store::connect()?;
    for _ in 0..cycles {
        detach(&mut store, &front, &back)?;
        attach(&mut store, &front, &back, domain)?;
    }
    Ok(())
}

fn detach(store: &mut Store, front: &str, back: &str) -> io::Result<()> {
    store.write(&format!("{back}/online"), "0")?;
    store.write(&format!("{back}/state"), "5")?;
    wait_for(store, back, "6")?;
    store.remove(front)?;
    store.remove(back)
}

fn attach(store: &mut Store, front: &str, back: &str, domain: u16) -> io::Result<()> {
    let id = domain.to_string();
    for (key, value) in [
        ("frontend", front),
        ("frontend-id", &id),
        ("online", "1"),
        ("script", "/etc/xen/scripts/vif-bridge"),
        ("mac", MAC),
        ("bridge", "xenbr0"),
        ("handle", "0"),
        ("type", "vif"),
        ("hotplug-status", ""),
    ] {
        store.write(&format!("{back}/{key}"), value)?;
    }
    store.write(&format!("{front}/handle"), "0")?;
    store.give(front, domain)?;
    for (key, value) in [
        ("mac", MAC),
        ("mtu", "1500"),
        ("backend", back),
        ("backend-id", "0"),
        ("state", "1"),
    ] {
        store.write(&format!("{front}/{key}"), value)?;
    }
    // Linux looks at the frontend when this comes.
    store.write(&format!("{back}/state"), "1")?;
    // The hotplug script's part.
    let name = format!("vif{domain}.0");
    wait(|| Ok(vif::join(&name, "xenbr0").is_ok()))?;
    store.write(&format!("{back}/hotplug-status"), "connected")?;
    wait_for(store, back, "4")
}

fn wait_for(store: &mut Store, back: &str, state: &str) -> io::Result<()> {
    wait(|| Ok(store.read(&format!("{back}/state"))? == state))
}

fn wait(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
