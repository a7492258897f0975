//! A backend that does what no backend may do, in the middle of honest work.

use fata_hypercall::{GrantRef, PAGE_SIZE};

use super::link::Link;
use super::ring::{Header, Ring, SIZE};
use crate::grants::Access;

/// One way to break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// A producer index that is ahead of all requests, behind what it was, or anywhere.
    IndexJump,
    /// An event index that is anywhere: no notification comes, or too many.
    EventIndex,
    /// A transmit response that repeats an old id, or has one that never was.
    TxId,
    /// A transmit response with a status that there is not.
    TxStatus,
    /// A receive response of any bytes: id, offset, length, flags.
    RxResponse,
    /// A receive response whose offset and length leave the page.
    RxBounds,
    /// A packet of ever more slots.
    RxEndless,
    /// Extras of any type and content, each announcing another.
    RxExtras,
    /// A packet of segments that is none: without data, shorter than a header or than one segment, of a type that its bytes
    /// do not have.
    RxGso,
    /// Any bytes over slots of a ring, again and again: what was read once is another thing when read twice.
    Scribble,
    /// A page that is received into stays mapped.
    KeepMapped,
    /// A write to a page that was granted for reading.
    WriteReadOnly,
    /// A burst of events without a cause.
    EventStorm,
    /// A key in the backend's directory gets any value.
    JunkKey,
    /// The state goes back, or to what is no state.
    JunkState,
}

impl Trick {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::IndexJump,
        Self::EventIndex,
        Self::TxId,
        Self::TxStatus,
        Self::RxResponse,
        Self::RxBounds,
        Self::RxEndless,
        Self::RxExtras,
        Self::RxGso,
        Self::Scribble,
        Self::KeepMapped,
        Self::WriteReadOnly,
        Self::EventStorm,
        Self::JunkKey,
        Self::JunkState,
    ];
}

/// How often a network backend breaks the rules, and how.
pub type Malice = crate::backend::Malice<Trick>;

