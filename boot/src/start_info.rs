//! What a PVH loader says: `hvm_start_info` and what it points to, checked before it is believed.
//!
//! Source: xen/include/public/arch-x86/hvm/start_info.h and xen/docs/misc/pvh.pandoc.

use core::fmt;
use core::mem::size_of;

use fata_hypercall::abi::hvm::{self, MemmapEntry, ModlistEntry};

use crate::memory_map::MapEntry;
use crate::regions::Regions;

/// The longest command line that is read, in bytes. Xen's toolstack sets no limit of its own.
pub const COMMAND_LINE_MAX: usize = 4096;

/// How many lines of a memory map are read. PC firmware passes 128 at the most.
pub const MEMORY_MAP_MAX: usize = 128;

/// How many modules are looked at. Loaders pass one or two; with so many, all that is reserved fits into [`Regions`].
const MODULES_MAX: u32 = 16;

/// Read access to guest-physical memory: the real one on metal, an array in tests.
pub trait PhysicalMemory {
    /// Copies the bytes from `addr` on into `to`. `false`, with `to` unspecified, if any of them is out of reach.
    fn read(&self, addr: u64, to: &mut [u8]) -> bool;
}

/// Why the loader's structure is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartInfoError {
    /// Its address is out of reach.
    Unreachable,
    /// It does not begin with the magic number.
    BadMagic,
    /// What it speaks of lies where it cannot be. Only a PV guest's says so much.
    BadLayout,
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "the loader's start info is out of reach",
            Self::BadMagic => "the loader's start info has no magic number",
            Self::BadLayout => "the loader's start info speaks of page tables or lists that cannot be where it says",
        })
    }
}

impl core::error::Error for StartInfoError {}

/// A checked `hvm_start_info`, copied out of the loader's memory.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo<'a, M> {
    memory: &'a M,
    addr: u64,
    raw: hvm::StartInfo,
}

impl<'a, M: PhysicalMemory> StartInfo<'a, M> {
    /// Reads the structure at `addr`.
    ///
    /// # Errors
    /// See [`StartInfoError`].
    pub fn read(memory: &'a M, addr: u64) -> Result<Self, StartInfoError> {
        let mut bytes = [0; size_of::<hvm::StartInfo>()];
        let (v0, v1) = bytes.split_at_mut(hvm::StartInfo::SIZE_V0);
        if !memory.read(addr, v0) {
            return Err(StartInfoError::Unreachable);
        }
        let version = u32::from_le_bytes([v0[4], v0[5], v0[6], v0[7]]);
        if version >= 1 && !memory.read(addr.saturating_add(v0.len() as u64), v1) {
            return Err(StartInfoError::Unreachable);
        }
        let raw: hvm::StartInfo = zerocopy::transmute!(bytes);
        if raw.magic != hvm::START_MAGIC {
            return Err(StartInfoError::BadMagic);
        }
        Ok(Self { memory, addr, raw })
    }

