//! What the toolstack writes about a device.

use alloc::string::String;
use alloc::vec::Vec;

use fata_hypercall::DomId;

use super::State;
use crate::{Client, Error, decimal};

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

/// The ids of the devices of a type that the domain has, in order. Names that are no numbers are left out.
///
/// To be told of new ones, watch `device/<kind>`.
///
/// # Errors
/// See [`Client`]; a missing directory is no error.
pub async fn devices(client: &Client, kind: &str) -> Result<Vec<u32>, Error> {
    let names = match client.list(&join("device", kind)).await {
        Ok(names) => names,
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for name in names {
        // They are few: put in their places one by one, they need no sorting, which is large.
        if let Some(id) = decimal::parse(name.as_bytes(), 0..=u32::MAX.into()) {
            let id = id as u32;
            ids.insert(ids.partition_point(|&other| other < id), id);
        }
    }
    Ok(ids)
}

pub(super) fn device_path(kind: &str, id: u32) -> String {
    ["device/", kind, "/", &decimal::string(id.into())].concat()
}

pub(super) fn join(directory: &str, name: &str) -> String {
    [directory, "/", name].concat()
}
