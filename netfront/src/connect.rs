//! What the store says about an interface.

use alloc::vec::Vec;

use fata_xenstore::xenbus::{Frontend, State};

use crate::{Error, Identity, features};

/// Reads what the toolstack and the backend say about the interface. The backend has said all when it is InitWait.
pub(crate) async fn identify(frontend: &Frontend, longest: u16) -> Result<Identity, Error> {
    let mut paths = Vec::new();
    paths.extend(features::OURS.map(|key| frontend.key(key)));
    paths.extend(features::THEIRS.map(|key| frontend.backend_key(key)));
    features::identity(&frontend.read_all(&paths).await?, longest)
}

/// Why a backend that was waited for has not come.
pub(crate) async fn diagnose(frontend: &Frontend) -> Result<Error, Error> {
    // libxl's script for vifs: "connected", or "error" with the reason beside it.
    let paths = ["hotplug-status", "hotplug-error"].map(|key| frontend.backend_key(key));
    let values = frontend.read_all(&paths).await?;
    Ok(match (frontend.backend_state(), &*values) {
        (_, [Some(status), _]) if status == b"error" => Error::Hotplug,
        (_, [_, Some(_)]) => Error::Hotplug,
        (State::Unknown, _) => Error::NoBackend,
        (backend, _) => Error::TimedOut {
            own: frontend.state(),
            backend,
        },
    })
}
