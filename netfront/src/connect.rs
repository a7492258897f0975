//! What the store says about an interface.

use alloc::vec::Vec;

use fata_xenstore::xenbus::{Frontend, State};

use crate::features::{self, Agreement};
use crate::{Error, Identity, Options};

/// Reads what the toolstack and the backend say about the interface. The backend has said all when it is InitWait.
pub(crate) async fn negotiate(frontend: &Frontend, options: &Options) -> Result<(Identity, Agreement), Error> {
    let mut paths = Vec::new();
    paths.extend(features::OURS.map(|key| frontend.key(key)));
    paths.extend(features::THEIRS.map(|key| frontend.backend_key(key)));
    paths.extend(features::OFFERS.map(|key| frontend.backend_key(key)));
    let values = frontend.read_all(&paths).await?;
    // There are as many values as paths.
    let (identity, offers) = values.split_last_chunk().ok_or(Error::BadKey("mac"))?;
    let identity = features::identity(identity, options.longest())?;
    Ok((identity, features::agreement(offers, options)?))
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
