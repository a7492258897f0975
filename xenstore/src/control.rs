//! What the toolstack wants of the whole domain (`xen:docs/misc/xenstore-paths.pandoc`, `control/shutdown`).

use crate::{Client, Error, Watch};

/// Where the toolstack writes its wish.
const SHUTDOWN: &str = "control/shutdown";

/// Where a domain says which wishes it follows.
const FEATURES: [&str; 2] = ["control/feature-poweroff", "control/feature-reboot"];

/// The same for the wish that it be saved.
const FEATURE_SUSPEND: &str = "control/feature-suspend";

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
        const WISHES: [(&[u8], Request); 5] = [
            (b"poweroff", Request::PowerOff),
            (b"halt", Request::Halt),
            (b"reboot", Request::Reboot),
            (b"suspend", Request::Suspend),
            (b"crash", Request::Crash),
        ];
        let known = WISHES.iter().find(|(name, _)| *name == value);
        (!value.is_empty()).then(|| known.map_or(Self::Other, |(_, wish)| *wish))
    }
}

/// The toolstack's wishes, one after the other.
#[derive(Debug)]
pub struct Control {
    client: Client,
    watch: Watch,
    /// We follow the wish to be saved, too.
    suspends: bool,
    /// The node may hold a wish that nobody has seen.
    due: bool,
}

impl Control {
    /// [Announces](Self::announce) that we follow `poweroff` and `reboot`, and `suspend` if so wished, and begins to listen.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn new(client: &Client, suspends: bool) -> Result<Self, Error> {
        let control = Self {
            client: client.clone(),
            watch: client.watch(SHUTDOWN)?,
            suspends,
            due: false,
        };
        control.announce();
        Ok(control)
    }

    /// Announces what we follow; to be done again after the domain was restored. A toolstack that does not let us is no
    /// error.
    pub fn announce(&self) {
        for feature in FEATURES.into_iter().chain(self.suspends.then_some(FEATURE_SUSPEND)) {
            self.client.write_unanswered(feature, b"1");
        }
    }

    /// Whether we have announced to follow a wish.
    fn follows(&self, wish: Request) -> bool {
        match wish {
            Request::PowerOff | Request::Halt | Request::Reboot => true,
            Request::Suspend => self.suspends,
            Request::Crash | Request::Other => false,
        }
    }

    /// Waits for the next wish. One that we announced to follow is acknowledged by emptying the node. Any other stays,
    /// so that the toolstack sees that nobody took it; it comes again when the node is written again. Dropping the
    /// future loses no wish.
    ///
    /// No transaction is needed: whoever writes a second wish over one that is followed has been overtaken by the end.
    ///
    /// # Errors
    /// See [`Client`]. A node that is missing or forbidden is waited for; a wish that cannot be acknowledged is one
    /// nevertheless: the answer is not waited for.
    pub async fn next(&mut self) -> Result<Request, Error> {
        loop {
            if !self.due {
                self.watch.changed().await?;
                self.due = true;
            }
            let wish = match self.client.read(SHUTDOWN).await {
                Ok(value) => Request::parse(&value),
                Err(Error::Refused(_) | Error::Disconnected | Error::Restored) => None, // set again, the watch fires again
                Err(error) => return Err(error),
            };
            if wish.is_some_and(|wish| self.follows(wish)) {
                self.client.write_unanswered(SHUTDOWN, b"");
            }
            self.due = false;
            if let Some(request) = wish {
                return Ok(request);
            }
        }
    }
}

/// Where the toolstack writes a letter (`xl sysrq`).
const SYSRQ: &str = "control/sysrq";

/// The letters that an administrator sends with `xl sysrq`, one after the other.
#[derive(Debug)]
pub struct Sysrq {
    client: Client,
    watch: Watch,
}

impl Sysrq {
    /// Begins to listen.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn new(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            client: client.clone(),
            watch: client.watch(SYSRQ)?,
        })
    }

    /// Waits for the next letter, and takes it: the node is emptied.
    ///
    /// # Errors
    /// See [`Client`]. A node that is missing, forbidden or holds no letter is waited for.
    pub async fn next(&mut self) -> Result<u8, Error> {
        loop {
            self.watch.changed().await?;
            let value = match self.client.read(SYSRQ).await {
                Ok(value) => value,
                Err(Error::Refused(_) | Error::Disconnected | Error::Restored) => continue, // set again, the watch fires again
                Err(error) => return Err(error),
            };
            if let [letter, ..] = value[..]
                && letter.is_ascii_alphanumeric()
            {
                self.client.write_unanswered(SYSRQ, b"");
                return Ok(letter);
            }
        }
    }
}
