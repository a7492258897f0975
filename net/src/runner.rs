//! The one task that moves packets.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use alloc::rc::Rc;

use fata_events::{Instant, yield_now};

use crate::device::{Device, RxFrame, TxFrame, TxMeta};
use crate::phy::Port;
use crate::reply;
use crate::stack::Shared;
use crate::state::{State, time};

/// How long a device without room, or without a link, keeps connections from finding out that they have timed out.
const PATIENCE: Duration = Duration::from_secs(1);

/// Moves packets between a [`Device`] and the sockets of a [`Stack`](crate::Stack).
///
/// Spawn [`run`](Runner::run); nothing happens without it. Dropping the runner ends the stack: every operation, also
/// those under way, fails with [`Error::Stopped`](crate::Error::Stopped) or as if the peer had reset.
pub struct Runner<D: Device> {
    shared: Rc<Shared>,
    device: D,
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
        Self { shared, device }
    }

    /// Works for ever: receives, sends, keeps the timers. In each turn of the loop it does a bounded amount of work
    /// ([`Limits::burst`](crate::Limits::burst)), and flushes the device once.
    pub async fn run(mut self) {
        loop {
            let seen = self.shared.kick.count();
            let now = self.shared.handle.turn_began();
            let next = self.shared.state.borrow_mut().work(now, &mut self.device);
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
    /// One round: link, arrivals, timers, departures.
    fn work<D: Device>(&mut self, now: Instant, device: &mut D) -> Next {
        let capabilities = device.capabilities();
        self.set_link(now, device.link_up(), capabilities);
        self.egress.offload = capabilities.tx_checksum;
        self.interface.poll_maintenance(time(now));
        self.time_wait.expire(now);

        let received = self.drain(now, device);
        if self.no_router(now) {
            self.end_router_search::<D>(now);
        }
        self.poll_addresses(now);
        if self.status.link_up && self.announcements.take(now) {
            device.listen(&self.groups());
            self.send_announcements(device);
        }
        self.fire(now);
        let own = self.send(now, device);

        let exhausted = self.egress.exhausted;
        // The device says when it has room. But it may be without a link, and connections must end all the same.
        let patience = (exhausted && self.sockets.connections() > 0).then(|| now + PATIENCE);
        let timer = self.sockets.agenda.next_timer();
        let announcement = self.announcements.deadline().filter(|_| self.status.link_up);
        let deadline = [timer, own, self.no_router_at, self.lease_ends, patience, announcement]
            .into_iter()
            .flatten()
            .min();
        Next {
            // To sleep until a time that is over would be to go round without letting anybody else run.
            more: received == self.limits.burst
                || (self.sockets.agenda.ready() > 0 && !exhausted)
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
    }

    fn end_router_search<D: Device>(&mut self, now: Instant) {
        let link_local = self.status.addresses.iter().find_map(|cidr| match cidr.address {
            core::net::IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        });
        if let Some(frame) = link_local.and_then(|address| reply::no_router(self.capabilities.mac, address)) {
            let mut port = Port::<D>::silent(&frame, &self.capabilities, &mut self.egress);
            self.interface
                .poll_ingress_single(time(now), &mut port, &mut self.nobody);
        }
    }
}
