//! Our reading of Xen's headers against bindgen's, as published in the crate `xen-sys`.
//!
//! Two readings that agree are worth more than one. What `xen-sys` lacks (grant table, memory operations, HVM
//! parameters, `hvm_start_info`) is held only by the layout assertions in `abi`.
#![cfg(target_arch = "x86_64")]

use core::mem::{align_of, offset_of, size_of};

use fata_hypercall::ShutdownReason;
use fata_hypercall::abi::shared_info::{EVTCHN_WORDS, SharedInfo, VcpuInfo, VcpuTimeInfo};
use fata_hypercall::abi::{event_channel, event_fifo, nr, pv, sched};

#[test]
fn numbers_agree() {
    for (ours, theirs) in [
        (nr::SET_TRAP_TABLE, xen_sys::__HYPERVISOR_set_trap_table),
        (nr::MMU_UPDATE, xen_sys::__HYPERVISOR_mmu_update),
        (nr::UPDATE_VA_MAPPING, xen_sys::__HYPERVISOR_update_va_mapping),
        (nr::MMUEXT_OP, xen_sys::__HYPERVISOR_mmuext_op),
        (pv::TLB_FLUSH_LOCAL, xen_sys::MMUEXT_TLB_FLUSH_LOCAL),
        (pv::SIF_INITDOMAIN, xen_sys::SIF_INITDOMAIN),
        (nr::MEMORY_OP, xen_sys::__HYPERVISOR_memory_op),
        (nr::XEN_VERSION, xen_sys::__HYPERVISOR_xen_version),
        (nr::CONSOLE_IO, xen_sys::__HYPERVISOR_console_io),
        (nr::GRANT_TABLE_OP, xen_sys::__HYPERVISOR_grant_table_op),
        (nr::VCPU_OP, xen_sys::__HYPERVISOR_vcpu_op),
        (nr::SCHED_OP, xen_sys::__HYPERVISOR_sched_op),
        (nr::EVENT_CHANNEL_OP, xen_sys::__HYPERVISOR_event_channel_op),
        (nr::HVM_OP, xen_sys::__HYPERVISOR_hvm_op),
        (nr::CONSOLEIO_WRITE as u32, xen_sys::CONSOLEIO_write),
        (
            event_channel::BIND_INTERDOMAIN as u32,
            xen_sys::EVTCHNOP_bind_interdomain,
        ),
        (event_channel::CLOSE as u32, xen_sys::EVTCHNOP_close),
        (event_channel::SEND as u32, xen_sys::EVTCHNOP_send),
        (event_channel::ALLOC_UNBOUND as u32, xen_sys::EVTCHNOP_alloc_unbound),
        (event_fifo::INIT_CONTROL as u32, xen_sys::EVTCHNOP_init_control),
        (event_fifo::EXPAND_ARRAY as u32, xen_sys::EVTCHNOP_expand_array),
        (event_fifo::PENDING, 1 << xen_sys::EVTCHN_FIFO_PENDING),
        (event_fifo::MASKED, 1 << xen_sys::EVTCHN_FIFO_MASKED),
        (event_fifo::LINKED, 1 << xen_sys::EVTCHN_FIFO_LINKED),
        (event_fifo::BUSY, 1 << xen_sys::EVTCHN_FIFO_BUSY),
        (event_fifo::LINK_MASK, xen_sys::EVTCHN_FIFO_LINK_MASK),
        (
            event_fifo::PRIORITY_DEFAULT as u32,
            xen_sys::EVTCHN_FIFO_PRIORITY_DEFAULT,
        ),
        (event_fifo::PORTS, xen_sys::EVTCHN_FIFO_NR_CHANNELS),
        (sched::SHUTDOWN as u32, xen_sys::SCHEDOP_shutdown),
        (sched::POLL as u32, xen_sys::SCHEDOP_poll),
        (ShutdownReason::PowerOff as u32, xen_sys::SHUTDOWN_poweroff),
        (ShutdownReason::Reboot as u32, xen_sys::SHUTDOWN_reboot),
        (ShutdownReason::Crash as u32, xen_sys::SHUTDOWN_crash),
    ] {
        assert_eq!(ours, theirs);
    }
}

