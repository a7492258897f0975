//! The keys of an interface in xenstore, read and written.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use fata_hypercall::{GrantRef, Port};
use fata_xenstore::decimal;

use crate::abi::{ETHERNET_HEADER, MAX_PACKET};
use crate::{Error, Options};

/// The longest IP packet where nobody says otherwise.
pub const DEFAULT_MTU: u16 = 1500;

/// The shortest that IPv4 permits (RFC 791).
pub const MIN_MTU: u16 = 68;

/// The longest of which frame lengths can be told.
pub const MAX_MTU: u16 = (MAX_PACKET - ETHERNET_HEADER) as u16;

/// For which IP versions the backend takes TCP and UDP with blank checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Over IPv4 (no `feature-no-csum-offload`).
    pub ipv4: bool,
    /// Over IPv6 (`feature-ipv6-csum-offload`).
    pub ipv6: bool,
}

/// In which packets the backend takes many TCP segments at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segmentation {
    /// Over IPv4 (`feature-gso-tcpv4`).
    pub ipv4: bool,
    /// Over IPv6 (`feature-gso-tcpv6`).
    pub ipv6: bool,
    /// The longest such frame, Ethernet header included. 0 if there is none.
    pub longest: u16,
}

/// What an interface is: known once the backend is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The longest IP packet, in bytes.
    pub mtu: u16,
    /// Which checksums may be left blank in what is sent.
    pub offload: Offload,
    /// In which frames what is sent may be many segments.
    pub segmentation: Segmentation,
}

/// What [`identity`] reads in our directory.
pub const OURS: [&str; 2] = ["mac", "mtu"];

/// What it reads in the backend's directory, after that.
pub const THEIRS: [&str; 5] = [
    "feature-sg",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
];

/// What both ends do, beside what the interface is: settled with each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The rings have an event channel each (`feature-split-event-channels`).
    pub split_channels: bool,
    /// The backend keeps back what is for groups that it was not told of (`feature-multicast-control`).
    pub filters_multicast: bool,
    /// How many queues there are, if the backend knows that there may be several (`multi-queue-max-queues`).
    pub queues: Option<u32>,
}

/// What [`agreement`] reads in the backend's directory.
pub const OFFERS: [&str; 3] = [
    "feature-split-event-channels",
    "feature-multicast-control",
    "multi-queue-max-queues",
];

/// Queues that this driver serves.
const QUEUES: u32 = 1;

/// What is done of that which the backend [offers](OFFERS).
///
/// # Errors
/// [`Error::BadKey`].
pub fn agreement(values: &[Option<Vec<u8>>; OFFERS.len()], options: &Options) -> Result<Agreement, Error> {
    let ([split, multicast, queues], [split_key, multicast_key, queues_key]) = (values, OFFERS);
    let most = |text: &Vec<u8>| decimal::parse(text, 1..=u32::MAX.into()).ok_or(Error::BadKey(queues_key));
    Ok(Agreement {
        split_channels: flag(split_key, split)? && options.split_channels,
        filters_multicast: flag(multicast_key, multicast)? && options.filter_multicast,
        queues: queues
            .as_ref()
            .map(most)
            .transpose()?
            .map(|most| QUEUES.min(most as u32)),
    })
}

fn flag(key: &'static str, value: &Option<Vec<u8>>) -> Result<bool, Error> {
    match value {
        None => Ok(false),
        Some(text) => Ok(decimal::parse(text, 0..=u64::MAX).ok_or(Error::BadKey(key))? != 0),
    }
}

/// What an interface is, from the values of the keys [`OURS`] and [`THEIRS`], for somebody who can send frames of many
/// segments of up to `longest` bytes.
///
/// # Errors
/// [`Error::BadKey`].
pub fn identity(values: &[Option<Vec<u8>>], longest: u16) -> Result<Identity, Error> {
    let [mac, mtu, flags @ ..] = values else {
        return Err(Error::BadKey("mac"));
    };
    let mac = mac.as_deref().and_then(parse_mac).ok_or(Error::BadKey("mac"))?;
    let mtu = match mtu {
        None => DEFAULT_MTU,
        Some(text) => parse_mtu(text).ok_or(Error::BadKey("mtu"))?,
    };
    let mut set = [false; THEIRS.len()];
    for ((set, key), value) in set.iter_mut().zip(THEIRS).zip(flags) {
        *set = flag(key, value)?;
    }
    let [sg, no_ipv4, ipv6, gso_ipv4, gso_ipv6] = set;
    let offload = Offload { ipv4: !no_ipv4, ipv6 };
    // Segments are many slots, and their checksums can be left to nobody but who cuts them.
    let many = sg && usize::from(longest) > ETHERNET_HEADER + usize::from(mtu);
    let ipv4 = many && offload.ipv4 && gso_ipv4;
    let ipv6 = many && offload.ipv6 && gso_ipv6;
    let segmentation = Segmentation {
        ipv4,
        ipv6,
        longest: if ipv4 || ipv6 { longest } else { 0 },
    };
    Ok(Identity {
        mac,
        // Without scatter and gather, packets of one slot only.
        mtu: if sg { mtu } else { mtu.min(DEFAULT_MTU) },
        offload,
        segmentation,
    })
}

