//! What the tests' client asks of Xen from dom0, by the ioctls of Linux's drivers privcmd and evtchn.
//!
//! The toolstack's own programs tell a domain's CPU time in tenths of seconds, take ten milliseconds to be loaded, and signal no
//! event channels.

mod ioctl;

use std::fs::File;
use std::io;
use std::time::Duration;

use ioctl::ioctl;

/// `__HYPERVISOR_sysctl` (xen/include/public/xen.h).
const HYPERVISOR_SYSCTL: u64 = 35;
/// `XEN_SYSCTL_INTERFACE_VERSION` of Xen 4.17 (xen/include/public/sysctl.h).
const SYSCTL_VERSION: u32 = 0x15;
/// `XEN_SYSCTL_getdomaininfolist`.
const GET_DOMAIN_INFO_LIST: u32 = 6;

/// `__HYPERVISOR_domctl`.
const HYPERVISOR_DOMCTL: u64 = 36;
/// `XEN_DOMCTL_INTERFACE_VERSION` of Xen 4.17 (xen/include/public/domctl.h).
const DOMCTL_VERSION: u32 = 0x15;
/// `XEN_DOMCTL_unpausedomain`.
const UNPAUSE_DOMAIN: u32 = 4;

/// `struct xen_sysctl` with `struct xen_sysctl_getdomaininfolist` in its union, which has 128 bytes.
#[repr(C)]
struct Sysctl {
    cmd: u32,
    interface_version: u32,
    first_domain: u16,
    max_domains: u32,
    buffer: u64,
    num_domains: u32,
    rest_of_union: [u8; 104],
}

/// `struct xen_domctl` with a command that needs nothing of its union, which has 128 bytes.
#[repr(C)]
struct Domctl {
    cmd: u32,
    interface_version: u32,
    domain: u16,
    pad: [u16; 3],
    union: [u64; 16],
}

/// The beginning of `struct xen_domctl_getdomaininfo`, and room for what follows (xen/include/public/domctl.h).
#[repr(C)]
struct DomainInfo {
    domain: u16,
    pad: u16,
    flags: u32,
    tot_pages: u64,
    max_pages: u64,
    outstanding_pages: u64,
    shr_pages: u64,
    paged_pages: u64,
    shared_info_frame: u64,
    /// In nanoseconds, over all vCPUs, up to this moment.
    cpu_time: u64,
    rest: [u64; 64],
}

/// `struct privcmd_hypercall` (linux/include/uapi/xen/privcmd.h).
#[repr(C)]
struct Hypercall {
    op: u64,
    arg: [u64; 5],
}

/// How much CPU time a domain has used, to the nanosecond.
///
/// # Errors
/// This is not dom0 of a Xen 4.17, or there is no such domain.
pub fn cpu_time(domain: u16) -> io::Result<Duration> {
    let privcmd = open("/dev/xen/privcmd")?;
    let mut info = Box::new(DomainInfo {
        domain: u16::MAX,
        pad: 0,
        flags: 0,
        tot_pages: 0,
        max_pages: 0,
        outstanding_pages: 0,
        shr_pages: 0,
        paged_pages: 0,
        shared_info_frame: 0,
        cpu_time: 0,
        rest: [0; 64],
    });
    let mut sysctl = Box::new(Sysctl {
        cmd: GET_DOMAIN_INFO_LIST,
        interface_version: SYSCTL_VERSION,
        first_domain: domain,
        max_domains: 1,
        buffer: (&raw mut *info) as u64,
        num_domains: 0,
        rest_of_union: [0; 104],
    });
    let mut call = Hypercall {
        op: HYPERVISOR_SYSCTL,
        arg: [(&raw mut *sysctl) as u64, 0, 0, 0, 0],
    };
    ioctl::<{ ioctl::PRIVCMD_HYPERCALL }, _>(&privcmd, &mut call)?;
    // The list begins at the first domain that is not below the one asked for.
    if sysctl.num_domains != 1 || info.domain != domain {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no domain {domain}")));
    }
    Ok(Duration::from_nanos(info.cpu_time))
}

/// Lets a domain run that was created paused.
///
/// # Errors
/// This is not dom0 of a Xen 4.17, or there is no such domain, or it is not paused.
pub fn unpause(domain: u16) -> io::Result<()> {
    let privcmd = open("/dev/xen/privcmd")?;
    let mut domctl = Box::new(Domctl {
        cmd: UNPAUSE_DOMAIN,
        interface_version: DOMCTL_VERSION,
        domain,
        pad: [0; 3],
        union: [0; 16],
    });
    let mut call = Hypercall {
        op: HYPERVISOR_DOMCTL,
        arg: [(&raw mut *domctl) as u64, 0, 0, 0, 0],
    };
    ioctl::<{ ioctl::PRIVCMD_HYPERCALL }, _>(&privcmd, &mut call).map(drop)
}

/// An event channel to another domain's port. Dropping it closes it.
#[derive(Debug)]
pub struct Channel {
    evtchn: File,
    port: u32,
}

impl Channel {
    /// Binds to `port` of `domain`, which must have allocated it for dom0 and which nobody may have bound yet.
    ///
    /// # Errors
    /// The port is not like that.
    pub fn bind(domain: u16, port: u32) -> io::Result<Self> {
        let evtchn = open("/dev/xen/evtchn")?;
        let mut bind = [u32::from(domain), port];
        let port = ioctl::<{ ioctl::EVTCHN_BIND_INTERDOMAIN }, _>(&evtchn, &mut bind)?;
        Ok(Self { evtchn, port })
    }

    /// Signals the other domain.
    ///
    /// # Errors
    /// The other domain is gone.
    pub fn notify(&self) -> io::Result<()> {
        let mut port = self.port;
        ioctl::<{ ioctl::EVTCHN_NOTIFY }, _>(&self.evtchn, &mut port).map(drop)
    }
}

fn open(path: &str) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
