//! What a program does with a shared directory.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use fata_hypercall::Errno;

use crate::common::Common;
use crate::fid::Fid;
use crate::path::{names, split};
use crate::wire::{Attributes, Request, WALK_NAMES, flags, reply};
use crate::{Error, File, ReadDir};

/// What files and directories are made with: everybody may read, the owner may write.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// How often a file may be removed and made by others while it is to be created.
const CREATE_ATTEMPTS: usize = 3;

/// A directory of the host's. Clones are the same one.
///
/// Paths are names with `/` between them, from the shared directory on; one at the front makes no difference. `..` is not
/// understood, and symbolic links are not followed. What is made belongs to root on the host.
///
/// ```no_run
/// # async fn example(share: &fata_9pfront::Share) -> Result<(), fata_9pfront::Error> {
/// share.create_dir("reports").await?;
/// share.write("reports/today", b"all is well\n").await?;
/// let mut reports = share.read_dir("reports").await?;
/// while let Some(entry) = reports.next().await? {
///     let text = share.read(&format!("reports/{}", entry.name), 1 << 20).await?;
///     assert_eq!(text, b"all is well\n");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Of all that asks the host: [`Error::Refused`] with what it says, [`Error::BadPath`]; without a connection at once whatever is
/// the [matter](Self::problem), or else [`Error::Closed`]. Nothing has a time limit: an honest host may be slow.
#[derive(Clone)]
pub struct Share(pub(crate) Rc<Common>);

impl Share {
    /// What the toolstack calls it (`tag=` in the domain's configuration); `None` until the driver has asked.
    #[must_use]
    pub fn tag(&self) -> Option<String> {
        self.0.tag.borrow().clone()
    }

