//! Booting as a PV guest.
//!
//! What is done differently from PVH: memory is known by a list of machine frames instead of a map, page tables belong to
//! Xen, exceptions come from Xen, and the rings and the shared-info page are named in `start_info`. What follows is the
//! same.

use core::ptr;

use fata_hypercall::abi::hvm::MEMMAP_RAM;
use fata_hypercall::abi::memory::E820Entry;
use fata_hypercall::abi::pv;
use fata_hypercall::metal::pv::{Service, list_address};
use fata_hypercall::metal::{WINDOW_PAGES, Xen};
use fata_hypercall::{Gfn, Pfn, Port};

use super::{NO_MEMORY, NO_PAGE_TABLES, faults, found, image, leak, run, say_what_is_lost};
use crate::frames::FRAME_SIZE;
use crate::paging::{Layout, map_again, refine};
use crate::pv_start_info::{COMMAND_LINE_MAX, StartInfo};
use crate::regions::Regions;
use crate::{BootInfo, console, memory, shutdown};

mod entry;
mod tables;

/// Where the entry code goes, on our own stack, with the address of Xen's structure.
extern "C" fn start(start_info: u64) -> ! {
    // SAFETY: only the PV entry code calls this; `boot` below calls init_pv before the handle leaves this crate, and this
    // crate touches neither shared info nor grants.
    let xen = leak(unsafe { Xen::pv() });
    shutdown::found_xen(*xen);
    console::log_by_hypercall(*xen);
    faults::install_pv(*xen);
    run(boot(xen, start_info))
}

/// Everything between the first hypercall and having something to call main with.
fn boot(xen: &'static Xen, start_info: u64) -> Result<BootInfo, &'static str> {
    // SAFETY: Xen's domain builder passes the address of such a structure, mapped; nobody writes to it.
    let raw = unsafe { ptr::with_exposed_provenance::<pv::StartInfo>(start_info as usize).read() };
    let info =
        StartInfo::new(&raw, image::whole().end).map_err(|_| "the domain builder's start info makes no sense")?;
    let list = ptr::with_exposed_provenance_mut::<u64>(info.frame_list().start as usize);
    // SAFETY: the builder put the list there, one word per page; what lies between the image and the end of the tables is
    // kept out of usable memory below.
    unsafe { xen.set_frames(list, info.pages() as usize) };
    find_rings(xen, &info);

    // All pages are ours, but for holes where the list says so (e820_host), and what the builder made. Those that may come later
    // are in the balloon.
    let limit = limit(*xen, info.pages());
    let later = info.pages() * FRAME_SIZE..limit * FRAME_SIZE;
    let mut usable = Regions::new();
    usable.add(FRAME_SIZE..later.end);
    usable.remove(image::whole().start..info.tables().end);
    (0..info.pages())
        .filter(|&page| xen.machine_frame(Pfn(page)).is_none())
        .for_each(|page| usable.remove(page * FRAME_SIZE..(page + 1) * FRAME_SIZE));

    // Behind all memory; page tables for it come from its being inside the layout.
    let window = later.end.next_multiple_of(2 << 20);
    let layout = Layout {
        tables: info.tables(),
        end: window + WINDOW_PAGES * FRAME_SIZE,
        ..image::layout()
    };
    let mut tables = tables::Live::new(*xen, info.tables().start, &mut usable, later.start);
    refine(&mut tables, &layout).map_err(|_| NO_PAGE_TABLES)?;
    let list_bytes = limit * size_of::<u64>() as u64;
    let list = match limit > info.pages() {
        true => tables.take(list_bytes).ok_or(NO_MEMORY)?,
        false => info.frame_list().start,
    };
    map_again(&mut tables, list..list + list_bytes, list_address(window)).map_err(|_| NO_PAGE_TABLES)?;
    tables.finish().map_err(|_| "Xen refuses the page tables")?;
    if limit > info.pages() {
        lengthen_list(*xen, &info, list, limit);
    }
    // SAFETY: called once; all pages of the domain are RAM, what holds something is taken out, and all of it is mapped now. Those
    // that come later lie above.
    unsafe { memory::init(&mut usable, later) }.ok_or(NO_MEMORY)?;
    say_what_is_lost(&usable);

    let root = Pfn(info.tables().start / FRAME_SIZE);
    // SAFETY: the window holds no memory and has tables, see above. The builder's structure has a page between the image and
    // its tables, which is not usable memory; `info` looks at a copy.
    unsafe { xen.init_pv(window, ptr::with_exposed_provenance_mut(start_info as usize), root) }
        .map_err(|_| "Xen refuses to map the shared-info page")?;
    let command_line = info.command_line();
    if command_line.len() >= COMMAND_LINE_MAX {
        console::write(b"fata: the command line is cut after 1023 bytes\n");
    }
    Ok(found(*xen, command_line, info.is_initial_domain()))
}

/// How many pages the domain may come to have: what Xen's memory map says, which goes by `maxmem`, but no more than 32 times what
/// it has, since the tables for them take their part of that.
fn limit(xen: Xen, pages: u64) -> u64 {
    let mut map = [E820Entry::default(); 2];
    let entries = if cfg!(feature = "balloon") {
        xen.memory_map(&mut map)
    } else {
        Ok(0)
    };
    let [all, _] = map;
    // More than one entry is the host's own map (e820_host).
    if entries == Ok(1) && (all.addr, all.kind) == (0, MEMMAP_RAM) {
        (all.size / FRAME_SIZE).clamp(pages, pages * 32)
    } else {
        pages
    }
}

/// Replaces the builder's list of machine frames by one at `place`, which has room for `limit`.
fn lengthen_list(xen: Xen, info: &StartInfo<'_>, place: u64, limit: u64) {
    let list = ptr::with_exposed_provenance_mut::<u64>(place as usize);
    let old = ptr::with_exposed_provenance::<u64>(info.frame_list().start as usize);
    // SAFETY: just taken, mapped, and of that many words. All ones is a page without memory.
    unsafe { list.write_bytes(0xff, limit as usize) };
    // SAFETY: the builder's list has a word for each page, the new one has room for more, and they are two.
    unsafe { list.copy_from_nonoverlapping(old, info.pages() as usize) };
    // SAFETY: a word for each page, for good, and nobody else has them.
    unsafe { xen.set_frames(list, limit as usize) };
}

/// Finds the pages of the console's and xenstore's rings, which are named by machine frame, among those that the builder
/// made.
fn find_rings(xen: &'static Xen, info: &StartInfo<'_>) {
    let find = |ring: Option<(Gfn, Port)>| {
        let (frame, port) = ring?;
        let made = image::whole().end.div_ceil(FRAME_SIZE)..info.tables().start / FRAME_SIZE;
        // From the end: that is where they are.
        let page = made
            .rev()
            .map(Pfn)
            .find(|&page| xen.machine_frame(page) == Some(frame))?;
        Some(Service { page, port })
    };
    // SAFETY: the builder says that these are the rings' machine frames, and has mapped all pages below its tables one to
    // one, where they stay: behind the image they are not usable memory.
    unsafe { xen.set_services(find(info.console()), find(info.store())) };
    console::use_ring(xen);
}
