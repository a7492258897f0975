//! The backend's end of a device, as nodes in the store.

use fata_hypercall::DomId;

use super::XenbusState;
use super::line::Line;
use super::malice::junk;
use crate::domain::Domain;
use crate::sim::{Sim, Waker};
use crate::store::{Store, StoreWatch};

/// Whether there is anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The driver domain lives.
    Alive,
    /// It has crashed.
    Dead,
    /// The device was taken away.
    Removed,
}

/// Where a device's two ends are in the store, how far ours has come, and what the other one says.
pub struct End {
    pub(crate) dom0: Domain,
    pub(crate) guest: DomId,
    name: &'static str,
    front: String,
    back: String,
    store: Store,
    waker: Waker,
    /// While it listens to the frontend.
    frontend: Option<StoreWatch>,
    state: XenbusState,
    /// It says something at all.
    responsive: bool,
    life: Life,
    /// It hangs: it does nothing, and lets nothing go.
    silent: bool,
    /// The rings that it finds may have been another one's.
    restarted: bool,
}

impl End {
    pub(super) fn new(
        sim: &Sim,
        name: &'static str,
        at: (DomId, String, String),
        responsive: bool,
        waker: Waker,
    ) -> Self {
        let (guest, front, back) = at;
        let mut end = Self {
            dom0: sim.dom0().clone(),
            guest,
            name,
            front,
            back,
            store: sim.store().clone(),
            waker,
            frontend: None,
            state: XenbusState::Initialising,
            responsive,
            life: Life::Alive,
            silent: false,
            restarted: false,
        };
        end.listen();
        end
    }

    fn listen(&mut self) {
        let state = format!("{}/state", self.front);
        self.frontend = self.responsive.then(|| self.store.watch(&state, &self.waker));
    }

    /// Goes on as the end of the same device in a new domain.
    pub(super) fn move_to(&mut self, guest: DomId, front: String, back: String) {
        (self.guest, self.front, self.back) = (guest, front, back);
        self.life = Life::Alive;
        self.restarted = false;
        self.state = XenbusState::Initialising;
        self.listen();
    }

    pub(super) fn die(&mut self) {
        self.frontend = None;
        if self.life == Life::Alive {
            self.life = Life::Dead;
        }
    }

    pub(super) fn restart(&mut self) {
        self.life = Life::Alive;
        self.restarted = true;
        self.responsive = true;
        self.listen();
        self.switch_to(XenbusState::Initialising);
    }

    pub(super) fn remove(&mut self) {
        self.frontend = None;
        self.life = Life::Removed;
    }

    pub(super) const fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub(super) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    pub(super) fn is_removed(&self) -> bool {
        self.life == Life::Removed
    }

    /// It is there, and does not hang.
    pub(super) fn is_working(&self) -> bool {
        self.is_alive() && !self.silent
    }

    /// It has just begun, and it is for us to say something.
    pub(super) fn begins(&self) -> bool {
        self.state == XenbusState::Initialising && self.frontend.is_some()
    }

    /// The frontend's state, if it may have changed since the last look.
    pub(super) fn news(&self) -> Option<XenbusState> {
        let news = self.frontend.as_ref().is_some_and(StoreWatch::take);
        news.then(|| XenbusState::parse(&self.key("state").unwrap_or_default()))
    }

    /// The frontend's directory.
    pub(crate) fn front(&self) -> &str {
        &self.front
    }

    /// Our directory.
    pub(crate) fn back(&self) -> &str {
        &self.back
    }

    /// Our state. The node may say something else, out of malice.
    pub(crate) const fn state(&self) -> XenbusState {
        self.state
    }

    /// The rings that the frontend has shared may be those of a backend before us, who has left something in them.
    pub(crate) const fn is_restarted(&self) -> bool {
        self.restarted
    }

    /// One of the frontend's keys.
    pub(crate) fn key(&self, name: &str) -> Option<String> {
        self.store.read_text(&format!("{}/{name}", self.front))
    }

    /// The same, which says yes or no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.key(name).is_some_and(|value| value == "1")
    }

    /// The same, which has to be a number.
    pub(crate) fn number(&self, name: &str) -> Result<u32, String> {
        let value = self.key(name).ok_or_else(|| format!("reading {}/{name}", self.front))?;
        value.parse().map_err(|_| format!("{name} is {value:?}"))
    }

    /// Writes one of our keys.
    pub(crate) fn publish(&self, name: &str, value: impl AsRef<[u8]>) {
        let _ = self.store.write(&format!("{}/{name}", self.back), value);
    }

    /// Takes one of our keys away.
    pub(crate) fn withdraw(&self, name: &str) {
        let _ = self.store.remove(&format!("{}/{name}", self.back));
    }

    /// Goes to another state, and says so.
    pub(crate) fn switch_to(&mut self, state: XenbusState) {
        self.state = state;
        self.publish("state", (state as u8).to_string());
    }

    /// Waits for the frontend, which has let go of what was before.
    pub(crate) fn wait_anew(&mut self) {
        self.restarted = false;
        self.switch_to(XenbusState::InitWait);
    }

    /// Binds a port that the frontend has named.
    pub(crate) fn bind(&self, port: u32) -> Result<Line, String> {
        Line::bind(&self.dom0, self.guest, port, &self.waker)
    }

    /// The guest has broken a rule.
    pub(crate) fn accuse(&self, what: &str) {
        let Self { name, guest, .. } = self;
        self.dom0.machine.violation(format!("{name} for {guest}: {what}"));
    }

    /// `xenbus_dev_fatal`: says why in the store, and closes.
    pub(crate) fn fatal(&mut self, why: &str) {
        let path = self.back.replacen("/backend/", "/error/backend/", 1);
        let _ = self.store.write(&format!("{path}/error"), format!("22 {why}"));
        self.switch_to(XenbusState::Closing);
    }

    // Malice

    /// Gives one of our keys any value.
    pub(crate) fn junk_key(&self) {
        let names = self.store.list(&self.back);
        let chosen = self.dom0.machine.below(names.len() as u64) as usize;
        if let Some(name) = names.get(chosen) {
            self.publish(name, junk(&self.dom0));
        }
    }

    /// The state goes back, or to what is no state.
    pub(crate) fn junk_state(&self) {
        self.publish("state", junk(&self.dom0));
    }
}
