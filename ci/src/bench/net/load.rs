//! What is put on a guest, and which figures come of it.

use super::row::{Better, Row};
use super::side::Measured;
use crate::Clock;

/// What is special about the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// Nothing: one interface.
    Plain,
    /// It begins anew for each measurement.
    New,
    /// So much memory, in MiB, that it can carry all connections.
    Memory(u32),
    /// So many interfaces, of which the first is used.
    Vifs(usize),
    /// A second interface whose backend does nothing but signal, if the load says so.
    Rogue,
}

impl Setting {
    /// The memory of each of the two guests, in MiB.
    pub(super) fn memory_mib(self) -> u32 {
        match self {
            Self::Memory(mib) => mib,
            // What the Linux guest needs.
            _ => 160,
        }
    }

    /// The memory of the host for both, in MiB; `None` for the usual one.
    pub(super) fn host_memory_mib(self) -> Option<u32> {
        match self {
            Self::Memory(mib) => Some(2 * mib + 1536),
            _ => None,
        }
    }
}

/// A load: its name, `fata-peer`'s command, port and arguments, and what is told of it.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    pub(super) port: u16,
    pub(super) arguments: &'static str,
    pub(super) setting: Setting,
    pub(super) figures: &'static [Figure],
}

impl Load {
    /// Whether a guest may have no room for it.
    pub(super) fn may_be_refused(&self) -> bool {
        self.arguments.contains("--open")
    }

    /// The arguments of `fata-peer`. With `--storm`, which comes last, the guest's port is still to be added.
    pub(super) fn command(&self, address: &str) -> String {
        let Self {
            command,
            port,
            arguments,
            ..
        } = self;
        format!("{command} {address}:{port} {arguments}")
    }
}

/// A figure: its name, its unit, and how it follows from what was measured.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) aim: f64,
    /// Whether it is a time or contains one; if not, it is the same by either clock.
    pub(super) timed: bool,
    pub(super) of: fn(&Measured) -> Option<f64>,
}

impl Figure {
    /// The line of the table that comes of what was measured of both.
    pub(super) fn row(&self, load: &Load, clock: Clock, [fata, linux]: &[Vec<Measured>; 2]) -> Row {
        Row {
            load: load.name,
            figure: self.name,
            unit: self.unit,
            better: self.better,
            clock,
            timed: self.timed,
            aim: self.aim,
            fata: fata.iter().filter_map(self.of).collect(),
            linux: linux.iter().filter_map(self.of).collect(),
        }
    }
}

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

const THROUGHPUT: Figure = Figure {
    name: "throughput",
    unit: "MiB/s",
    better: Better::More,
    aim: 1.5,
    timed: true,
    of: |m| Some(m.moved / MIB / m.seconds),
};
const CPU_PER_GIB: Figure = Figure {
    name: "guest CPU",
    unit: "s/GiB",
    better: Better::Less,
    aim: 1.0,
    timed: true,
    of: |m| Some(m.guest / (m.moved / GIB)),
};
const SIGNALS_PER_MIB: Figure = Figure {
    name: "signals to dom0",
    unit: "/MiB",
    better: Better::Less,
    aim: 1.0,
    timed: false,
    of: |m| Some(m.sent / (m.moved / MIB)),
};
const EVENTS_PER_MIB: Figure = Figure {
    name: "events from dom0",
    unit: "/MiB",
    better: Better::Less,
    aim: 1.0,
    timed: false,
    of: |m| Some(m.received? / (m.moved / MIB)),
};
const HYPERCALLS: Figure = Figure {
    name: "hypercalls",
    unit: "/frame",
    better: Better::Less,
    aim: 1.0,
    timed: false,
    of: |m| Some(m.hypercalls? / m.frames),
};
const RATE: Figure = Figure {
    name: "rate",
    unit: "/s",
    better: Better::More,
    aim: 1.0,
    timed: true,
    of: |m| Some(m.done / m.seconds),
};
const TIME: Figure = Figure {
    name: "time",
    unit: "us",
    better: Better::Less,
    aim: 1.0,
    timed: true,
    of: |m| Some(m.seconds / m.done * 1e6),
};
const CPU: Figure = Figure {
    name: "guest CPU",
    unit: "us",
    better: Better::Less,
    aim: 1.0,
    timed: true,
    of: |m| Some(m.guest / m.done * 1e6),
};
const DATAGRAM_RATE: Figure = Figure {
    name: "rate",
    unit: "/s",
    better: Better::More,
    aim: 1.0,
    timed: true,
    of: |m| Some(m.moved / m.seconds),
};
const DATAGRAM_CPU: Figure = Figure {
    name: "guest CPU",
    unit: "us",
    better: Better::Less,
    aim: 1.0,
    timed: true,
    of: |m| Some(m.guest / m.moved * 1e6),
};

