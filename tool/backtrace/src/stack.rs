//! The walk from the innermost frame to the outermost, along the frame pointers, which every Fata image has.

use crate::image::Image;
use crate::registers::Registers;

/// How many steps are taken at the most.
pub(crate) const STEPS_MAX: usize = 256;

/// A station on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next instruction.
    At(u64),
    /// Where a call returns to.
    Caller(u64),
    /// A fault, whose handler all before this belongs to. What follows was interrupted.
    Fault {
        vector: u64,
        error: u64,
        registers: Registers,
    },
}

/// Walks. `word` reads the guest's memory.
pub(crate) fn walk(registers: &Registers, image: &Image, word: impl Fn(u64) -> Option<u64>) -> Vec<Step> {
    let mut steps = vec![Step::At(registers.rip)];
    let mut frame = registers.rbp();
    if let Some(caller) = caller_without_frame(registers, image, &word) {
        steps.push(Step::Caller(caller));
    }
    while steps.len() < STEPS_MAX {
        // The caller's frame pointer and the address that is returned to.
        let Some((next, address)) = pair(frame, &word).filter(|(_, address)| image.is_code(*address)) else {
            break;
        };
        if image.is_fault_stub(address) {
            // The handler's frame, its return address; then what the stub has pushed.
            let Some((fault, registers)) = interrupted(frame + 16, &word) else {
                break;
            };
            frame = registers.rbp();
            let rip = registers.rip;
            steps.extend([fault, Step::At(rip)]);
            continue;
        }
        steps.push(Step::Caller(address));
        // Frames of callers lie higher: where they do not, the walk ends with this one.
        if next <= frame {
            break;
        }
        frame = next;
    }
    steps
}

/// Two words of a frame, which are aligned wherever there is one.
fn pair(frame: u64, word: &impl Fn(u64) -> Option<u64>) -> Option<(u64, u64)> {
    if frame == 0 || !frame.is_multiple_of(8) {
        return None;
    }
    Some((word(frame)?, word(frame.checked_add(8)?)?))
}

/// The caller of a function that has not made its frame yet, or has taken it down.
fn caller_without_frame(registers: &Registers, image: &Image, word: &impl Fn(u64) -> Option<u64>) -> Option<u64> {
    const PUSH_RBP: u8 = 0x55;
    const RET: u8 = 0xc3;
    let into = registers.rip.checked_sub(image.function(registers.rip)?)?;
    let at = |address| image.code_byte(address);
    let depth = match into {
        0 => 0,
        1 if at(registers.rip - 1) == Some(PUSH_RBP) => 8,
        _ if at(registers.rip) == Some(RET) => 0,
        _ => return None,
    };
    word(registers.rsp.checked_add(depth)?).filter(|&address| image.is_code(address))
}

/// What the fault stub has left at `at` (`Frame` in boot/src/x86_64/faults.rs).
fn interrupted(at: u64, word: &impl Fn(u64) -> Option<u64>) -> Option<(Step, Registers)> {
    let mut words = [0; 21];
    for (offset, slot) in (0..).step_by(8).zip(&mut words) {
        *slot = word(at.checked_add(offset)?)?;
    }
    let [general @ .., vector, error, rip, _cs, rflags, rsp] = words;
    let registers = Registers {
        rip,
        rsp,
        rflags,
        general,
    };
    let fault = Step::Fault {
        vector,
        error,
        registers,
    };
    Some((fault, registers))
}
