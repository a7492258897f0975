//! Want of memory for what the server says: each block that is asked for on its account is refused once.
//!
//! The allocator of this program says no to one block while the domain's loop runs. Everything that the server says here is
//! long, and everything else that is asked for then is small, so that the size tells the two apart.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

use common::{Rig, now};
use fata_xenstore::Error;

/// Blocks from this size on are of the server's making.
const LONG: usize = 256;

struct Scarce;

thread_local! {
    /// So many such blocks are left before one is refused, while the loop runs.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

// SAFETY: it is the system's allocator, which says no once.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LONG
            && let Some(left) = LEFT.get()
        {
            LEFT.set(left.checked_sub(1));
            if left == 0 {
                return ptr::null_mut();
            }
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Scarce = Scarce;

/// What a program got, or why not, and whether a block was refused.
fn run(left: u32) -> (Result<usize, Error>, bool) {
    let mut rig = Rig::new();
    let long = "x".repeat(400);
    for name in 0..20 {
        rig.server.set(&format!("data/many/{name}{long}"), "");
    }
    rig.server.set("data/value", &long);
    let store = rig.client();
    // The client's own books have room after this.
    rig.run(async move {
        let paths: Vec<String> = (0..16).map(|name| format!("data/{name}")).collect();
        store.read_all(&paths).await.unwrap();
    });
    let store = rig.client();
    let task = rig.handle().spawn(async move {
        let value = store.read("data/value").await?;
        let text = store.read_string("data/value").await?;
        let names = store.list("data/many").await?;
        Ok::<_, Error>(value.len() + text.len() + names.iter().map(String::len).sum::<usize>())
    });
    let mut left = Some(left);
    for _ in 0..1000 {
        rig.server.turn();
        rig.ports.dispatch();
        LEFT.set(left);
        rig.executor.turn();
        left = LEFT.take();
        if task.is_finished() {
            return (now(task).unwrap().unwrap(), left.is_none());
        }
    }
    panic!("it takes for ever");
}

#[test]
fn want_of_memory_for_what_the_server_says_is_an_error() {
    for left in 0.. {
        match run(left) {
            (Ok(length), false) => {
                assert_eq!(length, 2 * 400 + 10 * 401 + 10 * 402);
                assert!(left > 30, "only {left} blocks were asked for");
                return;
            }
            (Err(error), true) => assert_eq!(error, Error::NoMemory, "block {left}"),
            other => panic!("block {left}: {other:?}"),
        }
    }
}
