//! A domain with a store, an event loop, one shared directory, and a program that uses it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fata_9pfront::{Device, Error, File, Share};
use fata_events::xen::XenLoop;
use fata_events::{Handle, Signal};
use fata_grant::Table;
use fata_sim::{Domain, Sim};
use fata_xenstore::Store;

pub const SECOND: Duration = Duration::from_secs(1);

/// What a program has.
#[derive(Clone)]
pub struct Env {
    pub share: Share,
    pub device: Device<Domain>,
    pub handle: Handle,
    pub table: Table<Domain>,
}

/// Whether the program has ended.
pub type Ended = Rc<Cell<bool>>;

/// Gives the domain a program, which takes leave of the backend when it ends.
pub fn boot<F>(sim: &Sim, domain: &Domain, program: impl FnOnce(Env) -> F) -> Ended
where
    F: Future<Output = ()> + 'static,
{
    let mut xen = XenLoop::new(domain.clone());
    let handle = xen.handle();
    let table = Table::new(domain.clone());
    let store = Store::new(domain.clone(), xen.ports(), handle.clone()).unwrap();
    handle.spawn(store.run()).detach();
    let device = Device::new(
        table.clone(),
        xen.ports().clone(),
        store.client().clone(),
        0,
        Signal::new(),
    );
    let life = handle.spawn({
        let device = device.clone();
        async move { device.run().await }
    });
    let program = program(Env {
        share: device.share(),
        device: device.clone(),
        handle: handle.clone(),
        table,
    });
    let ended = Ended::default();
    let flag = Rc::clone(&ended);
    let main = async move {
        program.await;
        device.stop();
        let _ = life.await;
        flag.set(true);
    };
    handle.spawn(main).detach();
    sim.add_guest(domain, move || {
        xen.turn();
    });
    ended
}

/// Runs until the program has ended, and sees that nothing is left.
pub fn finish(sim: &Sim, domain: &Domain, ended: &Ended) {
    sim.run_until(|| ended.get(), 600 * SECOND);
    sim.run_for(SECOND / 10); // the nodes go, and so do the watches
    sim.remove_guest(domain);
    sim.assert_no_leaks(domain);
}

/// The byte at a place of a file.
pub fn byte(file: u8, at: usize) -> u8 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8 ^ file
}

pub fn bytes(file: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte(file, at)).collect()
}

/// All that can be read from a file.
pub async fn whole(file: &File) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 50_000];
    loop {
        match file.read_at(all.len() as u64, &mut buffer).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

pub async fn names(share: &Share, path: &str) -> Result<Vec<String>, Error> {
    let mut directory = share.read_dir(path).await?;
    let mut names = Vec::new();
    while let Some(entry) = directory.next().await? {
        names.push(entry.name);
    }
    names.sort();
    Ok(names)
}
