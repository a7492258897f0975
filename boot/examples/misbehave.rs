//! A kernel that does what its command line says, mostly something wrong, to show what becomes of it.
//!
//! `cargo build -p fata-boot --example misbehave --profile image --target x86_64-unknown-none`
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "each of them is there to fault")]

#[cfg(not(target_os = "none"))]
fn main() {
    println!("this is a kernel: build it for x86_64-unknown-none and start it under Xen");
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::boxed::Box;
    use alloc::format;
    use alloc::vec::Vec;
    use core::hint::black_box;

    use fata_boot::shutdown::{ShutdownReason, shutdown};
    use fata_boot::{BootInfo, ExitStatus, console, memory};

    fata_boot::entry!(main);

    fn main(boot: BootInfo) -> ExitStatus {
        let stats = memory::stats();
        console::write(
            format!(
                "misbehave: '{}', {} KiB free of {} KiB\n",
                boot.command_line,
                stats.free / 1024,
                stats.total / 1024
            )
            .as_bytes(),
        );
        match boot.command_line {
            "panic" => panic!("as asked, {}", stats.free),
            "null" => poke(0x10, false),
            "write-text" => poke(main as *const () as usize, true),
            "write-rodata" => poke(b"constant".as_ptr().addr(), true),
            "unmapped" => poke(1 << 46, false),
            "execute-data" => execute(Box::leak(Box::new([0xc3_u8; 16])).as_ptr()),
            "execute-rodata" => execute([0xc3_u8; 16].as_ptr()),
            "execute-stack" => execute(black_box(&mut [black_box(0xc3_u8); 16]).as_ptr()),
            "overflow" => {
                black_box(overflow(1));
            }
            "double-fault" => double_fault(),
            "divide" => divide(),
            "out-of-memory" => eat(),
            "reboot" => shutdown(ShutdownReason::Reboot),
            "crash" => shutdown(ShutdownReason::Crash),
            "fail" => return ExitStatus(7),
            "panic-in-hook" => {
                fata_boot::crash::set_crash_hook(|| panic!("in the hook"));
                panic!("first");
            }
            "flood" => {
                (0..2000).for_each(|n| console::write(format!("line {n} of a flood that fills the ring\n").as_bytes()))
            }
            "memory" => fill(),
            _ => {}
        }
        ExitStatus::SUCCESS
    }

    fn poke(address: usize, write: bool) {
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: none: this is to fault.
        unsafe {
            if write {
                pointer.write_volatile(1)
            } else {
                black_box(pointer.read_volatile());
            }
        }
    }

    fn execute(code: *const u8) {
        // SAFETY: none: this is to fault.
        let function: extern "C" fn() = unsafe { core::mem::transmute(code) };
        black_box(function)();
    }

    #[allow(unconditional_recursion)]
    fn overflow(n: u64) -> u64 {
        let local = black_box([n; 16]);
        overflow(local[3] + 1) + local[7]
    }

    fn double_fault() {
        // With gates for vectors 0 to 8 only, a page fault cannot be delivered.
        let mut idt = [0_u8; 10];
        // SAFETY: none: this is to fault.
        unsafe {
            core::arch::asm!("sidt [{0}]", "mov word ptr [{0}], 143", "lidt [{0}]", in(reg) idt.as_mut_ptr());
        }
        poke(0x10, false);
    }

    fn divide() {
        // SAFETY: none: this is to fault.
        unsafe { core::arch::asm!("xor ecx, ecx", "div ecx", out("ecx") _, out("eax") _, out("edx") _) }
    }

    fn eat() {
        let mut all: Vec<Box<[u8; 5000]>> = Vec::new();
        loop {
            all.push(Box::new(black_box([1; 5000])));
        }
    }

    /// Takes all memory in 1 MiB pieces, writes all of it, and gives it back.
    fn fill() {
        let mut all: Vec<Vec<u64>> = Vec::new();
        loop {
            let mut piece: Vec<u64> = Vec::new();
            if piece.try_reserve_exact(1 << 17).is_err() {
                break;
            }
            let tag = all.len() as u64;
            piece.resize(1 << 17, tag);
            all.push(piece);
        }
        let right = all
            .iter()
            .enumerate()
            .all(|(tag, piece)| piece.iter().all(|&word| word == tag as u64));
        let top = all.iter().map(|piece| piece.as_ptr().addr()).max();
        console::write(
            format!(
                "filled {} MiB, right: {right}, highest at {top:x?}, {:?}\n",
                all.len(),
                memory::stats()
            )
            .as_bytes(),
        );
        drop(all);
        console::write(format!("after: {:?}\n", memory::stats()).as_bytes());
    }
}
