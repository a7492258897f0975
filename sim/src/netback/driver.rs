//! What netback does about a frontend (drivers/net/xen-netback/xenbus.c as facts).

use fata_hypercall::GrantRef;

use super::link::Link;
use super::malice::Trick;
use super::ring::Ring;
use super::{Behaviour, Stats, VifConfig};
use crate::backend::{Driver, End, Nodes, XenbusState};
use crate::grants::Access;
use crate::sim::Next;
use crate::wire::Plug;

/// Bytes of a transmit slot (`netif_tx_request`).
const TX_SLOT: usize = 12;
/// Bytes of a receive slot (`netif_rx_request`).
const RX_SLOT: usize = 8;

/// What is a network backend's own.
pub struct NetDriver {
    pub(super) config: VifConfig,
    plug: Option<Plug>,
    link: Option<Link>,
    pub(super) stats: Stats,
}

impl Driver for NetDriver {
    const KIND: &'static str = "vif";
    const NAME: &'static str = "netback";

    fn nodes(&self, index: u32) -> Nodes {
        let VifConfig { mac, bridge, mtu, .. } = &self.config;
        let mac = mac.unwrap_or_default().map(|byte| format!("{byte:02x}")).join(":");
        let (handle, mtu) = (index.to_string(), mtu.to_string());
        Nodes {
            front: vec![
                ("handle", handle.clone()),
                ("mac", mac.clone()),
                ("mtu", mtu.clone()),
                ("trusted", "1".to_owned()),
            ],
            back: vec![
                ("script", "/etc/xen/scripts/vif-bridge".to_owned()),
                ("mac", mac),
                ("bridge", bridge.clone()),
                ("handle", handle),
                ("type", "vif".to_owned()),
                ("mtu", mtu),
                ("hotplug-status", "connected".to_owned()),
            ],
        }
    }

    fn is_responsive(&self) -> bool {
        self.config.backend.responsive
    }

    /// What Linux 6.1 offers.
    fn offer(&mut self, end: &End) {
        let bit = |on: bool| if on { "1" } else { "0" };
        let Behaviour {
            scatter_gather,
            gso,
            ipv6_csum_offload,
            split_event_channels,
            multicast_control,
            max_queues,
            ..
        } = self.config.backend;
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
            end.publish(name, value);
        }
        match max_queues {
            Some(most) => end.publish("multi-queue-max-queues", most.to_string()),
            None => end.withdraw("multi-queue-max-queues"),
        }
    }

    fn follow(&mut self, end: &mut End, frontend: XenbusState) {
        match frontend {
            XenbusState::Initialising => self.go(end, XenbusState::InitWait),
            XenbusState::Connected => self.go(end, XenbusState::Connected),
            XenbusState::Closing => self.go(end, XenbusState::Closing),
            XenbusState::Closed | XenbusState::Unknown => self.go(end, XenbusState::Closed),
            XenbusState::InitWait | XenbusState::Initialised => {}
        }
    }

    fn work(&mut self, end: &mut End) -> Next {
        let (Some(link), Some(plug)) = (&mut self.link, &self.plug) else {
            return Next::Sleep;
        };
        if link.step(plug, &self.config.backend, &mut self.stats) {
            self.break_rules(end);
            return Next::Again;
        }
        link.deadline().map_or(Next::Sleep, Next::Until)
    }

    fn due(&self) -> Option<&'static str> {
        self.link.as_ref()?.due()
    }

    fn excuse(&mut self) {
        if let Some(link) = &mut self.link {
            link.lenient = true;
        }
    }

    fn disconnect(&mut self) {
        self.link = None;
    }

    fn remove(&mut self) {
        self.plug = None;
    }
}

impl NetDriver {
    pub(super) fn new(config: VifConfig, plug: Plug) -> Self {
        Self {
            config,
            plug: Some(plug),
            link: None,
            stats: Stats::default(),
        }
    }

