//! A frontend's end of a device, as nodes in the store.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::time::Duration;

use fata_events::select::{Either, select};
use fata_hypercall::{DomId, Errno};

use super::{Action, Event, State, action};
use crate::{Client, Error, Watch, decimal};

/// What [`Frontend::next`] wants the driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Share rings and ports, and [`switch`](Frontend::switch) to Connected (Initialised for a device with two steps)
    /// with the keys that name them.
    Connect,
    /// The backend is connected. Read what it says about the device: the first time, and each time this comes again.
    /// A device with two steps then [switches](Frontend::switch) to Connected.
    Ready,
    /// Stop using the rings, [`switch`](Frontend::switch) to Closed, and take everything back.
    Disconnect,
    /// The backend has not done its part within the [limit](Limits). Say so. Asking for the next step goes on waiting;
    /// [`fatal`](Frontend::fatal) or [`stop`](Frontend::stop) does not.
    GiveUp,
    /// The device is no more, or it was stopped and is closed. Take back whatever is left, and drop the frontend.
    Finish,
}

/// How long a backend may be silent (rules 76 and 77).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until it is ready to connect, and then until it is connected.
    pub connect: Duration,
    /// Until it lets go of a connection that shall end.
    pub close: Duration,
}

impl Default for Limits {
    /// 10 seconds and 5 seconds.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            close: Duration::from_secs(5),
        }
    }
}

/// The frontend's end of the device `device/<type>/<id>`: its place in the store, and the handshake with the backend.
///
/// A driver asks for the [`next`](Self::next) step again and again and does what it is told; when to do what is the
/// business of the [table](super::action). Whatever happens in between (the backend moves, is restarted, the device
/// is removed and comes back) ends in one of the five steps.
///
/// ```no_run
/// # use fata_xenstore::xenbus::{Frontend, State, Step};
/// # async fn example(store: &fata_xenstore::Client) -> Result<(), fata_xenstore::Error> {
/// let mut frontend = Frontend::appear(store, "vif", 0).await?;
/// loop {
///     match frontend.next().await? {
///         Step::Connect => frontend.switch(State::Connected, &[("tx-ring-ref", "8")]).await?,
///         Step::Ready => { /* traffic may flow */ }
///         Step::Disconnect => frontend.set_state(State::Closed).await?,
///         Step::GiveUp => frontend.fatal("the backend does not answer").await?,
///         Step::Finish => return Ok(()),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Frontend {
    client: Client,
    path: String,
    error_path: String,
    backend_path: String,
    backend_id: DomId,
    limits: Limits,
    /// Our state, as last written or read.
    own: State,
    /// A write of our state was begun and may or may not have happened: its future was dropped.
    unsure: bool,
    /// What we are about: Found, Changed or Stop.
    purpose: Event,
    /// The backend has been connected in this life.
    ready: bool,
    /// The last look at the states has led to a step; the next look waits for a change.
    settled: bool,
    /// The nodes speak of another device than the one we serve: another backend, or a life that is not ours.
    moved: bool,
    /// Our nodes may have changed.
    look_again: bool,
    /// Fires when the key `backend` changes, and when the device is removed.
    whereabouts: Watch,
    /// Fires when the backend's state changes.
    backend: Watch,
}

/// What the toolstack's nodes say about a device.
struct Found {
    backend_path: String,
    backend_id: DomId,
    own: State,
}

impl Frontend {
    /// Takes up the device that the toolstack described under `device/<kind>/<id>`.
    ///
    /// # Errors
    /// * An [`Error::is_missing`] one if there is no such device. There is no "first one" to fall back to (rule 74).
    /// * [`Error::BadValue`] if its nodes make no sense.
    /// * See [`Client`].
    pub async fn open(client: &Client, kind: &str, id: u32) -> Result<Self, Error> {
        let path = device_path(kind, id);
        // The watch before the look: what changes in between is seen.
        let whereabouts = client.watch(&join(&path, "backend")).await?;
        let Some(found) = read_found(client, &path).await? else {
            return Err(Error::Refused(Errno::ENOENT));
        };
        let backend = client.watch(&join(&found.backend_path, "state")).await?;
        Ok(Self {
            client: client.clone(),
            error_path: ["error/", &path, "/error"].concat(),
            path,
            backend_path: found.backend_path,
            backend_id: found.backend_id,
            limits: Limits::default(),
            own: found.own,
            unsure: false,
            purpose: Event::Found,
            ready: false,
            settled: false,
            moved: false,
            look_again: false,
            whereabouts,
            backend,
        })
    }

