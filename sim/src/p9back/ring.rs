//! The backend's end of a ring (docs/misc/9pfs.pandoc), in plain index arithmetic.

use std::sync::atomic::Ordering::{Acquire, Release};

use fata_hypercall::{DomId, GrantRef, PAGE_SIZE};

use crate::domain::Domain;
use crate::grants::{Access, Mapping};

const IN_CONS: usize = 0;
const IN_PROD: usize = 4;
const OUT_CONS: usize = 64;
const OUT_PROD: usize = 68;
const ORDER: usize = 128;
const REFERENCES: usize = 132;

/// A mapped ring.
pub(super) struct Ring {
    index: Mapping,
    data: Vec<Mapping>,
    out_cons: u32,
    in_prod: u32,
    /// Bytes in one direction.
    pub(super) half: u32,
}

impl Ring {
    pub(super) fn attach(dom0: &Domain, guest: DomId, reference: u32, largest: u32) -> Result<Self, String> {
        let map = |reference: u32| {
            let page = dom0.map_grant(guest, GrantRef(reference), Access::Write);
            page.map_err(|error| format!("mapping {reference}: {error}"))
        };
        let index = map(reference)?;
        let load = |at| index.page().load_u32(at, Acquire).unwrap_or(0);
        let order = load(ORDER);
        if !(1..=largest).contains(&order) {
            return Err(format!("a ring of order {order}"));
        }
        let data = (0..1 << order).map(|at| map(load(REFERENCES + 4 * at)));
        let data = data.collect::<Result<_, _>>()?;
        let (out_cons, in_prod) = (load(OUT_CONS), load(IN_PROD));
        Ok(Self {
            index,
            data,
            out_cons,
            in_prod,
            half: (PAGE_SIZE as u32) << (order - 1),
        })
    }

    fn load(&self, at: usize) -> u32 {
        self.index.page().load_u32(at, Acquire).unwrap_or(0)
    }

    /// Bytes that the guest has sent and that were not taken.
    pub(super) fn queued(&self) -> u32 {
        self.load(OUT_PROD).wrapping_sub(self.out_cons)
    }

    /// Bytes that the guest has not taken.
    pub(super) fn unread(&self) -> u32 {
        self.in_prod.wrapping_sub(self.load(IN_CONS))
    }

    /// The first bytes that wait, which stay.
    pub(super) fn peek(&self, count: u32) -> Vec<u8> {
        (0..count)
            .map(|at| {
                let at = self.half + (self.out_cons.wrapping_add(at) & (self.half - 1));
                let mut byte = [0];
                let page = &self.data[at as usize / PAGE_SIZE];
                page.page().read(at as usize % PAGE_SIZE, &mut byte);
                byte[0]
            })
            .collect()
    }

    pub(super) fn consume(&mut self, count: u32) {
        self.out_cons = self.out_cons.wrapping_add(count);
        self.index.page().store_u32(OUT_CONS, self.out_cons, Release);
    }

    /// Writes some bytes of an answer.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let at = self.in_prod & (self.half - 1);
            let page = &self.data[at as usize / PAGE_SIZE];
            page.page().write(at as usize % PAGE_SIZE, &[*byte]);
            self.in_prod = self.in_prod.wrapping_add(1);
        }
        self.index.page().store_u32(IN_PROD, self.in_prod, Release);
    }

    /// Claims to have answered, or to have taken, any amount.
    pub(super) fn jump(&mut self, input: bool, by: u32) {
        if input {
            self.in_prod = self.in_prod.wrapping_add(by);
            self.index.page().store_u32(IN_PROD, self.in_prod, Release);
        } else {
            self.consume(by);
        }
    }

    /// Overwrites what the guest has said of the ring.
    pub(super) fn scribble(&self, value: u32) {
        for at in [ORDER, REFERENCES, REFERENCES + 4] {
            self.index.page().store_u32(at, value, Release);
        }
    }
}
