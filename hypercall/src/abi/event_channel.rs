//! xen/include/public/event_channel.h

use super::assert_layout;

/// `EVTCHNOP_bind_interdomain`
pub const BIND_INTERDOMAIN: u64 = 0;
/// `EVTCHNOP_close`
pub const CLOSE: u64 = 3;
/// `EVTCHNOP_send`
pub const SEND: u64 = 4;
/// `EVTCHNOP_status`
pub const STATUS: u64 = 5;
/// `EVTCHNOP_alloc_unbound`
pub const ALLOC_UNBOUND: u64 = 6;

/// `evtchn_bind_interdomain`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct BindInterdomain {
    /// In: whose port we connect to.
    pub remote_dom: u16,
    /// In: which one, which `remote_dom` left unbound for us.
    pub remote_port: u32,
    /// Out: the new port.
    pub local_port: u32,
}
assert_layout!(BindInterdomain, 12 / 4, remote_dom @ 0, remote_port @ 4, local_port @ 8);

/// `evtchn_alloc_unbound`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct AllocUnbound {
    /// In: whose port; `DOMID_SELF`.
    pub dom: u16,
    /// In: who may bind to it.
    pub remote_dom: u16,
    /// Out: the new port.
    pub port: u32,
}
assert_layout!(AllocUnbound, 8 / 4, dom @ 0, remote_dom @ 2, port @ 4);

/// `evtchn_close` and `evtchn_send`: a port and nothing else.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PortArg {
    /// In: the port.
    pub port: u32,
}
assert_layout!(PortArg, 4 / 4, port @ 0);

/// `evtchn_status`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Status {
    /// In: whose port; `DOMID_SELF`.
    pub dom: u16,
    /// In: which.
    pub port: u32,
    /// Out: one of `EVTCHNSTAT_`.
    pub status: u32,
    /// Out: the virtual processor that it signals.
    pub vcpu: u32,
    /// Out: what it is connected to, by its status.
    pub detail: [u32; 2],
}
assert_layout!(Status, 24 / 4, dom @ 0, port @ 4, status @ 8, vcpu @ 12, detail @ 16);

/// `EVTCHNSTAT_interdomain`: connected to a port of another domain.
pub const STATUS_INTERDOMAIN: u32 = 2;
