//! A device's life: the driver's part of the handshake (the diagram in xen/include/public/io/9pfs.h), again and again.

use alloc::string::ToString;
use core::future::poll_fn;
use core::time::Duration;

use fata_events::select::{Either, Either3, select, select3};
use fata_events::{Instant, any};
use fata_hypercall::Hypervisor;
use fata_xenstore::Error as StoreError;
use fata_xenstore::xenbus::{Frontend, State, Step};

use crate::connect::{diagnose, keys, negotiate, tag};
use crate::rings::Rings;
use crate::{Device, Error, Fault};

/// How often a backend that owes an answer is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// How long it may take until the root directory is there, until a server says whether it still knows us, and until a message
/// is whole.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts. Each that goes wrong costs a connection.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often pages in quarantine are tried again.
const QUARANTINE_PAUSE: Duration = Duration::from_secs(1);
/// The most pages that may be in quarantine when a device connects.
const QUARANTINE_LIMIT: usize = 256;

/// What is shared with the backend, and whether it is used.
struct Connection<H: Hypervisor> {
    rings: Rings<H>,
    serving: bool,
    /// When the backend was looked after, or heard of, or owed nothing.
    looked: Instant,
    /// Since when something is due that cannot take long.
    due: Option<Instant>,
    /// Events up to this one were told what came of them (rule 55).
    judged: u64,
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
        self.0.stopping.set(false);
        let guard = EndOnDrop(self);
        let result = self.attempts().await;
        drop(guard);
        self.tend_quarantine();
        self.0.common.set_problem(result.err());
        result
    }

    /// One attempt after the other, each of which may be a connection of many years.
    async fn attempts(&self) -> Result<(), Error> {
        let inner = &*self.0;
        let (mut pause, mut was_there) = (SHORTEST_PAUSE, false);
        loop {
            let (began, resumes) = (self.handle().now(), inner.resumes.count());
            let mut frontend = match Frontend::open(&inner.client, "9pfs", inner.index).await {
                Err(StoreError::Disconnected | StoreError::Restored) => continue,
                Err(error) if error.is_missing() && was_there => return Ok(()),
                Err(error) if error.is_missing() => return Err(Error::NoDevice),
                frontend => frontend?,
            };
            was_there = true;
            // What was true of an old domain is not waited for: it is dropped where it stands.
            let outcome = match select(inner.resumes.after(resumes), self.live(&mut frontend)).await {
                Either::First(_) => Err(Error::Store(StoreError::Restored)),
                Either::Second(outcome) => outcome,
            };
            let anew = matches!(
                outcome,
                Err(Error::Store(StoreError::Disconnected | StoreError::Restored))
            );
            inner
                .common
                .end(outcome.err().filter(|_| !anew).unwrap_or(Error::Closed));
            self.tend_quarantine();
            match outcome {
                Ok(()) => return Ok(()),
                Err(_) if anew => {}
                Err(error) if is_final(error) || inner.stopping.get() => return Err(error),
                Err(_) if frontend.state() == State::Unknown => return Ok(()),
                Err(error) => {
                    inner.common.set_problem(Some(error));
                    if self.handle().now() - began >= LONGEST_PAUSE {
                        pause = SHORTEST_PAUSE;
                    }
                    self.pause(pause, &mut frontend, resumes).await;
                    pause = LONGEST_PAUSE.min(2 * pause);
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
        select(wanted, self.handle().timeout(pause, frontend.touched())).await;
    }

    /// One attempt: until the device is removed or stopped, or something goes wrong.
    async fn live(&self, frontend: &mut Frontend) -> Result<(), Error> {
        let inner = &*self.0;
        inner.common.tag.replace(Some(tag(frontend).await?));
        let (mut seen, mut connection, mut result) = (0, None, Ok(()));
        loop {
            let serve = self.serve(connection.as_mut());
            let outcome = match select3(frontend.next(), inner.attention.after(seen), serve).await {
                Either3::First(step) => match step? {
                    Step::Connect => {
                        inner.common.end(Error::Closed);
                        drop(connection.take());
                        self.connect(frontend).await.map(|made| connection = Some(made))
                    }
                    Step::Ready => self.ready(frontend, connection.as_mut()).await,
                    Step::Disconnect => {
                        inner.common.end(result.err().unwrap_or(Error::Closed));
                        let old = connection.take();
                        frontend.set_state(State::Closed).await?;
                        drop(old);
                        self.tend_quarantine();
                        Ok(())
                    }
                    Step::GiveUp => {
                        inner
                            .common
                            .set_problem(Some(diagnose(frontend.state(), frontend.backend_state())));
                        Ok(())
                    }
                    Step::Finish => return result,
                },
                Either3::Second(count) => {
                    seen = count;
                    if inner.stopping.get() {
                        frontend.stop();
                    }
                    Ok(())
                }
                Either3::Third(error) => Err(error),
            };
            if let Err(error) = outcome {
                // It cannot go on: the backend's host is told why, and the next steps lead out.
                inner.common.set_problem(Some(error));
                inner.common.end(error);
                if let Some(connection) = &mut connection {
                    connection.serving = false;
                }
                result = result.and(Err(error));
                frontend.fatal(&error.to_string()).await?;
            }
        }
    }

    /// Shares a ring with the backend and tells it where it is.
    async fn connect(&self, frontend: &mut Frontend) -> Result<Connection<H>, Error> {
        let inner = &*self.0;
        let held = inner.table.stats().quarantined_pages;
        if held > QUARANTINE_LIMIT {
            // A backend that keeps a page of each connection would have all of our memory in the end.
            return Err(Error::Quarantine { pages: held });
        }
        let order = negotiate(frontend).await?;
        let rings = Rings::new(&inner.table, &inner.ports, frontend.backend_id(), order)?;
        frontend.switch(State::Initialised, &keys(&rings)).await?;
        Ok(Connection {
            rings,
            serving: false,
            looked: Instant::ZERO,
            due: None,
            judged: 0,
        })
    }

    /// The backend is connected, perhaps not for the first time.
    async fn ready(&self, frontend: &mut Frontend, connection: Option<&mut Connection<H>>) -> Result<(), Error> {
        let common = &self.0.common;
        let Some(connection) = connection else { return Ok(()) };
        if connection.serving {
            // Perhaps its driver was started anew, and took the ring as it found it.
            common.with(|session| {
                session.probe();
                Ok(())
            });
            return Ok(());
        }
        frontend.set_state(State::Connected).await?;
        // QEMU serves one request after the other, so the longer they are the better.
        common.begin(connection.rings.half());
        connection.serving = true;
        Ok(())
    }

    /// Moves messages for as long as all goes well. Without a connection in use it waits.
    async fn serve(&self, connection: Option<&mut Connection<H>>) -> Error {
        let Some(Connection {
            rings,
            serving: true,
            looked,
            due,
            judged,
        }) = connection
        else {
            return core::future::pending().await;
        };
        let (common, handle) = (&self.0.common, self.handle());
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

    /// Sees to it that pages which a backend had not let go come back when it has: a backend may unmap a little after
    /// its state says so. Nothing runs while there are none.
    fn tend_quarantine(&self) {
        let inner = &*self.0;
        if inner.table.stats().quarantined == 0 {
            return;
        }
        let (table, handle) = (inner.table.clone(), self.handle().clone());
        let tending = async move {
            while table.retry_quarantine() > 0 {
                handle.sleep(QUARANTINE_PAUSE).await;
            }
        };
        self.handle().spawn(tending).detach();
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

/// A life that is dropped leaves no session.
struct EndOnDrop<'a, H: Hypervisor>(&'a Device<H>);

impl<H: Hypervisor> Drop for EndOnDrop<'_, H> {
    fn drop(&mut self) {
        self.0.0.common.end(Error::Closed);
    }
}
