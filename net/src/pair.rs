//! Two devices with a wire between them, in memory: for tests and examples.
//!
//! A frame that is sent at one end waits in the sender until it is [flushed](Device::flush), and then arrives at the
//! other end, unless the wire loses it. Each direction holds a bounded number of frames, so a sender finds out what a
//! full ring is.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::task::{Context, Poll};

use fata_events::Signal;
use rand_core::{TryCryptoRng, TryRng};

use crate::device::{
    Capabilities, ChecksumOffload, Device, RxChecksum, RxFrame, SegmentationOffload, TxChecksum, TxFrame, TxMeta,
};

/// Frames that one direction holds.
const RING: usize = 256;

/// What the wire does to the frames of one direction, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames that are lost.
    pub loss: u32,
    /// Frames that arrive twice.
    pub duplicates: u32,
    /// Frames that are overtaken by the next one.
    pub reordered: u32,
    /// Frames of which one bit changes.
    pub corrupted: u32,
    /// Two runs with the same seed are the same.
    pub seed: u64,
}

/// One end of the wire.
#[derive(Debug)]
pub struct PairDevice {
    out: Rc<Direction>,
    incoming: Rc<Direction>,
    capabilities: Rc<Cell<Capabilities>>,
    up: Rc<Cell<bool>>,
    /// Raised when something happens at this end.
    signal: Signal,
    seen: u64,
}

/// Changes the wire while the device is in the hands of a runner.
#[derive(Clone, Debug)]
pub struct Control {
    out: Rc<Direction>,
    capabilities: Rc<Cell<Capabilities>>,
    up: Rc<Cell<bool>>,
    signal: Signal,
}

#[derive(Debug)]
struct Direction {
    /// Written, not flushed.
    staged: RefCell<VecDeque<(Vec<u8>, TxMeta)>>,
    arrived: RefCell<VecDeque<(Vec<u8>, RxChecksum)>>,
    faults: Cell<Faults>,
    random: RefCell<SeedRng>,
    /// What the receiver is told about frames with a complete checksum.
    complete_means: Cell<RxChecksum>,
    flushes: Cell<u64>,
    capacity: Cell<usize>,
    /// Of the receiving end.
    arrival: Signal,
    /// Of the sending end.
    room: Signal,
}

/// A wire's two ends: MTU 1500, addresses `02:00:00:00:00:0a` and `..:0b`, no offload, no faults, link up.
pub fn pair() -> (PairDevice, PairDevice) {
    let signals = [Signal::new(), Signal::new()];
    let [one, two] = [(0, 1), (1, 0)].map(|(from, to)| {
        let (from, to): (&Signal, &Signal) = match (signals.get(from), signals.get(to)) {
            (Some(from), Some(to)) => (from, to),
            _ => (&signals[0], &signals[1]),
        };
        Rc::new(Direction {
            staged: RefCell::default(),
            arrived: RefCell::default(),
            faults: Cell::default(),
            random: RefCell::new(SeedRng::new(0)),
            complete_means: Cell::default(),
            flushes: Cell::new(0),
            capacity: Cell::new(RING),
            arrival: to.clone(),
            room: from.clone(),
        })
    });
    let end = |out: &Rc<Direction>, incoming: &Rc<Direction>, last, signal: &Signal| PairDevice {
        out: out.clone(),
        incoming: incoming.clone(),
        capabilities: Rc::new(Cell::new(Capabilities {
            mac: [2, 0, 0, 0, 0, last],
            mtu: 1500,
            tx_checksum: ChecksumOffload::NONE,
            tx_segmentation: SegmentationOffload::NONE,
        })),
        up: Rc::new(Cell::new(true)),
        signal: signal.clone(),
        seen: 0,
    };
    (end(&one, &two, 0xa, &signals[0]), end(&two, &one, 0xb, &signals[1]))
}

impl PairDevice {
    /// A handle to change this end later.
    pub fn control(&self) -> Control {
        Control {
            out: self.out.clone(),
            capabilities: self.capabilities.clone(),
            up: self.up.clone(),
            signal: self.signal.clone(),
        }
    }

    /// Sends one frame by hand, and flushes.
    pub fn send(&mut self, frame: &[u8], meta: TxMeta) {
        self.out.staged.borrow_mut().push_back((frame.to_vec(), meta));
        self.flush();
    }

    /// Receives one frame by hand.
    pub fn take(&mut self) -> Option<(Vec<u8>, RxChecksum)> {
        let frame = self.incoming.take();
        if frame.is_some() {
            self.incoming.room.raise();
        }
        frame
    }

    /// Waits until something has happened at this end.
    pub async fn ready(&mut self) {
        self.seen = self.signal.after(self.seen).await;
    }
}

