//! Building the machine's files out of unpacked packages: QEMU with its libraries, Xen, Linux and dom0's RAM disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cache::{Cache, Key, Lock, Used};
use crate::cpio::Archive;
use crate::error::Error;
use crate::modules::Modules;
use crate::packages::{Apt, unpack};
use crate::progress::{Reporter, Stage, Step};
use crate::recipe;
use crate::tree::Tree;

/// Names in a machine's folder.
pub(crate) const QEMU: &str = "qemu/qemu-system-x86_64";
pub(crate) const QEMU_LIBRARIES: &str = "qemu/lib";
pub(crate) const QEMU_SHARE: &str = "qemu/share";
pub(crate) const LOADER: &str = "qemu/lib/ld-linux-x86-64.so.2";
pub(crate) const XEN: &str = "xen";
pub(crate) const LINUX: &str = "vmlinuz";
pub(crate) const DOM0_BASE: &str = "dom0-base.cpio.gz";
pub(crate) const DOMU_KERNEL: &str = "linux-domu/vmlinux";
pub(crate) const DOMU_INITRD: &str = "linux-domu/initrd.gz";

/// Our own files in dom0, laid over the base: path, permissions, content.
pub(crate) const OVERLAY: &[(&str, u32, &str)] = &[
    ("init", 0o755, include_str!("../dom0/init")),
    ("agent", 0o755, include_str!("../dom0/agent")),
    ("etc/xen/scripts/vif-bridge", 0o755, include_str!("../dom0/vif-bridge")),
    ("etc/xen/scripts/block", 0o755, include_str!("../dom0/block")),
    ("etc/xen/xl.conf", 0o644, "autoballoon=\"off\"\n"),
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    ("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n10.0.0.1 dom0\n"),
    ("etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
];

/// Our own files in the Linux guest, laid over its RAM disk.
pub(crate) const DOMU_OVERLAY: &[(&str, u32, &str)] = &[
    ("init", 0o755, include_str!("../dom0/domu-init")),
    ("sbin/poweroff", 0o755, include_str!("../dom0/domu-poweroff")),
    ("www/index.html", 0o644, include_str!("../dom0/index.html")),
];

/// The hash of everything that a machine's folder depends on.
pub(crate) fn key() -> Key {
    let mut parts = vec![recipe::VERSION, recipe::SUITE];
    parts.extend(recipe::PACKAGES.iter().chain(recipe::QEMU_DATA));
    let placed = recipe::DOM0_PROGRAMS.iter().chain(recipe::DOM0_FILES);
    parts.extend(placed.flat_map(|(from, to)| [from, to]));
    parts.extend(recipe::XENSTORE_NAMES.iter().chain(recipe::DOM0_LIBRARIES));
    parts.extend(recipe::DOM0_MODULES.iter().chain(recipe::DOMU_MODULES));
    Key::of(parts)
}

/// Fetches, unpacks and builds what is not in the cache yet.
pub(crate) fn build(lock: &Lock, cache: &Cache, reporter: &Reporter) -> Result<Used, Error> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Error::Unsupported {
            what: "the Xen host runs Debian's amd64 programs, and this is no x86-64 Linux".into(),
            next: "use an x86-64 Linux computer or virtual machine",
        });
    }
    let key = key();
    if let Some(ready) = cache.ready("machine", key) {
        return Ok(ready);
    }
    lock.build(
        "machine",
        key,
        // Of two checkouts.
        2,
        |folder| {
            let apt = Apt::new(lock)?;
            reporter.stage(Stage::Index, |step| apt.update(step))?;
            let files = reporter.stage(Stage::Download, |step| apt.download(recipe::PACKAGES, step))?;
            let unpacked = folder.join("unpacked");
            fs::create_dir(&unpacked).map_err(Error::io("create", &unpacked))?;
            reporter.stage(Stage::Unpack, |step| unpack(&files, &unpacked, step))?;
            reporter.stage(Stage::Image, |step| assemble(&Tree::new(&unpacked), folder, step))?;
            let names = files.iter().filter_map(|path| path.file_name()?.to_str());
            write(
                &folder.join("packages.txt"),
                names.fold(String::new(), |list, name| list + name + "\n"),
            )?;
            crate::cache::remove(&unpacked)?;
            apt.clean()
        },
    )
}

