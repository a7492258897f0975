//! The balloon: memory that the administrator wants to have goes to Xen, and comes back when he lets it.
//!
//! `xl mem-set` writes a target to `memory/target`; `memory/static-max` is what the domain would have without a balloon (both in
//! KiB, xen:docs/misc/xenstore-paths.pandoc). The difference belongs in the balloon. Where a domain starts with less than its
//! maximum it has to be there before the memory is touched: Xen has nothing behind it. That is so under PVH. A PV guest knows
//! which of its pages have memory, and may have places for less than its maximum.
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
    let [maximum, target] = [0, 1].map(|at| parse(values.get(at)?.as_deref()?));
    let (maximum, target) = (maximum?, target?);
    let balloon = Balloon {
        ram: Rc::clone(ram),
        whole: whole(&**ram, maximum, target),
        target,
    };
    while balloon.step() == Step::Moved {
        yield_now().await;
    }
    Some(handle.spawn(balloon.follow(client.clone(), handle.clone(), watch)))
}

/// What the domain would have with an empty balloon, in KiB, if at the start its maximum and its target are these.
fn whole(ram: &dyn Ram, maximum: u64, target: u64) -> u64 {
    let Some(pages) = ram.pages_with_memory() else {
        return maximum;
    };
    // Usually the two are one. A pv-shim keeps some of the target for itself; a target that was lowered before we looked is to be
    // followed, and so is one that was raised.
    let has = target.max(pages as u64 * 4);
    maximum.min(has + ram.memory().ballooned as u64 / 1024)
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

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// A PV guest's memory: pages that are there, and places for more.
    struct Pages {
        there: Cell<usize>,
        ballooned: Cell<usize>,
    }

    impl Ram for Pages {
        fn memory(&self) -> Memory {
            Memory {
                total: self.there.get() * PAGE,
                used: 0,
                ballooned: self.ballooned.get() * PAGE,
            }
        }

        fn pages_with_memory(&self) -> Option<usize> {
            Some(self.there.get())
        }

        fn inflate(&self, pages: usize) -> usize {
            self.there.update(|there| there - pages);
            self.ballooned.update(|ballooned| ballooned + pages);
            pages
        }

        fn deflate(&self, pages: usize) -> usize {
            let pages = pages.min(self.ballooned.get());
            self.there.update(|there| there + pages);
            self.ballooned.update(|ballooned| ballooned - pages);
            pages
        }
    }

    const MIB: u64 = 1024;

    fn pages(there: u64, ballooned: u64) -> Rc<Pages> {
        let pages = |mib| Cell::new(mib as usize * 256);
        Rc::new(Pages {
            there: pages(there),
            ballooned: pages(ballooned),
        })
    }

    #[test]
    fn the_difference_that_a_pv_guest_has_no_places_for_does_not_count() {
        let ram = pages(8, 248);
        let whole = whole(&*ram, 1024 * MIB, 8 * MIB);
        assert_eq!(whole, 256 * MIB);
        let balloon = |mib| Balloon {
            ram: Rc::clone(&ram) as Rc<dyn Ram>,
            whole,
            target: mib * MIB,
        };
        assert_eq!(balloon(8).step(), Step::There);
        assert_eq!(balloon(100).step(), Step::Moved);
        assert_eq!(ram.there.get(), 100 * 256);
        assert_eq!(balloon(512).step(), Step::Moved);
        assert_eq!(balloon(512).step(), Step::There, "more than there is room for");
        assert_eq!(balloon(6).step(), Step::Moved);
        assert_eq!(ram.there.get(), 6 * 256);
    }

    #[test]
    fn a_pv_guest_goes_by_what_it_has() {
        let whole =
            |there, ballooned, maximum, target| whole(&*pages(there, ballooned), maximum * MIB, target * MIB) / MIB;
        assert_eq!(whole(16, 0, 64, 16), 16, "e820_host");
        assert_eq!(whole(16, 48, 64, 16), 64);
        assert_eq!(whole(16, 48, 64, 12), 64, "lowered already");
        assert_eq!(whole(16, 48, 64, 40), 64, "raised already");
        assert_eq!(whole(42, 0, 64, 64), 64, "pv-shim");
    }

    #[test]
    fn a_pvh_guest_goes_by_what_the_toolstack_says() {
        assert_eq!(whole(&Memory::default, 64 * MIB, 16 * MIB), 64 * MIB);
    }
}
