//! The halves of a [`TcpStream`], and the traits of `embedded-io-async` for all of them.

use alloc::rc::Rc;

use embedded_io_async::{ErrorType, Read, ReadReady, Write, WriteReady};

use crate::{Error, TcpStream};

/// The reading half of a borrowed [`TcpStream`].
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(crate) &'a TcpStream);

/// The writing half of a borrowed [`TcpStream`].
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(crate) &'a TcpStream);

/// The reading half of a [`TcpStream`] that two tasks own together.
#[derive(Debug)]
pub struct OwnedReadHalf(pub(crate) Rc<TcpStream>);

/// The writing half of a [`TcpStream`] that two tasks own together. Dropping it closes this side of the connection.
#[derive(Debug)]
pub struct OwnedWriteHalf(pub(crate) Rc<TcpStream>);

impl ReadHalf<'_> {
    /// The whole connection.
    pub fn stream(&self) -> &TcpStream {
        self.0
    }
}

impl WriteHalf<'_> {
    /// The whole connection.
    pub fn stream(&self) -> &TcpStream {
        self.0
    }
}

impl OwnedReadHalf {
    /// The whole connection.
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }
}

impl OwnedWriteHalf {
    /// The whole connection.
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

impl TcpStream {
    fn stream(&self) -> &Self {
        self
    }
}

macro_rules! reads {
    ($($name:ty),*) => {$(
        impl Read for $name {
            async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
                self.stream().read(buffer).await
            }
        }

        impl ReadReady for $name {
            fn read_ready(&mut self) -> Result<bool, Error> {
                Ok(self.stream().read_ready())
            }
        }
    )*};
}

macro_rules! writes {
    ($($name:ty),*) => {$(
        impl Write for $name {
            async fn write(&mut self, data: &[u8]) -> Result<usize, Error> {
                self.stream().write(data).await
            }

            /// Nothing to do: what is written is on its way. [`TcpStream::acknowledged`] waits for its arrival.
            async fn flush(&mut self) -> Result<(), Error> {
                Ok(())
            }
        }

        impl WriteReady for $name {
            fn write_ready(&mut self) -> Result<bool, Error> {
                Ok(self.stream().write_ready())
            }
        }
    )*};
}

macro_rules! errors {
    ($($name:ty),*) => {$(
        impl ErrorType for $name {
            type Error = Error;
        }
    )*};
}

errors!(TcpStream, ReadHalf<'_>, WriteHalf<'_>, OwnedReadHalf, OwnedWriteHalf);
reads!(TcpStream, ReadHalf<'_>, OwnedReadHalf);
writes!(TcpStream, WriteHalf<'_>, OwnedWriteHalf);
