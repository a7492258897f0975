//! What the toolstack wants of the whole domain (`xen:docs/misc/xenstore-paths.pandoc`, `control/shutdown`).

use crate::{Client, Error, Watch};

/// Where the toolstack writes its wish.
const SHUTDOWN: &str = "control/shutdown";

/// Where a domain says which wishes it follows.
const FEATURES: [&str; 2] = ["control/feature-poweroff", "control/feature-reboot"];

/// A wish of the toolstack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `poweroff`: end.
    PowerOff,
    /// `halt`: end. Toolstacks send it for the same purpose.
    Halt,
    /// `reboot`: end, and be started again.
    Reboot,
    /// `suspend`: be saved or migrated.
    Suspend,
    /// `crash`: end as if something had broken.
    Crash,
    /// Something that we do not know.
    Other,
}

impl Request {
    /// Reads the node's value; `None` for an empty one, which is no wish.
    ///
    /// ```
    /// use fata_xenstore::control::Request;
    /// assert_eq!(Request::parse(b"poweroff"), Some(Request::PowerOff));
    /// assert_eq!(Request::parse(b""), None);
    /// assert_eq!(Request::parse(b"\xff"), Some(Request::Other));
    /// ```
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        Some(match value {
            b"" => return None,
            b"poweroff" => Self::PowerOff,
            b"halt" => Self::Halt,
            b"reboot" => Self::Reboot,
            b"suspend" => Self::Suspend,
            b"crash" => Self::Crash,
            _ => Self::Other,
        })
    }
}

/// The toolstack's wishes, one after the other.
#[derive(Debug)]
pub struct Control {
    client: Client,
    watch: Watch,
    /// The node may hold a wish that nobody has seen.
    due: bool,
}

impl Control {
    /// Announces that we follow `poweroff` and `reboot`, and begins to listen.
    ///
    /// # Errors
    /// See [`Client`]. A toolstack that does not let us announce anything is no error.
    pub async fn new(client: &Client) -> Result<Self, Error> {
        for feature in FEATURES {
            match client.write(feature, "1").await {
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            client: client.clone(),
            watch: client.watch(SHUTDOWN).await?,
            due: false,
        })
    }

    /// Waits for the next wish, and acknowledges it by emptying the node. Dropping the future loses no wish, except
    /// while its acknowledgement is under way.
    ///
    /// # Errors
    /// See [`Client`]. A node that is missing or forbidden is waited for; a wish that cannot be acknowledged is one
    /// nevertheless.
    pub async fn next(&mut self) -> Result<Request, Error> {
        loop {
            if !self.due {
                self.watch.changed().await?;
                self.due = true;
            }
            let mut wish = None;
            let taken = self.client.transaction(async |nodes| {
                wish = Request::parse(&nodes.read(SHUTDOWN).await?);
                if wish.is_some() {
                    nodes.write(SHUTDOWN, "").await?;
                }
                Ok(())
            });
            let taken = taken.await;
            match (wish, taken) {
                (Some(request), _) => {
                    self.due = false;
                    return Ok(request);
                }
                (None, Ok(()) | Err(Error::Refused(_))) => self.due = false,
                (None, Err(Error::Disconnected)) => {} // look again when the connection is back
                (None, Err(error)) => return Err(error),
            }
        }
    }
}