fn assemble(tree: &Tree, folder: &Path, step: &Step<'_>) -> Result<(), Error> {
    for part in ["qemu/lib", "qemu/share", "linux-domu"] {
        let path = folder.join(part);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
    }
    qemu(tree, folder)?;
    step.advance(1.0, 5.0);

    let xen =
        gunzip(&tree.read("boot/xen-4.17-amd64.gz")?).map_err(Error::io("unpack", Path::new("xen-4.17-amd64.gz")))?;
    write(&folder.join(XEN), xen)?;
    let kernel = tree.read(&tree.find("boot", "vmlinuz-")?)?;
    let modules = Modules::below(&tree.folder(&tree.find("lib/modules", "")?))?;
    write(&folder.join(DOMU_KERNEL), linux_elf(tree, &kernel, folder)?)?;
    write(&folder.join(LINUX), kernel)?;
    step.advance(2.0, 5.0);

    let domu = domu(tree, &modules).map_err(flatten)?;
    write(&folder.join(DOMU_INITRD), domu)?;
    step.advance(3.0, 5.0);
    let dom0 = dom0(tree, &modules).map_err(flatten)?;
    write(&folder.join(DOM0_BASE), dom0)
}

fn qemu(tree: &Tree, folder: &Path) -> Result<(), Error> {
    let mut libraries = vec!["ld-linux-x86-64.so.2".to_owned()];
    let accelerators = ["tcg-i386", "tcg-x86_64"].map(|name| format!("usr/lib/x86_64-linux-gnu/qemu/accel-{name}.so"));
    let program = "usr/bin/qemu-system-x86_64";
    libraries.extend(tree.libraries(program)?);
    for module in &accelerators {
        if let Ok(path) = tree.resolve(module) {
            copy(&path, &folder.join(QEMU_LIBRARIES).join(file_name(module)))?;
        }
    }
    libraries.sort();
    libraries.dedup();
    for name in libraries {
        copy(&tree.library(&name)?, &folder.join(QEMU_LIBRARIES).join(&name))?;
    }
    for path in recipe::QEMU_DATA {
        copy(&tree.resolve(path)?, &folder.join(QEMU_SHARE).join(file_name(path)))?;
    }
    copy(&tree.resolve(program)?, &folder.join(QEMU))
}

fn dom0(tree: &Tree, modules: &Modules) -> Result<Vec<u8>, Nested> {
    let mut archive = Archive::new(GzEncoder::new(Vec::new(), Compression::default()));
    archive.character_device("dev/console", 5, 1)?;
    archive.character_device("dev/null", 1, 3)?;
    for folder in ["proc", "sys", "root", "tmp", "run", "var/lib/xen"] {
        archive.folder(folder)?;
    }
    let mut libraries: Vec<String> = recipe::DOM0_LIBRARIES.iter().map(|name| (*name).to_owned()).collect();
    for (from, to) in recipe::DOM0_PROGRAMS {
        archive.file(to, 0o755, &tree.read(from)?)?;
        libraries.extend(tree.libraries(from)?);
    }
    for (from, to) in recipe::DOM0_FILES {
        archive.file(to, 0o644, &tree.read(from)?)?;
    }
    for name in recipe::XENSTORE_NAMES {
        archive.link(&format!("usr/local/bin/{name}"), "xenstore")?;
    }
    libraries.sort();
    libraries.dedup();
    for name in libraries {
        let path = tree.library(&name)?;
        let content = fs::read(&path).map_err(Error::io("read", &path))?;
        archive.file(&format!("lib/x86_64-linux-gnu/{name}"), 0o755, &content)?;
    }
    let loader = tree.library("ld-linux-x86-64.so.2")?;
    archive.file(
        "lib64/ld-linux-x86-64.so.2",
        0o755,
        &fs::read(&loader).map_err(Error::io("read", &loader))?,
    )?;
    add_modules(&mut archive, modules, recipe::DOM0_MODULES)?;
    Ok(archive.finish()?.finish()?)
}

fn domu(tree: &Tree, modules: &Modules) -> Result<Vec<u8>, Nested> {
    let mut archive = Archive::new(GzEncoder::new(Vec::new(), Compression::default()));
    archive.character_device("dev/console", 5, 1)?;
    archive.folder("proc")?;
    archive.file("bin/busybox", 0o755, &tree.read("bin/busybox")?)?;
    add_modules(&mut archive, modules, recipe::DOMU_MODULES)?;
    Ok(archive.finish()?.finish()?)
}

/// Adds modules, and /lib/modules/order, which names them in the order of loading.
fn add_modules<W: Write>(archive: &mut Archive<W>, modules: &Modules, wanted: &[&str]) -> Result<(), Nested> {
    let mut order = String::new();
    for path in modules.in_order(wanted)? {
        let place = format!("lib/modules/{}", file_name(&path.to_string_lossy()));
        archive.file(&place, 0o644, &fs::read(&path).map_err(Error::io("read", &path))?)?;
        order += &format!("/{place}\n");
    }
    Ok(archive.file("lib/modules/order", 0o644, order.as_bytes())?)
}

