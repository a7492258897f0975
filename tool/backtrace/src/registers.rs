//! The registers of a virtual CPU.

use std::fmt;

/// Where a virtual CPU was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) rflags: u64,
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15: as the fault handler keeps them, and as a report prints them.
    pub(crate) general: [u64; 15],
}

const NAMES: [&str; 15] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

impl Registers {
    /// The frame pointer.
    pub(crate) fn rbp(&self) -> u64 {
        self.general[6]
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rip={:#018x} rsp={:#018x} rflags={:#x}",
            self.rip, self.rsp, self.rflags
        )?;
        for (nth, (name, value)) in NAMES.iter().zip(self.general).enumerate() {
            let space = if nth % 5 == 0 { "\n" } else { " " };
            write!(f, "{space}{name}={value:#018x}")?;
        }
        Ok(())
    }
}
