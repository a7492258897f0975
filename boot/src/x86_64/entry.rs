//! The first instructions: from what a PVH loader leaves behind to Rust in long mode.
//!
//! At `fata_pvh_entry` (xen/docs/misc/pvh.pandoc) the processor is in 32-bit protected mode without paging, EBX holds
//! the physical address of `hvm_start_info`, and there is neither a stack nor a descriptor table to rely on. The code
//! below builds an identity map of the first 4 GiB out of 2 MiB pages, switches to long mode and calls
//! [`start`](super::start). The console and xenstore pages sit just under 4 GiB, hence the size.
//!
//! Pages that hold no text are never executable, not even in this first map; [`crate::paging`] then refines the
//! first megabytes to what each section needs.

use core::arch::global_asm;

// XEN_ELFNOTE_PHYS32_ENTRY (18): the 32-bit physical address at which to enter the image. Only PVH loaders look at
// it; the notes of a PV kernel (pv/entry.rs) stand beside it. There is no HYPERCALL_PAGE note on purpose (XSA-466).
global_asm!(
    ".pushsection .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long fata_pvh_entry",
    ".popsection",
);

global_asm!(
    r#"
    .pushsection .text.boot, "ax", @progbits
    .code32
    .globl fata_pvh_entry
fata_pvh_entry:
    cld
    cli
    mov esp, offset __stack_top
    mov ebp, ebx                        # the start info's address survives here

    # Six tables in a row: PML4[0] -> PDPT; PDPT[0..4] -> four page directories.
    mov edi, offset __page_tables
    lea eax, [edi + 0x1000 + {PRESENT_WRITE}]
    mov [edi], eax
    add edi, 0x1000
    add eax, 0x1000
    mov ecx, 4
2:  mov [edi], eax
    add edi, 8
    add eax, 4096
    loop 2b

    # 2048 pages of 2 MiB: present, writable, large; no-execute (bit 63) unless the page holds text.
    mov edi, offset __page_tables + 0x2000
    xor eax, eax
    mov ecx, 2048
3:  mov edx, eax
    or edx, {PRESENT_WRITE_LARGE}
    mov [edi], edx
    xor edx, edx
    lea ebx, [eax + 0x200000]
    cmp ebx, offset __text_start        # ends before the text? (the last page's end wraps to 0: also "before")
    jbe 4f
    cmp eax, offset __text_end
    jb 5f
4:  mov edx, 0x80000000
5:  mov [edi + 4], edx
    add edi, 8
    add eax, 0x200000
    loop 3b

    # Long mode: PAE; EFER.LME and NXE; paging with write protection for the kernel as well. SSE is made ready for
    # code that asks for it by target feature; the rest of the image is soft-float.
    mov eax, {CR4}
    mov cr4, eax
    mov eax, offset __page_tables
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, {EFER}
    wrmsr
    mov eax, {CR0}
    mov cr0, eax
    lgdt [{gdt_pointer}]
    push 0x08
    mov eax, offset fata_long_mode
    push eax
    retf

    .code64
fata_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    fninit
    mov esp, offset __stack_top         # clears the upper half as well
    mov edi, ebp
    xor ebp, ebp                        # where a walk along the frame pointers ends
    push rbp
    push rbp
    call {start}
    ud2
    .popsection
"#,
    gdt_pointer = sym super::descriptors::GDT_POINTER,
    start = sym super::start,
    PRESENT_WRITE = const 0x03,
    PRESENT_WRITE_LARGE = const 0x83,
    CR0 = const 0x8001_0033_u32, // PG, WP, NE, ET, MP, PE
    CR4 = const 0x0620,          // PAE, OSFXSR, OSXMMEXCPT
    EFER = const 0x0900,         // LME, NXE
);
