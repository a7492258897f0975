//! Opening a directory that the host shares.

use core::time::Duration;

use fata_9pfront::{Error, Share};

use crate::Env;

/// How long it may take until the directory is there and its backend is connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// The directory with this tag, once it is connected.
pub(crate) async fn open(env: &Env, tag: &str) -> Result<Share, Error> {
    let port = &env.0.port;
    let find = || {
        port.shares()
            .into_iter()
            .find(|share| share.tag().as_deref() == Some(tag))
    };
    let wait = async {
        loop {
            let seen = port.share_changes().count();
            if let Some(share) = find().filter(Share::is_connected) {
                return share;
            }
            port.share_changes().after(seen).await;
        }
    };
    let connected = env.timeout(PATIENCE, wait).await;
    connected.map_err(|_| match find() {
        None => Error::NoDevice,
        Some(share) => share.problem().unwrap_or(Error::Closed),
    })
}