impl Link {
    /// Does it, as far as it concerns rings and grants. The guest is told of it.
    pub(super) fn play(&mut self, trick: Trick) {
        let dom0 = self.dom0.clone();
        let machine = &dom0.machine;
        let below = |bound: u64| machine.below(bound);
        match trick {
            Trick::IndexJump => {
                let ring = if below(2) == 0 { &self.rx } else { &self.tx };
                let old = ring.load(Header::RspProd);
                let new = [
                    old.wrapping_sub(1),
                    old.wrapping_add(SIZE + 1),
                    old.wrapping_add(1 + below(u64::from(SIZE)) as u32),
                    u32::MAX,
                    below(1 << 32) as u32,
                ];
                ring.store(Header::RspProd, new[below(5) as usize]);
            }
            Trick::EventIndex => {
                let header = if below(2) == 0 {
                    Header::ReqEvent
                } else {
                    Header::RspEvent
                };
                let ring = if below(2) == 0 { &self.rx } else { &self.tx };
                ring.store(header, below(1 << 32) as u32);
            }
            Trick::TxId => {
                let [low, high] = if below(4) == 0 {
                    below(1 << 16) as u16
                } else {
                    below(80) as u16
                }
                .to_le_bytes();
                self.tx.respond(&[low, high, 0, 0]);
                let _ = self.tx.publish();
            }
            Trick::TxStatus => {
                let [id, ..] = self.tx.peek::<12>(below(8) as u32);
                let [low, high] = [1, 2, i16::MAX, i16::MIN, -3][below(5) as usize].to_le_bytes();
                self.tx.respond(&[id, 0, low, high]);
                let _ = self.tx.publish();
            }
            Trick::RxResponse => {
                let mut bytes = below(u64::MAX).to_le_bytes();
                // Most of any bytes are refused at once; some shall get further.
                if below(2) == 0 {
                    (bytes[3], bytes[4], bytes[5], bytes[7]) = (0, bytes[4] & 7, 0, bytes[7] & 15);
                }
                answer(&mut self.rx, [bytes]);
            }
            Trick::RxBounds => {
                let (offset, len) = [(4096, 1), (1, 4096), (4000, 97), (65535, i16::MAX), (0, 4097)][below(5) as usize];
                answer(&mut self.rx, [response(offset, 0, len)]);
            }
            Trick::RxEndless => {
                let slots = 1 + below(u64::from(SIZE));
                answer(&mut self.rx, (0..slots).map(|_| response(0, MORE_DATA, 100)));
            }
            Trick::RxExtras => {
                let slots = 1 + below(u64::from(SIZE));
                let first = response(0, EXTRA_INFO, 100);
                let extras = (0..slots).map(|_| {
                    let [size, kind, ..] = below(u64::MAX).to_le_bytes();
                    [below(7) as u8, u8::from(below(8) != 0), size & 1, 0, kind & 3, 0, 0, 0]
                });
                answer(&mut self.rx, std::iter::once(first).chain(extras));
            }
            Trick::RxGso => {
                let more = if below(2) == 0 { MORE_DATA } else { 0 };
                let first = response(0, EXTRA_INFO | more, [0, 1, 13, 14, 54, 4096][below(6) as usize]);
                let [a, b] = [0, 1, 1460, 9000, u16::MAX][below(5) as usize].to_le_bytes();
                let extra = [GSO, 0, a, b, [0, 1, 1, 2, 2, 3][below(6) as usize], 0, 0, 0];
                let slots = if more == 0 { 0 } else { 1 + below(20) };
                let rest = (1..=slots).map(|slot| {
                    let more = if slot == slots { 0 } else { MORE_DATA };
                    response(0, more, [0, 1, 4096][below(3) as usize])
                });
                answer(&mut self.rx, [first, extra].into_iter().chain(rest));
            }
            Trick::Scribble => {
                let ring = if below(2) == 0 { &self.rx } else { &self.tx };
                for _ in 0..1 + below(16) {
                    ring.scribble(below(PAGE_SIZE as u64) as usize, below(u64::MAX));
                }
            }
            Trick::KeepMapped => {
                let reference = self.posted(below(64) as u32);
                if let Ok(page) = dom0.map_grant(self.guest, reference, Access::Write) {
                    page.page().write(0, &below(u64::MAX).to_le_bytes());
                    self.kept.push(page);
                }
            }
            Trick::WriteReadOnly => {
                let chosen = below(self.tx_references.len() as u64) as usize;
                if let Some(&reference) = self.tx_references.iter().nth(chosen)
                    && dom0.copy_to_grant(self.guest, reference, 0, &[1]).is_ok()
                {
                    let guest = self.guest;
                    machine.violation(format!("netback wrote to {guest}'s transmit buffer {reference}"));
                }
            }
            Trick::EventStorm => self.storm(1 + below(100)),
            Trick::JunkKey | Trick::JunkState => {}
        }
        self.rx_line().notify();
    }

    /// The reference of a receive request that was posted, if the ring is as the guest left it.
    fn posted(&self, ahead: u32) -> GrantRef {
        let [.., a, b, c, d] = self.rx.peek::<8>(ahead);
        GrantRef(u32::from_le_bytes([a, b, c, d]))
    }
}

const MORE_DATA: u16 = 4;
const EXTRA_INFO: u16 = 8;
const GSO: u8 = 1;

fn response(offset: u16, flags: u16, status: i16) -> [u8; 8] {
    let ([a, b], [c, d], [e, f]) = (offset.to_le_bytes(), flags.to_le_bytes(), status.to_le_bytes());
    [0, 0, a, b, c, d, e, f]
}

/// Takes a request for each response, as long as there are any, and publishes.
fn answer(ring: &mut Ring, responses: impl IntoIterator<Item = [u8; 8]>) {
    for bytes in responses {
        if (1..=SIZE).contains(&ring.unconsumed()) {
            ring.consume(1);
            ring.respond(&bytes);
        }
    }
    let _ = ring.publish();
}
