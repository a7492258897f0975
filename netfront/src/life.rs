//! An interface's life: the driver's part of the handshake (the diagrams in xen/include/public/io/netif.h and xenbus.h).

use alloc::string::ToString;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::time::Duration;

use fata_events::any;
use fata_events::select::{Either, select};
use fata_hypercall::Hypervisor;
use fata_xenstore::Error as StoreError;
use fata_xenstore::xenbus::{Frontend, State, Step};

use crate::channels::Channels;
use crate::connect::{diagnose, negotiate};
use crate::features::{self, Agreement, Key, Queue};
use crate::retry::Retry;
use crate::rx::Rx;
use crate::tx::Tx;
use crate::{Error, Identity, Vif};

impl<H: Hypervisor> Vif<H> {
    /// The interface's life: connects, and connects again whenever the backend comes back.
    ///
    /// A backend that does not come in time is a [`problem`](Self::problem), and is waited for further. One that breaks the
    /// protocol, and whatever else goes wrong with a connection, is a problem too: the connection is closed, everything
    /// shared is revoked, or in the grant table's quarantine, and after a pause, which grows from a second to a minute, the
    /// interface begins again. Ends well when the interface was removed or [stopped](Self::stop); may be called again then.
    /// Dropped, it leaves the interface disconnected, but the store not told.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::Store`] if the device's nodes make no sense, or the store is lost for good.
    pub async fn run(&self) -> Result<(), Error> {
        self.0.stopping.set(false);
        let guard = DisconnectOnDrop(self);
        let result = self.attempts().await;
        drop(guard);
        self.tend_quarantine();
        self.set_state(false, result.err());
        result
    }

    /// One attempt after the other, each of which may be a connection of many years.
    async fn attempts(&self) -> Result<(), Error> {
        let inner = &*self.0;
        let handle = self.handle();
        let (mut retry, mut was_there) = (Retry::new(), false);
        loop {
            inner.fault.set(None);
            let (began, resumes, attention) = (handle.now(), inner.resumes.count(), inner.attention.count());
            let mut frontend = match Frontend::open(&inner.client, "vif", inner.index).await {
                Err(StoreError::Disconnected | StoreError::Restored) => continue,
                Err(error) if error.is_missing() && was_there => return Ok(()),
                Err(error) if error.is_missing() => return Err(Error::NoDevice),
                frontend => frontend?,
            };
            was_there = true;
            frontend.set_limits(inner.options.limits);
            // What was true of an old domain is not waited for: it is dropped where it stands.
            let attempt = self.live(&mut frontend, attention);
            let outcome = match select(inner.resumes.after(resumes), attempt).await {
                Either::First(_) => Err(Error::Store(StoreError::Restored)),
                Either::Second(outcome) => outcome,
            };
            // Everything was right until there was another store.
            let anew = matches!(
                outcome,
                Err(Error::Store(StoreError::Disconnected | StoreError::Restored))
            );
            self.set_state(false, if anew { None } else { outcome.err().or(self.problem()) });
            drop(self.take_connection().await);
            self.tend_quarantine();
            match outcome {
                Ok(()) => return Ok(()),
                Err(_) if anew => {}
                Err(error) if is_final(error) || inner.stopping.get() => return Err(error),
                Err(_) if frontend.state() == State::Unknown => return Ok(()),
                Err(_) => {
                    inner.counters.count(|stats| stats.retries += 1);
                    let pause = retry.pause(handle.now() - began);
                    self.pause(pause, &mut frontend, resumes).await;
                }
            }
        }
    }

    /// Lets the time pass, unless the toolstack has touched the device, or we are to stop or to go on in a new domain.
    async fn pause(&self, pause: Duration, frontend: &mut Frontend, resumes: u64) {
        let inner = &*self.0;
        let attention = inner.attention.count();
        let wanted = poll_fn(|cx| {
            any([
                inner.attention.poll_after(attention, cx),
                inner.resumes.poll_after(resumes, cx),
            ])
        });
        let touched = self.handle().timeout(pause, frontend.touched());
        select(wanted, touched).await;
    }

    /// One attempt: until the device is removed or stopped, or something goes wrong.
    async fn live(&self, frontend: &mut Frontend, attention: u64) -> Result<(), Error> {
        let mut seen = attention;
        let mut result = Ok(());
        if self.0.stopping.get() {
            frontend.stop();
        }
        loop {
            let outcome = match select(frontend.next(), self.0.attention.after(seen)).await {
                Either::First(step) => match step? {
                    Step::Ready => {
                        self.ready();
                        Ok(())
                    }
                    Step::GiveUp => {
                        self.set_state(false, Some(diagnose(frontend).await?));
                        Ok(())
                    }
                    Step::Finish => return result,
                    step => self.change(frontend, step).await,
                },
                Either::Second(count) => {
                    seen = count;
                    self.attend(frontend)
                }
            };
            if let Err(error) = outcome {
                // It cannot go on: the backend's host is told why, and the next steps lead out.
                self.set_state(false, Some(error));
                result = result.and(Err(error));
                frontend.fatal(&error.to_string()).await?;
            }
        }
    }

    /// Somebody wants something of us: to say that the backend broke the protocol, or that we stop.
    fn attend(&self, frontend: &mut Frontend) -> Result<(), Error> {
        if let Some(fault) = self.0.fault.get() {
            return Err(Error::Fault(fault));
        }
        if self.0.stopping.get() {
            self.set_state(false, self.problem());
            frontend.stop();
        }
        Ok(())
    }

