//! A vchan as a stream of bytes for everybody's code.

use embedded_io_async::{ErrorType, Read, Write};

use crate::{Error, Vchan};

macro_rules! streams {
    ($($name:ty),*) => {$(
        impl ErrorType for $name {
            type Error = Error;
        }

        impl Read for $name {
            async fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
                Vchan::read(self, to).await
            }
        }

        impl Write for $name {
            async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
                Vchan::write(self, bytes).await
            }

            async fn flush(&mut self) -> Result<(), Error> {
                Vchan::flush(self).await
            }
        }
    )*};
}

streams!(Vchan, &Vchan);