    fn break_rules(&mut self, end: &End) {
        let (Some(link), Some(trick)) = (&mut self.link, self.config.backend.malice.choose(&end.dom0)) else {
            return;
        };
        link.lenient = true;
        self.stats.tricks += 1;
        match trick {
            Trick::JunkKey => end.junk_key(),
            Trick::JunkState => end.junk_state(),
            trick => link.play(trick),
        }
    }

    /// Goes to a state through those between, as `set_backend_state` does.
    fn go(&mut self, end: &mut End, to: XenbusState) {
        use XenbusState::{Closed, Closing, Connected, InitWait};
        while end.state() != to {
            match (end.state(), to) {
                (Closing, Connected) => return,
                (Closed, InitWait | Connected) => end.wait_anew(),
                (InitWait, Connected) => match self.connect(end) {
                    // Responses may have come in any order: what the former driver has answered nobody knows. Linux does not
                    // look, and a frontend gets some answers twice.
                    Ok(link) if end.is_restarted() && (link.tx.unconsumed() > 0 || self.stats.tricks > 0) => {
                        end.switch_to(Closing);
                    }
                    Ok(link) => {
                        self.link = Some(link);
                        self.stats.connects += 1;
                        end.switch_to(Connected);
                    }
                    Err(why) => {
                        if self.stats.tricks == 0 {
                            end.accuse(&why);
                        }
                        return end.fatal(&why);
                    }
                },
                (InitWait, _) => end.switch_to(Closing),
                (Connected, _) => {
                    self.link = None;
                    end.switch_to(Closing);
                }
                (Closed, _) => end.switch_to(Closing),
                (_, _) => end.switch_to(Closed),
            }
        }
    }

    /// Reads the frontend's keys, maps its rings and binds its ports.
    fn connect(&self, end: &End) -> Result<Link, String> {
        let behaviour = &self.config.backend;
        if !end.flag("request-rx-copy") {
            return Err("the frontend has no request-rx-copy".to_owned());
        }
        match end.key("multi-queue-num-queues").as_deref() {
            None => {}
            Some("1") if behaviour.max_queues.is_some() => {}
            Some("1") => return Err("a number of queues where none was asked for".to_owned()),
            Some(_) => return Err("more than one queue".to_owned()),
        }
        let filters_multicast = end.flag("request-multicast-control");
        if filters_multicast && !behaviour.multicast_control {
            return Err("multicast control was not offered".to_owned());
        }
        let map = |name: &str, slot: usize| {
            let reference = end.number(name)?;
            let page = end.dom0.map_grant(end.guest, GrantRef(reference), Access::Write);
            let page = page.map_err(|error| format!("mapping ring {reference}: {error}"))?;
            Ring::attach(page, slot).ok_or_else(|| format!("ring {reference} has impossible indices"))
        };
        let (tx, rx) = (map("tx-ring-ref", TX_SLOT)?, map("rx-ring-ref", RX_SLOT)?);
        let bind = |name: &str| end.bind(end.number(name)?);
        let (tx_line, rx_line) = if end.key("event-channel-tx").is_some() {
            (bind("event-channel-tx")?, Some(bind("event-channel-rx")?))
        } else {
            (bind("event-channel")?, None)
        };
        // Until now there was no carrier: what has come is lost.
        while self.plug.as_ref().and_then(Plug::receive).is_some() {}
        let mut link = Link::new(end.dom0.clone(), end.guest, (tx, tx_line), (rx, rx_line));
        link.filters_multicast = filters_multicast;
        link.can_gather = end.flag("feature-sg");
        link.can_gso4 = end.flag("feature-gso-tcpv4");
        link.can_gso6 = end.flag("feature-gso-tcpv6");
        link.ip_csum = !end.flag("feature-no-csum-offload");
        link.ipv6_csum = end.flag("feature-ipv6-csum-offload");
        Ok(link)
    }
}
