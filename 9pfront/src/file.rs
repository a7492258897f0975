//! An open file.

use alloc::rc::Rc;

use embedded_io_async::{ErrorType, Read, Seek, SeekFrom, Write};

use crate::common::Common;
use crate::fid::Fid;
use crate::share::metadata;
use crate::wire::{Opened, Request, reply};
use crate::{Error, Metadata};

/// An open file. Dropping it closes it.
///
/// It can be read and written anywhere, by several tasks at once; and, with the traits of `embedded-io-async`, from a position on
/// that moves. It belongs to the connection over which it was opened: see [`Error::Stale`].
///
/// ```no_run
/// # async fn example(share: &fata_9pfront::Share) -> Result<(), fata_9pfront::Error> {
/// let log = share.create("log").await?;
/// log.write_all_at(0, b"started\n").await?;
/// log.sync().await?; // it is on the host's disk
/// let mut word = [0; 5];
/// assert_eq!(log.read_at(0, &mut word).await?, 5);
/// assert_eq!(&word, b"start");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct File {
    common: Rc<Common>,
    fid: Rc<Fid>,
    /// Bytes that one request can be about.
    longest: u32,
    position: u64,
}

impl File {
    pub(crate) fn new(common: Rc<Common>, fid: Rc<Fid>, opened: Opened, longest: u32) -> Self {
        Self {
            common,
            fid,
            longest: match opened.io_unit {
                0 => longest,
                unit => unit.min(longest),
            },
            position: 0,
        }
    }

    /// Reads some bytes from `offset` on, and gives how many. 0 means that there are none (or that `to` is empty). One request:
    /// it gives no more than fits into a message.
    ///
    /// # Errors
    /// See [`Share`](crate::Share); [`Error::Stale`].
    pub async fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<usize, Error> {
        let count = self.count(to.len());
        if count == 0 {
            return Ok(0);
        }
        let request = Request::Read {
            fid: self.fid.number,
            offset,
            count,
        };
        let copy = |answer: &[u8]| {
            let data = reply::data(answer, count)?;
            to.get_mut(..data.len())?.copy_from_slice(data);
            Some(data.len())
        };
        self.common.ask(&self.fid, None, request, copy).await
    }

    /// Writes some of `bytes` from `offset` on, and gives how many. One request: as [`read_at`](Self::read_at).
    ///
    /// # Errors
    /// See [`Share`](crate::Share); [`Error::Stale`]. Dropping the future may or may not have written them.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, Error> {
        let count = self.count(bytes.len());
        let Some(data) = bytes.get(..count as usize).filter(|data| !data.is_empty()) else {
            return Ok(0);
        };
        let request = Request::Write {
            fid: self.fid.number,
            offset,
            data,
        };
        let written = self
            .common
            .ask(&self.fid, None, request, |answer| reply::written(answer, count))
            .await?;
        Ok(written as usize)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at); some of the bytes may have been written. [`Error::Refused`] with `ENOSPC` if the host
    /// takes none and does not say why.
    pub async fn write_all_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match self.write_at(offset, bytes).await? {
                0 => return Err(Error::Refused(fata_hypercall::Errno::ENOSPC)),
                count => {
                    offset = offset.saturating_add(count as u64);
                    bytes = bytes.get(count..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Waits until all that was written is on the host's disk.
    ///
    /// # Errors
    /// See [`Share`](crate::Share); [`Error::Stale`].
    pub async fn sync(&self) -> Result<(), Error> {
        let request = Request::Sync { fid: self.fid.number };
        self.common.ask(&self.fid, None, request, reply::nothing).await
    }

    /// What is known of it.
    ///
    /// # Errors
    /// See [`Share`](crate::Share); [`Error::Stale`].
    pub async fn metadata(&self) -> Result<Metadata, Error> {
        metadata(&self.common, &self.fid).await
    }

    /// Makes it longer, with zeroes, or shorter.
    ///
    /// # Errors
    /// See [`Share`](crate::Share); [`Error::Stale`].
    pub async fn set_len(&self, size: u64) -> Result<(), Error> {
        let request = Request::SetSize {
            fid: self.fid.number,
            size,
        };
        self.common.ask(&self.fid, None, request, reply::nothing).await
    }

    /// How many bytes one request can be about.
    pub(crate) fn longest(&self) -> usize {
        self.longest as usize
    }

    fn count(&self, len: usize) -> u32 {
        u32::try_from(len).unwrap_or(u32::MAX).min(self.longest)
    }
}

impl ErrorType for File {
    type Error = Error;
}

impl Read for File {
    async fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let count = self.read_at(self.position, to).await?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

impl Write for File {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let count = self.write_at(self.position, bytes).await?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }

    /// Nothing is kept back here: what was written is with the host. For its disk see [`sync`](Self::sync).
    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Seek for File {
    async fn seek(&mut self, to: SeekFrom) -> Result<u64, Error> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.metadata().await?.len.checked_add_signed(by),
        };
        self.position = position.ok_or(Error::BadSeek)?;
        Ok(self.position)
    }
}
