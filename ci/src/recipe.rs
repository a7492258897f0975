//! What the machine is made of: the names of Debian's packages and of the files taken out of them.
//!
//! This is the page to edit when something is to be added to dom0. Any change makes a new key, so the image and the
//! snapshots are built again by themselves.

/// Raised when the code that builds changes what it builds, so that caches are built anew.
pub(crate) const VERSION: &str = "1";

/// The Debian suite: it has Xen 4.17 and Linux 6.1, and QEMU 7.2, which the flags in [`crate::qemu`] were found for.
pub(crate) const SUITE: &str = "bookworm";

/// The packages; what they depend on comes with them.
pub(crate) const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xenstore-utils",
    // Xen's 9pfs backend is a part of QEMU.
    "qemu-system-xen",
    "linux-image-amd64",
    "busybox-static",
    "dash",
    // Unpacks the kernel of the Linux guest, here and not in dom0.
    "xz-utils",
    // xl aborts without libgcc_s, which it loads by name when a thread ends.
    "libgcc-s1",
    "iputils-ping",
    "dnsmasq-base",
    "curl",
    // `ab`, which asks many times at once.
    "apache2-utils",
];

/// Files of QEMU besides the program and its libraries.
pub(crate) const QEMU_DATA: &[&str] = &[
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/multiboot.bin",
    "usr/share/qemu/multiboot_dma.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
];

/// Programs of dom0, with the path by which they are called there. Libraries are found by asking the loader.
pub(crate) const DOM0_PROGRAMS: &[(&str, &str)] = &[
    ("bin/busybox", "bin/busybox"),
    ("bin/dash", "bin/sh"),
    ("bin/ping", "usr/local/bin/ping"),
    ("usr/bin/curl", "usr/local/bin/curl"),
    ("usr/bin/ab", "usr/local/bin/ab"),
    ("usr/sbin/dnsmasq", "usr/local/sbin/dnsmasq"),
    ("usr/lib/xen-4.17/bin/xl", "usr/local/sbin/xl"),
    ("usr/lib/xen-4.17/bin/xenstored", "usr/local/sbin/xenstored"),
    ("usr/lib/xen-4.17/bin/xenconsoled", "usr/local/sbin/xenconsoled"),
    ("usr/lib/xen-4.17/bin/xentop", "usr/local/sbin/xentop"),
    (
        "usr/lib/xen-4.17/bin/vchan-socket-proxy",
        "usr/local/bin/vchan-socket-proxy",
    ),
    (
        "usr/lib/xen-4.17/bin/xenstore-control",
        "usr/local/sbin/xenstore-control",
    ),
    ("usr/bin/xenstore", "usr/local/bin/xenstore"),
    // xl and libxl call these by their full paths.
    (
        "usr/lib/xen-4.17/bin/xen-init-dom0",
        "usr/lib/xen-4.17/bin/xen-init-dom0",
    ),
    ("usr/lib/xen-4.17/bin/xenconsole", "usr/lib/xen-4.17/bin/xenconsole"),
    (
        "usr/lib/xen-4.17/bin/libxl-save-helper",
        "usr/lib/xen-4.17/bin/libxl-save-helper",
    ),
    ("usr/libexec/xen-qemu-system-i386", "usr/libexec/xen-qemu-system-i386"),
];

/// Files of dom0 that no program of dom0 runs, with the path that they are known by.
pub(crate) const DOM0_FILES: &[(&str, &str)] = &[
    // The Xen that a PV guest with `pvshim=1` brings along.
    ("usr/lib/xen-4.17/boot/xen-shim", "usr/lib/xen-4.17/boot/xen-shim"),
    // QEMU does not start without it, not even without a screen.
    ("usr/share/qemu/keymaps/en-us", "usr/share/qemu/keymaps/en-us"),
];

/// Other names of the program `xenstore`, which looks at the name it is called by.
pub(crate) const XENSTORE_NAMES: &[&str] = &[
    "xenstore-exists",
    "xenstore-list",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-rm",
    "xenstore-watch",
    "xenstore-write",
    "xenstore-chmod",
];

/// Libraries that a program loads by name at run time, so that the loader does not list them. Programs that a test brings
/// along may need the last two.
pub(crate) const DOM0_LIBRARIES: &[&str] = &["libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libm.so.6"];

/// Modules of dom0's Linux; what they depend on is loaded first.
pub(crate) const DOM0_MODULES: &[&str] = &[
    "xenfs",
    "xen-privcmd",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-netback",
    "xen-blkback",
    "bridge",
    "loop",
    "tun",
    "virtio_pci",
    "virtio_net",
];

/// Modules of the Linux guest that Fata is compared with.
pub(crate) const DOMU_MODULES: &[&str] = &["xen-netfront", "xen-blkfront"];
