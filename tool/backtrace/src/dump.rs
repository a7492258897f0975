//! A core as Xen's toolstack writes it (`xen:docs/misc/dump-core-format.txt`): an ELF file without segments, whose sections
//! are the virtual CPUs' registers, the guest's pages, and a list that says which page is which.

use object::elf::{EM_X86_64, FileHeader64};
use object::read::elf::{ElfFile, ElfSection};
use object::{LittleEndian, Object, ObjectSection, ReadRef};

use crate::error::Error;
use crate::registers::Registers;

const PAGE: u64 = 4096;

/// Size of `vcpu_guest_context` (`xen:xen/include/public/arch-x86/xen.h`), and where in it `user_regs` lies: behind the FPU's
/// registers and the flags.
const VCPU: usize = 5168;
const USER_REGS: usize = 520;

/// A core.
pub(crate) struct Dump<'data, R: ReadRef<'data>> {
    data: R,
    vcpus: Vec<Registers>,
    /// Where in the file the pages lie.
    pages: u64,
    /// The list of pages; each entry begins with the page's number, and they ascend.
    list: &'data [u8],
    /// Bytes of an entry.
    stride: usize,
}

impl<'data, R: ReadRef<'data>> Dump<'data, R> {
    pub(crate) fn parse(data: R) -> Result<Self, Error> {
        let not = |why: String| Error::NotACore { why };
        let elf = ElfFile::<FileHeader64<LittleEndian>, R>::parse(data).map_err(|error| not(error.to_string()))?;
        if elf.elf_header().e_machine.get(LittleEndian) != EM_X86_64 {
            return Err(not("it is of another machine than x86-64".into()));
        }
        if elf.section_by_name(".note.Xen").is_none() || elf.section_by_name(".xen_pages").is_none() {
            return Err(not("it has no sections of Xen's toolstack".into()));
        }
        let contexts = content(&elf, ".xen_prstatus")?;
        let (vcpus, rest) = contexts.as_chunks::<VCPU>();
        if vcpus.is_empty() || !rest.is_empty() {
            return Err(Error::Section {
                name: ".xen_prstatus",
                why: "holds no whole virtual CPU",
            });
        }
        // The numbers alone for a guest whose memory Xen translates (PVH), with the machine's numbers for others (PV).
        let (list, stride) = match elf.section_by_name(".xen_pfn") {
            Some(_) => (content(&elf, ".xen_pfn")?, 8),
            None => (content(&elf, ".xen_p2m")?, 16),
        };
        // Page by page, for a guest may be large, and a core whose end is missing is still worth a look.
        let pages = section(&elf, ".xen_pages")?.file_range();
        Ok(Self {
            data,
            vcpus: vcpus.iter().map(user_regs).collect(),
            pages: pages.map_or(0, |(offset, _)| offset),
            list,
            stride,
        })
    }

    pub(crate) fn vcpus(&self) -> &[Registers] {
        &self.vcpus
    }

    /// Fills a buffer that does not cross a page's border. In a Fata guest page n lies at address n * 4096.
    pub(crate) fn read(&self, address: u64, to: &mut [u8]) -> bool {
        let from = || {
            let index = self.index_of(address / PAGE)?;
            let offset = self
                .pages
                .checked_add(index.checked_mul(PAGE)?)?
                .checked_add(address % PAGE)?;
            self.data.read_bytes_at(offset, to.len() as u64).ok()
        };
        from().map(|bytes| to.copy_from_slice(bytes)).is_some()
    }

    /// A word of memory, which is aligned.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (address.is_multiple_of(8) && self.read(address, &mut bytes)).then(|| u64::from_le_bytes(bytes))
    }

    /// Which of the pages in the file is the guest's page `pfn`.
    fn index_of(&self, pfn: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.list.len() / self.stride);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.list.get(middle * self.stride..)?.first_chunk()?;
            match u64::from_le_bytes(*entry) {
                found if found == pfn => return Some(middle as u64),
                found if found < pfn => low = middle + 1,
                _ => high = middle,
            }
        }
        None
    }
}

fn section<'data, 'file, R: ReadRef<'data>>(
    elf: &'file ElfFile<'data, FileHeader64<LittleEndian>, R>,
    name: &'static str,
) -> Result<ElfSection<'data, 'file, FileHeader64<LittleEndian>, R>, Error> {
    elf.section_by_name(name).ok_or(Error::Section {
        name,
        why: "is missing",
    })
}

/// A section's content.
fn content<'data, R: ReadRef<'data>>(
    elf: &ElfFile<'data, FileHeader64<LittleEndian>, R>,
    name: &'static str,
) -> Result<&'data [u8], Error> {
    section(elf, name)?.data().map_err(|_| Error::Section {
        name,
        why: "is not within the file",
    })
}

/// `cpu_user_regs` (`xen:xen/include/public/arch-x86/xen-x86_64.h`) in a context.
fn user_regs(context: &[u8; VCPU]) -> Registers {
    let mut words = [0; 20];
    let (bytes, _) = context[USER_REGS..].as_chunks::<8>();
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        _error,
        rip,
        _cs,
        rflags,
        rsp,
    ] = words;
    Registers {
        rip,
        rsp,
        rflags,
        general: [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15],
    }
}
