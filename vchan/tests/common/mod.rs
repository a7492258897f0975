//! Domains with nothing but a store, an event loop and a program that makes vchans.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fata_events::Handle;
use fata_events::xen::XenLoop;
use fata_grant::Table;
use fata_sim::{Domain, Rng, Sim};
use fata_vchan::{Error, Vchan, Vchans};
use fata_xenstore::Store;

pub const SECOND: Duration = Duration::from_secs(1);

/// What a program has.
#[derive(Clone)]
pub struct Env {
    pub vchans: Vchans,
    pub handle: Handle,
    pub table: Table<Domain>,
}

/// Whether the program has ended.
pub type Ended = Rc<Cell<bool>>;

/// Gives the domain a program.
pub fn boot<F>(sim: &Sim, domain: &Domain, program: impl FnOnce(Env) -> F) -> Ended
where
    F: Future<Output = ()> + 'static,
{
    let mut xen = XenLoop::new(domain.clone());
    let handle = xen.handle();
    let table = Table::new(domain.clone());
    let store = Store::new(domain.clone(), xen.ports(), handle.clone()).unwrap();
    let vchans = Vchans::new(&table, xen.ports(), store.client());
    handle.spawn(store.run()).detach();
    let program = program(Env {
        vchans,
        handle: handle.clone(),
        table,
    });
    let ended = Ended::default();
    let flag = Rc::clone(&ended);
    let main = async move {
        program.await;
        flag.set(true);
    };
    handle.spawn(main).detach();
    sim.add_guest(domain, move || {
        xen.turn();
    });
    ended
}

/// Runs until all programs have ended, and sees that nothing is left.
pub fn finish(sim: &Sim, programs: &[(&Domain, &Ended)]) {
    sim.run_until(|| programs.iter().all(|(_, ended)| ended.get()), 60 * SECOND);
    sim.run_for(SECOND / 10); // the nodes go, and so do the watches
    for (domain, _) in programs {
        sim.remove_guest(domain);
    }
    for (domain, _) in programs {
        sim.assert_no_leaks(domain);
    }
}

/// The byte at a place of a stream.
pub fn byte(stream: u8, at: usize) -> u8 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8 ^ stream
}

/// Writes so many bytes of a stream, in pieces of any length.
pub async fn write(vchan: &Vchan, stream: u8, len: usize, mut rng: Rng) -> Result<(), Error> {
    let mut at = 0;
    while at < len {
        let end = len.min(at + 1 + rng.below(9000) as usize);
        let piece: Vec<u8> = (at..end).map(|at| byte(stream, at)).collect();
        let count = vchan.write(&piece).await?;
        assert!((1..=piece.len()).contains(&count));
        at += count;
    }
    vchan.flush().await
}

/// Reads so many, and checks each.
pub async fn read(vchan: &Vchan, stream: u8, len: usize, mut rng: Rng) -> Result<(), Error> {
    let mut buffer = vec![0; 9000];
    let mut at = 0;
    while at < len {
        let room = len.min(at + 1 + rng.below(9000) as usize) - at;
        let count = vchan.read(&mut buffer[..room]).await?;
        assert!((1..=room).contains(&count), "an end at {at} of {len}");
        assert!(
            (at..).zip(&buffer[..count]).all(|(at, &b)| b == byte(stream, at)),
            "wrong bytes after {at}"
        );
        at += count;
    }
    Ok(())
}
