//! Segment, task and interrupt descriptors: the little of them that long mode still wants.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::size_of;

/// Selector of the 64-bit code segment. The entry code has the same numbers in its text.
const CODE_SELECTOR: u16 = 0x08;
/// Selector of the task state segment.
const TSS_SELECTOR: u16 = 0x18;

/// How many vectors have a gate: the exceptions. Interrupts are off for good.
pub(super) const VECTORS: usize = 32;

/// A table that the processor reads at an address of its own choosing time.
#[repr(C, align(16))]
pub(super) struct Table<T>(UnsafeCell<T>);

// SAFETY: only ever accessed by `change`, on the one CPU there is, and by the processor.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    fn change(&self, change: impl FnOnce(&mut T)) {
        // SAFETY: the only reference to the content, for `change` does not come back here. The processor looks at it when
        // it is told to (`ltr`, `lidt`, a segment load) and at a fault, and never finds a live descriptor changed.
        change(unsafe { &mut *self.0.get() });
    }
}

/// The operand of `lgdt` and `lidt`. In 32-bit mode the processor takes the lower half of the address, which is all
/// there is of it.
#[repr(C, packed)]
pub(super) struct TablePointer<T: 'static> {
    limit: u16,
    base: &'static Table<T>,
}

/// A segment of 64-bit code, accessed already, so that the processor need not write to the table.
const CODE: u64 = 0x00af_9b00_0000_ffff;
/// A segment of data, likewise.
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// Null, code, data, and a task state segment (two slots, filled in by [`load`]).
static GDT: Table<[u64; 5]> = Table(UnsafeCell::new([0, CODE, DATA, 0, 0]));

/// What the entry code hands to `lgdt`.
pub(super) static GDT_POINTER: TablePointer<[u64; 5]> = TablePointer {
    limit: size_of::<[u64; 5]>() as u16 - 1,
    base: &GDT,
};

/// The 64-bit task state segment, of which only the stacks for faults are used.
#[repr(C, packed(4))]
struct TaskState {
    reserved: u32,
    privileged_stacks: [u64; 3],
    reserved_too: u64,
    /// IST1 to IST7.
    interrupt_stacks: [u64; 7],
    reserved_also: u64,
    reserved_word: u16,
    /// Past the limit: no I/O permission bitmap.
    io_map: u16,
}

const _: () = assert!(size_of::<TaskState>() == 104);

static TSS: Table<TaskState> = Table(UnsafeCell::new(TaskState {
    reserved: 0,
    privileged_stacks: [0; 3],
    reserved_too: 0,
    interrupt_stacks: [0; 7],
    reserved_also: 0,
    reserved_word: 0,
    io_map: size_of::<TaskState>() as u16,
}));

/// A stack for faults, since the program's own may be what is broken.
#[repr(C, align(16))]
struct FaultStack<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: only ever used by address, as a stack, by the one CPU.
unsafe impl<const N: usize> Sync for FaultStack<N> {}

impl<const N: usize> FaultStack<N> {
    fn top(&self) -> u64 {
        self.0.get() as u64 + N as u64
    }
}

/// For every fault but those below. The report is written on it.
static FAULTS: FaultStack<8192> = FaultStack(UnsafeCell::new([0; _]));
/// For what can come while the other one is in use: double fault, NMI, machine check.
static DOUBLE_FAULTS: FaultStack<4096> = FaultStack(UnsafeCell::new([0; _]));

/// NMI, double fault, machine check.
const SECOND_STACK: [usize; 3] = [2, 8, 18];

static IDT: Table<[[u64; 2]; VECTORS]> = Table(UnsafeCell::new([[0; 2]; VECTORS]));

/// Has the next fault run on the second stack, because a report is being written on the first, which is needed still.
pub(crate) fn protect_report() {
    // The processor reads the stacks from here at each fault, so this works at once.
    TSS.change(|tss| tss.interrupt_stacks[0] = DOUBLE_FAULTS.top());
}

/// Installs the task state segment and a gate for every exception. The handler of vector n begins at
/// `stubs + n * stub_size`.
pub(super) fn load(stubs: u64, stub_size: u64) {
    TSS.change(|tss| {
        tss.interrupt_stacks[0] = FAULTS.top();
        tss.interrupt_stacks[1] = DOUBLE_FAULTS.top();
    });
    let tss = TSS.0.get() as u64;
    // A 64-bit TSS that is present and available: its limit, its type, its address in four pieces.
    let low = 103 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
    GDT.change(|gdt| [gdt[3], gdt[4]] = [low, tss >> 32]);
    IDT.change(|gates| {
        for (vector, slot) in gates.iter_mut().enumerate() {
            let stack = if SECOND_STACK.contains(&vector) { 2 } else { 1 };
            *slot = gate(stubs + vector as u64 * stub_size, stack);
        }
    });
    let idt = TablePointer {
        limit: size_of::<[[u64; 2]; VECTORS]>() as u16 - 1,
        base: &IDT,
    };
    // SAFETY: both tables are filled in and static. The stacks that they name are aligned to 16 and for nobody else;
    // the gates lead to the stubs.
    unsafe {
        asm!("ltr {0:x}", "lidt [{1}]", in(reg) TSS_SELECTOR, in(reg) &raw const idt, options(nostack, preserves_flags));
    }
}

/// A present interrupt gate to `handler` in the 64-bit code segment, on interrupt stack `stack`.
const fn gate(handler: u64, stack: u64) -> [u64; 2] {
    let low =
        handler & 0xffff | (CODE_SELECTOR as u64) << 16 | stack << 32 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}
