//! From the guest: requests become packets, with the checks and the limits of Linux's netback
//! (drivers/net/xen-netback/netback.c as facts).

use std::cell::Cell;
use std::collections::BTreeSet;

use fata_hypercall::{DomId, GrantRef, PAGE_SIZE};

use super::ring::{Ring, SIZE};
use crate::domain::Domain;
use crate::grants::{Access, Mapping};
use crate::rng::mix;
use crate::wire::{Checksum, Gso, GsoKind, Packet};

/// `XEN_NETBACK_TX_COPY_LEN`: so many bytes at the head of a packet are copied, the rest is mapped.
const COPIED: usize = 128;
/// `XEN_NETBK_LEGACY_SLOTS_MAX`: packets with more slots after the first are dropped.
const SLOTS_MAX: u32 = 18;
/// `fatal_skb_slots`: packets with more are an attack.
const SLOTS_FATAL: u32 = 20;
/// `ETH_HLEN`
const ETHERNET_HEADER: u16 = 14;

/// `XEN_NETBK_MCAST_MAX`
const GROUPS_MAX: usize = 64;

/// Multicast groups that a guest listens to, as Ethernet addresses.
pub(super) type Groups = BTreeSet<[u8; 6]>;

const CSUM_BLANK: u16 = 1;
const DATA_VALIDATED: u16 = 2;
const MORE_DATA: u16 = 4;
const EXTRA_INFO: u16 = 8;

const EXTRA_GSO: u8 = 1;
const EXTRA_MCAST_ADD: u8 = 2;
const EXTRA_MCAST_DEL: u8 = 3;
const EXTRA_HASH: u8 = 4;
const EXTRA_MORE: u8 = 1;

const OKAY: i16 = 0;
const NULL: i16 = 1;
const ERROR: i16 = -1;

/// `netif_tx_request`
#[derive(Clone, Copy, Debug)]
struct Request {
    gref: u32,
    offset: u16,
    flags: u16,
    id: u16,
    size: u16,
}

impl Request {
    fn from_slot(slot: [u8; 12]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([slot[at], slot[at + 1]]);
        Self {
            gref: u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]),
            offset: u16_at(4),
            flags: u16_at(6),
            id: u16_at(8),
            size: u16_at(10),
        }
    }

    const fn leaves_page(&self) -> bool {
        self.offset as usize + self.size as usize > PAGE_SIZE
    }
}

/// What the frontend did that makes Linux disable the vif.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fatal(pub(super) String);

/// A slot whose bytes are not yet collected.
enum Fragment {
    Copied(Vec<u8>),
    /// With a sum of the bytes at the time when they were read: they belong to us until the answer.
    Mapped {
        page: Mapping,
        offset: usize,
        len: usize,
        sum: Cell<Option<u64>>,
    },
}

/// A packet whose pages are still in use.
pub(super) struct Pending {
    fragments: Vec<Fragment>,
    checksum: Checksum,
    gso: Option<Gso>,
    /// Ids to answer, first slot first.
    ids: Vec<u16>,
    /// Slots that an extra took: answered with NULL.
    extras: usize,
}

/// What became of the requests of one packet.
pub(super) enum Taken {
    /// Nothing there.
    Nothing,
    /// Answered at once: a control request.
    Answered,
    /// Answered at once, for breaking a rule.
    Dropped(String),
    /// On its way.
    Packet(Pending),
}

