//! What a bad network does to packets.

use super::packet::{Checksum, Packet};
use crate::machine::Machine;

/// How often a bridge loses, doubles, delays or damages a packet: once in so many, 0 for never.
///
/// ```
/// use fata_sim::{Sim, wire::Impairment};
/// let sim = Sim::new(1);
/// sim.bridge("xenbr0").impair(Impairment { loss: 50, reorder: 20, ..Impairment::NONE });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impairment {
    /// It does not arrive.
    pub loss: u64,
    /// It arrives twice.
    pub duplicate: u64,
    /// It arrives after the next one; if none follows, never.
    pub reorder: u64,
    /// One bit of it is another one, in such a place that its checksum tells. An Ethernet card would drop the frame; memory
    /// and switches on the way know no better.
    pub corrupt: u64,
}

impl Impairment {
    /// A good network.
    pub const NONE: Self = Self {
        loss: 0,
        duplicate: 0,
        reorder: 0,
        corrupt: 0,
    };
}

/// What becomes of a packet.
pub(super) enum Fate {
    Lost,
    Late,
    Arrives { copies: usize },
}

impl Impairment {
    /// Decides, and damages the packet if that is its fate.
    pub(super) fn apply(&self, machine: &Machine, packet: &mut Packet) -> Fate {
        if *self == Self::NONE {
            return Fate::Arrives { copies: 1 };
        }
        if machine.one_in(self.loss) {
            return Fate::Lost;
        }
        if machine.one_in(self.corrupt) {
            corrupt(machine, packet);
        }
        if machine.one_in(self.reorder) {
            return Fate::Late;
        }
        let copies = if machine.one_in(self.duplicate) { 2 } else { 1 };
        Fate::Arrives { copies }
    }
}

fn corrupt(machine: &Machine, packet: &mut Packet) {
    const ETHERNET_HEADER: usize = 14;
    packet.complete();
    let end = packet.protected();
    if end > ETHERNET_HEADER {
        let at = ETHERNET_HEADER + machine.below((end - ETHERNET_HEADER) as u64) as usize;
        packet.bytes[at] ^= 1 << machine.below(8);
        packet.checksum = Checksum::Complete;
    }
}
