//! A frontend's end of a device, as nodes in the store.

use alloc::string::String;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use fata_events::Instant;
use fata_hypercall::{DomId, Errno};

use super::nodes::{Nodes, device_path, join};
use super::{Action, Event, State, action};
use crate::{Client, Error, Watch};

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

/// How long a backend may take for its part, whatever it does meanwhile (rules 76 and 77).
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
///         Step::Connect => frontend.switch(State::Connected, &[("tx-ring-ref", Some("8"))]).await?,
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
    backend_path: String,
    backend_id: DomId,
    limits: Limits,
    /// Our state, as last written or read.
    own: State,
    /// The backend's state, as last read.
    theirs: State,
    /// A write of our state was begun and may or may not have happened: its future was dropped.
    unsure: bool,
    /// What we are about: Found, Changed or Stop.
    purpose: Event,
    /// The backend has been connected in this life.
    ready: bool,
    /// What the states ask for has been done; the next look waits for a change.
    settled: bool,
    /// The nodes speak of another device than the one we serve: another backend, or a life that is not ours.
    moved: bool,
    /// Since when the backend has had its part to do.
    since: Instant,
    /// Fires when the key `backend` changes, and when the device is removed.
    whereabouts: Watch,
    /// Fires when the backend's state changes.
    backend: Watch,
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
        // The watches before the looks: what changes in between is seen.
        let whereabouts = client.watch(&join(&path, "backend"))?;
        let values = client.read_all(&Nodes::paths(&path)).await?;
        let nodes = Nodes::parse(&values)?.ok_or(Error::Refused(Errno::ENOENT))?;
        let backend = client.watch(&join(&nodes.backend_path, "state"))?;
        Ok(Self {
            client: client.clone(),
            path,
            backend_path: nodes.backend_path,
            backend_id: nodes.backend_id,
            limits: Limits::default(),
            own: nodes.own,
            theirs: State::Unknown,
            unsure: false,
            purpose: Event::Found,
            ready: false,
            settled: false,
            moved: false,
            since: client.handle().now(),
            whereabouts,
            backend,
        })
    }

    /// The same, but waits until the device is there (rule 68).
    ///
    /// # Errors
    /// As [`open`](Self::open), except that a missing device is waited for, without limit.
    pub async fn appear(client: &Client, kind: &str, id: u32) -> Result<Self, Error> {
        let mut directory = client.watch(&device_path(kind, id))?;
        loop {
            directory.changed().await?;
            match Self::open(client, kind, id).await {
                Err(error) if error.is_missing() => {}
                opened => return opened,
            }
        }
    }

    /// Sets how long the backend may take.
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

    /// The backend's state, as last read. [`State::Unknown`] if it is not there, not ours to read, or not a state.
    #[must_use]
    pub fn backend_state(&self) -> State {
        self.theirs
    }

    /// The values of several nodes, as [`Client::read_all`] gives them; asked for again if the connection to the store
    /// is made anew meanwhile.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn read_all(&self, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        loop {
            match self.client.read_all(paths).await {
                Err(Error::Disconnected) => {}
                outcome => return outcome,
            }
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
            let expired = self.settled && self.wait().await?;
            self.settled = false;
            self.look().await?;
            let event = if expired { Event::Expired } else { self.purpose };
            let action = action(self.own, self.theirs, event);
            self.settled = !matches!(action, Action::Close | Action::Restart);
            let state = match action {
                Action::Wait => continue,
                Action::Close => State::Closing,
                Action::Restart => {
                    if event == Event::Expired {
                        // What the backend is now, it was before this life.
                        self.purpose = Event::Found;
                    }
                    State::Initialising
                }
                Action::Connect => {
                    self.purpose = Event::Changed;
                    self.ready = false;
                    return Ok(Step::Connect);
                }
                Action::Ready => {
                    self.ready = true;
                    return Ok(Step::Ready);
                }
                Action::Disconnect => return Ok(Step::Disconnect),
                Action::GiveUp => return Ok(Step::GiveUp),
                Action::Finish => return Ok(Step::Finish),
            };
            self.set_state(state).await?;
        }
    }

    /// Waits until the toolstack has touched the device: removed it, made it anew, or moved it to another backend.
    ///
    /// For a driver that has closed the device and pauses. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection to the store has ended.
    pub async fn touched(&mut self) -> Result<(), Error> {
        self.whereabouts.changed().await
    }

    /// From here on the steps lead out: Closing, [`Step::Disconnect`] when the backend has let go, [`Step::Finish`].
    pub fn stop(&mut self) {
        self.purpose = Event::Stop;
        self.settled = false;
        self.since = self.client.handle().now();
    }

    /// The device is broken: writes why to where the toolstack looks for it, and [stops](Self::stop).
    ///
    /// # Errors
    /// The connection to the store has ended. A node that we may not write is no error.
    pub async fn fatal(&mut self, text: &str) -> Result<(), Error> {
        self.stop();
        // If even this cannot be written, the state still tells; and if nothing can, that fails below.
        let node = ["error/", &self.path, "/error"].concat();
        self.client.write_unanswered(&node, text.as_bytes());
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
    pub fn set_state(&mut self, state: State) -> impl Future<Output = Result<(), Error>> {
        self.write_state(state, Vec::new())
    }

    /// Writes keys into our directory, or removes those without a value, and writes our state, as one change.
    ///
    /// # Errors
    /// See [`Client::transaction`]. A removed device is none: see [`set_state`](Self::set_state).
    pub fn switch<K, V>(&mut self, state: State, keys: &[(K, Option<V>)]) -> impl Future<Output = Result<(), Error>>
    where
        K: AsRef<str>,
        V: AsRef<[u8]>,
    {
        let keys = keys
            .iter()
            .map(|(key, value)| (self.key(key.as_ref()), value.as_ref().map(AsRef::as_ref)))
            .collect();
        self.write_state(state, keys)
    }

    async fn write_state(&mut self, state: State, mut nodes: Vec<(String, Option<&[u8]>)>) -> Result<(), Error> {
        if self.own == state && nodes.is_empty() && !self.unsure {
            return Ok(());
        }
        let node = self.key("state");
        nodes.push((node.clone(), Some(state.digit().as_bytes())));
        self.unsure = true;
        let life = self.client.life();
        let outcome = loop {
            let attempt = self.client.transaction(async |transaction| {
                let old = transaction.read(&node);
                let written = transaction.write_all(&nodes).await;
                // A node that is not there any more is not made again.
                old.await?;
                written
            });
            match attempt.await {
                // Doing it twice does no harm, within one life.
                Err(Error::Disconnected) if self.client.life() == life => {}
                outcome => break outcome,
            }
        };
        self.own = match outcome {
            Err(error) if error.is_missing() => State::Unknown,
            outcome => outcome.map(|()| state)?,
        };
        self.unsure = false;
        self.since = self.client.handle().now();
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
                self.look().await?;
                let state = self.theirs;
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

    /// Whether the toolstack wants the device to be there.
    async fn is_online(&self) -> Result<bool, Error> {
        let values = self.read_all(&[self.backend_key("online")]).await?;
        Ok(matches!(values.first(), Some(Some(value)) if value == b"1"))
    }

    /// Waits for a change, or until the backend's time is up; `true` if it is up.
    async fn wait(&mut self) -> Result<bool, Error> {
        let handle = self.client.handle().clone();
        let limit = match (self.own, self.purpose) {
            (State::Closing, _) | (State::Closed, Event::Found) => Some(self.limits.close),
            // A backend that was started anew may have taken the end of its former life's connection for its own, and has
            // closed as we have. While the toolstack wants the device, we offer it again.
            (State::Closed, _) if self.is_online().await? => Some(self.limits.close),
            (State::Closed, _) => None,
            _ if self.ready => None,
            _ => Some(self.limits.connect),
        };
        let mut time = limit.map(|limit| handle.sleep_until(self.since + limit));
        let expired = poll_fn(|cx| {
            // The time first, so that changes without end do not hide it.
            let expired = time.as_mut().is_some_and(|time| Pin::new(time).poll(cx).is_ready());
            let backend = self.backend.poll_changed(cx)?;
            let whereabouts = self.whereabouts.poll_changed(cx)?;
            if expired || backend.is_ready() || whereabouts.is_ready() {
                // To be looked at, also by a future that comes after this one was dropped.
                self.settled = false;
                Poll::Ready(Ok(expired))
            } else {
                Poll::Pending
            }
        });
        let expired = expired.await?;
        if expired {
            self.since = handle.now();
        }
        Ok(expired)
    }

    /// Looks at our nodes and at the backend's state.
    async fn look(&mut self) -> Result<(), Error> {
        loop {
            self.backend.take_changed();
            self.whereabouts.take_changed();
            let mut paths = Nodes::paths(&self.path);
            paths.push(self.backend_key("state"));
            let mut values = self.read_all(&paths).await?;
            let backend = values.pop().flatten();
            match Nodes::parse(&values)? {
                None => self.own = State::Unknown,
                Some(nodes) => {
                    if core::mem::take(&mut self.unsure) {
                        self.own = nodes.own;
                    }
                    self.moved |= nodes.backend_path != self.backend_path || nodes.own != self.own;
                    // Only when nothing is shared with the old backend any more.
                    if self.moved && matches!(self.own, State::Initialising | State::Closed) {
                        self.go_over(nodes)?;
                        continue;
                    }
                }
            }
            self.theirs = match backend {
                // Whatever the new backend does is not about what we shared with the old one.
                _ if self.moved || self.own == State::Unknown => State::Unknown,
                Some(state) => State::parse(&state).unwrap_or(State::Unknown),
                None => State::Unknown,
            };
            return Ok(());
        }
    }

    /// From here on we serve the device that the nodes speak of.
    fn go_over(&mut self, nodes: Nodes) -> Result<(), Error> {
        if nodes.backend_path != self.backend_path {
            self.backend = self.client.watch(&join(&nodes.backend_path, "state"))?;
        }
        self.backend_path = nodes.backend_path;
        self.backend_id = nodes.backend_id;
        self.own = nodes.own;
        self.moved = false;
        self.ready = false;
        self.since = self.client.handle().now();
        if self.purpose == Event::Changed {
            self.purpose = Event::Found;
        }
        Ok(())
    }
}
