//! A server that sends back what it gets.

use fata_net::{Stack, TcpListener};

use crate::world::World;

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
