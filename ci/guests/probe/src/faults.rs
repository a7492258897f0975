//! Things that no program should do. Each must end in a fault that is reported.

use core::hint::black_box;
use core::ptr;

/// Uses all of the stack.
pub(crate) fn overflow(depth: u64) -> u64 {
    let block = black_box([depth; 128]);
    if depth == u64::MAX {
        block[0]
    } else {
        overflow(depth + 1) + block[(depth % 128) as usize]
    }
}

/// Reads through a null pointer.
pub(crate) fn read_null() -> u8 {
    let null = black_box(ptr::null::<u8>().wrapping_add(8));
    // SAFETY: none. That the machine stops here is what is tested.
    unsafe { null.read_volatile() }
}

/// Overwrites its own code.
pub(crate) fn write_text() {
    let code = black_box(read_null as *mut u8);
    // SAFETY: none, as above.
    unsafe { code.write_volatile(0xc3) }
}

/// Runs bytes from the heap: a return instruction, were it allowed.
pub(crate) fn execute_data() {
    let code = black_box(alloc::vec![0xc3_u8; 16]);
    // SAFETY: none, as above.
    let function = unsafe { core::mem::transmute::<*const u8, extern "C" fn()>(code.as_ptr()) };
    function();
}
