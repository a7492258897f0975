//! What can be done with nodes.

use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::ops::RangeInclusive;

use fata_hypercall::{DomId, Errno};

use super::Client;
use crate::wire::{DirectoryParts, Names, PartProgress, Path, Permission, Reply, Request};
use crate::{Error, decimal};

impl Client {
    /// A node's value.
    ///
    /// # Errors
    /// See [`Client`]; an [`Error::is_missing`] one if there is no such node.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let request = Request::Read(Path::new(path)?);
        match self.call(&request).await?.reply(request.kind())? {
            Reply::Value(bytes) => Ok(bytes.to_vec()),
            _ => Err(Error::BadMessage),
        }
    }

    /// A node's value, or `None` if there is no such node.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn read_optional(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.read(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node's value as text.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::BadValue`] if it is not UTF-8.
    pub async fn read_string(&self, path: &str) -> Result<String, Error> {
        String::from_utf8(self.read(path).await?).map_err(|_| Error::BadValue)
    }

    /// A node's value, understood by `parse`.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::BadValue`] if `parse` gives `None`.
    pub async fn read_parsed<T>(&self, path: &str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Error> {
        parse(&self.read(path).await?).ok_or(Error::BadValue)
    }

    /// A node's value as a number, which must lie in `range`; see [`decimal::parse`].
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::BadValue`] if it is no such number.
    pub async fn read_number<T>(&self, path: &str, range: RangeInclusive<T>) -> Result<T, Error>
    where
        T: Copy + Into<u64> + TryFrom<u64>,
    {
        let range = (*range.start()).into()..=(*range.end()).into();
        let number = decimal::parse(&self.read(path).await?, range).ok_or(Error::BadValue)?;
        T::try_from(number).map_err(|_| Error::BadValue)
    }

    /// Whether a node holds a number other than 0, as a `feature-` key does. A node that is missing says no.
    ///
    /// # Errors
    /// See [`Client`]; [`Error::BadValue`] if it holds something else than a number.
    pub async fn read_flag(&self, path: &str) -> Result<bool, Error> {
        match self.read_optional(path).await? {
            None => Ok(false),
            Some(value) => decimal::parse(&value, 0..=u64::MAX)
                .map(|n| n != 0)
                .ok_or(Error::BadValue),
        }
    }

    /// Sets a node's value; makes the node and its parents if need be.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn write(&self, path: &str, value: &(impl AsRef<[u8]> + ?Sized)) -> impl Future<Output = Result<(), Error>> {
        self.write_bytes(path, value.as_ref())
    }

    async fn write_bytes(&self, path: &str, value: &[u8]) -> Result<(), Error> {
        self.done(&Request::Write {
            path: Path::new(path)?,
            value,
        })
        .await
    }

    /// The names of a node's children, in the server's order.
    ///
    /// A list that is longer than a message is fetched in pieces and is still one state of the node (rule 65).
    ///
    /// # Errors
    /// See [`Client`]; [`Error::Contended`] if the list changed again and again while its pieces were fetched.
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let path = Path::new(path)?;
        let request = Request::Directory(path);
        let answer = self.call(&request).await?;
        match answer.reply(request.kind()) {
            Ok(Reply::Names(names)) => Ok(names.valid().map(String::from).collect()),
            Ok(_) => Err(Error::BadMessage),
            Err(Error::Refused(Errno::E2BIG)) => self.list_in_parts(path).await,
            Err(error) => Err(error),
        }
    }

    async fn list_in_parts(&self, path: Path<'_>) -> Result<Vec<String>, Error> {
        let mut parts = DirectoryParts::new();
        let mut offset = 0;
        loop {
            let request = Request::DirectoryPart { path, offset };
            let answer = self.call(&request).await?;
            let Reply::Part { generation, names } = answer.reply(request.kind())? else {
                return Err(Error::BadMessage);
            };
            match parts.add(generation, names)? {
                PartProgress::Continue(next) => offset = next,
                PartProgress::Complete => break,
            }
        }
        Ok(Names::parse(&parts.into_names())?.valid().map(String::from).collect())
    }

    /// Makes a node without a value, and its parents, unless it is there.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn mkdir(&self, path: &str) -> Result<(), Error> {
        self.done(&Request::Mkdir(Path::new(path)?)).await
    }

    /// Removes a node and all below. A node that is not there is no error, unless its parent is missing too.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.done(&Request::Rm(Path::new(path)?)).await
    }

    /// Who may do what with a node; the owner's entry comes first.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn permissions(&self, path: &str) -> Result<Vec<Permission>, Error> {
        let request = Request::GetPerms(Path::new(path)?);
        match self.call(&request).await?.reply(request.kind())? {
            Reply::Permissions(list) => Ok(list),
            _ => Err(Error::BadMessage),
        }
    }

    /// Sets who may do what with a node. Stock servers take 5 entries.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        self.done(&Request::SetPerms {
            path: Path::new(path)?,
            permissions: permissions.into(),
        })
        .await
    }

    /// Where a domain's relative paths begin.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn domain_path(&self, domain: DomId) -> Result<String, Error> {
        let request = Request::GetDomainPath(domain);
        match self.call(&request).await?.reply(request.kind())? {
            Reply::Path(path) => Ok(path.as_str().into()),
            _ => Err(Error::BadMessage),
        }
    }

    /// Whether the server knows a domain. Stock servers tell only privileged domains.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn is_domain_introduced(&self, domain: DomId) -> Result<bool, Error> {
        let request = Request::IsDomainIntroduced(domain);
        match self.call(&request).await?.reply(request.kind())? {
            Reply::Flag(flag) => Ok(flag),
            _ => Err(Error::BadMessage),
        }
    }

    /// Has the server drop all watches and transactions of this domain, those of a kernel that ran before us too.
    ///
    /// Our own watches are set again, and fire; our own transactions fail with [`Error::Disconnected`]. For the start
    /// of a kernel, where `control/platform-feature-xs_reset_watches` says that the server can.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn reset_watches(&self) -> Result<(), Error> {
        self.done(&Request::ResetWatches).await?;
        self.shared.with(super::Mux::forgotten);
        Ok(())
    }
}