/// The part of an initial RAM disk that is ours, to be appended to the base: Linux unpacks one archive after the other.
pub(crate) fn overlay<'a>(files: impl IntoIterator<Item = (&'a str, u32, &'a [u8])>) -> Result<Vec<u8>, Error> {
    let write = || {
        let mut archive = Archive::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (path, mode, content) in files {
            archive.file(path, mode, content)?;
        }
        archive.finish()?.finish()
    };
    write().map_err(Error::io("compress", Path::new("an overlay")))
}

/// Files of text as [`overlay`] takes them.
pub(crate) fn texts<'a>(files: &'a [(&str, u32, &str)]) -> impl Iterator<Item = (&'a str, u32, &'a [u8])> {
    files.iter().map(|(path, mode, text)| (*path, *mode, text.as_bytes()))
}

/// The ELF file inside Debian's bzImage, which is packed with xz: so that no guest has to be unpacked under emulation.
///
/// The setup header says where the packed kernel lies (linux: Documentation/arch/x86/boot.rst, payload_offset).
fn linux_elf(tree: &Tree, image: &[u8], folder: &Path) -> Result<Vec<u8>, Error> {
    let payload = payload(image).ok_or_else(|| Error::Package {
        missing: "xz-packed kernel in vmlinuz".into(),
    })?;
    let packed = folder.join("vmlinux.xz");
    write(&packed, payload)?;
    let unpacked = folder.join("vmlinux");
    let target = fs::File::create(&unpacked).map_err(Error::io("write", &unpacked))?;
    let mut xz = tree.command("usr/bin/xz")?;
    let status = xz
        .args(["--decompress", "--stdout"])
        .arg(&packed)
        .stdout(target)
        .status()
        .map_err(Error::io("unpack", &packed))?;
    let elf = fs::read(&unpacked).map_err(Error::io("read", &unpacked))?;
    crate::cache::remove(&packed)?;
    crate::cache::remove(&unpacked)?;
    if elf.starts_with(b"\x7fELF") {
        Ok(elf)
    } else {
        Err(Error::Package {
            missing: format!("ELF kernel in vmlinuz (xz: {status})"),
        })
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| usize::try_from(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?)).ok();
    let sectors = usize::from(*image.get(0x1f1)?);
    let start = (sectors + 1).checked_mul(512)?.checked_add(word(0x248)?)?;
    // The last 4 bytes are the unpacked size, which is not part of the packed stream.
    let payload = image.get(start..start.checked_add(word(0x24c)?.checked_sub(4)?)?)?;
    payload.starts_with(b"\xfd7zXZ\0").then_some(payload)
}

fn gunzip(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(Error::io("copy", from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(Error::io("change the permissions of", to))
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Error> {
    fs::write(path, content).map_err(Error::io("write", path))
}

/// Either a finished error or one of writing an archive into memory.
enum Nested {
    Ours(Error),
    Archive(std::io::Error),
}

impl From<Error> for Nested {
    fn from(error: Error) -> Self {
        Nested::Ours(error)
    }
}

impl From<std::io::Error> for Nested {
    fn from(error: std::io::Error) -> Self {
        Nested::Archive(error)
    }
}

fn flatten(nested: Nested) -> Error {
    match nested {
        Nested::Ours(error) => error,
        Nested::Archive(source) => Error::io("write", Path::new("the initial RAM disk"))(source),
    }
}

/// A command that runs a machine's QEMU with its own loader and libraries.
pub(crate) fn qemu_command(machine: &Path) -> Command {
    let mut command = Command::new(machine.join(LOADER));
    command
        .args(["--inhibit-cache", "--library-path"])
        .arg(machine.join(QEMU_LIBRARIES));
    // QEMU's accelerators are modules, looked for here.
    command
        .arg(machine.join(QEMU))
        .env("QEMU_MODULE_DIR", machine.join(QEMU_LIBRARIES));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_packed_kernel() {
        let mut image = vec![0; 0x3000];
        image[0x1f1] = 3;
        image[0x248..0x24c].copy_from_slice(&0x100_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&0x24_u32.to_le_bytes());
        let at = 4 * 512 + 0x100;
        image[at..at + 6].copy_from_slice(b"\xfd7zXZ\0");
        assert_eq!(payload(&image).unwrap().len(), 0x20);
        image[at] = 0;
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..0x300]), None);
    }

    #[test]
    fn the_overlay_is_a_gzipped_archive() {
        let archive = gunzip(&overlay(texts(OVERLAY)).unwrap()).unwrap();
        assert!(archive.starts_with(b"070701"));
        let has = |needle: &[u8]| archive.windows(needle.len()).any(|window| window == needle);
        assert!(has(b"etc/xen/scripts/vif-bridge\0") && has(b"fata: $*"));
    }
}
