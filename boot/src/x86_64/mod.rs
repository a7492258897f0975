//! x86-64: from [`entry`], where a PVH loader goes, or [`pv::entry`], where Xen's PV domain builder goes, to the program's
//! main.

use core::ops::Range;
use core::ptr;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use fata_hypercall::abi::memory::E820Entry;
use fata_hypercall::metal::{WINDOW_PAGES, Xen};
use fata_hypercall::{Gfn, ShutdownReason};

use crate::console::{self, Lines, write_everywhere};
use crate::frames::FRAME_SIZE;
use crate::memory_map::{self, HOLES_END, MapEntry};
use crate::regions::Regions;
use crate::start_info::{COMMAND_LINE_MAX, MEMORY_MAP_MAX, PhysicalMemory, StartInfo};
use crate::{BootInfo, ExitStatus, memory, paging, shutdown};

pub(crate) mod descriptors;
mod entry;
mod faults;
pub(crate) mod image;
mod pv;
mod tables;

/// How many virtual CPUs are counted at the most.
const VCPUS_MAX: u32 = 128;

/// Under PVH, memory below this address is mapped from the first instruction on.
const MAPPED_AT_ENTRY: u64 = 1 << 32;

/// What is said when nothing is left beside the image.
const NO_MEMORY: &str = "the domain has too little memory: nothing is left beside the image";
/// What is said when memory ends while it is mapped.
const NO_PAGE_TABLES: &str = "the domain has too little memory: no page for page tables";

/// Physical addresses that may hold usable RAM: the lower half of the address space, which the map is one to one with.
const ADDRESS_LIMIT: u64 = 1 << 47;

unsafe extern "Rust" {
    /// The application, as [`entry!`](crate::entry) names it.
    safe fn fata_main(boot: BootInfo) -> ExitStatus;
}

/// Guest-physical memory through the identity map.
struct Identity;

impl PhysicalMemory for Identity {
    // One copy of it, not one for each size that is read.
    #[inline(never)]
    fn read(&self, addr: u64, to: &mut [u8]) -> bool {
        let end = addr.checked_add(to.len() as u64);
        let reachable = addr >= FRAME_SIZE && end.is_some_and(|end| end <= 1 << 32);
        if reachable {
            let from = ptr::with_exposed_provenance::<u8>(addr as usize);
            // SAFETY: the first 4 GiB but page zero are mapped, and nobody writes to the loader's structures.
            unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        }
        reachable
    }
}

/// Where the PVH entry code goes, on the boot stack, with the address of the loader's structure.
extern "C" fn start(start_info: u64) -> ! {
    faults::install();
    // SAFETY: `boot` below calls init before the handle leaves this crate, and this crate touches neither shared info nor
    // grants; the entry code has mapped 4 GiB one to one.
    let Some(xen) = (unsafe { Xen::detect() }) else {
        console::write(b"fata: cannot start: this is not Xen (no XenVMMXenVMM in CPUID), and nothing else is known\n");
        shutdown::reset();
    };
    let xen = leak(xen);
    shutdown::found_xen(*xen);
    console::log_to_debug_port();
    console::use_ring(xen);
    run(boot(xen, start_info))
}

/// A handle for ever. A `Xen` has no size, so this takes no memory.
fn leak(xen: Xen) -> &'static Xen {
    Box::leak(Box::new(xen))
}

/// Calls main with what booting came to, and ends the domain.
fn run(boot: Result<BootInfo, &'static str>) -> ! {
    match boot {
        Ok(info) => {
            let ExitStatus(status) = fata_main(info);
            shutdown::exit(status)
        }
        Err(reason) => {
            Lines::new(write_everywhere)
                .text("fata: cannot start: ")
                .text(reason)
                .text("\n");
            shutdown::shutdown(ShutdownReason::Crash)
        }
    }
}

