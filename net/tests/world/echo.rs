//! A server that sends back what it gets, and its client.

use std::net::SocketAddr;

use embedded_io_async::{Read, Write};
use fata_net::{Stack, TcpListener};

use super::{World, pattern};

/// Accepts for ever, and sends back what comes.
async fn echo(world: fata_events::Handle, listener: TcpListener) {
    while let Ok(stream) = listener.accept().await {
        world
            .spawn(async move {
                let mut buffer = [0; 3000];
                while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..len]).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
    }
}

/// Starts the server on port 7.
pub(crate) fn serve_echo(world: &World, stack: &Stack) {
    let listener = stack.listen(7).unwrap();
    world.handle.spawn(echo(world.handle.clone(), listener)).detach();
}

/// Sends `len` bytes and gets them back.
pub(crate) async fn exchange(stack: Stack, to: SocketAddr, len: usize) {
    let mut stream = stack.connect(to).await.unwrap();
    let sent = pattern(len);
    let mut got = vec![0; len];
    {
        let (mut reader, mut writer) = stream.split();
        let write = async {
            writer.write_all(&sent).await.unwrap();
        };
        let read = async {
            reader.read_exact(&mut got).await.unwrap();
        };
        fata_events::join::join(write, read).await;
    }
    assert!(got == sent, "the echo differs");
    stream.close().await.unwrap();
}