    /// The same, but waits until the device is there (rule 68).
    ///
    /// # Errors
    /// As [`open`](Self::open), except that a missing device is waited for, without limit.
    pub async fn appear(client: &Client, kind: &str, id: u32) -> Result<Self, Error> {
        let mut directory = client.watch(&device_path(kind, id)).await?;
        loop {
            directory.changed().await?;
            match Self::open(client, kind, id).await {
                Err(error) if error.is_missing() => {}
                opened => return opened,
            }
        }
    }

    /// Sets how long the backend may be silent.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The store.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `device/<type>/<id>`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of one of our keys.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The backend's directory. It changes when the device moves to another backend; see [`Step::Connect`].
    #[must_use]
    pub fn backend_path(&self) -> &str {
        &self.backend_path
    }

    /// The path of one of the backend's keys.
    #[must_use]
    pub fn backend_key(&self, name: &str) -> String {
        join(&self.backend_path, name)
    }

    /// The domain that the backend lives in: whom to share pages with.
    #[must_use]
    pub fn backend_id(&self) -> DomId {
        self.backend_id
    }

    /// Our state, as last written or read.
    #[must_use]
    pub fn state(&self) -> State {
        self.own
    }

    /// The backend's state, read now. [`State::Unknown`] if it is not there, not ours to read, or not a state.
    ///
    /// # Errors
    /// See [`Client`]; refusals are no error here.
    pub async fn backend_state(&self) -> Result<State, Error> {
        match self.client.read(&self.backend_key("state")).await {
            Ok(value) => Ok(State::parse(&value).unwrap_or(State::Unknown)),
            Err(Error::Refused(_)) => Ok(State::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Waits for the next thing that the driver has to do. Dropping the future loses nothing.
    ///
    /// A step is given once for each change of the states: a driver that does not follow it gets the next one when
    /// something changes again.
    ///
    /// # Errors
    /// The connection to the store has ended, or the device moved to a backend that makes no sense.
    pub async fn next(&mut self) -> Result<Step, Error> {
        loop {
            match self.try_next().await {
                // The nodes are still there when the connection is back.
                Err(Error::Disconnected) => self.look_again = true,
                outcome => return outcome,
            }
        }
    }

    async fn try_next(&mut self) -> Result<Step, Error> {
        let mut expired = false;
        if self.settled {
            expired = self.wait().await?;
        }
        loop {
            self.settled = false;
            let backend = self.look().await?;
            let event = if expired { Event::Expired } else { self.purpose };
            expired = false;
            let step = match action(self.own, backend, event) {
                Action::Wait => {
                    expired = self.wait().await?;
                    continue;
                }
                Action::Close => {
                    self.set_state(State::Closing).await?;
                    continue;
                }
                Action::Restart => {
                    self.set_state(State::Initialising).await?;
                    continue;
                }
                Action::Connect => {
                    self.purpose = Event::Changed;
                    self.ready = false;
                    Step::Connect
                }
                Action::Ready => {
                    self.ready = true;
                    Step::Ready
                }
                Action::Disconnect => Step::Disconnect,
                Action::GiveUp => Step::GiveUp,
                Action::Finish => Step::Finish,
            };
            self.settled = true;
            return Ok(step);
        }
    }

    /// From here on the steps lead out: Closing, [`Step::Disconnect`] when the backend has let go, [`Step::Finish`].
    pub fn stop(&mut self) {
        self.purpose = Event::Stop;
        self.settled = false;
    }

    /// The device is broken: writes why to where the toolstack looks for it, and [stops](Self::stop).
    ///
    /// # Errors
    /// The connection to the store has ended. A node that we may not write is no error.
    pub async fn fatal(&mut self, text: &str) -> Result<(), Error> {
        self.stop();
        // If even this cannot be written, the state still tells; and if nothing can, that fails below.
        let _ = self.client.write(&self.error_path, text).await;
        match self.own {
            State::Closing | State::Closed | State::Unknown => Ok(()),
            _ => self.set_state(State::Closing).await,
        }
    }

    /// Writes our state, unless it is that already.
    ///
    /// If the device was removed meanwhile nothing is written, so that it does not rise from the dead; that is no
    /// error: our state is [`State::Unknown`] then, and the next step [`Step::Finish`].
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn set_state(&mut self, state: State) -> Result<(), Error> {
        self.write_state(state, Vec::new()).await
    }

    /// Writes keys into our directory, and our state, as one change.
    ///
    /// # Errors
    /// See [`Client::transaction`]. A removed device is none: see [`set_state`](Self::set_state).
    pub async fn switch<K, V>(&mut self, state: State, keys: &[(K, V)]) -> Result<(), Error>
    where
        K: AsRef<str>,
        V: AsRef<[u8]>,
    {
        let keys = keys
            .iter()
            .map(|(key, value)| (self.key(key.as_ref()), value.as_ref()))
            .collect();
        self.write_state(state, keys).await
    }

    /// Boxed, so that each of the many who await it holds a pointer and not a transaction.
    fn write_state<'a>(
        &'a mut self,
        state: State,
        keys: Vec<(String, &'a [u8])>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>> {
        Box::pin(self.try_write_state(state, keys))
    }

    async fn try_write_state(&mut self, state: State, keys: Vec<(String, &[u8])>) -> Result<(), Error> {
        if self.own == state && keys.is_empty() && !self.unsure {
            return Ok(());
        }
        let node = self.key("state");
        self.unsure = true;
        let written = loop {
            let attempt = self.client.transaction(async |nodes| {
                let old = match nodes.read(&node).await {
                    Ok(old) => old,
                    Err(error) if error.is_missing() => return Ok(false),
                    Err(error) => return Err(error),
                };
                for (key, value) in &keys {
                    nodes.write(key, value).await?;
                }
                if old != state.digit().as_bytes() {
                    nodes.write(&node, state.digit()).await?;
                }
                Ok(true)
            });
            match attempt.await {
                Err(Error::Disconnected) => {} // doing it twice does no harm
                outcome => break outcome?,
            }
        };
        self.unsure = false;
        self.own = if written { state } else { State::Unknown };
        // A device with two steps goes on to Connected when it is Ready: that is no news for it.
        self.settled = self.ready && self.own == State::Connected;
        self.ready &= self.own == State::Connected;
        Ok(())
    }

    /// Waits until the backend is in one of the states `wanted`, and says in which.
    ///
    /// For drivers with a handshake of their own; the others have [`next`](Self::next).
    ///
    /// # Errors
    /// [`Error::Backend`] if it is Closing, Closed or gone and that is not wanted; [`Error::TimedOut`] after `limit`;
    /// see [`Client`].
    pub async fn wait_for_backend(&mut self, wanted: &[State], limit: Duration) -> Result<State, Error> {
        let handle = self.client.handle().clone();
        let wait = async {
            loop {
                self.backend.take_changed();
                let state = self.backend_state().await?;
                if wanted.contains(&state) {
                    return Ok(state);
                }
                if state.is_over() {
                    return Err(Error::Backend(state));
                }
                self.backend.changed().await?;
            }
        };
        handle.timeout(limit, wait).await.unwrap_or(Err(Error::TimedOut))
    }

    /// Waits for a change. `true` if the other end was silent for too long instead.
    async fn wait(&mut self) -> Result<bool, Error> {
        let limit = match (self.own, self.purpose) {
            (State::Closing, _) | (State::Closed, Event::Found) => Some(self.limits.close),
            (State::Closed, _) => None,
            _ if self.ready => None,
            _ => Some(self.limits.connect),
        };
        let handle = self.client.handle().clone();
        let change = select(self.whereabouts.changed(), self.backend.changed());
        let change = match limit {
            None => change.await,
            Some(limit) => match handle.timeout(limit, change).await {
                Ok(change) => change,
                Err(_) => return Ok(true),
            },
        };
        // What fired is to be looked at, also by a future that comes after this one was dropped.
        self.settled = false;
        let result = match change {
            Either::First(result) => {
                self.look_again = true;
                result
            }
            Either::Second(result) => result,
        };
        result.map(|()| false)
    }

    /// Looks at the nodes: at ours if they may have changed, and at the backend's state, which it gives.
    async fn look(&mut self) -> Result<State, Error> {
        self.backend.take_changed();
        self.look_again |= self.whereabouts.take_changed();
        if self.look_again || self.unsure || self.moved {
            match read_found(&self.client, &self.path).await? {
                None => self.own = State::Unknown,
                Some(found) => self.compare(found).await?,
            }
            self.look_again = false;
        }
        if self.moved || self.own == State::Unknown {
            // Whatever the new backend does is not about what we shared with the old one.
            return Ok(State::Unknown);
        }
        self.backend_state().await
    }

    /// Finds out whether the nodes still speak of what we serve; if not, goes over to what they speak of as soon as
    /// nothing is shared with the old backend.
    async fn compare(&mut self, found: Found) -> Result<(), Error> {
        if self.unsure {
            self.own = found.own;
            self.unsure = false;
        }
        self.moved |= found.backend_path != self.backend_path || found.own != self.own;
        if self.moved && matches!(self.own, State::Initialising | State::Closed) {
            if found.backend_path != self.backend_path {
                self.backend = self.client.watch(&join(&found.backend_path, "state")).await?;
            }
            self.backend_path = found.backend_path;
            self.backend_id = found.backend_id;
            self.own = found.own;
            self.moved = false;
            self.ready = false;
            if self.purpose == Event::Changed {
                self.purpose = Event::Found;
            }
        }
        Ok(())
    }
}

/// What the toolstack's nodes say; `None` while one of them is missing or is not ours to read.
async fn read_found(client: &Client, path: &str) -> Result<Option<Found>, Error> {
    let read = async {
        let backend_path = client.read_string(&join(path, "backend")).await?;
        let backend_id = client
            .read_number(&join(path, "backend-id"), 0..=DomId::FIRST_RESERVED.0 - 1)
            .await?;
        let own = client
            .read_parsed(&join(path, "state"), |value| State::parse(value).ok())
            .await?;
        Ok(Found {
            backend_path,
            backend_id: DomId(backend_id),
            own,
        })
    };
    match read.await {
        Ok(found) => Ok(Some(found)),
        Err(error) if Error::is_missing(error) || error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ids of the devices of a type that the domain has, in order. Names that are no numbers are left out.
///
/// To be told of new ones, watch `device/<kind>`.
///
/// # Errors
/// See [`Client`]; a missing directory is no error.
pub async fn devices(client: &Client, kind: &str) -> Result<Vec<u32>, Error> {
    let names = match client.list(&join("device", kind)).await {
        Ok(names) => names,
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for name in names {
        // They are few: put in their places one by one, they need no sorting, which is large.
        if let Some(id) = decimal::parse(name.as_bytes(), 0..=u32::MAX.into()) {
            let id = id as u32;
            ids.insert(ids.partition_point(|&other| other < id), id);
        }
    }
    Ok(ids)
}

fn device_path(kind: &str, id: u32) -> String {
    ["device/", kind, "/", &decimal::string(id.into())].concat()
}

fn join(directory: &str, name: &str) -> String {
    [directory, "/", name].concat()
}