/// Everything between knowing that this is Xen and having something to call main with.
fn boot(xen: &'static Xen, start_info: u64) -> Result<BootInfo, &'static str> {
    let info = StartInfo::read(&Identity, start_info).map_err(|_| "the loader passed no PVH start info")?;
    if info.is_initial_domain() {
        console::log_by_hypercall(*xen);
    }

    let mut map = [MapEntry::default(); MEMORY_MAP_MAX];
    let map = memory_map(*xen, &info, &mut map);
    let mut reserved = info.reserved();
    reserved.add(image::whole());
    let mut usable = memory_map::usable(map, &reserved, ADDRESS_LIMIT);
    protect(&mut usable).map_err(|_| NO_PAGE_TABLES)?;
    // SAFETY: called once; the map calls it RAM, neither the image nor the loader's structures are in it, and all of it is mapped
    // now.
    unsafe { memory::init(&mut usable, u64::MAX..u64::MAX) }.ok_or(NO_MEMORY)?;
    say_what_is_lost(&usable);

    let window: Range<u64> = memory_map::hole(map, WINDOW_PAGES * FRAME_SIZE, HOLES_END)
        .ok_or("the domain has no unused addresses below 4 GiB for the shared-info page and the grant table")?;
    // SAFETY: no RAM and no device is in the hole by the memory map; it is mapped one to one, writable and cacheable,
    // for good.
    unsafe { xen.init(Gfn(window.start / FRAME_SIZE)) }.map_err(|_| "Xen refuses to map the shared-info page")?;

    let mut buffer = vec![0; COMMAND_LINE_MAX + 1];
    let command_line = info.command_line(&mut buffer);
    if command_line.len() == COMMAND_LINE_MAX {
        console::write(b"fata: the command line is cut after 4096 bytes\n");
    }
    Ok(found(*xen, command_line, info.is_initial_domain()))
}

/// Maps what of `usable` is not mapped yet, and puts the final protection on all of it. The tables are taken from its low end.
fn protect(usable: &mut Regions) -> Result<(), paging::NoMemory> {
    paging::refine(&mut tables::Live(usable), &image::layout())?;
    let mut mapped = MAPPED_AT_ENTRY;
    while let Some(range) = usable.as_slice().iter().find(|range| range.end > mapped).cloned() {
        mapped = range.end;
        paging::map(&mut tables::Live(usable), range)?;
    }
    tables::flush();
    Ok(())
}

fn say_what_is_lost(usable: &Regions) {
    if usable.lost() > 0 {
        Lines::new(console::write)
            .text("fata: the memory map has too many holes: ")
            .decimal(usable.lost() / 1024)
            .text(" KiB are left unused\n");
    }
}

/// What main is told, when there is a heap and Xen is ready.
fn found(xen: Xen, command_line: &[u8], initial_domain: bool) -> BootInfo {
    let command_line = String::from_utf8_lossy(command_line).into_owned().leak();
    let vcpus = xen.vcpus(VCPUS_MAX);
    if vcpus > 1 {
        Lines::new(console::write)
            .text("fata: running on the first of ")
            .decimal(vcpus.into())
            .text(" virtual CPUs\n");
    }
    BootInfo {
        xen,
        command_line,
        vcpus,
        initial_domain,
    }
}

/// The loader's memory map, or the one that Xen keeps if the loader passed none.
fn memory_map<'a>(xen: Xen, info: &StartInfo<'_, Identity>, buffer: &'a mut [MapEntry]) -> &'a [MapEntry] {
    let mut len = 0;
    for (slot, entry) in buffer.iter_mut().zip(info.memory_map()) {
        *slot = entry;
        len += 1;
    }
    if len == 0 {
        let mut e820 = [E820Entry::default(); MEMORY_MAP_MAX];
        len = xen.memory_map(&mut e820).unwrap_or(0).min(buffer.len());
        for (slot, entry) in buffer.iter_mut().zip(e820) {
            *slot = MapEntry {
                addr: entry.addr,
                size: entry.size,
                kind: entry.kind,
            };
        }
    }
    &buffer[..len]
}
