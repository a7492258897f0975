//! A device's life: the driver's part of the handshake (the diagram in xen/include/public/io/9pfs.h).

use alloc::rc::Rc;
use core::future::poll_fn;
use core::time::Duration;

use fata_events::{Instant, any};
use fata_hypercall::Hypervisor;
use fata_xenstore::Error as StoreError;
use fata_xenstore::xenbus::{Driver, Frontend, State};

use crate::common::Common;
use crate::connect::{diagnose, keys, negotiate, tag};
use crate::device::Inner;
use crate::rings::Rings;
use crate::{Device, Error, Fault};

/// How often a backend that owes an answer is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// How long it may take until the root directory is there, until a server says whether it still knows us, and until a message
/// is whole.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is shared with the backend, and how the talk over it goes.
struct Connection<H: Hypervisor> {
    common: Rc<Common>,
    rings: Rings<H>,
    /// When the backend was looked after, or heard of, or owed nothing.
    looked: Instant,
    /// Since when something is due that cannot take long.
    due: Option<Instant>,
    /// Events up to this one were told what came of them (rule 55).
    judged: u64,
}

impl<H: Hypervisor> Drop for Connection<H> {
    fn drop(&mut self) {
        self.common.end();
    }
}

impl<H: Hypervisor> Device<H> {
    /// The device's life: connects, and connects again whenever the backend comes back.
    ///
    /// A backend that does not come in time is a [`problem`](crate::Share::problem), and is waited for further. One that breaks
    /// the protocol, dies, or whatever else goes wrong, is a problem too: the connection is closed, everything shared is
    /// revoked, or in the grant table's quarantine, and after a pause, which grows from a second to a minute, the device begins
    /// again. Ends well when the device was removed or [stopped](Self::stop); may be called again then.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::Store`] if the device's nodes make no sense, or the store is lost for good.
    pub async fn run(&self) -> Result<(), Error> {
        self.0.life.run(&P9front(self)).await
    }
}

/// What is special about a share in the life of a device.
struct P9front<'a, H: Hypervisor>(&'a Device<H>);

impl<H: Hypervisor> Driver for P9front<'_, H> {
    const KIND: &'static str = "9pfs";
    type Connection = Connection<H>;
    type Error = Error;
    const NO_DEVICE: Error = Error::NoDevice;

    fn store_error(error: Error) -> Option<StoreError> {
        match error {
            Error::Store(error) => Some(error),
            _ => None,
        }
    }

    async fn found(&self, frontend: &Frontend) -> Result<(), Error> {
        self.0.0.common.tag.replace(Some(tag(frontend).await?));
        Ok(())
    }

    async fn connect(&self, frontend: &mut Frontend) -> Result<Connection<H>, Error> {
        let Inner { life, ports, common } = &*self.0.0;
        let order = negotiate(frontend).await?;
        let rings = Rings::new(life.table(), ports, frontend.backend_id(), order)?;
        frontend.switch(State::Initialised, &keys(&rings)).await?;
        Ok(Connection {
            common: Rc::clone(common),
            rings,
            looked: Instant::ZERO,
            due: None,
            judged: 0,
        })
    }

    async fn ready(&self, frontend: &mut Frontend, connection: &mut Connection<H>) -> Result<(), Error> {
        frontend.set_state(State::Connected).await?;
        // QEMU serves one request after the other, so the longer they are the better.
        self.0.0.common.begin(connection.rings.half());
        Ok(())
    }

    fn ready_again(&self, _: &mut Connection<H>) {
        // Whether the server still knows what was open.
        self.0.0.common.with(|session| {
            session.probe();
            Ok(())
        });
    }

    async fn serve(&self, connection: &mut Connection<H>) -> Error {
        let Connection {
            rings,
            looked,
            due,
            judged,
            ..
        } = connection;
        let (common, handle) = (&self.0.0.common, self.0.handle());
        let work = &common.graves.work;
        loop {
            let (events, asked) = (rings.channel.count(), work.count());
            if let Some(fault) = common.fault.get() {
                return Error::Fault(fault);
            }
            let turn = common.with(|session| {
                let received = rings.turn(session)?;
                Ok((received, session.is_waiting(), session.is_asking()))
            });
            let (received, waiting, asking) = match turn {
                Some(Ok(done)) => done,
                Some(Err(fault)) => return Error::Fault(fault),
                None => return Error::Closed,
            };
            if events != *judged {
                rings.channel.served(received);
                *judged = events;
            }
            *due = (asking || rings.is_partial()).then(|| due.unwrap_or(handle.now()));
            let now = handle.now();
            if received || !waiting {
                *looked = now;
            }
            // Whatever news there are from our own side: they must not hide that there are none from the other.
            let quiet = now - *looked;
            if quiet >= LOOK_AFTER {
                *looked = now;
                if !rings.channel.has_peer() {
                    return Error::Gone;
                }
                if due.is_some_and(|since| now - since > PATIENCE) {
                    return if rings.is_partial() {
                        Error::Fault(Fault::Truncated)
                    } else {
                        diagnose(State::Connected, State::Connected)
                    };
                }
                continue;
            }
            let channel = &rings.channel;
            let news = poll_fn(|cx| any([channel.poll_after(events, cx), work.poll_after(asked, cx)]));
            if waiting {
                let _ = handle.timeout(LOOK_AFTER - quiet, news).await;
            } else {
                news.await;
            }
        }
    }

    fn down(&self) {
        self.0.0.common.end();
    }

    fn report(&self, problem: Option<Error>) {
        self.0.0.common.set_problem(problem);
    }

    async fn diagnose(&self, frontend: &Frontend) -> Result<Error, Error> {
        Ok(diagnose(frontend.state(), frontend.backend_state()))
    }
}
