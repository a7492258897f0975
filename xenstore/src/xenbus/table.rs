//! What a frontend does next: the whole state machine, as one table.
//!
//! ```text
//!            Found: closes what a life before ours left                          ┌── Stop: from anywhere ──┐
//!                                                                                v                         │
//!   ┌──> Initialising ──backend InitWait──> Connect ──> Connected ──own end──> Closing                     │
//!   │    (GiveUp after a while)             keys and     Ready, when the         │ backend Closing, Closed, │
//!   │                                       own state    backend is too          │ gone, or silent too long │
//!   │                                                      │                     v                          │
//!   │                                                      └─backend Closing,──> Disconnect, Closed ────────┤
//!   │                                                        Closed or gone            │                    v
//!   └───────────────────── backend InitWait again ─────────────────────────────────────┘                 Finish
//! ```
//!
//! Devices with two steps (blkif, 9pfs) publish their keys in Initialised, and write Connected themselves once they
//! have read what the backend says when it is [`Action::Ready`]. Devices with one step (netif) go to Connected with
//! their keys.
//!
//! Sources: xen/include/public/io/xenbus.h, the diagrams in io/blkif.h and io/netif.h, and what stock backends do.

use super::State;

/// Why the table is consulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The driver starts, or starts again: the states are as somebody left them. A kernel that crashed or was
    /// replaced (kexec) leaves a backend that is still connected to its memory. It stays at this until the table says
    /// [`Action::Connect`].
    Found,
    /// Normal life: one of the states has changed, or may have.
    Changed,
    /// The device shall end, by our own wish. It stays at this until the table says [`Action::Finish`].
    Stop,
    /// The other end has been silent for too long.
    Expired,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Found, Self::Changed, Self::Stop, Self::Expired];
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until a state changes.
    Wait,
    /// Publish the keys of a new life and go on to Connected, or Initialised for a device with two steps, in one
    /// transaction.
    Connect,
    /// The backend is connected. Read what it says about the device, the first time and each time it says so again;
    /// a device with two steps goes on to Connected.
    Ready,
    /// Write Closing, so that the backend lets go. Nothing new may be started.
    Close,
    /// Take back all that the backend was given: rings, grants, ports. Fail what is in flight. Write Closed.
    Disconnect,
    /// Write Initialising: a new life begins. Nothing of the old one is held any more.
    Restart,
    /// The backend has not done its part in time. Say so; whether to go on waiting is the driver's choice.
    GiveUp,
    /// It is over: the directory was removed, or we stopped and are closed. Take back whatever is left.
    Finish,
}

use Action::{
    Close as CLOSE, Connect as CONNECT, Disconnect as DISCON, Finish as FINISH, GiveUp as GIVEUP, Ready as READY,
    Restart as RESTART, Wait as WAIT,
};

/// One row per own state, one column per state of the backend, both in the order of [`State::ALL`].
type Rows = [[Action; 9]; 9];

/// At the start. InitWait, Initialised, Connected and the two of reconfiguration are no states for a frontend that
/// has only just begun: somebody else was here, and the backend has to let go of what that one shared.
#[rustfmt::skip]
const FOUND: Rows = [
    // backend:           Unknown  Initi'ing InitWait Initi'ed Conn'ed  Closing  Closed   Reco'ing Reco'ed
    /* Unknown       */ [ FINISH,  FINISH,   FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH  ],
    /* Initialising  */ [ WAIT,    WAIT,     CONNECT, CONNECT, WAIT,    DISCON,  WAIT,    WAIT,    WAIT    ],
    /* InitWait      */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE   ],
    /* Initialised   */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE   ],
    /* Connected     */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE   ],
    /* Closing       */ [ DISCON,  DISCON,   DISCON,  WAIT,    WAIT,    DISCON,  DISCON,  WAIT,    WAIT    ],
    /* Closed        */ [ RESTART, RESTART,  RESTART, RESTART, WAIT,    WAIT,    RESTART, WAIT,    WAIT    ],
    /* Reconfiguring */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE   ],
    /* Reconfigured  */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE,   CLOSE   ],
];

