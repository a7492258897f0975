//! The backend's side of the handshake (drivers/net/xen-netback/xenbus.c as facts).

use fata_hypercall::{DomId, GrantRef, Port};

use super::link::Link;
use super::malice::{Trick, junk};
use super::ring::Ring;
use super::{Behaviour, Stats, XenbusState};
use crate::domain::Domain;
use crate::grants::Access;
use crate::sim::{Next, Sim, Waker};
use crate::store::{Store, StoreWatch};
use crate::wire::Plug;

/// Bytes of a transmit slot (`netif_tx_request`).
const TX_SLOT: usize = 12;
/// Bytes of a receive slot (`netif_rx_request`).
const RX_SLOT: usize = 8;

/// One vif's driver.
pub(super) struct Backend {
    dom0: Domain,
    guest: DomId,
    front: String,
    back: String,
    pub(super) behaviour: Behaviour,
    store: Store,
    frontend: Option<StoreWatch>,
    plug: Option<Plug>,
    waker: Waker,
    state: XenbusState,
    link: Option<Link>,
    stats: Stats,
    /// The driver domain lives.
    alive: bool,
    /// It hangs: it does nothing, and lets nothing go.
    silent: bool,
    /// The rings that it finds may have been another one's.
    restarted: bool,
}

impl Backend {
    pub(super) fn new(
        sim: &Sim,
        guest: DomId,
        front: String,
        back: String,
        behaviour: Behaviour,
        plug: Plug,
        waker: Waker,
    ) -> Self {
        let store = sim.store().clone();
        let frontend = behaviour
            .responsive
            .then(|| store.watch(&format!("{front}/state"), &waker));
        Self {
            dom0: sim.dom0().clone(),
            guest,
            front,
            back,
            behaviour,
            store,
            frontend,
            plug: Some(plug),
            waker,
            state: XenbusState::Initialising,
            link: None,
            stats: Stats::default(),
            alive: true,
            silent: false,
            restarted: false,
        }
    }

    /// Goes on as the backend of the same device in a new domain.
    pub(super) fn move_to(&mut self, guest: DomId, front: String, back: String) {
        self.crash();
        self.alive = true;
        self.restarted = false;
        (self.guest, self.front, self.back) = (guest, front, back);
        if self.behaviour.responsive {
            self.frontend = Some(self.store.watch(&format!("{}/state", self.front), &self.waker));
        }
        self.state = XenbusState::Initialising;
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.plug.is_none()
    }

    pub(super) fn front(&self) -> &str {
        &self.front
    }

    pub(super) fn back(&self) -> &str {
        &self.back
    }

    pub(super) const fn state(&self) -> XenbusState {
        self.state
    }

    pub(super) const fn stats(&self) -> Stats {
        self.stats
    }

    pub(super) fn stop(&mut self) {
        self.crash();
        self.plug = None;
    }

    pub(super) fn crash(&mut self) {
        self.alive = false;
        self.frontend = None;
        self.link = None;
    }

    pub(super) fn restart(&mut self) {
        if self.plug.is_none() {
            return;
        }
        self.crash();
        self.alive = true;
        self.restarted = true;
        self.frontend = Some(self.store.watch(&format!("{}/state", self.front), &self.waker));
        self.behaviour.responsive = true;
        self.switch_to(XenbusState::Initialising);
    }

    /// The toolstack tells the guest to leave, and does not tell us.
    pub(super) fn expect_leave(&mut self) {
        if let Some(link) = &mut self.link {
            link.lenient = true;
        }
    }

    pub(super) const fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub(super) const fn is_alive(&self) -> bool {
        self.alive
    }

    /// What waits for somebody who sleeps, while all sleep.
    pub(super) fn due(&self) -> Option<String> {
        if self.silent || !self.alive || self.state != XenbusState::Connected || self.key("state")? != "4" {
            return None;
        }
        let due = self.link.as_ref()?.due()?;
        Some(format!("{due} ({})", self.back))
    }

    fn key(&self, name: &str) -> Option<String> {
        self.store.read_text(&format!("{}/{name}", self.front))
    }

    fn flag(&self, name: &str) -> bool {
        self.key(name).is_some_and(|value| value == "1")
    }

    fn publish(&self, name: &str, value: &str) {
        let _ = self.store.write(&format!("{}/{name}", self.back), value);
    }

