//! The one task that moves packets.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use alloc::rc::Rc;

use fata_events::{Instant, yield_now};
use smoltcp::iface::PollResult;

use crate::device::{Device, RxFrame, TxFrame, TxMeta};
use crate::phy::Port;
use crate::reply;
use crate::stack::Shared;
use crate::state::{State, time};

/// First and longest pause when smoltcp says that there is something to send, and sends nothing.
const STALL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// Moves packets between a [`Device`] and the sockets of a [`Stack`](crate::Stack).
///
/// Spawn [`run`](Runner::run); nothing happens without it. Dropping the runner ends the stack: every operation, also
/// those under way, fails with [`Error::Stopped`](crate::Error::Stopped) or as if the peer had reset.
pub struct Runner<D: Device> {
    shared: Rc<Shared>,
    device: D,
    stall: Duration,
}

/// What is to be done after one round of work.
struct Next {
    /// There is more to do at once.
    more: bool,
    /// There is something to do then, even if nothing happens.
    deadline: Option<Instant>,
}

impl<D: Device> Runner<D> {
    pub(crate) fn new(shared: Rc<Shared>, device: D) -> Self {
        Self {
            shared,
            device,
            stall: STALL.0,
        }
    }

    /// Works for ever: receives, sends, keeps the timers. In each turn of the loop it does a bounded amount of work
    /// ([`Limits::burst`](crate::Limits::burst)), and flushes the device once.
    pub async fn run(mut self) {
        loop {
            let seen = self.shared.kick.count();
            let now = self.shared.handle.now();
            let next = self
                .shared
                .state
                .borrow_mut()
                .work(now, &mut self.device, &mut self.stall);
            self.device.flush();
            if next.more {
                yield_now().await;
                continue;
            }
            let mut sleep = next.deadline.map(|deadline| self.shared.handle.sleep_until(deadline));
            let (device, kick) = (&mut self.device, &self.shared.kick);
            poll_fn(|cx| {
                let timer = sleep.as_mut().is_some_and(|sleep| Pin::new(sleep).poll(cx).is_ready());
                if timer || device.poll_ready(cx).is_ready() || kick.poll_after(seen, cx).is_ready() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }
}

impl<D: Device> Drop for Runner<D> {
    fn drop(&mut self) {
        self.shared.state.borrow_mut().stop();
    }
}

impl State {
    /// One round: link, arrivals, tables, departures.
    fn work<D: Device>(&mut self, now: Instant, device: &mut D, stall: &mut Duration) -> Next {
        let capabilities = device.capabilities();
        self.set_link(now, device.link_up(), capabilities);
        self.egress.offload = capabilities.tx_checksum;
        self.interface.poll_maintenance(time(now));
        self.time_wait.expire(now);

        let received = self.drain(now, device);
        self.sweep_half_open(now);
        if self.no_router(now) {
            self.end_router_search::<D>(now);
        }
        self.poll_addresses();
        if self.announce && self.status.link_up {
            self.send_announcements(device);
        }
        self.sweep_closing(now, false);
        let (all_sent, progress) = self.send(now, device);
        self.sweep_closing(now, all_sent);
        self.sweep_lingering(now);
        // While the device has no room, nobody can tell whether a neighbour answers.
        let stuck = if all_sent { self.sweep_stuck(now) } else { None };

        let mut deadline = self.next_deadline().into_iter().chain(stuck).min();
        if self.egress.exhausted {
            // The device says when it has room. But it may be without a link, and connections must end all the same.
            let at = (self.tcp_sockets > 0).then(|| now + STALL.1);
            deadline = deadline.into_iter().chain(at).min();
        } else {
            let mut at = self.poll_at(now);
            if at.is_some_and(|at| at <= now) && all_sent {
                at = Some(now + if progress { STALL.0 } else { *stall });
                *stall = if progress { STALL.0 } else { (*stall * 2).min(STALL.1) };
            } else {
                *stall = STALL.0;
            }
            deadline = deadline.into_iter().chain(at).min();
        }
        let exhausted = self.egress.exhausted;
        Next {
            // To sleep until a time that is over would be to go round without letting anybody else run.
            more: received == self.limits.burst
                || (!all_sent && !exhausted)
                || deadline.is_some_and(|deadline| deadline <= now),
            deadline,
        }
    }

    /// Takes in what has arrived, up to the burst limit. Gives the number of frames.
    fn drain<D: Device>(&mut self, now: Instant, device: &mut D) -> usize {
        for count in 0..self.limits.burst {
            // An answer that leaves in fragments must be gone before the next one can be made.
            self.send_fragments(now, device);
            if self.egress.fragmenting {
                return count;
            }
            let Some((rx, answer)) = device.receive() else {
                return count;
            };
            let flag = rx.checksum();
            rx.consume(|frame| self.receive::<D>(now, frame, flag, answer));
        }
        self.limits.burst
    }

    /// Sends the rest of the packet that smoltcp is sending in fragments.
    fn send_fragments<D: Device>(&mut self, now: Instant, device: &mut D) {
        self.egress.exhausted = false;
        self.egress.only_fragments = true;
        while self.egress.fragmenting && !self.egress.exhausted {
            let before = self.egress.frames;
            let mut port = Port::device(device, &self.capabilities, &mut self.egress);
            // The nursery is empty: no socket shall start to send now.
            self.interface.poll_egress(time(now), &mut port, &mut self.nursery);
            if self.egress.frames == before {
                break;
            }
        }
        self.egress.only_fragments = false;
    }

    /// Sends what there is to send, up to the burst limit. Says whether that was all, and whether it was anything.
    fn send<D: Device>(&mut self, now: Instant, device: &mut D) -> (bool, bool) {
        let before = self.egress.frames;
        let limit = before + self.limits.burst as u64;
        loop {
            self.send_fragments(now, device);
            if self.egress.exhausted {
                return (false, self.egress.frames > before);
            }
            let mut port = Port::device(device, &self.capabilities, &mut self.egress);
            let result = self.interface.poll_egress(time(now), &mut port, &mut self.sockets);
            let done = result == PollResult::None && !self.egress.fragmenting;
            if done || self.egress.exhausted || self.egress.frames >= limit {
                return (done && !self.egress.exhausted, self.egress.frames > before);
            }
        }
    }

    fn send_announcements<D: Device>(&mut self, device: &mut D) {
        let addresses = self.status.addresses.iter();
        let frames = addresses.filter_map(|cidr| reply::announcement(self.capabilities.mac, cidr.address));
        for frame in frames {
            let Some(room) = device.transmit() else {
                // The neighbours will ask.
                break;
            };
            room.consume(frame.len(), |out| {
                out.copy_from_slice(&frame);
                ((), TxMeta::default())
            });
            self.egress.frames += 1;
            self.egress.bytes += frame.len() as u64;
        }
        self.announce = false;
    }

    fn end_router_search<D: Device>(&mut self, now: Instant) {
        let link_local = self.status.addresses.iter().find_map(|cidr| match cidr.address {
            core::net::IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        });
        if let Some(frame) = link_local.and_then(|address| reply::no_router(self.capabilities.mac, address)) {
            let mut port = Port::<D>::silent(&frame, &self.capabilities, &mut self.egress);
            self.interface
                .poll_ingress_single(time(now), &mut port, &mut self.sockets);
        }
    }
}
