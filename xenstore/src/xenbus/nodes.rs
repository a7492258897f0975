//! What the toolstack writes about a device.

use alloc::string::String;
use alloc::vec::Vec;

use fata_hypercall::DomId;

use super::State;
use crate::{Error, decimal};

/// The nodes of a frontend that the toolstack makes.
pub(super) struct Nodes {
    /// The backend's directory.
    pub(super) backend_path: String,
    /// The backend's domain.
    pub(super) backend_id: DomId,
    /// The frontend's state, which it writes from then on.
    pub(super) own: State,
}

impl Nodes {
    /// Where they are.
    pub(super) fn paths(device: &str) -> Vec<String> {
        let names = ["backend", "backend-id", "state"];
        names.iter().map(|name| join(device, name)).collect()
    }

    /// Reads their values; `None` while one of them is missing or not ours to read.
    pub(super) fn parse(values: &[Option<Vec<u8>>]) -> Result<Option<Self>, Error> {
        let [Some(backend_path), Some(backend_id), Some(own)] = values else {
            return Ok(None);
        };
        let last = DomId::FIRST_RESERVED.0 - 1;
        Ok(Some(Self {
            backend_path: String::from_utf8(backend_path.clone()).map_err(|_| Error::BadValue)?,
            backend_id: DomId(decimal::parse(backend_id, 0..=last.into()).ok_or(Error::BadValue)? as u16),
            own: State::parse(own)?,
        }))
    }
}

pub(super) fn device_path(kind: &str, id: u32) -> String {
    ["device/", kind, "/", &decimal::string(id.into())].concat()
}

pub(super) fn join(directory: &str, name: &str) -> String {
    [directory, "/", name].concat()
}
