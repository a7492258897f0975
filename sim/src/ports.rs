//! Event channels (xen/common/event_channel.c as facts).

use fata_hypercall::abi::event_fifo;
use fata_hypercall::abi::shared_info::EVTCHN_PORTS;
use fata_hypercall::{DomId, Errno, Port};

use crate::fifo::Fifo;

/// What is at the other end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nobody yet; `remote` may bind to it.
    Unbound {
        /// Who may.
        remote: DomId,
    },
    /// A port of another domain, or of the same one.
    Interdomain {
        /// Whose.
        remote: DomId,
        /// Which.
        port: Port,
    },
}

/// One domain's ports.
pub(crate) struct PortTable {
    /// Index: the port's number. Port 0 is never used.
    states: Vec<Option<PortState>>,
    highest: u32,
}

impl PortTable {
    pub(crate) fn new(highest: u32) -> Self {
        Self {
            states: vec![None],
            highest,
        }
    }

    /// Opens the lowest free port, as Xen does: a closed number comes back at once, unless it is in a list still.
    pub(crate) fn open(&mut self, state: PortState, fifo: &Fifo) -> Result<Port, Errno> {
        let ports = if fifo.control().is_some() {
            event_fifo::PORTS
        } else {
            EVTCHN_PORTS
        };
        let free = |index: &usize| self.states[*index].is_none() && !fifo.is_linked(Port(*index as u32));
        let index = match (1..self.states.len()).find(free) {
            Some(free) => free,
            None if self.states.len() < ports.min(self.highest.saturating_add(1)) as usize => {
                self.states.push(None);
                self.states.len() - 1
            }
            None => return Err(Errno::ENOSPC),
        };
        self.states[index] = Some(state);
        Ok(Port(index as u32))
    }

    pub(crate) fn get(&self, port: Port) -> Option<PortState> {
        self.states.get(port.0 as usize).copied().flatten()
    }

    pub(crate) fn set(&mut self, port: Port, state: PortState) {
        if let Some(slot) = self.states.get_mut(port.0 as usize) {
            *slot = Some(state);
        }
    }

    pub(crate) fn close(&mut self, port: Port) -> Option<PortState> {
        self.states.get_mut(port.0 as usize).and_then(Option::take)
    }

    pub(crate) fn open_ports(&self) -> impl Iterator<Item = (Port, PortState)> + '_ {
        self.states
            .iter()
            .enumerate()
            .filter_map(|(index, state)| Some((Port(index as u32), (*state)?)))
    }
}
