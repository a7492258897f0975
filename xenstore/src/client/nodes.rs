//! What can be done with nodes.

use alloc::string::String;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::mem;
use core::ops::RangeInclusive;
use core::pin::Pin;
use core::task::{Poll, ready};

use fata_hypercall::{DomId, Errno};

use super::{Asked, Client};
use crate::wire::{DirectoryParts, Names, PartProgress, Path, Permission, Request, reply};
use crate::{Error, decimal, memory};

/// The most names in a list. A domain has 1000 nodes of its own at the most where a stock server has its stock quota, and the
/// toolstack makes a few for it.
const NAMES_MAX: usize = 1024;

impl Client {
    /// A node's value.
    ///
    /// # Errors
    /// See [`Client`]; an [`Error::is_missing`] one if there is no such node.
    pub fn read(&self, path: &str) -> Asked<'_, Vec<u8>> {
        self.ask(Path::new(path).map(Request::Read), value)
    }

    /// A node's value, or `None` if there is no such node.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn read_optional(&self, path: &str) -> Asked<'_, Option<Vec<u8>>> {
        self.ask(Path::new(path).map(Request::Read), optional)
    }

    /// The values of several nodes, asked for together: it takes as long as one [`read`](Self::read). `None` for each
    /// that is missing or not ours to read. The server looks at them in this order, not at one moment.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn read_all(&self, paths: &[String]) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, Error>> + use<'_> {
        let mut asked: Vec<_> = paths.iter().map(|path| self.read(path)).collect();
        let mut values = Vec::new();
        poll_fn(move |cx| {
            while let Some(value) = asked.get_mut(values.len()) {
                values.push(match ready!(Pin::new(value).poll(cx)) {
                    Ok(value) => Some(value),
                    Err(error) if error.is_missing() || error.is_denied() => None,
                    Err(error) => return Poll::Ready(Err(error)),
                });
            }
            Poll::Ready(Ok(mem::take(&mut values)))
        })
    }

    /// A node's value as text.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::BadValue`] if it is not UTF-8.
    pub fn read_string(&self, path: &str) -> Asked<'_, String> {
        self.ask(Path::new(path).map(Request::Read), |answer| {
            answer.and_then(memory::text)
        })
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
    pub fn read_flag(&self, path: &str) -> Asked<'_, bool> {
        self.ask(Path::new(path).map(Request::Read), |answer| match optional(answer)? {
            None => Ok(false),
            Some(value) => decimal::parse(&value, 0..=u64::MAX)
                .map(|n| n != 0)
                .ok_or(Error::BadValue),
        })
    }

    /// Sets a node's value; makes the node and its parents if need be.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn write(&self, path: &str, value: &(impl AsRef<[u8]> + ?Sized)) -> Asked<'_, ()> {
        let value = value.as_ref();
        self.done(Path::new(path).map(|path| Request::Write { path, value }))
    }

    /// Sets a node's value outside of any transaction, and waits for no answer. If there is no connection any more, whoever
    /// waits for something learns of it.
    pub(crate) fn write_unanswered(&self, path: &str, value: &[u8]) {
        if let Ok(path) = Path::new(path) {
            self.shared
                .with(|mux| mux.submit_detached(&Request::Write { path, value }, 0));
        }
    }

    /// Sets the values of several nodes, or removes those without one, in this order and together: it takes as long as one
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// See [`Client`]. The nodes before the one that failed are set, and those after it may be: where that matters,
    /// use a [transaction](Self::transaction).
    pub fn write_all(&self, nodes: &[(String, Option<&[u8]>)]) -> impl Future<Output = Result<(), Error>> + use<'_> {
        let set = |(path, value): &(String, Option<&[u8]>)| match value {
            Some(value) => self.write(path, value),
            None => self.remove(path),
        };
        let mut asked: Vec<_> = nodes.iter().map(set).collect();
        let mut written = 0;
        poll_fn(move |cx| {
            while let Some(next) = asked.get_mut(written) {
                ready!(Pin::new(next).poll(cx))?;
                written += 1;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// The names of a node's children, in the server's order.
    ///
    /// A list that is longer than a message is fetched in pieces and is still one state of the node (rule 65).
    ///
    /// # Errors
    /// See [`Client`]; [`Error::TooLong`] if there are more than 1024 names; [`Error::Contended`] if the list changed again and again while its pieces were fetched.
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let path = Path::new(path)?;
        let whole = self.ask(Ok(Request::Directory(path)), |answer| answer.and_then(names));
        match whole.await {
            Err(Error::Refused(Errno::E2BIG)) => self.list_in_parts(path).await,
            outcome => outcome,
        }
    }

    async fn list_in_parts(&self, path: Path<'_>) -> Result<Vec<String>, Error> {
        let mut parts = DirectoryParts::new();
        let mut offset = 0;
        loop {
            let part = self.ask(Ok(Request::DirectoryPart { path, offset }), |answer| {
                let (generation, names) = reply::part(answer?)?;
                Ok((memory::copy(generation)?, memory::copy(names.as_bytes())?))
            });
            let (generation, piece) = part.await?;
            match parts.add(&generation, Names::parse(&piece)?)? {
                PartProgress::Continue(next) => offset = next,
                PartProgress::Complete => break,
            }
        }
        names(&parts.into_names())
    }

    /// Makes a node without a value, and its parents, unless it is there.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn mkdir(&self, path: &str) -> Asked<'_, ()> {
        self.done(Path::new(path).map(Request::Mkdir))
    }

    /// Removes a node and all below. A node that is not there is no error, unless its parent is missing too.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn remove(&self, path: &str) -> Asked<'_, ()> {
        self.done(Path::new(path).map(Request::Rm))
    }

    /// Who may do what with a node; the owner's entry comes first.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn permissions(&self, path: &str) -> Asked<'_, Vec<Permission>> {
        self.ask(Path::new(path).map(Request::GetPerms), |answer| {
            Permission::parse_list(answer?)
        })
    }

    /// Sets who may do what with a node. Stock servers take 5 entries.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Asked<'_, ()> {
        self.done(Path::new(path).map(|path| Request::SetPerms {
            path,
            permissions: permissions.into(),
        }))
    }

    /// Where a domain's relative paths begin.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn domain_path(&self, domain: DomId) -> Asked<'_, String> {
        self.ask(Ok(Request::GetDomainPath(domain)), |answer| {
            memory::text(reply::path(answer?)?.as_str().as_bytes())
        })
    }

    /// Whether the server knows a domain. Stock servers tell only privileged domains.
    ///
    /// # Errors
    /// See [`Client`].
    pub fn is_domain_introduced(&self, domain: DomId) -> Asked<'_, bool> {
        self.ask(Ok(Request::IsDomainIntroduced(domain)), |answer| {
            answer.and_then(reply::flag)
        })
    }

    /// Has the server drop all watches and transactions of this domain, those of a kernel that ran before us too.
    ///
    /// Our own watches are set again, and fire; our own transactions fail with [`Error::Disconnected`]. For the start
    /// of a kernel, where `control/platform-feature-xs_reset_watches` says that the server can.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn reset_watches(&self) -> Result<(), Error> {
        self.done(Ok(Request::ResetWatches)).await?;
        self.shared.with(super::Mux::forgotten);
        Ok(())
    }
}

/// The answer to READ.
fn value(answer: Result<&[u8], Error>) -> Result<Vec<u8>, Error> {
    answer.and_then(memory::copy)
}

/// The names in a list, however long it is.
fn names(list: &[u8]) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for name in Names::parse(list)?.valid() {
        if names.len() == NAMES_MAX {
            return Err(Error::TooLong);
        }
        memory::push(&mut names, memory::text(name.as_bytes())?)?;
    }
    Ok(names)
}

/// The same; a node that is missing has no value.
fn optional(answer: Result<&[u8], Error>) -> Result<Option<Vec<u8>>, Error> {
    match value(answer) {
        Err(error) if error.is_missing() => Ok(None),
        outcome => outcome.map(Some),
    }
}