    /// Whether something can be asked of it now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.root().is_ok()
    }

    /// What is, or was last, the matter. `None` while it is connected or the backend still has time.
    #[must_use]
    pub fn problem(&self) -> Option<Error> {
        self.0.problem()
    }

    /// Waits, without limit, until it is connected: at the start, after a restore, after a backend has gone.
    pub async fn connected(&self) {
        loop {
            let seen = self.0.changes.count();
            if self.is_connected() {
                return;
            }
            self.0.changes.after(seen).await;
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn open(&self, path: &str) -> Result<File, Error> {
        self.open_as(path, flags::READ).await
    }

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn edit(&self, path: &str) -> Result<File, Error> {
        self.open_as(path, flags::READ_WRITE).await
    }

    /// Makes a file, or empties the one that is there, and opens it for reading and writing.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn create(&self, path: &str) -> Result<File, Error> {
        let (directory, name) = split(path)?;
        for _ in 0..CREATE_ATTEMPTS {
            // A file that is there keeps its owner and its permissions.
            match self.open_as(path, flags::READ_WRITE | flags::TRUNCATE).await {
                Err(error) if error.is_missing() => {}
                outcome => return outcome,
            }
            let (fid, longest) = self.walk(&directory).await?;
            let request = Request::Create {
                fid: fid.number,
                name,
                flags: flags::READ_WRITE | flags::EXCLUSIVE,
                mode: FILE_MODE,
            };
            match self.0.ask(&fid, None, request, reply::opened).await {
                // Somebody was faster.
                Err(Error::Refused(Errno::EEXIST)) => {}
                opened => return Ok(File::new(Rc::clone(&self.0), fid, opened?, longest)),
            }
        }
        Err(Error::Refused(Errno::EEXIST))
    }

    /// A whole file of at most `limit` bytes, up to where the host says that it ends: what it has said about its size counts for
    /// nothing (files in `/proc` say 0).
    ///
    /// # Errors
    /// See [`Share`]; [`Error::TooLarge`] if there is more, or no memory for it.
    pub async fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let file = self.open(path).await?;
        let mut bytes = Vec::new();
        loop {
            let filled = bytes.len();
            // One byte more than there may be: whether there is one is known when it was asked for.
            let wanted = limit.saturating_add(1).min(filled.saturating_add(file.longest()));
            bytes
                .try_reserve(wanted - filled)
                .map_err(|_| Error::TooLarge { limit: filled })?;
            bytes.resize(wanted, 0);
            let count = file
                .read_at(filled as u64, bytes.get_mut(filled..).unwrap_or_default())
                .await?;
            bytes.truncate(filled + count);
            if count == 0 {
                return Ok(bytes);
            }
            if bytes.len() > limit {
                return Err(Error::TooLarge { limit });
            }
        }
    }

    /// Makes a file with these bytes, or replaces those that it has. If it fails, the file may have some of them.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.create(path).await?.write_all_at(0, bytes).await
    }

    /// What is known of a file or directory.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn metadata(&self, path: &str) -> Result<Metadata, Error> {
        let (fid, _) = self.walk(&names(path)?).await?;
        metadata(&self.0, &fid).await
    }

    /// What is in a directory.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn read_dir(&self, path: &str) -> Result<ReadDir, Error> {
        let (fid, longest) = self.walk(&names(path)?).await?;
        let request = Request::Open {
            fid: fid.number,
            flags: flags::READ | flags::DIRECTORY,
        };
        self.0.ask(&fid, None, request, reply::opened).await?;
        Ok(ReadDir::new(Rc::clone(&self.0), fid, longest))
    }

    /// Makes a directory, in one that is there.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn create_dir(&self, path: &str) -> Result<(), Error> {
        let (directory, name) = split(path)?;
        let (fid, _) = self.walk(&directory).await?;
        let request = Request::MakeDirectory {
            fid: fid.number,
            name,
            mode: DIRECTORY_MODE,
        };
        self.0.ask(&fid, None, request, reply::qid).await.map(drop)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn remove_file(&self, path: &str) -> Result<(), Error> {
        self.remove(path, false).await
    }

    /// Removes a directory, which must be empty.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn remove_dir(&self, path: &str) -> Result<(), Error> {
        self.remove(path, true).await
    }

    async fn remove(&self, path: &str, directory: bool) -> Result<(), Error> {
        let (parent, name) = split(path)?;
        let (fid, _) = self.walk(&parent).await?;
        let request = Request::Remove {
            fid: fid.number,
            name,
            directory,
        };
        self.0.ask(&fid, None, request, reply::nothing).await
    }

    /// Gives a file or directory another name, or another place. A file that has that name already is replaced.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let ((from_directory, from), (to_directory, to)) = (split(from)?, split(to)?);
        let (from_fid, _) = self.walk(&from_directory).await?;
        let (to_fid, _) = self.walk(&to_directory).await?;
        let request = Request::Rename {
            from_fid: from_fid.number,
            from,
            to_fid: to_fid.number,
            to,
        };
        self.0.ask(&from_fid, Some(&to_fid), request, reply::nothing).await
    }

    /// How much room the host has.
    ///
    /// # Errors
    /// See [`Share`].
    pub async fn space(&self) -> Result<Space, Error> {
        let (root, _) = self.0.root()?;
        let space = self
            .0
            .ask(&root, None, Request::Space { fid: root.number }, reply::space)
            .await?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.block.into());
        Ok(Space {
            total: bytes(space.blocks),
            available: bytes(space.available),
        })
    }

    async fn open_as(&self, path: &str, flags: u32) -> Result<File, Error> {
        let (fid, longest) = self.walk(&names(path)?).await?;
        let request = Request::Open { fid: fid.number, flags };
        let opened = self.0.ask(&fid, None, request, reply::opened).await?;
        Ok(File::new(Rc::clone(&self.0), fid, opened, longest))
    }

    /// A file of its own for what is found from the root on by these names. Gives also how many bytes one request can be about.
    async fn walk(&self, mut names: &[&str]) -> Result<(Rc<Fid>, u32), Error> {
        let (root, longest) = self.0.root()?;
        let found = self.0.new_fid(&root)?;
        let mut from = &root;
        loop {
            let (now, later) = names.split_at(names.len().min(WALK_NAMES));
            let request = Request::Walk {
                fid: from.number,
                new_fid: found.number,
                names: now,
            };
            let walked = self
                .0
                .ask(from, Some(&found), request, |answer| reply::walk(answer, now.len()));
            match walked.await? {
                (count, _) if count == now.len() => {}
                (_, Some(last)) if !last.is_directory() => return Err(Error::Refused(ENOTDIR)),
                _ => return Err(Error::Refused(Errno::ENOENT)),
            }
            if later.is_empty() {
                return Ok((found, longest));
            }
            (from, names) = (&found, later);
        }
    }
}

/// Not a directory.
const ENOTDIR: Errno = Errno(20);

/// Asks what is known of a file.
pub(crate) async fn metadata(common: &Rc<Common>, fid: &Rc<Fid>) -> Result<Metadata, Error> {
    let request = Request::GetAttributes { fid: fid.number };
    common
        .ask(fid, None, request, reply::attributes)
        .await
        .map(Metadata::from)
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("tag", &self.tag())
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// What kind of thing has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe, or the host does not say.
    Other,
}

impl Kind {
    /// By Linux's `S_IFMT`, or by its `DT_`, which has the same numbers without the permissions.
    pub(crate) const fn from_type(number: u32) -> Self {
        match number {
            8 => Self::File,
            4 => Self::Directory,
            10 => Self::Link,
            _ => Self::Other,
        }
    }
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: u64,
    /// Who may do what with it: the last twelve bits of Linux's `st_mode`.
    pub permissions: u32,
    /// Since 1970 (UTC), when it was changed.
    pub modified: Duration,
}

impl From<Attributes> for Metadata {
    fn from(attributes: Attributes) -> Self {
        Self {
            kind: Kind::from_type(attributes.mode >> 12 & 0xf),
            len: attributes.size,
            permissions: attributes.mode & 0o7777,
            modified: attributes.modified,
        }
    }
}

/// How much room the host has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Used or not.
    pub total: u64,
    /// For us.
    pub available: u64,
}