const BULK: &[Figure] = &[THROUGHPUT, CPU_PER_GIB, SIGNALS_PER_MIB, EVENTS_PER_MIB, HYPERCALLS];
const ONE_BY_ONE: &[Figure] = &[TIME, CPU];
const MANY: &[Figure] = &[RATE, CPU];
const DATAGRAMS: &[Figure] = &[DATAGRAM_RATE, DATAGRAM_CPU];

/// All of them, in the order of the table. Those of one setting stand together.
pub(super) const LOADS: &[Load] = &[
    Load {
        name: "tcp-in",
        command: "push",
        port: 9,
        arguments: "--bytes 67108864",
        setting: Setting::Plain,
        figures: BULK,
    },
    Load {
        name: "tcp-out",
        command: "pull",
        port: 19,
        arguments: "--bytes 67108864",
        setting: Setting::Plain,
        figures: BULK,
    },
    Load {
        name: "tcp-1-byte",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "tcp-1400-bytes",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1400",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "ping",
        command: "ping",
        port: 0,
        arguments: "--requests 200",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "http-new",
        command: "http",
        port: 80,
        arguments: "/ --requests 100",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "http-new-8",
        command: "http",
        port: 80,
        arguments: "/ --requests 200 --parallel 8",
        setting: Setting::Plain,
        figures: MANY,
    },
    Load {
        name: "http-kept-8",
        command: "http",
        port: 80,
        arguments: "/ --requests 400 --parallel 8 --keep-alive",
        setting: Setting::Plain,
        figures: MANY,
    },
    Load {
        name: "udp-in-64",
        command: "datagrams-in",
        port: 9,
        arguments: "--requests 40 --bytes 64",
        setting: Setting::Plain,
        figures: DATAGRAMS,
    },
    Load {
        name: "udp-in-1400",
        command: "datagrams-in",
        port: 9,
        arguments: "--requests 40 --bytes 1400",
        setting: Setting::Plain,
        figures: DATAGRAMS,
    },
    Load {
        name: "udp-out-64",
        command: "datagrams-out",
        port: 19,
        arguments: "--requests 40 --bytes 64",
        setting: Setting::Plain,
        figures: DATAGRAMS,
    },
    Load {
        name: "udp-out-1400",
        command: "datagrams-out",
        port: 19,
        arguments: "--requests 40 --bytes 1400",
        setting: Setting::Plain,
        figures: DATAGRAMS,
    },
    Load {
        name: "connections-10",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1 --open 10",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "connections-100",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1 --open 100",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "connections-1000",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1 --open 1000",
        setting: Setting::Plain,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "connections-10000",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1 --open 10000",
        setting: Setting::Memory(2816),
        figures: ONE_BY_ONE,
    },
    Load {
        name: "first-ping",
        command: "first-ping",
        port: 0,
        arguments: "",
        setting: Setting::New,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "vifs-1",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1",
        setting: Setting::Vifs(1),
        figures: ONE_BY_ONE,
    },
    Load {
        name: "vifs-2",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1",
        setting: Setting::Vifs(2),
        figures: ONE_BY_ONE,
    },
    Load {
        name: "vifs-8",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1",
        setting: Setting::Vifs(8),
        figures: ONE_BY_ONE,
    },
    Load {
        name: "vifs-32",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1",
        setting: Setting::Vifs(32),
        figures: ONE_BY_ONE,
    },
    Load {
        name: "storm-none",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1",
        setting: Setting::Rogue,
        figures: ONE_BY_ONE,
    },
    Load {
        name: "storm",
        command: "round-trip",
        port: 7,
        arguments: "--requests 200 --bytes 1 --storm",
        setting: Setting::Rogue,
        figures: ONE_BY_ONE,
    },
];
