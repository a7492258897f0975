//! The backend's end of a shared ring (xen/include/public/io/ring.h), in plain index arithmetic.
//!
//! Deliberately not the grant crate's ring: two readings of one header find each other's mistakes.

use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::fence;

use crate::grants::Mapping;

const SLOTS: usize = 64;

/// The indices at the ring's head, by their offset.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Header {
    ReqProd = 0,
    ReqEvent = 4,
    RspProd = 8,
    RspEvent = 12,
}

/// Slots of both of netif's data rings.
pub(super) const SIZE: u32 = 256;

/// A mapped ring with the backend's private indices.
pub(super) struct Ring {
    page: Mapping,
    slot: usize,
    req_cons: u32,
    rsp_prod: u32,
}

impl Ring {
    /// Takes up a ring where its frontend left it. `None` if its indices are impossible.
    pub(super) fn attach(page: Mapping, slot: usize) -> Option<Self> {
        let rsp_prod = page.page().load_u32(Header::RspProd as usize, Acquire)?;
        let ring = Self {
            page,
            slot,
            req_cons: rsp_prod,
            rsp_prod,
        };
        (ring.produced().wrapping_sub(rsp_prod) <= SIZE).then_some(ring)
    }

    fn produced(&self) -> u32 {
        self.load(Header::ReqProd)
    }

    pub(super) fn load(&self, index: Header) -> u32 {
        self.page.page().load_u32(index as usize, Acquire).unwrap_or(0)
    }

    pub(super) fn store(&self, index: Header, value: u32) {
        self.page.page().store_u32(index as usize, value, Release);
    }

    /// Overwrites eight bytes anywhere in the page.
    pub(super) fn scribble(&self, at: usize, value: u64) {
        self.page.page().write(at, &value.to_le_bytes());
    }

    /// There are requests of which we have asked to be told.
    pub(super) fn has_requests_to_tell(&self) -> bool {
        let (prod, event) = (self.load(Header::ReqProd), self.load(Header::ReqEvent));
        prod.wrapping_sub(event) < u32::MAX / 2
    }

    /// There are responses of which the frontend has asked to be told.
    pub(super) fn has_news(&self) -> bool {
        let (prod, event) = (self.load(Header::RspProd), self.load(Header::RspEvent));
        prod.wrapping_sub(event) < u32::MAX / 2
    }

    /// Requests that were not taken; more than [`SIZE`] is a violation.
    pub(super) fn unconsumed(&self) -> u32 {
        self.produced().wrapping_sub(self.req_cons)
    }

    fn at(&self, index: u32) -> usize {
        SLOTS + (index % SIZE) as usize * self.slot
    }

    /// Copies a slot out, once: the request `ahead` of the next one.
    pub(super) fn peek<const N: usize>(&self, ahead: u32) -> [u8; N] {
        let mut bytes = [0; N];
        self.page
            .page()
            .read(self.at(self.req_cons.wrapping_add(ahead)), &mut bytes);
        bytes
    }

    pub(super) const fn consume(&mut self, count: u32) {
        self.req_cons = self.req_cons.wrapping_add(count);
    }

    pub(super) fn respond(&mut self, bytes: &[u8]) {
        self.page.page().write(self.at(self.rsp_prod), bytes);
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
    }

    /// `RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`: true if the frontend wants to be told.
    pub(super) fn publish(&self) -> bool {
        let old = self.load(Header::RspProd);
        self.store(Header::RspProd, self.rsp_prod);
        // The frontend sets rsp_event and then reads rsp_prod; we do it the other way round.
        fence(SeqCst);
        let event = self.load(Header::RspEvent);
        self.rsp_prod.wrapping_sub(event) < self.rsp_prod.wrapping_sub(old)
    }

    /// `RING_FINAL_CHECK_FOR_REQUESTS`, for `wanted` requests beyond those that are there: asks to be told, then
    /// looks again. True if anything new has come in between.
    pub(super) fn final_check(&self) -> bool {
        let before = self.produced();
        self.store(Header::ReqEvent, before.wrapping_add(1));
        fence(SeqCst);
        self.produced() != before
    }
}