/// Takes the requests of one packet out of the ring. Requests about multicast groups, if they may come, change `groups`.
pub(super) fn take(
    ring: &mut Ring,
    dom0: &Domain,
    guest: DomId,
    mut groups: Option<&mut Groups>,
) -> Result<Taken, Fatal> {
    let available = ring.unconsumed();
    if available > SIZE {
        return Err(Fatal(format!("Impossible number of requests: {available}")));
    }
    if available == 0 {
        return Ok(Taken::Nothing);
    }
    let mut first = Request::from_slot(ring.peek(0));
    let mut used = 1;

    let mut gso = None;
    let mut extras = 0;
    let mut multicast = None;
    let mut more = first.flags & EXTRA_INFO != 0;
    while more {
        if used >= available {
            return Err(Fatal("Missing extra info".to_owned()));
        }
        let extra: [u8; 12] = ring.peek(used);
        used += 1;
        extras += 1;
        match extra[0] {
            EXTRA_GSO => gso = Some(parse_gso(extra)?),
            kind @ (EXTRA_MCAST_ADD | EXTRA_MCAST_DEL) => {
                let groups = groups.as_deref_mut();
                let groups = groups.ok_or_else(|| Fatal("Multicast control was not offered".to_owned()))?;
                multicast = Some(change_group(groups, kind, extra));
            }
            EXTRA_HASH => {}
            kind => return Err(Fatal(format!("Invalid extra type: {kind}"))),
        }
        more = extra[1] & EXTRA_MORE != 0;
    }
    if let Some(status) = multicast {
        ring.consume(used);
        answer(ring, &[first.id], extras, status);
        return Ok(Taken::Answered);
    }

    // The first slot's size is the packet's; what the others have is taken off.
    let mut rest = Vec::new();
    let mut dropped = None;
    let mut more = first.flags & MORE_DATA != 0;
    while more {
        let slots = rest.len() as u32;
        if used >= available {
            return Err(Fatal(format!("Asked for {slots} slots but exceeds this limit")));
        }
        if slots >= SLOTS_FATAL {
            return Err(Fatal(format!(
                "Malicious frontend using {slots} slots, threshold {SLOTS_FATAL}"
            )));
        }
        if slots >= SLOTS_MAX {
            dropped = dropped.or(Some("Too many slots"));
        }
        let next = Request::from_slot(ring.peek(used));
        used += 1;
        if next.size > first.size {
            dropped = dropped.or(Some("Invalid tx request, slot size > remaining size"));
        }
        first.size = first.size.wrapping_sub(next.size);
        if next.leaves_page() {
            return Err(Fatal(format!(
                "Cross page boundary, offset {} size {}",
                next.offset, next.size
            )));
        }
        more = next.flags & MORE_DATA != 0;
        rest.push(next);
    }
    ring.consume(used);
    let ids: Vec<u16> = std::iter::once(&first).chain(&rest).map(|request| request.id).collect();
    if first.size < ETHERNET_HEADER {
        dropped = dropped.or(Some("Bad packet size"));
    }
    if let Some(why) = dropped {
        answer(ring, &ids, extras, ERROR);
        return Ok(Taken::Dropped(format!("{why} ({first:?})")));
    }
    if first.leaves_page() {
        return Err(Fatal(format!(
            "Cross page boundary, offset {} size {}",
            first.offset, first.size
        )));
    }
    match collect(dom0, guest, first, &rest) {
        Ok(fragments) => {
            let checksum = match first.flags {
                flags if flags & CSUM_BLANK != 0 => Checksum::Blank,
                flags if flags & DATA_VALIDATED != 0 => Checksum::Validated,
                _ => Checksum::Complete,
            };
            Ok(Taken::Packet(Pending {
                fragments,
                checksum,
                gso,
                ids,
                extras,
            }))
        }
        Err(message) => {
            answer(ring, &ids, extras, ERROR);
            Ok(Taken::Dropped(message))
        }
    }
}

/// Adds or deletes a group; gives the status of the response.
fn change_group(groups: &mut Groups, kind: u8, extra: [u8; 12]) -> i16 {
    let group = [extra[2], extra[3], extra[4], extra[5], extra[6], extra[7]];
    if kind == EXTRA_MCAST_DEL {
        groups.remove(&group);
    } else if groups.len() < GROUPS_MAX {
        groups.insert(group);
    } else if !groups.contains(&group) {
        return ERROR;
    }
    OKAY
}

