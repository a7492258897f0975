//! The numbers by which domains name things to Xen and to each other.

use core::fmt;

/// A domain's number (`domid_t`).
///
/// ```
/// use fata_hypercall::DomId;
/// assert_eq!(DomId::DOM0.to_string(), "d0");
/// assert_ne!(DomId::SELF, DomId::DOM0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DomId(pub u16);

impl DomId {
    /// The initial domain, which usually holds the backends and xenstored.
    pub const DOM0: Self = Self(0);
    /// `DOMID_SELF`: the calling domain, wherever Xen wants a domain number.
    pub const SELF: Self = Self(0x7ff0);
    /// `DOMID_FIRST_RESERVED`: numbers from here on never name an ordinary domain.
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// An event-channel port of this domain (`evtchn_port_t`).
///
/// Port 0 is never valid; "no port" is `Option<Port>`, not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Port(pub u32);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A grant reference (`grant_ref_t`): an index into this domain's grant table, by which it names a page to a peer.
///
/// "No reference" is `Option<GrantRef>`; 0 is a reference like any other (Xen's toolstack uses it for the console). So
/// there is none by default:
///
/// ```compile_fail
/// fn rule_30_no_reference_is_not_a_number() -> fata_hypercall::GrantRef {
///     Default::default()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GrantRef(pub u32);

impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A guest frame number: the number by which Xen, and whoever a page is granted to, knows a 4 KiB page of this guest.
///
/// Under PVH it is the physical address divided by 4096; under PV it is the machine frame. It is never an address, and
/// not the number by which the guest counts its pages ([`Pfn`]), hence the types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Gfn(pub u64);

/// A pseudo-physical frame number: a 4 KiB page of this guest's memory as the guest counts them, from 0 on.
///
/// Under PVH Xen counts in the same way. Under PV it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(pub u64);
