//! Which devices there are: a set that gains and loses members while the domain runs.

use alloc::string::String;
use alloc::vec::Vec;

use super::nodes::join;
use crate::{Client, Error, Watch, decimal};

/// The devices of one type that the toolstack has given the domain: the directories below `device/<type>`.
///
/// They come and go while the domain runs (`xl network-attach`, `xl network-detach`): look, and look again after each
/// change. Whether a device that was there at both looks is still the same one is what its
/// [`Frontend`](super::Frontend) knows.
///
/// ```no_run
/// # use fata_xenstore::xenbus::Devices;
/// # async fn example(store: &fata_xenstore::Client) -> Result<(), fata_xenstore::Error> {
/// let mut devices = Devices::new(store, "vif")?;
/// loop {
///     for _id in devices.list().await? { /* start its driver, unless it runs */ }
///     devices.changed().await?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Devices {
    client: Client,
    directory: String,
    watch: Watch,
}

impl Devices {
    /// The devices of the type `kind` (`vif`, `vbd`, ...). There need not be any.
    ///
    /// # Errors
    /// See [`Client::watch`].
    pub fn new(client: &Client, kind: &str) -> Result<Self, Error> {
        let directory = join("device", kind);
        Ok(Self {
            client: client.clone(),
            watch: client.watch(&directory)?,
            directory,
        })
    }

    /// Their ids, in order. Names that are no numbers are left out.
    ///
    /// # Errors
    /// See [`Client`]; a missing directory is no error.
    pub async fn list(&self) -> Result<Vec<u32>, Error> {
        let names = loop {
            match self.client.list(&self.directory).await {
                Ok(names) => break names,
                Err(error) if error.is_missing() => break Vec::new(),
                Err(Error::Disconnected | Error::Restored) => {}
                Err(error) => return Err(error),
            }
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

    /// Waits until something has changed among them, if only a key of one. Ready at once the first time. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// The connection to the store has ended, or the server has refused the watch.
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.watch.changed().await
    }
}