impl Control {
    /// What happens to the frames that this end sends.
    pub fn set_faults(&self, faults: Faults) {
        self.out.faults.set(faults);
        *self.out.random.borrow_mut() = SeedRng::new(faults.seed);
    }

    /// What the peer is told about frames from this end with a complete checksum.
    pub fn set_complete_means(&self, flag: RxChecksum) {
        self.out.complete_means.set(flag);
    }

    /// How many frames from this end the wire holds.
    pub fn set_capacity(&self, frames: usize) {
        self.out.capacity.set(frames);
    }

    /// Changes address or abilities.
    pub fn set_capabilities(&self, change: impl FnOnce(&mut Capabilities)) {
        let mut capabilities = self.capabilities.get();
        change(&mut capabilities);
        self.capabilities.set(capabilities);
        self.signal.raise();
    }

    /// Takes the link up or down.
    pub fn set_link(&self, up: bool) {
        self.up.set(up);
        self.signal.raise();
    }

    /// How often this end was flushed with something to send.
    pub fn flushes(&self) -> u64 {
        self.out.flushes.get()
    }
}

impl Direction {
    fn take(&self) -> Option<(Vec<u8>, RxChecksum)> {
        self.arrived.borrow_mut().pop_front()
    }

    fn is_full(&self) -> bool {
        self.staged.borrow().len() + self.arrived.borrow().len() >= self.capacity.get()
    }

    /// Carries what is staged over the wire.
    fn carry(&self) {
        let mut staged = self.staged.borrow_mut();
        if staged.is_empty() {
            return;
        }
        self.flushes.set(self.flushes.get() + 1);
        let faults = self.faults.get();
        let mut random = self.random.borrow_mut();
        let mut arrived = self.arrived.borrow_mut();
        for (mut frame, meta) in staged.drain(..) {
            let flag = match meta.checksum {
                TxChecksum::Complete => self.complete_means.get(),
                TxChecksum::Blank => RxChecksum::Blank,
            };
            if random.one_of_thousand(faults.loss) {
                continue;
            }
            if random.one_of_thousand(faults.corrupted) {
                let at = random.below(frame.len());
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << (random.next() & 7);
                }
            }
            if random.one_of_thousand(faults.duplicates) {
                arrived.push_back((frame.clone(), flag));
            }
            let last = arrived.len();
            arrived.push_back((frame, flag));
            if last > 0 && random.one_of_thousand(faults.reordered) {
                arrived.swap(last - 1, last);
            }
        }
        drop(arrived);
        self.arrival.raise();
    }
}

/// A received frame.
#[derive(Debug)]
pub struct PairRx<'a> {
    frame: Vec<u8>,
    flag: RxChecksum,
    room: &'a Signal,
}

/// Room for a frame.
#[derive(Debug)]
pub struct PairTx<'a>(&'a Direction);

impl RxFrame for PairRx<'_> {
    fn checksum(&self) -> RxChecksum {
        self.flag
    }

    fn consume<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        let result = f(&self.frame);
        self.room.raise();
        result
    }
}

impl TxFrame for PairTx<'_> {
    fn consume<R>(self, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R {
        // Not zero: who leaves a byte out shall be found.
        let mut frame = alloc::vec![0xee; len];
        let (result, meta) = f(&mut frame);
        self.0.staged.borrow_mut().push_back((frame, meta));
        result
    }
}

impl Device for PairDevice {
    type Rx<'a> = PairRx<'a>;
    type Tx<'a> = PairTx<'a>;

    fn capabilities(&self) -> Capabilities {
        self.capabilities.get()
    }

    fn link_up(&self) -> bool {
        self.up.get()
    }

    fn receive(&mut self) -> Option<(PairRx<'_>, PairTx<'_>)> {
        if !self.up.get() || self.out.is_full() {
            return None;
        }
        let (frame, flag) = self.incoming.take()?;
        Some((
            PairRx {
                frame,
                flag,
                room: &self.incoming.room,
            },
            PairTx(&self.out),
        ))
    }

    fn transmit(&mut self) -> Option<PairTx<'_>> {
        (self.up.get() && !self.out.is_full()).then_some(PairTx(&self.out))
    }

    fn flush(&mut self) {
        self.out.carry();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.signal.poll_after(self.seen, cx).map(|count| self.seen = count)
    }
}

/// A random generator (SplitMix64) that gives the same numbers for the same seed. It implements `CryptoRng` only so
/// that tests can be repeated: its numbers are easy to predict.
#[derive(Clone, Debug)]
pub struct SeedRng(u64);

impl SeedRng {
    /// Numbers for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    fn one_of_thousand(&mut self, parts: u32) -> bool {
        parts > 0 && self.next() % 1000 < u64::from(parts)
    }
}

impl TryRng for SeedRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            for (byte, random) in chunk.iter_mut().zip(random) {
                *byte = random;
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for SeedRng {}