    /// Connects or disconnects. Either way nothing of an earlier connection is left: there may not be memory for two.
    async fn change(&self, frontend: &mut Frontend, step: Step) -> Result<(), Error> {
        self.set_state(false, self.problem());
        let old = self.take_connection().await;
        if step == Step::Disconnect {
            frontend.set_state(State::Closed).await?;
            drop(old);
            self.tend_quarantine();
            return Ok(());
        }
        drop(old);
        let (identity, agreement) = negotiate(frontend, &self.0.options).await?;
        let keys = self.share(frontend, identity, agreement)?;
        Ok(frontend.switch(State::Connected, &keys).await?)
    }

    /// Shares rings, buffers and a port with the backend. Gives the keys that tell it where they are.
    fn share(&self, frontend: &Frontend, identity: Identity, agreement: Agreement) -> Result<Vec<Key>, Error> {
        let inner = &*self.0;
        let held = inner.table.stats().quarantined_pages;
        if held > QUARANTINE_LIMIT {
            // A backend that keeps a page of each connection would have all of our memory in the end.
            return Err(Error::Quarantine { pages: held });
        }
        let (backend, options) = (frontend.backend_id(), inner.options);
        let mut rx = Rx::new(&inner.table, backend, options.rx_buffers)?;
        let tx = Tx::new(&inner.table, backend, &options, &identity, agreement.filters_multicast)?;
        let channels = Channels::alloc(&inner.ports, backend, agreement.split_channels)?;
        // The backend finds the receive buffers when it attaches; nobody is there yet to be notified.
        let _ = rx.publish();
        let queue = Queue {
            tx_ring: tx.ring_reference(),
            rx_ring: rx.ring_reference(),
            tx_port: channels.for_tx().port(),
            rx_port: channels.rx.port(),
        };
        let keys = features::keys(&agreement, &[queue]);
        inner.identity.set(Some(identity));
        inner.starved.set(false);
        inner.channels.replace(Some(channels));
        inner.tx.replace(Some(tx));
        inner.rx.replace(Some(rx));
        Ok(keys)
    }

    /// The backend is connected, perhaps not for the first time.
    fn ready(&self) {
        let inner = &*self.0;
        if self.link_up() {
            // Perhaps its driver was started anew and serves the rings as it found them: there may be responses of which
            // its former self died before it could tell.
            inner.changes.raise();
            return;
        }
        if inner.fault.get().is_some() || inner.channels.borrow().is_none() {
            return;
        }
        inner.counters.count(|stats| stats.connections += 1);
        self.set_state(true, None);
        // A backend that has looked at the receive ring before it listened does so again.
        self.notify(true, true);
    }

    /// Sees to it that pages which a backend had not let go come back when it has: a backend may unmap a little after
    /// its state says so. Nothing runs while there are none.
    fn tend_quarantine(&self) {
        let inner = &*self.0;
        if inner.table.stats().quarantined == 0 {
            return;
        }
        let (table, handle) = (inner.table.clone(), inner.client.handle().clone());
        let tending = async move {
            while table.retry_quarantine() > 0 {
                handle.sleep(QUARANTINE_PAUSE).await;
            }
        };
        inner.client.handle().spawn(tending).detach();
    }

    /// Goes on in a new Xen domain, where nothing of what was shared with the backend exists any more: the link is down at
    /// once, and [`run`](Self::run) begins again with a backend that may be another one.
    ///
    /// To be called after the table of grants and the ports have begun again, and while nobody holds a frame.
    pub fn resume(&self) {
        self.set_state(false, None);
        drop(self.try_take_connection());
        self.0.resumes.raise();
    }

    /// Takes all that is shared with the backend away from the frames' paths. Waits until nobody holds a frame.
    async fn take_connection(&self) -> Remains<H> {
        loop {
            if let Some(remains) = self.try_take_connection() {
                return remains;
            }
            self.0.client.handle().sleep(Duration::from_millis(1)).await;
        }
    }

    fn try_take_connection(&self) -> Option<Remains<H>> {
        let inner = &*self.0;
        let mut rx = inner.rx.try_borrow_mut().ok()?;
        let mut tx = inner.tx.try_borrow_mut().ok()?;
        let mut channels = inner.channels.try_borrow_mut().ok()?;
        Some((channels.take(), tx.take(), rx.take()))
    }
}

/// Whether trying again is of no use.
fn is_final(error: Error) -> bool {
    use StoreError::{BadRing, NoRing, Port, ServerStopped, Stopped};
    matches!(
        error,
        Error::Store(BadRing | NoRing | Port | ServerStopped(_) | Stopped)
    )
}

/// How often pages in quarantine are tried again.
const QUARANTINE_PAUSE: Duration = Duration::from_secs(1);
/// The most pages that may be in quarantine when an interface connects.
const QUARANTINE_LIMIT: usize = 256;

/// A connection, or nothing. Dropped from the left: the ports are closed before the rings go.
type Remains<H> = (Option<Channels<H>>, Option<Tx<H>>, Option<Rx<H>>);

/// Ends the connection when [`Vif::run`] ends, in whatever way.
struct DisconnectOnDrop<'a, H: Hypervisor>(&'a Vif<H>);

impl<H: Hypervisor> Drop for DisconnectOnDrop<'_, H> {
    fn drop(&mut self) {
        self.0.set_state(false, self.0.problem());
        // If somebody holds a frame the connection ends with the next one, or with the interface.
        drop(self.0.try_take_connection());
    }
}
