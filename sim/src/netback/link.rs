//! A connected vif: two rings, one event channel or two, and the packets on their way.

use std::collections::{BTreeSet, VecDeque};

use fata_hypercall::{DomId, GrantRef, SystemTime};

use super::ring::Ring;
use super::tx::{self, Groups, Pending, Taken};
use super::{Behaviour, Checksums, Stats, rx};
use crate::backend::Line;
use crate::domain::Domain;
use crate::grants::Mapping;
use crate::wire::{Checksum, GsoKind, Packet, Plug};

/// Packets that wait for the guest's buffers before new ones are dropped.
const RX_QUEUE: usize = 512;
/// `rx_drain_timeout`: a packet that waited so long is dropped.
const RX_DRAIN_NS: u64 = 10_000_000_000;

/// A small piece of work; false: there was nothing to do.
type Job = fn(&mut Link, &Plug, &Behaviour, &mut Stats) -> bool;

pub(super) struct Link {
    pub(super) dom0: Domain,
    pub(super) guest: DomId,
    pub(super) tx: Ring,
    pub(super) rx: Ring,
    tx_line: Line,
    /// `None`: one is for both rings.
    rx_line: Option<Line>,
    /// Requests may be there; looked at only after an event or a final check that found some.
    tx_awake: bool,
    /// The guest has too few buffers and will send an event.
    rx_waiting: bool,
    /// Taken and not yet handed on.
    pending: VecDeque<Pending>,
    /// Handed on and not yet answered: their pages are mapped.
    sent: Vec<Pending>,
    queue: VecDeque<(u64, Packet)>,
    /// The guest broke a rule for which Linux switches the vif off, or we did.
    disabled: bool,
    /// What the guest does is no longer its fault: we have broken the rules, or the toolstack has asked it to leave.
    pub(super) lenient: bool,
    /// Pages that a hostile backend does not let go.
    pub(super) kept: Vec<Mapping>,
    /// What the guest has sent from, as long as we kept to the rules: later, a request may be what we wrote over it.
    pub(super) tx_references: BTreeSet<GrantRef>,
    /// Packets for multicast groups are for the guest only if it has asked for these.
    pub(super) filters_multicast: bool,
    groups: Groups,
    pub(super) can_gather: bool,
    pub(super) can_gso4: bool,
    pub(super) can_gso6: bool,
    pub(super) ip_csum: bool,
    pub(super) ipv6_csum: bool,
}

impl Link {
    pub(super) fn new(
        dom0: Domain,
        guest: DomId,
        (tx, tx_line): (Ring, Line),
        (rx, rx_line): (Ring, Option<Line>),
    ) -> Self {
        Self {
            dom0,
            guest,
            tx,
            rx,
            tx_line,
            rx_line,
            tx_awake: true,
            rx_waiting: false,
            pending: VecDeque::new(),
            sent: Vec::new(),
            queue: VecDeque::new(),
            disabled: false,
            lenient: false,
            kept: Vec::new(),
            tx_references: BTreeSet::new(),
            filters_multicast: false,
            groups: Groups::new(),
            can_gather: false,
            can_gso4: false,
            can_gso6: false,
            ip_csum: true,
            ipv6_csum: false,
        }
    }

    /// When the oldest packet that waits for buffers is dropped.
    pub(super) fn deadline(&self) -> Option<SystemTime> {
        self.queue.front().map(|(since, _)| SystemTime(since + RX_DRAIN_NS))
    }

    /// One small piece of work. False: there is none.
    pub(super) fn step(&mut self, plug: &Plug, behaviour: &Behaviour, stats: &mut Stats) -> bool {
        if self.tx_line.take_event() {
            self.tx_awake = true;
            self.rx_waiting &= self.rx_line.is_some();
        }
        if self.rx_line.as_ref().is_some_and(Line::take_event) {
            self.rx_waiting = false;
        }
        if self.disabled {
            return false;
        }
        self.drop_old(stats);
        let mut jobs: [Job; 5] = [
            Self::take_one,
            Self::send_one,
            Self::finish_one,
            Self::fetch_one,
            Self::deliver_one,
        ];
        jobs.rotate_left(self.dom0.machine.below(5) as usize);
        jobs.iter().any(|job| job(self, plug, behaviour, stats))
    }

