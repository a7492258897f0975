//! A device's life: one connection to its backend after the other, for as long as the domain has the device.

use alloc::string::ToString;
use core::cell::Cell;
use core::fmt;
use core::future::{Future, pending, poll_fn, ready};
use core::time::Duration;

use fata_events::select::{Either, Either3, select, select3};
use fata_events::{Handle, Signal, any};
use fata_grant::Table;
use fata_hypercall::Hypervisor;

use super::retry::Retry;
use super::{Frontend, Limits, State, Step};
use crate::{Client, Error};

/// What a kind of device has of its own in a [`Life`].
///
/// The order is always the same: [`found`](Self::found), [`connect`](Self::connect), [`ready`](Self::ready), [`serve`](Self::serve) until there is
/// something else to do, and then again; [`down`](Self::down), [`disconnect`](Self::disconnect). Each may be the last one, and
/// the future of each may be dropped at every await.
pub trait Driver {
    /// What its devices are called in the store: `vif`, `vbd`, `9pfs`.
    const KIND: &'static str;

    /// What is shared with the backend. Dropped, it takes everything back, ports before pages (rule 58), and whoever uses the
    /// device knows that it is down. It is [disconnected](Self::disconnect) before, unless the whole life is dropped.
    type Connection;

    /// Why a device does not work.
    type Error: Copy + fmt::Display + From<Error> + From<fata_grant::Error>;

    /// The toolstack gave the domain no device with this number.
    const NO_DEVICE: Self::Error;

    /// The store's error in one of the driver's.
    fn store_error(error: Self::Error) -> Option<Error>;

    /// There is a device. Reads what the toolstack says about it, which is there before the backend.
    fn found(&self, frontend: &Frontend) -> impl Future<Output = Result<(), Self::Error>> {
        let _ = frontend;
        ready(Ok(()))
    }

    /// [`Step::Connect`]: reads what the backend offers, shares rings and ports with it, and tells it where they are. Nothing of an
    /// earlier connection is left.
    fn connect(&self, frontend: &mut Frontend) -> impl Future<Output = Result<Self::Connection, Self::Error>>;

    /// [`Step::Ready`]: the backend is connected.
    fn ready(
        &self,
        frontend: &mut Frontend,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// [`Step::Ready`], and not for the first time. The backend has something new to say, or its driver was started anew and has taken
    /// the rings as it found them: there may be responses of which its former self died before it could tell.
    fn ready_again(&self, connection: &mut Self::Connection);

    /// Works, as long as all goes well. Gives what does not.
    fn serve(&self, connection: &mut Self::Connection) -> impl Future<Output = Self::Error>;

    /// The connection is not to be used any more, though the backend may still have its pages.
    fn down(&self);

    /// Waits until nobody uses anything of the connection, and drops it.
    fn disconnect(&self, connection: Self::Connection) -> impl Future<Output = ()> {
        drop(connection);
        ready(())
    }

    /// What is the matter from now on, or that nothing is.
    fn report(&self, problem: Option<Self::Error>);

    /// [`Step::GiveUp`]: why the backend that is waited for has not come.
    fn diagnose(&self, frontend: &Frontend) -> impl Future<Output = Result<Self::Error, Self::Error>>;
}

/// A device's life, whatever the device: when to connect, when to try again, and when it is over.
///
/// Whatever goes wrong with a connection ends that connection only. The backend's host is told why, everything shared is revoked,
/// or in the grant table's quarantine, and after a pause, which grows from a second to a minute, the device begins again. A
/// backend that does not come in time is reported, and waited for further.
///
/// ```no_run
/// # use core::future::pending;
/// # use fata_events::xen::{Channel, Ports};
/// # use fata_grant::{ReadWrite, Shared, Table};
/// # use fata_hypercall::Hypervisor;
/// # use fata_xenstore::xenbus::{Driver, Frontend, Life, Limits, State};
/// # use fata_xenstore::{Client, Error};
/// /// A display of one page.
/// struct Display<H: Hypervisor>(Life<H>, Ports<H>);
///
/// impl<H: Hypervisor> Driver for Display<H> {
///     const KIND: &'static str = "display";
///     type Connection = (Channel<H>, Shared<H, ReadWrite>);
/// #   type Error = DisplayError;
/// #   const NO_DEVICE: DisplayError = DisplayError("there is no such display", None);
/// #   fn store_error(error: DisplayError) -> Option<Error> { error.1 }
///
///     async fn connect(&self, frontend: &mut Frontend) -> Result<Self::Connection, DisplayError> {
///         let backend = frontend.backend_id();
///         let page = self.0.table().share_zeroed(1, backend, ReadWrite)?;
///         let channel = self.1.alloc(backend)?;
///         let keys = [
///             ("page-ref", Some(page.reference(0).0.to_string())),
///             ("event-channel", Some(channel.port().0.to_string())),
///         ];
///         frontend.switch(State::Connected, &keys).await?;
///         Ok((channel, page))
///     }
///
///     async fn ready(&self, _: &mut Frontend, (channel, _): &mut Self::Connection) -> Result<(), DisplayError> {
///         channel.notify();
///         Ok(())
///     }
/// #   fn ready_again(&self, _: &mut Self::Connection) {}
/// #   async fn serve(&self, _: &mut Self::Connection) -> DisplayError { pending().await }
/// #   fn down(&self) {}
/// #   fn report(&self, _: Option<DisplayError>) {}
/// #   async fn diagnose(&self, _: &Frontend) -> Result<DisplayError, DisplayError> {
/// #       Ok(DisplayError("the backend does not answer", None))
/// #   }
///     // ...
/// }
/// # #[derive(Clone, Copy)]
/// # struct DisplayError(&'static str, Option<Error>);
/// # impl core::fmt::Display for DisplayError {
/// #     fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { f.write_str(self.0) }
/// # }
/// # impl From<Error> for DisplayError { fn from(error: Error) -> Self { Self("xenstore", Some(error)) } }
/// # impl From<fata_grant::Error> for DisplayError { fn from(_: fata_grant::Error) -> Self { Self("grant", None) } }
/// # impl From<fata_events::xen::Error> for DisplayError { fn from(_: fata_events::xen::Error) -> Self { Self("port", None) } }
///
/// async fn show<H: Hypervisor>(table: Table<H>, ports: Ports<H>, client: Client) -> Result<(), DisplayError> {
///     let display = Display(Life::new(table, client, 0, Limits::default()), ports);
///     display.0.run(&display).await
/// }
/// ```
#[derive(Debug)]
pub struct Life<H: Hypervisor> {
    table: Table<H>,
    client: Client,
    index: u32,
    limits: Limits,
    stopping: Cell<bool>,
    /// Raised with it.
    stops: Signal,
    /// Raised when the domain goes on in a new one.
    resumes: Signal,
    retries: Cell<u64>,
}

impl<H: Hypervisor> Life<H> {
    /// The life of the device with this number. Nothing happens before [`run`](Self::run).
    #[must_use]
    pub fn new(table: Table<H>, client: Client, index: u32, limits: Limits) -> Self {
        Self {
            table,
            client,
            index,
            limits,
            stopping: Cell::new(false),
            stops: Signal::new(),
            resumes: Signal::new(),
            retries: Cell::new(0),
        }
    }

