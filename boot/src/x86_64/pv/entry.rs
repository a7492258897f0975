//! The first instructions of a PV guest, and the notes by which Xen's domain builder finds them.
//!
//! At `fata_pv_entry` (xen/include/public/xen.h, "start-of-day memory layout") the processor is in 64-bit mode at
//! privilege level 3, paging is on, events are masked, and RSI holds the virtual address of `start_info`. Because the
//! virtual base is 0, every page of the guest's lies at its own number times 4096, as under PVH, so that one link address
//! fits both.

use core::arch::global_asm;

// XEN_ELFNOTE_ENTRY (1), VIRT_BASE (3), PADDR_OFFSET (4), XEN_VERSION (5), GUEST_OS (6), LOADER (8), SUSPEND_CANCEL (14):
// public/elfnote.h.
// A PVH loader looks at none of them.
global_asm!(
    r#"
    .pushsection .note.Xen, "a", @note
    .balign 4
    .macro fata_number_note type, value
    .long 4, 8, \type
    .asciz "Xen"
    .quad \value
    .endm
    .macro fata_text_note type, text
    .long 4, 3f - 2f, \type
    .asciz "Xen"
2:  .asciz "\text"
3:  .balign 4
    .endm
    fata_number_note 1, fata_pv_entry
    fata_number_note 3, 0
    fata_number_note 4, 0
    fata_text_note 5, "xen-3.0"
    fata_text_note 6, "fata"
    fata_text_note 8, "generic"
    .long 4, 4, 14
    .asciz "Xen"
    .long 1
    .popsection

    .pushsection .text.boot, "ax", @progbits
    .code64
fata_pv_entry:
    cld
    mov esp, offset __stack_top         # clears the upper half as well
    mov rdi, rsi
    xor ebp, ebp                        # where a walk along the frame pointers ends
    push rbp
    push rbp
    call {start}
    ud2
    .popsection
"#,
    start = sym super::start,
);
