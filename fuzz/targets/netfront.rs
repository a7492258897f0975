//! The network frontend against a backend that lies, in the simulator. The input is a list of steps.
#![no_main]

#[path = "../../netfront/tests/common/mod.rs"]
mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{Device, Guest, Mode, SECOND, frame};
use fata_hypercall::GrantRef;
use fata_netfront::Options;
use fata_netfront::abi::{RxResponse, RxSlot, TxResponse};
use fata_sim::{Access, Sim};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

const KEYS: [&str; 8] = [
    "state",
    "feature-sg",
    "feature-rx-copy",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "hotplug-status",
    "mac",
    "mtu",
];
const MODES: [Mode; 3] = [Mode::Reflect, Mode::Keep, Mode::Ignore];

fuzz_target!(|input: &[u8]| {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let options = Options {
        rx_buffers: 20,
        tx_buffers: 8,
        ..Options::default()
    };
    let guest = Guest::boot(&sim, &domain, options);
    let mut backend = device.connect(&sim, &guest);
    let mut kept = Vec::new();
    let mut orderly = true;

    let mut step = |input: &mut Unstructured<'_>| -> Result<()> {
        match input.arbitrary::<u8>()? % 12 {
            // A slot that it says something about.
            0 => {
                let slot = RxSlot::read_from_bytes(&input.arbitrary::<[u8; 8]>()?).expect("eight bytes");
                if let Ok(Some(_)) = backend.rx.pop() {
                    backend.respond(slot);
                }
            }
            // A frame as it should be.
            1 => {
                let len = 14 + input.arbitrary::<u16>()? % 1501;
                if let Ok(Some(request)) = backend.rx.pop() {
                    // It fails when the lies below have reached the backend's own books.
                    let _ = backend
                        .dom0
                        .copy_to_grant(backend.guest, GrantRef(request.gref), 0, &frame(len.into(), 3));
                    backend.respond(RxResponse {
                        id: request.id,
                        status: len as i16,
                        ..RxResponse::default()
                    });
                }
            }
            // Something sent is acknowledged, in some way.
            2 => {
                let [id, status] = input.arbitrary::<[u16; 2]>()?;
                if let Ok(Some(request)) = backend.tx.pop() {
                    let (id, status) = (request.id ^ id, status as i16);
                    backend.tx.push(&TxResponse { id, status }).expect("it was asked for");
                }
            }
            // As it should be.
            3 => {
                while let Ok(Some(request)) = backend.tx.pop() {
                    let (id, status) = (request.id, 0);
                    backend.tx.push(&TxResponse { id, status }).expect("it was asked for");
                }
            }
            4 => {
                backend.publish();
            }
            5 => backend.notify(),
            // Anything, anywhere in a ring's page.
            6 => {
                let (which, offset) = (
                    input.arbitrary::<bool>()?,
                    usize::from(input.arbitrary::<u16>()? % 4096),
                );
                let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
                let page = if which { backend.rx.page() } else { backend.tx.page() };
                page.shared().write(offset, input.bytes(len)?);
            }
            // An index.
            7 => {
                let [which, index] = input.arbitrary::<[u8; 2]>()?;
                let page = if which & 1 == 0 {
                    backend.rx.page()
                } else {
                    backend.tx.page()
                };
                let offset = usize::from(which / 2 % 4) * 4;
                let now = page.shared().load_u32(offset, Relaxed).unwrap_or(0);
                page.shared()
                    .store_u32(offset, now.wrapping_add_signed((index as i8).into()), Relaxed);
            }
            // A page that it does not let go of.
            8 => {
                if let Ok(Some(request)) = backend.rx.pop() {
                    let page = backend
                        .dom0
                        .map_grant(backend.guest, GrantRef(request.gref), Access::Write);
                    kept.extend(page);
                    backend.respond(RxSlot::read_from_bytes(&input.arbitrary::<[u8; 8]>()?).expect("eight bytes"));
                }
            }
            9 => guest.mode.set(MODES[usize::from(input.arbitrary::<u8>()? % 3)]),
            10 => {
                let len = 14 + usize::from(input.arbitrary::<u16>()? % 1501);
                guest.to_send.borrow_mut().push(len);
            }
            // What it says of itself in the store.
            _ => {
                let key = KEYS[usize::from(input.arbitrary::<u8>()?) % KEYS.len()];
                let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
                let value = String::from_utf8_lossy(input.bytes(len)?);
                let to_frontend = ["mac", "mtu"].contains(&key);
                if to_frontend {
                    device.set_front(&sim, key, &value)
                } else {
                    device.set(&sim, key, &value)
                }
                orderly &= key != "state";
            }
        }
        sim.run_for(Duration::from_micros(200));
        assert!(guest.seen.borrow().iter().all(|seen| seen.bytes.len() >= 14));
        Ok(())
    };
    let mut input = Unstructured::new(input);
    while !input.is_empty() && step(&mut input).is_ok() {}

    // It lets go, and the device goes away: whatever it did, the guest ends the interface, and nothing is shared.
    backend.let_go();
    drop(kept);
    if orderly {
        device.set(&sim, "state", "5");
        sim.run_for(SECOND / 20);
        device.set(&sim, "state", "6");
        device.forget(&sim);
        sim.run_until(|| guest.ended.get().is_some(), 60 * SECOND);
        guest.assert_nothing_shared(&sim);
    } else {
        // Pages that were still mapped are tried again each second.
        sim.run_for(2 * SECOND);
    }
    guest.assert_no_leaks(&sim);
});