    /// One small piece of work.
    pub(super) fn step(&mut self) -> Next {
        if self.silent {
            return Next::Sleep;
        }
        if !self.alive {
            self.lose_packets();
            return Next::Sleep;
        }
        if self.behaviour.responsive && self.state == XenbusState::Initialising {
            self.probe();
            return Next::Again;
        }
        // Linux runs xenbus and the rings in threads of their own: any order may happen.
        let store_first = self.dom0.machine.one_in(2);
        if store_first && self.follow_frontend() {
            return Next::Again;
        }
        if let Some(plug) = &self.plug {
            match &mut self.link {
                Some(link) => {
                    if link.step(plug, &self.behaviour, &mut self.stats) {
                        self.break_rules();
                        return Next::Again;
                    }
                }
                None => self.lose_packets(),
            }
        }
        if !store_first && self.follow_frontend() {
            return Next::Again;
        }
        self.link
            .as_ref()
            .and_then(Link::deadline)
            .map_or(Next::Sleep, Next::Until)
    }

    /// No carrier: what comes is lost.
    fn lose_packets(&self) {
        if let Some(plug) = &self.plug {
            while plug.receive().is_some() {}
        }
    }

    fn break_rules(&mut self) {
        let (Some(link), Some(trick)) = (&mut self.link, self.behaviour.malice.choose(&self.dom0)) else {
            return;
        };
        link.lenient = true;
        self.stats.tricks += 1;
        match trick {
            Trick::JunkKey => {
                let names = self.store.list(&self.back);
                let chosen = self.dom0.machine.below(names.len() as u64) as usize;
                if let Some(name) = names.get(chosen) {
                    let _ = self.store.write(&format!("{}/{name}", self.back), junk(&self.dom0));
                }
            }
            Trick::JunkState => {
                let _ = self.store.write(&format!("{}/state", self.back), junk(&self.dom0));
            }
            trick => link.play(trick),
        }
    }

    /// Writes what Linux 6.1 offers before it waits for a frontend.
    fn probe(&mut self) {
        let bit = |on: bool| if on { "1" } else { "0" };
        let Behaviour {
            scatter_gather,
            gso,
            ipv6_csum_offload,
            split_event_channels,
            multicast_control,
            max_queues,
            ..
        } = self.behaviour;
        for (name, value) in [
            ("feature-sg", bit(scatter_gather)),
            ("feature-gso-tcpv4", bit(gso)),
            ("feature-gso-tcpv6", bit(gso)),
            ("feature-ipv6-csum-offload", bit(ipv6_csum_offload)),
            ("feature-rx-copy", "1"),
            ("feature-rx-flip", "0"),
            ("feature-xdp-headroom", "1"),
            ("feature-multicast-control", bit(multicast_control)),
            ("feature-dynamic-multicast-control", bit(multicast_control)),
            ("feature-split-event-channels", bit(split_event_channels)),
            ("feature-ctrl-ring", "1"),
        ] {
            self.publish(name, value);
        }
        match max_queues {
            Some(most) => self.publish("multi-queue-max-queues", &most.to_string()),
            None => _ = self.store.remove(&format!("{}/multi-queue-max-queues", self.back)),
        }
        self.switch_to(XenbusState::InitWait);
    }

    fn switch_to(&mut self, state: XenbusState) {
        self.state = state;
        self.publish("state", &(state as u8).to_string());
    }

    /// Looks at the frontend's state if it may have changed. True if it did something.
    fn follow_frontend(&mut self) -> bool {
        if !self.frontend.as_ref().is_some_and(StoreWatch::take) {
            return false;
        }
        match XenbusState::parse(&self.key("state").unwrap_or_default()) {
            XenbusState::Initialising => self.go(XenbusState::InitWait),
            XenbusState::Connected => self.go(XenbusState::Connected),
            XenbusState::Closing => self.go(XenbusState::Closing),
            XenbusState::Closed | XenbusState::Unknown => self.go(XenbusState::Closed),
            XenbusState::InitWait | XenbusState::Initialised => {}
        }
        true
    }

