//! An interface's life: the driver's part of the handshake (the diagrams in xen/include/public/io/netif.h and xenbus.h).

use alloc::vec::Vec;
use core::time::Duration;

use fata_hypercall::Hypervisor;
use fata_xenstore::Error as StoreError;
use fata_xenstore::xenbus::{Driver, Frontend, State};

use crate::channels::Channels;
use crate::connect::{diagnose, negotiate};
use crate::features::{self, Agreement, Key, Queue};
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
        self.0.life.run(&Netfront(self)).await
    }

    /// Goes on in a new Xen domain, where nothing of what was shared with the backend exists any more: the link is down at
    /// once, and [`run`](Self::run) begins again with a backend that may be another one.
    ///
    /// To be called after the table of grants and the ports have begun again, and while nobody holds a frame.
    pub fn resume(&self) {
        self.set_state(false, None);
        drop(self.try_take_remains());
        self.0.life.resume();
    }

    /// Shares rings, buffers and a port with the backend. Gives the keys that tell it where they are.
    fn share(&self, frontend: &Frontend, identity: Identity, agreement: Agreement) -> Result<Vec<Key>, Error> {
        let inner = &*self.0;
        let (backend, options, table) = (frontend.backend_id(), inner.options, inner.life.table());
        let mut rx = Rx::new(table, backend, options.rx_buffers)?;
        let tx = Tx::new(table, backend, &options, &identity, agreement.filters_multicast)?;
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

    /// Takes back all that is shared with the backend. Waits until nobody holds a frame.
    async fn take_remains(&self) {
        while self.try_take_remains().is_none() {
            self.handle().sleep(Duration::from_millis(1)).await;
        }
    }

    /// Takes all that is shared with the backend away from the frames' paths, unless somebody holds a frame.
    fn try_take_remains(&self) -> Option<Remains<H>> {
        let inner = &*self.0;
        let mut rx = inner.rx.try_borrow_mut().ok()?;
        let mut tx = inner.tx.try_borrow_mut().ok()?;
        let mut channels = inner.channels.try_borrow_mut().ok()?;
        Some((channels.take(), tx.take(), rx.take()))
    }
}

/// Rings, buffers and ports, or nothing. Dropped from the left: the ports are closed before the rings go.
type Remains<H> = (Option<Channels<H>>, Option<Tx<H>>, Option<Rx<H>>);

/// What is shared with the backend, in the [`Vif`], where the frames' paths find it.
struct Connection<H: Hypervisor>(Vif<H>);

impl<H: Hypervisor> Drop for Connection<H> {
    fn drop(&mut self) {
        Netfront(&self.0).down();
        // If somebody holds a frame it goes with the next connection, or with the interface.
        drop(self.0.try_take_remains());
    }
}

/// What is special about a vif in the life of a device.
struct Netfront<'a, H: Hypervisor>(&'a Vif<H>);

impl<H: Hypervisor> Driver for Netfront<'_, H> {
    const KIND: &'static str = "vif";
    type Connection = Connection<H>;
    type Error = Error;
    const NO_DEVICE: Error = Error::NoDevice;

    fn store_error(error: Error) -> Option<StoreError> {
        match error {
            Error::Store(error) => Some(error),
            _ => None,
        }
    }

    async fn connect(&self, frontend: &mut Frontend) -> Result<Connection<H>, Error> {
        let vif = self.0;
        vif.0.fault.set(None);
        vif.take_remains().await;
        let (identity, agreement) = negotiate(frontend, &vif.0.options).await?;
        let keys = vif.share(frontend, identity, agreement)?;
        let connection = Connection(vif.clone());
        frontend.switch(State::Connected, &keys).await?;
        Ok(connection)
    }

    async fn ready(&self, _: &mut Frontend, _: &mut Connection<H>) -> Result<(), Error> {
        let vif = self.0;
        vif.0.counters.count(|stats| stats.connections += 1);
        vif.set_state(true, None);
        // A backend that has looked at the receive ring before it listened does so again.
        vif.notify(true, true);
        Ok(())
    }

    fn ready_again(&self, _: &mut Connection<H>) {
        self.0.0.changes.raise();
    }

    async fn serve(&self, _: &mut Connection<H>) -> Error {
        let inner = &*self.0.0;
        loop {
            let seen = inner.faults.count();
            if let Some(fault) = inner.fault.get() {
                return Error::Fault(fault);
            }
            inner.faults.after(seen).await;
        }
    }

    async fn disconnect(&self, connection: Connection<H>) {
        self.down();
        self.0.take_remains().await;
        drop(connection);
    }

    fn down(&self) {
        self.0.set_state(false, self.0.problem());
    }

    fn report(&self, problem: Option<Error>) {
        self.0.set_state(self.0.link_up() && problem.is_none(), problem);
    }

    async fn diagnose(&self, frontend: &Frontend) -> Result<Error, Error> {
        diagnose(frontend).await
    }
}
