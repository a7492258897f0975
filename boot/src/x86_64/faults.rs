//! Exceptions: every one of them is the end, and is reported.

use core::arch::{asm, global_asm};

use fata_hypercall::abi::pv::{FLAT_RING3_CS64, TrapInfo};
use fata_hypercall::metal::Xen;

use super::{descriptors, image};
use crate::console::{Lines, write_everywhere};
use crate::crash;

/// What the stubs below leave on the stack: the registers, then what the processor pushed, or Xen for a PV guest.
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Names of [`Frame::registers`], in the order in which they lie in memory.
const REGISTERS: [&str; 15] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

/// Bytes from one stub to the next.
const STUB_SIZE: u64 = 16;

// One stub per vector. Xen has pushed rcx and r11 last, and its handlers begin at the stub; the processor has not, and its
// handlers begin behind the two instructions that take them off. Then an error code of 0 where none was pushed (the mask has
// a bit for each vector that has one: 8, 10 to 14, 17, 21, 29, 30), the vector's number, then all registers. By the symbol with
// its size `cargo fata backtrace` knows in a core that a walk has come to a `Frame`.
global_asm!(
    r#"
    .pushsection .text.fault_stubs, "ax", @progbits
    .balign 16
    .type fata_fault_stubs, @function
fata_fault_stubs:
    .set vector, 0
    .rept {VECTORS}
    .balign {STUB_SIZE}
    pop rcx
    pop r11
    .if !((0x60227d00 >> vector) & 1)
    push 0
    .endif
    push vector
    jmp 2f
    .set vector, vector + 1
    .endr
2:  push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rbp
    push rdi
    push rsi
    push rdx
    push rcx
    push rbx
    push rax
    cld
    mov rdi, rsp
    and rsp, -16
    call {fault}
    ud2
    .size fata_fault_stubs, . - fata_fault_stubs
    .popsection
"#,
    VECTORS = const descriptors::VECTORS,
    STUB_SIZE = const STUB_SIZE,
    fault = sym fault,
);

/// Bytes of `pop rcx` and `pop r11`.
const POPS_SIZE: u64 = 3;

/// Points the processor's exceptions at the stubs.
pub(super) fn install() {
    descriptors::load(stubs() + POPS_SIZE, STUB_SIZE);
}

/// Asks Xen to deliver a PV guest's exceptions to the stubs.
///
/// Xen delivers on the stack that the guest runs on. Where that is gone, as after a stack overflow, it ends the domain
/// itself, with the registers in its own log.
pub(super) fn install_pv(xen: Xen) {
    // The last stays empty and ends the table.
    let mut traps = [TrapInfo::default(); descriptors::VECTORS + 1];
    for (vector, trap) in traps.iter_mut().take(descriptors::VECTORS).enumerate() {
        *trap = TrapInfo {
            vector: vector as u8,
            flags: 0,
            cs: FLAT_RING3_CS64,
            address: stubs() + vector as u64 * STUB_SIZE,
        };
    }
    // SAFETY: the table ends as it must, and the stubs take what Xen pushes.
    if unsafe { xen.set_trap_table(&traps) }.is_err() {
        write_everywhere(b"fata: Xen refuses the trap table: faults will not be reported\n");
    }
}

fn stubs() -> u64 {
    let stubs: u64;
    // SAFETY: takes an address, no more.
    unsafe { asm!("lea {}, [rip + fata_fault_stubs]", out(reg) stubs, options(nomem, nostack, preserves_flags)) };
    stubs
}

const PAGE_FAULT: u64 = 14;
const DOUBLE_FAULT: u64 = 8;

extern "C" fn fault(frame: &Frame) -> ! {
    let cr2: u64;
    // SAFETY: reads a register. For a PV guest, which may not, Xen does it.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
    crash::begin(&|out| {
        out.text("fata: fault: ")
            .text(name(frame.vector))
            .text(", vector ")
            .decimal(frame.vector);
        out.text(", error ").hex(frame.error, 1).text("\n");
        if frame.vector == PAGE_FAULT {
            describe_page_fault(out, frame.error, cr2);
        }
    });

    let mut out = Lines::new(write_everywhere);
    out.text("rip=")
        .hex(frame.rip, 16)
        .text(" rsp=")
        .hex(frame.rsp, 16)
        .text(" cr2=")
        .hex(cr2, 16);
    out.text(" rflags=").hex(frame.rflags, 1);
    for (index, (name, value)) in REGISTERS.iter().zip(frame.registers).enumerate() {
        out.text(if index % 5 == 0 { "\n" } else { " " })
            .text(name)
            .text("=")
            .hex(value, 16);
    }
    out.text("\n");
    drop(out);
    crash::backtrace(Some(frame.rip), frame.registers[6]);
    crash::end()
}

fn describe_page_fault(out: &mut Lines, error: u64, cr2: u64) {
    let (present, write, fetch) = (error & 1 != 0, error & 2 != 0, error & 16 != 0);
    out.text("fata: ");
    if image::guard().contains(&cr2) {
        out.text("stack overflow: the stack has ")
            .decimal((image::stack().end - image::stack().start) / 1024)
            .text(" KiB\n");
        return;
    }
    out.text(if fetch {
        "execution of "
    } else if write {
        "write to "
    } else {
        "read of "
    });
    out.hex(cr2, 1);
    out.text(if cr2 < 4096 {
        ", a null pointer\n"
    } else if !present {
        ", which is not mapped\n"
    } else if fetch {
        ", which holds no code\n"
    } else {
        ", which is read-only\n"
    });
}

/// What the processor's manuals call the vector.
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        6 => "invalid opcode",
        7 => "device not available",
        DOUBLE_FAULT => "double fault",
        12 => "stack-segment fault",
        13 => "general protection fault",
        PAGE_FAULT => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point exception",
        21 => "control protection exception",
        _ => "exception",
    }
}