    /// The device's number among those of its kind.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What its pages are shared through.
    #[must_use]
    pub fn table(&self) -> &Table<H> {
        &self.table
    }

    /// The loop that it runs on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.client.handle()
    }

    /// How many connections, and attempts at one, ended because something went wrong, and were tried again after a pause.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Has [`run`](Self::run) take leave of the backend and end.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.stops.raise();
    }

    /// Goes on in a new Xen domain, where nothing of what was shared with the backend exists any more: the connection is dropped
    /// where it stands, and [`run`](Self::run) begins again with a backend that may be another one.
    ///
    /// To be called after the table of grants and the ports have begun again.
    pub fn resume(&self) {
        self.resumes.raise();
    }

    /// Lives. Ends well when the device was removed or [stopped](Self::stop); may be called again then. Dropped, it leaves the
    /// device disconnected, but the store not told.
    ///
    /// # Errors
    /// [`Driver::NO_DEVICE`]; one of the store if the device's nodes make no sense, or the store is lost for good.
    pub async fn run<D: Driver>(&self, driver: &D) -> Result<(), D::Error> {
        self.stopping.set(false);
        let result = self.attempts(driver).await;
        driver.report(result.err());
        result
    }

    /// One attempt after the other, each of which may be a connection of many years.
    async fn attempts<D: Driver>(&self, driver: &D) -> Result<(), D::Error> {
        let (mut retry, mut was_there) = (Retry::new(), false);
        loop {
            let (began, resumes, stops) = (self.handle().now(), self.resumes.count(), self.stops.count());
            let mut frontend = match Frontend::open(&self.client, D::KIND, self.index).await {
                Err(Error::Disconnected | Error::Restored) => continue,
                Err(error) if error.is_missing() && was_there => return Ok(()),
                Err(error) if error.is_missing() => return Err(D::NO_DEVICE),
                frontend => frontend?,
            };
            was_there = true;
            frontend.set_limits(self.limits);
            let mut connection = None;
            // What was true of an old domain is not waited for: it is dropped where it stands.
            let attempt = self.attempt(driver, &mut frontend, &mut connection, stops);
            let outcome = match select(self.resumes.after(resumes), attempt).await {
                Either::First(_) => Err(Error::Restored.into()),
                Either::Second(outcome) => outcome,
            };
            self.disconnect(driver, connection).await;
            let Err(error) = outcome else { return Ok(()) };
            let store_error = D::store_error(error);
            if let Some(Error::Disconnected | Error::Restored) = store_error {
                // Everything was right until there was another store.
                driver.report(None);
                continue;
            }
            driver.report(Some(error));
            if store_error.is_some_and(is_final) || self.stopping.get() {
                return Err(error);
            }
            if frontend.state() == State::Unknown {
                return Ok(());
            }
            self.retries.set(self.retries.get() + 1);
            let pause = retry.pause(self.handle().now() - began);
            self.pause(pause, &mut frontend, stops, resumes).await;
        }
    }

    /// Lets the time pass, unless the toolstack has touched the device, or we are to stop or to go on in a new domain.
    async fn pause(&self, pause: Duration, frontend: &mut Frontend, stops: u64, resumes: u64) {
        let wanted = poll_fn(|cx| any([self.stops.poll_after(stops, cx), self.resumes.poll_after(resumes, cx)]));
        select(wanted, self.handle().timeout(pause, frontend.touched())).await;
    }

    /// One attempt: until the device is removed or stopped, or something goes wrong.
    async fn attempt<D: Driver>(
        &self,
        driver: &D,
        frontend: &mut Frontend,
        connection: &mut Option<D::Connection>,
        mut stops: u64,
    ) -> Result<(), D::Error> {
        let (mut is_ready, mut result) = (false, Ok(()));
        driver.found(frontend).await?;
        if self.stopping.get() {
            frontend.stop();
        }
        loop {
            // After a failure, and when we leave, it is kept, unused, until the backend has let go.
            let mut usable = connection.as_mut().filter(|_| result.is_ok() && !self.stopping.get());
            let serving = async {
                match &mut usable {
                    Some(connection) if is_ready => driver.serve(connection).await,
                    _ => pending().await,
                }
            };
            let news = select3(frontend.next(), self.stops.after(stops), serving).await;
            let outcome = match news {
                Either3::First(step) => match step? {
                    step @ (Step::Connect | Step::Disconnect) => {
                        driver.down();
                        let leaving = step == Step::Disconnect;
                        if leaving {
                            frontend.set_state(State::Closed).await?;
                        }
                        // Either way nothing of an earlier connection is left: there may not be memory for two.
                        self.disconnect(driver, connection.take()).await;
                        is_ready = false;
                        match self.table.check_quarantine(frontend.backend_id()) {
                            _ if leaving => Ok(()),
                            Ok(()) => driver.connect(frontend).await.map(|made| *connection = Some(made)),
                            Err(error) => Err(error.into()),
                        }
                    }
                    Step::Ready => match usable {
                        Some(connection) if is_ready => {
                            driver.ready_again(connection);
                            Ok(())
                        }
                        Some(connection) => driver.ready(frontend, connection).await.map(|()| is_ready = true),
                        None => Ok(()),
                    },
                    Step::GiveUp => {
                        driver.report(Some(driver.diagnose(frontend).await?));
                        Ok(())
                    }
                    Step::Finish => return result,
                },
                Either3::Second(count) => {
                    stops = count;
                    driver.down();
                    frontend.stop();
                    Ok(())
                }
                Either3::Third(error) => Err(error),
            };
            if let Err(error) = outcome {
                // It cannot go on: the backend's host is told why, and the next steps lead out.
                driver.report(Some(error));
                driver.down();
                result = result.and(Err(error));
                frontend.fatal(&error.to_string()).await?;
            }
        }
    }

    async fn disconnect<D: Driver>(&self, driver: &D, connection: Option<D::Connection>) {
        if let Some(connection) = connection {
            driver.disconnect(connection).await;
            self.tend_quarantine();
        }
    }

    /// Sees to it that pages which a backend had not let go come back when it has: a backend may unmap a little after
    /// its state says so. Nothing runs while there are none.
    fn tend_quarantine(&self) {
        let Some(tender) = self.table.tend_quarantine() else {
            return;
        };
        let handle = self.handle().clone();
        let tending = async move {
            while tender.retry() > 0 {
                handle.sleep(QUARANTINE_PAUSE).await;
            }
        };
        self.handle().spawn(tending).detach();
    }
}

/// How often pages in quarantine are tried again.
const QUARANTINE_PAUSE: Duration = Duration::from_secs(1);

/// Whether trying again is of no use.
fn is_final(error: Error) -> bool {
    use Error::{BadRing, NoRing, Port, ServerStopped, Stopped};
    matches!(error, BadRing | NoRing | Port | ServerStopped(_) | Stopped)
}