    /// The guest has broken a rule, unless we have.
    fn accuse(&self, what: &str) {
        if !self.lenient {
            let guest = self.guest;
            self.dom0.machine.violation(format!("netback for {guest}: {what}"));
        }
    }

    /// What waits for somebody who sleeps, while all sleep.
    pub(super) fn due(&self) -> Option<&'static str> {
        if self.disabled || self.lenient {
            return None;
        }
        if !self.tx_awake && self.tx.unconsumed() > 0 && !self.tx_line.has_event() {
            return Some("the guest has sent and not notified");
        }
        let (rx, rx_line) = (&self.rx, self.rx_line());
        if self.rx_waiting && rx.unconsumed() > 0 && rx.has_requests_to_tell() && !rx_line.has_event() {
            return Some("the guest has posted buffers and not notified");
        }
        (rx.has_news() && rx_line.is_quiet()).then_some("the guest sleeps over received packets")
    }

    pub(super) fn rx_line(&self) -> &Line {
        self.rx_line.as_ref().unwrap_or(&self.tx_line)
    }

    /// Events without a cause.
    pub(super) fn storm(&self, events: u64) {
        for _ in 0..events {
            self.rx_line().notify();
            self.tx_line.notify();
        }
    }

    // From the guest

    /// Takes the next packet's requests.
    fn take_one(&mut self, _: &Plug, behaviour: &Behaviour, stats: &mut Stats) -> bool {
        if !self.tx_awake {
            return false;
        }
        let groups = behaviour.multicast_control.then_some(&mut self.groups);
        match tx::take(&mut self.tx, &self.dom0, self.guest, groups) {
            Ok(Taken::Nothing) => self.tx_awake = self.tx.final_check(),
            Ok(Taken::Answered) => self.publish_tx(stats),
            Ok(Taken::Dropped(why)) => {
                stats.tx_dropped += 1;
                self.accuse(&format!("dropped a packet: {why}"));
                self.publish_tx(stats);
            }
            Ok(Taken::Packet(pending)) => {
                if !self.lenient {
                    self.tx_references.extend(pending.references());
                }
                self.pending.push_back(pending);
            }
            Err(fatal) => {
                self.accuse(&format!("vif disabled: {}", fatal.0));
                self.disabled = true;
            }
        }
        true
    }

    /// Hands the oldest packet on: their order is kept.
    fn send_one(&mut self, plug: &Plug, _: &Behaviour, stats: &mut Stats) -> bool {
        let Some(pending) = self.pending.pop_front() else {
            return false;
        };
        let mut packet = pending.packet();
        if self.lenient {
            // A frame whose buffer was answered too early may be two in one; whoever gets it shall not accuse the guest.
            packet.complete();
        }
        stats.tx_packets += 1;
        stats.tx_bytes += packet.bytes.len() as u64;
        self.sent.push(pending);
        plug.send(packet);
        true
    }

    /// Answers one of the packets that were handed on, in no particular order, as their receivers let them go.
    fn finish_one(&mut self, _: &Plug, _: &Behaviour, stats: &mut Stats) -> bool {
        if self.sent.is_empty() {
            return false;
        }
        let chosen = self.dom0.machine.below(self.sent.len() as u64) as usize;
        if !self.sent.swap_remove(chosen).finish(&mut self.tx) {
            self.accuse("a packet was changed before it was sent");
        }
        self.publish_tx(stats);
        true
    }

    fn publish_tx(&self, stats: &mut Stats) {
        if self.tx.publish() {
            stats.notifications += 1;
            self.tx_line.notify();
        }
    }

    // To the guest

    /// Takes a packet from the bridge.
    fn fetch_one(&mut self, plug: &Plug, behaviour: &Behaviour, stats: &mut Stats) -> bool {
        let Some(mut packet) = plug.receive() else { return false };
        if self.filters_multicast && is_for_other_group(&packet.bytes, &self.groups) {
            stats.rx_filtered += 1;
            return true;
        }
        self.dress(&mut packet, behaviour.checksums);
        if self.queue.len() >= RX_QUEUE {
            stats.rx_dropped += 1;
        } else {
            self.queue.push_back((self.dom0.machine.now.get(), packet));
            // Linux kicks the thread, which looks at the ring again.
            self.rx_waiting = false;
        }
        true
    }

    /// Gives a packet the flags that this backend's guest is to see, within what it said it can take.
    fn dress(&self, packet: &mut Packet, checksums: Checksums) {
        let choice = match checksums {
            Checksums::Mixed => self.dom0.machine.below(3),
            Checksums::AsTheyAre => 3,
            Checksums::Blank => 0,
            Checksums::Validated => 1,
        };
        let is_ipv6 = packet.bytes.get(12..14) == Some(&[0x86, 0xdd]);
        let may_be_blank = if is_ipv6 { self.ipv6_csum } else { self.ip_csum };
        match choice {
            // What came wrong from the wire stays wrong.
            0 if may_be_blank && packet.checksum != Checksum::Blank && packet.verify() == Some(true) => {
                let _ = packet.blank();
            }
            1 => {
                let _ = packet.complete();
                if packet.verify() == Some(true) {
                    packet.checksum = Checksum::Validated;
                }
            }
            _ => {}
        }
        if packet.checksum == Checksum::Blank && !may_be_blank {
            let _ = packet.complete();
        }
    }

    fn can_take(&self, packet: &Packet, slots: u32) -> bool {
        match packet.gso.map(|gso| gso.kind) {
            Some(GsoKind::Tcp4) => self.can_gso4,
            Some(GsoKind::Tcp6) => self.can_gso6,
            None => slots == 1 || self.can_gather,
        }
    }

    /// Copies the oldest packet into the guest's buffers, if it has posted enough.
    fn deliver_one(&mut self, _: &Plug, behaviour: &Behaviour, stats: &mut Stats) -> bool {
        if self.rx_waiting {
            return false;
        }
        let Some((_, packet)) = self.queue.front() else {
            return false;
        };
        let slots = rx::slots(packet, behaviour.fill);
        if !self.can_take(packet, slots) {
            self.queue.pop_front();
            stats.rx_dropped += 1;
            return true;
        }
        if self.rx.unconsumed() > super::ring::SIZE {
            self.accuse("vif disabled: impossible receive requests");
            self.disabled = true;
            return true;
        }
        if self.rx.unconsumed() < slots {
            // Not enough: ask for an event, and look again.
            self.rx_waiting = !self.rx.final_check();
            return true;
        }
        let Some((_, packet)) = self.queue.pop_front() else {
            return false;
        };
        match rx::put(&mut self.rx, &self.dom0, self.guest, &packet, behaviour.fill) {
            Ok(()) => {
                stats.rx_packets += 1;
                stats.rx_bytes += packet.bytes.len() as u64;
                stats.rx_slots += u64::from(slots);
            }
            Err(why) => self.accuse(&why),
        }
        if self.rx.publish() {
            stats.notifications += 1;
            self.rx_line().notify();
        }
        true
    }

    fn drop_old(&mut self, stats: &mut Stats) {
        let now = self.dom0.machine.now.get();
        while self.queue.front().is_some_and(|(since, _)| since + RX_DRAIN_NS <= now) {
            self.queue.pop_front();
            stats.rx_dropped += 1;
        }
    }
}

/// Whether a frame is for a multicast group, and not for one of these. Broadcasts are for everybody.
fn is_for_other_group(frame: &[u8], groups: &Groups) -> bool {
    let Some(to) = frame.first_chunk::<6>() else {
        return false;
    };
    to[0] & 1 != 0 && *to != [0xff; 6] && !groups.contains(to)
}