/// Parses an Ethernet address as the toolstack writes it: six bytes in hexadecimal, colons between them.
///
/// It must be the address of one interface: not a group's, not zero.
///
/// ```
/// use fata_netfront::features::parse_mac;
/// assert_eq!(parse_mac(b"00:16:3e:00:Aa:01"), Some([0, 0x16, 0x3e, 0, 0xaa, 1]));
/// assert_eq!(parse_mac(b"01:16:3e:00:00:01"), None, "multicast");
/// ```
#[must_use]
pub fn parse_mac(text: &[u8]) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(|&byte| byte == b':');
    for byte in &mut mac {
        let &[high, low] = parts.next()? else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
    }
    let [first, ..] = mac;
    (parts.next().is_none() && first & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// Parses an MTU.
#[must_use]
pub fn parse_mtu(text: &[u8]) -> Option<u16> {
    decimal::parse(text, MIN_MTU.into()..=MAX_MTU.into())?.try_into().ok()
}

/// The interface's name as its address gives it, after the manner of systemd: it stays the same however the
/// toolstack numbers its interfaces.
///
/// ```
/// assert_eq!(fata_netfront::mac_name([0, 0x16, 0x3e, 0x12, 0xab, 0xcd]), "enx00163e12abcd");
/// ```
#[must_use]
pub fn mac_name(mac: [u8; 6]) -> String {
    let mut name = String::from("enx");
    for byte in mac {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// Where a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The transmit ring.
    pub tx_ring: GrantRef,
    /// The receive ring.
    pub rx_ring: GrantRef,
    /// The transmit ring's event channel.
    pub tx_port: Port,
    /// The receive ring's, which may be the same.
    pub rx_port: Port,
}

/// A key and its value; `None` if the key must not be there.
pub type Key = (String, Option<String>);

/// The keys that tell the backend where the queues are and what we understand.
///
/// * `request-rx-copy`: the backend copies into our pages; it refuses to connect without.
/// * `feature-rx-notify`: we notify when we post receive buffers, so the backend can tell that we have stalled.
/// * `feature-sg`: we take packets of several slots.
/// * `feature-ipv6-csum-offload`: we take blank checksums over IPv6 too; over IPv4 that is understood.
/// * `feature-gso-tcpv4`, `feature-gso-tcpv6`: we take packets of many segments.
///
/// The keys of several queues are in directories `queue-0` and so on, those of a single one beside the others. A backend
/// would take the event channels of a former life that had others for ours: what is not used must not be there.
#[must_use]
pub fn keys(agreement: &Agreement, queues: &[Queue]) -> Vec<Key> {
    let mut keys = Keys::default();
    keys.add(
        "",
        &[
            ("multi-queue-num-queues", agreement.queues),
            ("request-multicast-control", Some(agreement.filters_multicast.into())),
            ("request-rx-copy", Some(1)),
            ("feature-rx-notify", Some(1)),
            ("feature-sg", Some(1)),
            ("feature-ipv6-csum-offload", Some(1)),
            ("feature-gso-tcpv4", Some(1)),
            ("feature-gso-tcpv6", Some(1)),
        ],
    );
    for (number, queue) in queues.iter().enumerate() {
        let directory = match queues {
            [_] => String::new(),
            _ => ["queue-", &decimal::string(number as u64), "/"].concat(),
        };
        let split = queue.tx_port != queue.rx_port;
        keys.add(
            &directory,
            &[
                ("tx-ring-ref", Some(queue.tx_ring.0)),
                ("rx-ring-ref", Some(queue.rx_ring.0)),
                ("event-channel", (!split).then_some(queue.rx_port.0)),
                ("event-channel-tx", split.then_some(queue.tx_port.0)),
                ("event-channel-rx", split.then_some(queue.rx_port.0)),
            ],
        );
    }
    keys.0
}

#[derive(Default)]
struct Keys(Vec<Key>);

impl Keys {
    fn add(&mut self, directory: &str, keys: &[(&str, Option<u32>)]) {
        for (key, value) in keys {
            let value = value.map(|number| decimal::string(number.into()));
            self.0.push(([directory, key].concat(), value));
        }
    }
}
