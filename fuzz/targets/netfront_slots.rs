//! Slots of the receive ring become packets: any slots, eight bytes each.
#![no_main]

use fata_netfront::abi::{MAX_PACKET, RxSlot};
use fata_netfront::assemble::{Assembled, Buffer, MAX_FRAGMENTS, assemble};
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

fuzz_target!(|input: &[u8]| {
    let mut slots = input
        .chunks_exact(8)
        .zip(0..)
        .map(|(bytes, buffer): (&[u8], Buffer)| (buffer, RxSlot::read_from_bytes(bytes).expect("eight bytes")));
    loop {
        let mut taken = Vec::new();
        let mut spare = Vec::new();
        let take = || Ok(slots.next().inspect(|(buffer, _)| taken.push(*buffer)));
        match assemble(take, |buffer| spare.push(buffer)) {
            Ok(Assembled::Nothing) => return assert!(taken.is_empty()),
            Ok(Assembled::Packet(packet)) => {
                let fragments = packet.fragments();
                assert!((1..=MAX_FRAGMENTS).contains(&fragments.len()));
                assert!((14..=MAX_PACKET).contains(&packet.len()));
                assert_eq!(
                    fragments.iter().map(|f| usize::from(f.len)).sum::<usize>(),
                    packet.len()
                );
                assert!(
                    fragments
                        .iter()
                        .all(|f| usize::from(f.offset) + usize::from(f.len) <= 4096)
                );
                spare.extend(fragments.iter().map(|fragment| fragment.buffer));
            }
            Ok(Assembled::Dropped(_)) => {}
            // The interface ends here.
            Err(_) => return,
        }
        spare.sort_unstable();
        assert_eq!(spare, taken, "every buffer comes back, once");
    }
});