    /// Goes to a state through those between, as `set_backend_state` does.
    fn go(&mut self, to: XenbusState) {
        use XenbusState::{Closed, Closing, Connected, InitWait};
        while self.state != to {
            match (self.state, to) {
                (Closing, Connected) => return,
                (Closed, InitWait | Connected) => {
                    self.restarted = false;
                    self.switch_to(InitWait);
                }
                (InitWait, Connected) => match self.connect() {
                    // Responses may have come in any order: what the former driver has answered nobody knows. Linux does not
                    // look, and a frontend gets some answers twice.
                    Ok(link) if self.restarted && (link.tx.unconsumed() > 0 || self.stats.tricks > 0) => {
                        self.switch_to(Closing);
                    }
                    Ok(link) => {
                        self.link = Some(link);
                        self.stats.connects += 1;
                        self.switch_to(Connected);
                    }
                    Err(why) => return self.fatal(&why),
                },
                (InitWait, _) => self.switch_to(Closing),
                (Connected, _) => {
                    self.link = None;
                    self.switch_to(Closing);
                }
                (Closed, _) => self.switch_to(Closing),
                (_, _) => self.switch_to(Closed),
            }
        }
    }

    /// `xenbus_dev_fatal`: says why in the store, and closes.
    fn fatal(&mut self, why: &str) {
        if self.stats.tricks == 0 {
            let guest = self.guest;
            self.dom0.machine.violation(format!("netback for {guest}: {why}"));
        }
        let path = self.back.replacen("/backend/", "/error/backend/", 1);
        let _ = self.store.write(&format!("{path}/error"), format!("22 {why}"));
        self.switch_to(XenbusState::Closing);
    }

    /// Reads the frontend's keys, maps its rings and binds its ports.
    fn connect(&mut self) -> Result<Link, String> {
        if !self.flag("request-rx-copy") {
            return Err("the frontend has no request-rx-copy".to_owned());
        }
        let number = |name: &str| {
            let value = self.key(name).ok_or_else(|| format!("reading {}/{name}", self.front))?;
            value.parse::<u32>().map_err(|_| format!("{name} is {value:?}"))
        };
        match self.key("multi-queue-num-queues").as_deref() {
            None => {}
            Some("1") if self.behaviour.max_queues.is_some() => {}
            Some("1") => return Err("a number of queues where none was asked for".to_owned()),
            Some(_) => return Err("more than one queue".to_owned()),
        }
        let filters_multicast = self.flag("request-multicast-control");
        if filters_multicast && !self.behaviour.multicast_control {
            return Err("multicast control was not offered".to_owned());
        }
        let (tx_ref, rx_ref) = (number("tx-ring-ref")?, number("rx-ring-ref")?);
        let (tx_port, rx_port) = if self.key("event-channel-tx").is_some() {
            (number("event-channel-tx")?, Some(number("event-channel-rx")?))
        } else {
            (number("event-channel")?, None)
        };
        let map = |reference: u32, slot: usize| {
            let page = self.dom0.map_grant(self.guest, GrantRef(reference), Access::Write);
            let page = page.map_err(|error| format!("mapping ring {reference}: {error}"))?;
            Ring::attach(page, slot).ok_or_else(|| format!("ring {reference} has impossible indices"))
        };
        let (tx, rx) = (map(tx_ref, TX_SLOT)?, map(rx_ref, RX_SLOT)?);
        let bind = |port: u32| {
            let local = self.dom0.bind_interdomain(self.guest, Port(port));
            let local = local.map_err(|errno| format!("binding event channel {port}: {errno}"))?;
            self.dom0.own_port(local, &self.waker);
            Ok::<_, String>(local)
        };
        let tx_port = bind(tx_port)?;
        let rx_port = match rx_port.map(bind).transpose() {
            Ok(port) => port,
            Err(why) => {
                let _ = self.dom0.machine.close(&self.dom0.state, tx_port);
                return Err(why);
            }
        };
        let mut link = Link::new(
            self.dom0.clone(),
            self.guest,
            tx,
            rx,
            tx_port,
            rx_port.unwrap_or(tx_port),
        );
        link.filters_multicast = filters_multicast;
        link.can_gather = self.flag("feature-sg");
        link.can_gso4 = self.flag("feature-gso-tcpv4");
        link.can_gso6 = self.flag("feature-gso-tcpv6");
        link.ip_csum = !self.flag("feature-no-csum-offload");
        link.ipv6_csum = self.flag("feature-ipv6-csum-offload");
        Ok(link)
    }
}
