//! Each thing that a hostile backend does, by itself.

#![allow(unreachable_pub, dead_code, reason = "the module is shared by test files")]

mod scenario;

use fata_sim::VifConfig;
use fata_sim::netback::{Malice, Trick};
use scenario::{SECOND, Transfer, World, echo};

/// It costs the backend its interface at most: the guest goes on, and leaves nothing behind.
#[test]
fn each_trick_is_survived() {
    for tricks in Trick::ALL.chunks(1) {
        let fallen = std::sync::atomic::AtomicU32::new(0);
        fata_sim::check(0..30, |sim| {
            let world = World::new(sim, "guest", VifConfig::default());
            world.boot(echo);
            Transfer::start(&world, 3000).finish(100 * SECOND);
            world.vif.set_malice(Malice { one_in: 3, tricks });
            let transfer = Transfer::start(&world, 30_000);
            world.run_turns(2000);
            assert!(world.vif.stats().tricks > 0, "{tricks:?}");
            let error = format!("/local/domain/{}/error/device/vif/0/error", world.domain.id().0);
            let error = sim.store().read_text(&error).unwrap_or_default();
            if error.contains("broke the protocol") {
                fallen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            drop(transfer);
            world.vif.set_malice(Malice::NONE);
            world.vif.restart();
            sim.run_for(20 * SECOND);
            world.power_off();
        });
        let fallen = fallen.into_inner();
        let fatal =
            matches!(
                tricks,
                [Trick::IndexJump
                    | Trick::TxId
                    | Trick::TxStatus
                    | Trick::RxBounds
                    | Trick::RxExtras
                    | Trick::KeepMapped]
            );
        let harmless = matches!(tricks, [Trick::EventIndex | Trick::EventStorm | Trick::WriteReadOnly]);
        if std::env::var_os("FATA_SEED").is_none() {
            assert!(!fatal || fallen > 15, "{tricks:?}: {fallen} of 30");
            assert!(!harmless || fallen == 0, "{tricks:?}: {fallen} of 30");
        }
    }
}
