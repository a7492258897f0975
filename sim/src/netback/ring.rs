//! The backend's end of a shared ring (xen/include/public/io/ring.h), in plain index arithmetic.
//!
//! Deliberately not the grant crate's ring: two readings of one header find each other's mistakes.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use crate::grants::Mapping;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const SLOTS: usize = 64;
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
        let rsp_prod = page.page().load_u32(RSP_PROD, Acquire)?;
        let ring = Self {
            page,
            slot,
            req_cons: rsp_prod,
            rsp_prod,
        };
        (ring.produced().wrapping_sub(rsp_prod) <= SIZE).then_some(ring)
    }

    fn produced(&self) -> u32 {
        self.page.page().load_u32(REQ_PROD, Acquire).unwrap_or(0)
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
        let page = self.page.page();
        let old = page.load_u32(RSP_PROD, Relaxed).unwrap_or(0);
        page.store_u32(RSP_PROD, self.rsp_prod, Release);
        // The frontend sets rsp_event and then reads rsp_prod; we do it the other way round.
        fence(SeqCst);
        let event = page.load_u32(RSP_EVENT, Acquire).unwrap_or(0);
        self.rsp_prod.wrapping_sub(event) < self.rsp_prod.wrapping_sub(old)
    }

    /// `RING_FINAL_CHECK_FOR_REQUESTS`, for `wanted` requests beyond those that are there: asks to be told, then
    /// looks again. True if anything new has come in between.
    pub(super) fn final_check(&self) -> bool {
        let before = self.produced();
        self.page.page().store_u32(REQ_EVENT, before.wrapping_add(1), Release);
        fence(SeqCst);
        self.produced() != before
    }
}
