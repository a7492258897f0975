//! To the guest: packets are copied into the buffers that it posted (drivers/net/xen-netback/rx.c as facts).

use fata_hypercall::{DomId, GrantRef, PAGE_SIZE};

use super::Fill;
use super::ring::Ring;
use crate::domain::Domain;
use crate::wire::{Checksum, Gso, Packet};

const DATA_VALIDATED: u16 = 1;
const CSUM_BLANK: u16 = 2;
const MORE_DATA: u16 = 4;
const EXTRA_INFO: u16 = 8;

const EXTRA_GSO: u8 = 1;
const ERROR: i16 = -1;

/// `XEN_NETBK_RX_SLOTS_MAX`, without the slot of an extra.
const SLOTS_MAX: usize = 18;

/// How many bytes of a packet go into one buffer.
fn chunk(packet: &Packet, fill: Fill) -> usize {
    let least = packet.bytes.len().div_ceil(SLOTS_MAX).max(1);
    fill.chunk.max(least).min(PAGE_SIZE)
}

/// How many slots a packet takes.
pub(super) fn slots(packet: &Packet, fill: Fill) -> u32 {
    let data = packet.bytes.len().div_ceil(chunk(packet, fill)).max(1);
    data as u32 + u32::from(packet.gso.is_some())
}

/// Puts a packet into the ring, which has the slots for it.
///
/// # Errors
/// A buffer could not be written.
pub(super) fn put(ring: &mut Ring, dom0: &Domain, guest: DomId, packet: &Packet, fill: Fill) -> Result<(), String> {
    let chunks: Vec<&[u8]> = packet.bytes.chunks(chunk(packet, fill)).collect();
    let mut result = Ok(());
    for (index, chunk) in chunks.iter().enumerate() {
        let request: [u8; 8] = ring.peek(0);
        ring.consume(1);
        let id = [request[0], request[1]];
        let reference = GrantRef(u32::from_le_bytes([request[4], request[5], request[6], request[7]]));
        // A buffer has a whole page; what is in front of the data is the backend's affair.
        let offset = if chunk.len() + fill.headroom <= PAGE_SIZE {
            fill.headroom
        } else {
            0
        };
        let mut flags = 0;
        if index == 0 {
            flags |= match packet.checksum {
                Checksum::Blank => CSUM_BLANK | DATA_VALIDATED,
                Checksum::Validated => DATA_VALIDATED,
                Checksum::Complete => 0,
            };
            if packet.gso.is_some() {
                flags |= EXTRA_INFO;
            }
        }
        if index + 1 < chunks.len() {
            flags |= MORE_DATA;
        }
        let copy = dom0.copy_to_grant(guest, reference, offset, chunk);
        if let Err(error) = &copy {
            result = Err(format!("cannot write to buffer {reference} of {guest}: {error}"));
        }
        let status = if copy.is_ok() { chunk.len() as i16 } else { ERROR };
        let mut response = [0; 8];
        response[0..2].copy_from_slice(&id);
        response[2..4].copy_from_slice(&(offset as u16).to_le_bytes());
        response[4..6].copy_from_slice(&flags.to_le_bytes());
        response[6..8].copy_from_slice(&status.to_le_bytes());
        ring.respond(&response);
        if index == 0
            && let Some(gso) = packet.gso
        {
            // The extra takes the next slot, and with it the buffer that was posted there.
            ring.consume(1);
            ring.respond(&extra(gso));
        }
    }
    result
}

fn extra(gso: Gso) -> [u8; 8] {
    let [low, high] = gso.size.to_le_bytes();
    [EXTRA_GSO, 0, low, high, gso.kind as u8, 0, 0, 0]
}
