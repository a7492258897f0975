//! The console as a stream of bytes.

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use fata_hypercall::Hypervisor;

use crate::{Console, Error};

impl embedded_io_async::Error for Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NotConnected
    }
}

impl<H: Hypervisor> ErrorType for Console<H> {
    type Error = Error;
}

impl<H: Hypervisor> Read for Console<H> {
    /// As [`Console::read`].
    async fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        Self::read(self, to).await
    }
}

impl<H: Hypervisor> Write for Console<H> {
    /// As [`Console::write`]: it takes everything, at once.
    async fn write(&mut self, text: &[u8]) -> Result<usize, Error> {
        Self::write(self, text);
        Ok(text.len())
    }

    /// Does nothing: [`Console::run`] is at it already.
    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
