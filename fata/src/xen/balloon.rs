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

use fata_events::{Handle, yield_now};
use fata_xenstore::{Client, Error, Watch, decimal};

use super::Ram;
use crate::stats::Memory;

/// Bytes in a page.
const PAGE: usize = 4096;

/// How long until it is tried again, first and at the most, when memory cannot be had.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// Bytes that stay free whatever the target says: 2 MiB, or an eighth of what is in use, whichever is more. A program that has
/// been this size for a while will be that much larger for a moment.
const fn reserve(memory: Memory) -> usize {
    let eighth = memory.used / 8;
    if eighth > 2 << 20 { eighth } else { 2 << 20 }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some pages went or came.
    Moved,
    /// There is nothing to do.
    There,
    /// There is, but memory cannot be had: no more is free, or Xen has none.
    Stuck,
}

/// The domain's balloon.
pub(super) struct Balloon {
    ram: Rc<dyn Ram>,
    client: Client,
    handle: Handle,
    watch: Watch,
    /// What the domain would have with an empty balloon, in KiB.
    whole: u64,
    /// What it is to have, in KiB.
    target: u64,
}

impl Balloon {
    /// The balloon of a domain whose toolstack names a target; `None` if it names none.
    ///
    /// # Errors
    /// As [`Client::read_all`].
    pub(super) async fn open(client: Client, handle: Handle, ram: Rc<dyn Ram>) -> Result<Option<Self>, Error> {
        let watch = client.watch("memory/target")?;
        let keys = ["memory/static-max", "memory/target"].map(String::from);
        let values = client.read_all(&keys).await?;
        let [whole, target] = [0, 1].map(|at| parse(values.get(at)?.as_deref()?));
        let (Some(whole), Some(target)) = (whole, target) else {
            return Ok(None);
        };
        Ok(Some(Self {
            ram,
            client,
            handle,
            watch,
            whole,
            target,
        }))
    }

    /// Moves memory until the target is met, cannot be met, or is another one. In between everybody else has a turn.
    pub(super) async fn settle(&mut self) -> Step {
        loop {
            match self.step() {
                Step::Moved if !self.watch.take_changed() => yield_now().await,
                step => return step,
            }
        }
    }

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
    pub(super) async fn run(mut self) {
        let error = loop {
            if let Err(error) = self.follow().await {
                break error;
            }
        };
        log::warn!("the balloon stays as it is: {error}");
    }

    /// Settles on the present target, and waits for another.
    async fn follow(&mut self) -> Result<(), Error> {
        let mut pause = PAUSE;
        let mut said = false;
        while self.settle().await == Step::Stuck {
            if !said {
                said = true;
                self.complain();
            }
            match self.handle.timeout(pause, self.watch.changed()).await {
                Err(_) => pause = (pause * 2).min(LONGEST_PAUSE),
                Ok(changed) => return changed.and(self.read().await),
            }
        }
        self.watch.changed().await?;
        self.read().await
    }

    /// Looks for a new target. What makes no sense is none.
    async fn read(&mut self) -> Result<(), Error> {
        match self.client.read("memory/target").await {
            Ok(value) => self.target = parse(&value).unwrap_or(self.target),
            Err(Error::Refused(_) | Error::Disconnected) => {} // set again, the watch fires again
            Err(error) => return Err(error),
        }
        Ok(())
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