fn parse_gso(extra: [u8; 12]) -> Result<Gso, Fatal> {
    let size = u16::from_le_bytes([extra[2], extra[3]]);
    let kind = match extra[4] {
        1 => GsoKind::Tcp4,
        2 => GsoKind::Tcp6,
        kind => return Err(Fatal(format!("Bad GSO type {kind}"))),
    };
    if size == 0 {
        Err(Fatal("GSO size must not be zero".to_owned()))
    } else {
        Ok(Gso { kind, size })
    }
}

/// Copies the packet's head and maps the rest.
fn collect(dom0: &Domain, guest: DomId, first: Request, rest: &[Request]) -> Result<Vec<Fragment>, String> {
    let mut fragments = Vec::new();
    let mut to_copy = COPIED;
    for request in std::iter::once(&first).chain(rest) {
        let (reference, offset, len) = (
            GrantRef(request.gref),
            usize::from(request.offset),
            usize::from(request.size),
        );
        let copied = len.min(to_copy);
        to_copy -= copied;
        if copied > 0 {
            let mut bytes = vec![0; copied];
            let copy = dom0.copy_from_grant(guest, reference, offset, &mut bytes);
            copy.map_err(|error| format!("copy from grant {reference}: {error}"))?;
            fragments.push(Fragment::Copied(bytes));
        }
        if copied < len {
            let page = dom0.map_grant(guest, reference, Access::Read);
            let page = page.map_err(|error| format!("map of grant {reference}: {error}"))?;
            fragments.push(Fragment::Mapped {
                page,
                offset: offset + copied,
                len: len - copied,
                sum: Cell::new(None),
            });
        }
    }
    Ok(fragments)
}

impl Pending {
    /// The references of the pages that stay mapped.
    pub(super) fn references(&self) -> impl Iterator<Item = GrantRef> + '_ {
        self.fragments.iter().filter_map(|fragment| match fragment {
            Fragment::Copied(_) => None,
            Fragment::Mapped { page, .. } => Some(page.reference()),
        })
    }

    /// Reads the packet, at the moment at which Linux hands it on; its pages stay mapped.
    pub(super) fn packet(&self) -> Packet {
        let mut bytes = Vec::new();
        for fragment in &self.fragments {
            match fragment {
                Fragment::Copied(head) => bytes.extend_from_slice(head),
                Fragment::Mapped { page, offset, len, sum } => {
                    let start = bytes.len();
                    bytes.resize(start + len, 0);
                    page.page().read(*offset, &mut bytes[start..]);
                    sum.set(Some(digest(&bytes[start..])));
                }
            }
        }
        Packet {
            bytes,
            checksum: self.checksum,
            gso: self.gso,
        }
    }

    /// Lets its pages go and answers its requests. False: the guest has changed what it sent before we were done.
    pub(super) fn finish(self, ring: &mut Ring) -> bool {
        let unchanged = self.fragments.iter().all(Fragment::is_unchanged);
        // Unmap first: the answer is what gives the pages back.
        drop(self.fragments);
        answer(ring, &self.ids, self.extras, OKAY);
        unchanged
    }
}

impl Fragment {
    fn is_unchanged(&self) -> bool {
        let Self::Mapped { page, offset, len, sum } = self else {
            return true;
        };
        let mut bytes = vec![0; *len];
        page.page().read(*offset, &mut bytes);
        sum.get().is_none_or(|sum| sum == digest(&bytes))
    }
}

/// Tells contents apart; speed is all it needs beside that.
fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let rest = rest.iter().fold(0, |rest, &byte| rest << 8 | u64::from(byte));
    words.iter().fold(mix(rest), |digest, word| {
        (digest ^ u64::from_le_bytes(*word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}

/// One response for each slot; slots that held an extra get NULL.
fn answer(ring: &mut Ring, ids: &[u16], extras: usize, status: i16) {
    let mut respond = |id: u16, status: i16| {
        let [a, b] = id.to_le_bytes();
        let [c, d] = status.to_le_bytes();
        ring.respond(&[a, b, c, d]);
    };
    let Some((&first, rest)) = ids.split_first() else {
        return;
    };
    respond(first, status);
    for _ in 0..extras {
        respond(0, NULL);
    }
    for &id in rest {
        respond(id, status);
    }
}
