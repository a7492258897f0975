//! A file is a vector of bytes, whatever is done to it.

mod common;

use common::{SECOND, boot, bytes, finish, whole};
use fata_sim::{P9Config, Sim};
use proptest::prelude::*;

/// Something that can be done to a file.
#[derive(Clone, Debug)]
enum Deed {
    Write(u64, usize),
    Read(u64, usize),
    SetLen(u64),
    Reopen,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0..60_000_u64, 0..40_000_usize).prop_map(|(at, len)| Deed::Write(at, len)),
        (0..90_000_u64, 0..40_000_usize).prop_map(|(at, len)| Deed::Read(at, len)),
        (0..90_000_u64).prop_map(Deed::SetLen),
        Just(Deed::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_is_what_was_done_to_it(
        deeds in proptest::collection::vec(deed(), 1..12),
        seed in any::<u64>(),
        max_order in 1..6_u32,
        msize in 4096..40_000_u32,
    ) {
        let sim = Sim::new(seed);
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config { max_order, msize, ..P9Config::default() });
        let program = boot(&sim, &domain, |env| async move {
            env.share.connected().await;
            let mut file = env.share.create("file").await.unwrap();
            let mut model: Vec<u8> = Vec::new();
            for (number, deed) in deeds.into_iter().enumerate() {
                match deed {
                    Deed::Write(at, len) => {
                        let content = bytes(number as u8, len);
                        file.write_all_at(at, &content).await.unwrap();
                        let (begin, end) = (at as usize, at as usize + len);
                        if len > 0 {
                            model.resize(model.len().max(end), 0);
                            model[begin..end].copy_from_slice(&content);
                        }
                    }
                    Deed::Read(at, len) => {
                        let mut buffer = vec![0; len];
                        let count = file.read_at(at, &mut buffer).await.unwrap();
                        let there = model.get(at as usize..).unwrap_or_default();
                        assert_eq!(count > 0, len > 0 && !there.is_empty());
                        assert!(buffer[..count] == there[..count]);
                    }
                    Deed::SetLen(len) => {
                        file.set_len(len).await.unwrap();
                        model.resize(len as usize, 0);
                    }
                    Deed::Reopen => file = env.share.edit("file").await.unwrap(),
                }
                assert_eq!(file.metadata().await.unwrap().len, model.len() as u64);
            }
            assert!(whole(&file).await.unwrap() == model);
            assert!(env.share.read("file", 1 << 20).await.unwrap() == model);
            env.handle.sleep(SECOND / 100).await;
        });
        finish(&sim, &domain, &program);
        prop_assert!(back.served() > 0);
    }
}
