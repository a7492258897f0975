//! What Xen's domain builder says to a PV guest. The input is the structure.
#![no_main]

use fata_boot::pv_start_info::StartInfo;
use fata_hypercall::abi::pv;
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

/// Where the image ends.
const IMAGE_END: u64 = 0x13_f123;

fuzz_target!(|bytes: &[u8]| {
    let Ok((raw, _)) = pv::StartInfo::read_from_prefix(bytes) else {
        return;
    };
    let Ok(info) = StartInfo::new(&raw, IMAGE_END) else {
        return;
    };
    let (list, tables) = (info.frame_list(), info.tables());
    assert!(IMAGE_END <= list.start && list.end <= tables.start && tables.start < tables.end);
    assert!(tables.end <= info.pages() * 4096 && tables.start.is_multiple_of(4096));
    assert_eq!(list.end - list.start, info.pages() * 8);
    assert!(info.command_line().len() <= 1024);
    let _ = (info.console(), info.store(), info.is_initial_domain());
});