/// In normal life. A backend that is Initialising again while we are connected has been started anew and knows
/// nothing of us. A backend may go straight to Initialised if it has nothing to negotiate.
#[rustfmt::skip]
const CHANGED: Rows = [
    // backend:           Unknown  Initi'ing InitWait Initi'ed Conn'ed  Closing  Closed   Reco'ing Reco'ed
    /* Unknown       */ [ FINISH,  FINISH,   FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH  ],
    /* Initialising  */ [ WAIT,    WAIT,     CONNECT, CONNECT, WAIT,    DISCON,  DISCON,  WAIT,    WAIT    ],
    /* InitWait      */ [ DISCON,  DISCON,   CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Initialised   */ [ DISCON,  DISCON,   WAIT,    WAIT,    READY,   DISCON,  DISCON,  WAIT,    WAIT    ],
    /* Connected     */ [ DISCON,  DISCON,   WAIT,    WAIT,    READY,   DISCON,  DISCON,  WAIT,    WAIT    ],
    /* Closing       */ [ DISCON,  DISCON,   DISCON,  WAIT,    WAIT,    DISCON,  DISCON,  WAIT,    WAIT    ],
    /* Closed        */ [ WAIT,    WAIT,     RESTART, RESTART, WAIT,    WAIT,    WAIT,    WAIT,    WAIT    ],
    /* Reconfiguring */ [ DISCON,  DISCON,   CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Reconfigured  */ [ DISCON,  DISCON,   CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
];

/// On the way out: Closing, until the backend has let go, then Closed. A backend that never connected, or is gone,
/// has nothing to let go.
#[rustfmt::skip]
const STOP: Rows = [
    // backend:           Unknown  Initi'ing InitWait Initi'ed Conn'ed  Closing  Closed   Reco'ing Reco'ed
    /* Unknown       */ [ FINISH,  FINISH,   FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH  ],
    /* Initialising  */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* InitWait      */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Initialised   */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Connected     */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Closing       */ [ DISCON,  DISCON,   DISCON,  WAIT,    WAIT,    DISCON,  DISCON,  WAIT,    WAIT    ],
    /* Closed        */ [ FINISH,  FINISH,   FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH  ],
    /* Reconfiguring */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Reconfigured  */ [ CLOSE,   CLOSE,    CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
];

/// When the time is up. What has happened in the meantime counts; else a backend that should have let go is not
/// waited for any longer (its grants are quarantined if need be), and one that should have come is given up.
#[rustfmt::skip]
const EXPIRED: Rows = [
    // backend:           Unknown  Initi'ing InitWait Initi'ed Conn'ed  Closing  Closed   Reco'ing Reco'ed
    /* Unknown       */ [ FINISH,  FINISH,   FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH,  FINISH  ],
    /* Initialising  */ [ GIVEUP,  GIVEUP,   CONNECT, CONNECT, GIVEUP,  DISCON,  GIVEUP,  GIVEUP,  GIVEUP  ],
    /* InitWait      */ [ DISCON,  DISCON,   CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Initialised   */ [ DISCON,  DISCON,   GIVEUP,  GIVEUP,  READY,   DISCON,  DISCON,  GIVEUP,  GIVEUP  ],
    /* Connected     */ [ DISCON,  DISCON,   GIVEUP,  GIVEUP,  READY,   DISCON,  DISCON,  GIVEUP,  GIVEUP  ],
    /* Closing       */ [ DISCON,  DISCON,   DISCON,  DISCON,  DISCON,  DISCON,  DISCON,  DISCON,  DISCON  ],
    /* Closed        */ [ RESTART, RESTART,  RESTART, RESTART, RESTART, GIVEUP,  RESTART, RESTART, RESTART ],
    /* Reconfiguring */ [ DISCON,  DISCON,   CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
    /* Reconfigured  */ [ DISCON,  DISCON,   CLOSE,   CLOSE,   CLOSE,   DISCON,  DISCON,  CLOSE,   CLOSE   ],
];

/// What a frontend in state `own` does about a backend in state `backend`, both as their nodes say at this moment.
///
/// Total: there is an answer to every combination, whatever the backend or the toolstack does (rules 71 and 72).
///
/// ```
/// use fata_xenstore::xenbus::{Action, Event, State, action};
/// assert_eq!(action(State::Initialising, State::InitWait, Event::Found), Action::Connect);
/// assert_eq!(action(State::Connected, State::Closing, Event::Changed), Action::Disconnect);
/// assert_eq!(action(State::Connected, State::Connected, Event::Found), Action::Close, "somebody was here before");
/// ```
#[must_use]
#[allow(clippy::indexing_slicing, reason = "nine states, nine rows of nine")]
pub const fn action(own: State, backend: State, event: Event) -> Action {
    let rows = match event {
        Event::Found => &FOUND,
        Event::Changed => &CHANGED,
        Event::Stop => &STOP,
        Event::Expired => &EXPIRED,
    };
    rows[own as usize][backend as usize]
}