    /// The structure's version: 0 for Xen up to 4.10, else 1.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.raw.version
    }

    /// Whether this is Xen's first domain (`SIF_INITDOMAIN`), whose console is Xen's own.
    #[must_use]
    pub const fn is_initial_domain(&self) -> bool {
        self.raw.flags & 2 != 0
    }

    /// The bytes of the command line, without its NUL, in `buffer`. Empty if there is none; cut at
    /// [`COMMAND_LINE_MAX`] or where `buffer` ends.
    pub fn command_line<'b>(&self, buffer: &'b mut [u8]) -> &'b [u8] {
        let len = if self.raw.cmdline_paddr == 0 {
            0
        } else {
            (0..buffer.len().min(COMMAND_LINE_MAX))
                .find(|&i| {
                    let Some(addr) = self.raw.cmdline_paddr.checked_add(i as u64) else {
                        return true;
                    };
                    let byte = &mut buffer[i..=i];
                    !self.memory.read(addr, byte) || byte[0] == 0
                })
                .unwrap_or(buffer.len().min(COMMAND_LINE_MAX))
        };
        &buffer[..len]
    }

    /// The loader's memory map; empty for version 0, and whenever the loader left it out.
    pub fn memory_map(&self) -> impl Iterator<Item = MapEntry> + use<'a, M> {
        let Self { memory, raw, .. } = *self;
        (0..raw.memmap_entries).take(MEMORY_MAP_MAX).map_while(move |n| {
            let mut bytes = [0; size_of::<MemmapEntry>()];
            let addr = raw.memmap_paddr.checked_add(u64::from(n) * bytes.len() as u64)?;
            let entry: MemmapEntry = memory.read(addr, &mut bytes).then(|| zerocopy::transmute!(bytes))?;
            Some(MapEntry {
                addr: entry.addr,
                size: entry.size,
                kind: entry.kind,
            })
        })
    }

    /// The physical memory that the structure and everything it points to occupies: not to be given to anybody else.
    #[must_use]
    pub fn reserved(&self) -> Regions {
        let Self { memory, addr, raw } = *self;
        let mut reserved = Regions::new();
        let mut add = |start: u64, size: u64| {
            if start != 0 {
                reserved.add(start..start.saturating_add(size));
            }
        };
        add(addr, size_of::<hvm::StartInfo>() as u64);
        add(raw.cmdline_paddr, COMMAND_LINE_MAX as u64);
        if raw.version >= 1 {
            add(
                raw.memmap_paddr,
                u64::from(raw.memmap_entries) * size_of::<MemmapEntry>() as u64,
            );
        }
        add(
            raw.modlist_paddr,
            u64::from(raw.nr_modules) * size_of::<ModlistEntry>() as u64,
        );
        for n in 0..raw.nr_modules.min(MODULES_MAX) {
            let mut bytes = [0; size_of::<ModlistEntry>()];
            let addr = raw.modlist_paddr.saturating_add(u64::from(n) * bytes.len() as u64);
            if !memory.read(addr, &mut bytes) {
                break;
            }
            let module: ModlistEntry = zerocopy::transmute!(bytes);
            add(module.paddr, module.size);
            add(module.cmdline_paddr, COMMAND_LINE_MAX as u64);
        }
        reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 64 KiB of guest memory from 0x10000 on.
    struct Memory(Vec<u8>);

    const BASE: u64 = 0x10000;

    impl PhysicalMemory for Memory {
        fn read(&self, addr: u64, to: &mut [u8]) -> bool {
            let from = addr.checked_sub(BASE).and_then(|start| {
                let start = usize::try_from(start).ok()?;
                self.0.get(start..start.checked_add(to.len())?)
            });
            from.inspect(|from| to.copy_from_slice(from)).is_some()
        }
    }

    impl Memory {
        fn new() -> Self {
            Self(vec![0; 0x10000])
        }

        fn put(&mut self, addr: u64, bytes: &[u8]) {
            let at = (addr - BASE) as usize;
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn start_info(version: u32) -> hvm::StartInfo {
        hvm::StartInfo {
            magic: hvm::START_MAGIC,
            version,
            ..Default::default()
        }
    }

    #[test]
    fn version_1_with_everything() {
        use zerocopy::IntoBytes;
        let mut memory = Memory::new();
        let info = hvm::StartInfo {
            flags: 3,
            nr_modules: 1,
            modlist_paddr: BASE + 0x300,
            cmdline_paddr: BASE + 0x200,
            memmap_paddr: BASE + 0x100,
            memmap_entries: 2,
            ..start_info(1)
        };
        memory.put(BASE, info.as_bytes());
        memory.put(BASE + 0x200, b"ipv4=10.0.0.2/24 log=info\0garbage");
        let module = ModlistEntry {
            paddr: 0x40_0000,
            size: 0x123,
            ..Default::default()
        };
        memory.put(BASE + 0x300, module.as_bytes());
        let ram = MemmapEntry {
            addr: 0,
            size: 0x20_0000,
            kind: 1,
            reserved: 0,
        };
        let other = MemmapEntry {
            addr: 0xfc00_0000,
            size: 0x1000,
            kind: 2,
            reserved: 0,
        };
        memory.put(BASE + 0x100, ram.as_bytes());
        memory.put(BASE + 0x118, other.as_bytes());

        let info = StartInfo::read(&memory, BASE).unwrap();
        assert_eq!(info.version(), 1);
        assert!(info.is_initial_domain());
        assert_eq!(
            info.command_line(&mut [0; COMMAND_LINE_MAX]),
            b"ipv4=10.0.0.2/24 log=info"
        );
        assert_eq!(info.command_line(&mut [0; 4]), b"ipv4");
        let map: Vec<_> = info.memory_map().collect();
        assert_eq!(
            map[0],
            MapEntry {
                addr: 0,
                size: 0x20_0000,
                kind: 1
            }
        );
        assert_eq!(
            map[1],
            MapEntry {
                addr: 0xfc00_0000,
                size: 0x1000,
                kind: 2
            }
        );
        assert_eq!(map.len(), 2);
        assert_eq!(
            info.reserved().as_slice(),
            [
                BASE..BASE + 56,
                BASE + 0x100..BASE + 0x130,
                // The command line's possible length, and the module list within.
                BASE + 0x200..BASE + 0x1200,
                0x40_0000..0x40_0123,
            ]
        );
    }

    #[test]
    fn version_0_has_no_map_whatever_follows_it() {
        use zerocopy::IntoBytes;
        let mut memory = Memory::new();
        let info = hvm::StartInfo {
            memmap_paddr: 77,
            memmap_entries: 99,
            ..start_info(0)
        };
        memory.put(BASE, info.as_bytes());
        let info = StartInfo::read(&memory, BASE).unwrap();
        assert_eq!(info.memory_map().count(), 0);
        assert_eq!(info.command_line(&mut [0; 16]), b"");
    }

    #[test]
    fn refuses_what_is_not_a_start_info() {
        let memory = Memory::new();
        assert_eq!(StartInfo::read(&memory, BASE).err(), Some(StartInfoError::BadMagic));
        assert_eq!(StartInfo::read(&memory, 0).err(), Some(StartInfoError::Unreachable));
        assert_eq!(
            StartInfo::read(&memory, u64::MAX).err(),
            Some(StartInfoError::Unreachable)
        );
    }

    #[test]
    fn rule_83_a_command_line_without_end_is_cut() {
        use zerocopy::IntoBytes;
        let mut memory = Memory::new();
        memory.put(
            BASE,
            hvm::StartInfo {
                cmdline_paddr: BASE + 0x1000,
                ..start_info(1)
            }
            .as_bytes(),
        );
        memory.0[0x1000..].fill(b'a');
        for end in [COMMAND_LINE_MAX, COMMAND_LINE_MAX + 1, 0xf000] {
            let mut memory = Memory(memory.0.clone());
            memory.0.iter_mut().skip(0x1000 + end).for_each(|byte| *byte = 0);
            let info = StartInfo::read(&memory, BASE).unwrap();
            assert_eq!(
                info.command_line(&mut [0; 2 * COMMAND_LINE_MAX]).len(),
                COMMAND_LINE_MAX
            );
        }
    }

    #[test]
    fn modules_without_end_leave_nothing_unreserved() {
        use zerocopy::IntoBytes;
        let mut memory = Memory::new();
        let info = hvm::StartInfo {
            nr_modules: 1000,
            modlist_paddr: BASE + 0x1000,
            ..start_info(1)
        };
        memory.put(BASE, info.as_bytes());
        for n in 0..1000 {
            let module = ModlistEntry {
                paddr: (n + 1) << 24,
                size: 1 << 20,
                cmdline_paddr: ((n + 1) << 24) + (1 << 22),
                ..Default::default()
            };
            memory.put(BASE + 0x1000 + n * size_of::<ModlistEntry>() as u64, module.as_bytes());
        }
        let reserved = StartInfo::read(&memory, BASE).unwrap().reserved();
        assert_eq!(reserved.lost(), 0, "the first ones, and all of each");
        assert!(reserved.as_slice().contains(&(16 << 24..(16 << 24) + (1 << 20))));
    }

    #[test]
    fn a_command_line_ends_where_memory_ends() {
        use zerocopy::IntoBytes;
        let mut memory = Memory::new();
        memory.put(
            BASE,
            hvm::StartInfo {
                cmdline_paddr: BASE + 0xfffe,
                ..start_info(1)
            }
            .as_bytes(),
        );
        memory.put(BASE + 0xfffe, b"ab");
        let info = StartInfo::read(&memory, BASE).unwrap();
        assert_eq!(info.command_line(&mut [0; 16]), b"ab");
    }

    proptest! {
        #[test]
        fn no_content_of_memory_is_fatal(raw in prop::collection::vec(any::<u8>(), 56), near in any::<[u16; 4]>()) {
            use zerocopy::IntoBytes;
            let mut bytes = [0; 56];
            bytes.copy_from_slice(&raw);
            let mut info: hvm::StartInfo = zerocopy::transmute!(bytes);
            info.magic = hvm::START_MAGIC;
            // Half of the pointers go somewhere where they find more nonsense.
            for (pointer, near) in
                [&mut info.modlist_paddr, &mut info.cmdline_paddr, &mut info.memmap_paddr].into_iter().zip(near)
            {
                if near % 2 == 0 { *pointer = BASE + u64::from(near) }
            }
            let mut memory = Memory::new();
            memory.0.iter_mut().enumerate().for_each(|(i, byte)| *byte = raw[i % 56].wrapping_add((i / 56) as u8));
            memory.put(BASE, info.as_bytes());
            let info = StartInfo::read(&memory, BASE).unwrap();
            prop_assert!(info.memory_map().count() <= MEMORY_MAP_MAX);
            prop_assert_eq!(info.reserved().lost(), 0);
            prop_assert!(info.reserved().as_slice().iter().any(|r| r.start <= BASE && r.end >= BASE + 56));
            prop_assert!(info.command_line(&mut [0; 100]).len() <= 100);
        }
    }
}