macro_rules! same_layout {
    ($ours:ty, $theirs:ty, $($our:ident = $their:ident),* $(,)?) => {
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>());
        assert_eq!(align_of::<$ours>(), align_of::<$theirs>());
        $(assert_eq!(offset_of!($ours, $our), offset_of!($theirs, $their), stringify!($our));)*
    };
}

#[test]
fn layouts_agree() {
    same_layout!(
        SharedInfo,
        xen_sys::shared_info,
        vcpu_info = vcpu_info,
        evtchn_pending = evtchn_pending,
        evtchn_mask = evtchn_mask,
        wc_version = wc_version,
        wc_sec = wc_sec,
        wc_nsec = wc_nsec,
        wc_sec_hi = wc_sec_hi,
        arch = arch
    );
    same_layout!(
        VcpuInfo,
        xen_sys::vcpu_info,
        evtchn_upcall_pending = evtchn_upcall_pending,
        evtchn_upcall_mask = evtchn_upcall_mask,
        evtchn_pending_sel = evtchn_pending_sel,
        arch = arch,
        time = time
    );
    same_layout!(
        VcpuTimeInfo,
        xen_sys::vcpu_time_info,
        version = version,
        tsc_timestamp = tsc_timestamp,
        system_time = system_time,
        tsc_to_system_mul = tsc_to_system_mul,
        tsc_shift = tsc_shift
    );
    same_layout!(
        event_channel::AllocUnbound,
        xen_sys::evtchn_alloc_unbound,
        dom = dom,
        remote_dom = remote_dom,
        port = port
    );
    same_layout!(
        event_channel::BindInterdomain,
        xen_sys::evtchn_bind_interdomain,
        remote_dom = remote_dom,
        remote_port = remote_port,
        local_port = local_port
    );
    same_layout!(event_channel::PortArg, xen_sys::evtchn_send, port = port);
    same_layout!(event_channel::PortArg, xen_sys::evtchn_close, port = port);
    same_layout!(
        sched::Poll,
        xen_sys::sched_poll,
        ports = ports,
        nr_ports = nr_ports,
        timeout = timeout
    );
    same_layout!(
        pv::StartInfo,
        xen_sys::start_info,
        magic = magic,
        nr_pages = nr_pages,
        shared_info = shared_info,
        flags = flags,
        store_mfn = store_mfn,
        store_evtchn = store_evtchn,
        console_mfn = console,
        pt_base = pt_base,
        nr_pt_frames = nr_pt_frames,
        mfn_list = mfn_list,
        mod_start = mod_start,
        mod_len = mod_len,
        cmd_line = cmd_line
    );
    same_layout!(pv::MmuUpdate, xen_sys::mmu_update, ptr = ptr, val = val);
    same_layout!(pv::MmuextOp, xen_sys::mmuext_op, cmd = cmd, arg1 = arg1, arg2 = arg2);
    same_layout!(
        pv::TrapInfo,
        xen_sys::trap_info,
        vector = vector,
        flags = flags,
        cs = cs,
        address = address
    );
    same_layout!(
        event_fifo::ControlBlock,
        xen_sys::evtchn_fifo_control_block,
        ready = ready,
        rsvd = _rsvd,
        head = head
    );
    same_layout!(
        event_fifo::InitControl,
        xen_sys::evtchn_init_control,
        control_gfn = control_gfn,
        offset = offset,
        vcpu = vcpu,
        link_bits = link_bits
    );
    same_layout!(
        event_fifo::ExpandArray,
        xen_sys::evtchn_expand_array,
        array_gfn = array_gfn
    );
    same_layout!(sched::Shutdown, xen_sys::sched_shutdown, reason = reason);
    assert_eq!(size_of_val(&SharedInfo::default().evtchn_pending), EVTCHN_WORDS * 8);
}
