//! The balloon: memory that the administrator wants to have goes to Xen, and comes back when he lets it.
//!
//! `xl mem-set` writes a target to `memory/target`; `memory/static-max` is what the domain would have without a balloon (both in
//! KiB, xen:docs/misc/xenstore-paths.pandoc). The difference belongs in the balloon. Where a domain starts with less than its
//! maximum it has to be there before the memory is touched: Xen has nothing behind it.
//!
//! Only free memory goes, and [`reserve`] of it stays. What is in the balloon is not there for the program: an allocation that
//! finds nothing else fails, for the target is the administrator's wish and not ours to correct.

use alloc::rc::Rc;
use alloc::string::String;
use core::time::Duration;

use fata_events::{Handle, JoinHandle, yield_now};
use fata_xenstore::{Client, Watch, decimal};

use super::Ram;
use super::port::STORE_PATIENCE;
use crate::stats::Memory;

/// Bytes in a page.
const PAGE: usize = 4096;

const TARGET: &str = "memory/target";
const MAXIMUM: &str = "memory/static-max";

/// How long until it is tried again when memory cannot be had; twice as long each time, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// A look a day, when there is nothing to do, is no look.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes that stay free whatever the target says: 2 MiB, or an eighth of what is in use, whichever is more. A program that has
/// been this size for a while will be that much larger for a moment.
const fn reserve(memory: Memory) -> usize {
    let eighth = memory.used / 8;
    if eighth > 2 << 20 { eighth } else { 2 << 20 }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Some pages went or came.
    Moved,
    /// There is nothing to do.
    There,
    /// There is, but memory cannot be had: no more is free, or Xen has none.
    Stuck,
}

/// The domain's balloon.
struct Balloon {
    ram: Rc<dyn Ram>,
    /// What the domain would have with an empty balloon, in KiB.
    whole: u64,
    /// What it is to have, in KiB.
    target: u64,
}

/// Meets the target once, as far as it can be met, and follows it in a task. `None` if the toolstack does not name one.
pub(super) async fn start(client: &Client, handle: &Handle, ram: &Rc<dyn Ram>) -> Option<JoinHandle<()>> {
    let watch = client.watch(TARGET).ok()?;
    let keys = [MAXIMUM, TARGET].map(String::from);
    let values = handle
        .timeout(STORE_PATIENCE, client.read_all(&keys))
        .await
        .ok()?
        .ok()?;
    let [whole, target] = [0, 1].map(|at| parse(values.get(at)?.as_deref()?));
    let balloon = Balloon {
        ram: Rc::clone(ram),
        whole: whole?,
        target: target?,
    };
    while balloon.step() == Step::Moved {
        yield_now().await;
    }
    Some(handle.spawn(balloon.follow(client.clone(), handle.clone(), watch)))
}

impl Balloon {
    /// Moves some memory towards the target, if it is not met.
    fn step(&self) -> Step {
        let memory = self.ram.memory();
        let held = memory.ballooned / PAGE;
        let wanted = usize::try_from(self.whole.saturating_sub(self.target).div_ceil(4)).unwrap_or(usize::MAX);
        let moved = if wanted > held {
            let spare = memory.free().saturating_sub(reserve(memory)) / PAGE;
            self.ram.inflate(spare.min(wanted - held))
        } else if wanted < held {
            self.ram.deflate(held - wanted)
        } else {
            return Step::There;
        };
        if moved == 0 { Step::Stuck } else { Step::Moved }
    }

    /// Follows the target as long as the store lives.
    async fn follow(mut self, client: Client, handle: Handle, mut watch: Watch) {
        let mut pause = PAUSE;
        loop {
            let wait = match self.step() {
                // Everybody else has a turn.
                Step::Moved => Duration::ZERO,
                Step::There => DAY,
                Step::Stuck => {
                    if pause == PAUSE {
                        self.complain();
                    }
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            match handle.timeout(wait, watch.changed()).await {
                Err(_) => continue,
                Ok(Err(error)) => return log::warn!("the memory stays as it is: {error}"),
                Ok(Ok(())) => {}
            }
            // What cannot be read or makes no sense is no new target.
            let told = client.read(TARGET).await.ok().and_then(|kib| parse(&kib));
            if let Some(target) = told.filter(|&target| target != self.target) {
                self.target = target;
                pause = PAUSE;
            }
        }
    }

    fn complain(&self) {
        let memory = self.ram.memory();
        let has = self.whole.saturating_sub(memory.ballooned as u64 / 1024);
        if has > self.target {
            let (asked, free) = (has - self.target, memory.free() / 1024);
            log::warn!("{asked} KiB were asked back, but only {free} KiB are free, and some stay so");
        } else {
            log::warn!("Xen has no memory for {} KiB that we may have", self.target - has);
        }
    }
}

fn parse(kib: &[u8]) -> Option<u64> {
    decimal::parse(kib, 0..=u64::MAX)
}
