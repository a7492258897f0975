//! Counters.

/// What a stack has done since it started; the fields below "now" are the present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received from the device.
    pub rx_frames: u64,
    /// Bytes of these frames.
    pub rx_bytes: u64,
    /// Frames given to the device.
    pub tx_frames: u64,
    /// Bytes of these frames.
    pub tx_bytes: u64,
    /// Received frames dropped because they were malformed or too short.
    pub rx_malformed: u64,
    /// Received packets dropped because of a wrong TCP or UDP checksum.
    pub rx_bad_checksum: u64,
    /// Fragments dropped: overlapping, too large, too many, or too late.
    pub rx_fragments_dropped: u64,
    /// Packets put together from fragments.
    pub rx_reassembled: u64,
    /// Connections opened by this side.
    pub tcp_connected: u64,
    /// Connections established by peers (and queued for, or returned by, `accept`).
    pub tcp_accepted: u64,
    /// SYN segments dropped because a backlog was full.
    pub tcp_backlog_full: u64,
    /// SYN segments dropped because a limit or the heap was exhausted.
    pub tcp_no_memory: u64,
    /// Half-open connections given up: reset by the peer, or never completed.
    pub tcp_half_open_dropped: u64,
    /// Connections aborted because they took too long to close.
    pub tcp_close_timeouts: u64,
    /// How often a UDP socket lost what it was to send, because a neighbour did not answer.
    pub udp_unreachable: u64,
    /// Now: TCP connections that hold buffers.
    pub tcp_connections: u64,
    /// Now: half-open ones among them.
    pub tcp_half_open: u64,
    /// Now: ones among them whose stream is gone and that are closing.
    pub tcp_closing: u64,
    /// Now: remembered TIME-WAIT connections.
    pub tcp_time_wait: u64,
    /// Now: UDP sockets.
    pub udp_sockets: u64,
}
