//! One end of a vchan: `listen PATH BYTES WORK`, which asks for the client's number, or `connect SERVER PATH WORK`.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt::Write;

use fata::vchan::{DomId, Sizes, Vchan};
use fata::{Env, ExitCode, Failure};

pub(crate) async fn run(env: &Env, words: &[&str]) -> Result<(), Box<dyn Error>> {
    let vchans = env.vchans().ok_or("no vchans")?;
    let (vchan, work) = match *words {
        ["listen", path, bytes, ref work @ ..] => {
            writeln!(env.console(), "whose?")?;
            let client = env.console().read_line().await.unwrap_or_default();
            let size = bytes.parse()?;
            let sizes = Sizes {
                read: size,
                write: size,
            };
            let vchan = vchans.listen(DomId(client.parse()?), path, sizes).await?;
            writeln!(env.console(), "listening")?;
            (vchan, work)
        }
        ["connect", server, path, ref work @ ..] => (vchans.connect(DomId(server.parse()?), path).await?, work),
        _ => Err(Failure::new(ExitCode::USAGE, "no such end"))?,
    };
    vchan.connected().await?;
    writeln!(env.console(), "connected")?;
    match *work {
        ["echo", bytes] => echo(&vchan, bytes.parse()?).await?,
        ["ask", bytes] => {
            ask(&vchan, bytes.parse()?).await?;
            writeln!(env.console(), "answered")?;
            // Until the other end goes.
            while let 1.. = vchan.read(&mut [0; 512]).await? {}
        }
        _ => Err(Failure::new(ExitCode::USAGE, "no such work"))?,
    }
    writeln!(
        env.console(),
        "the other end is {}",
        if vchan.is_open() { "there" } else { "gone" }
    )?;
    Ok(())
}

/// Sends so many bytes back, or all until the other end goes.
async fn echo(vchan: &Vchan, bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut buffer = vec![0; 3000];
    let mut left = bytes;
    while left > 0 {
        match vchan.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                vchan.write_all(&buffer[..count]).await?;
                left = left.saturating_sub(count);
            }
        }
    }
    Ok(vchan.flush().await?)
}

/// Sends so many bytes and checks that they come back.
async fn ask(vchan: &Vchan, bytes: usize) -> Result<(), Box<dyn Error>> {
    let pattern = |at: usize| ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
    let mut buffer = vec![0; 5000];
    let (mut sent, mut seen) = (0, 0);
    while seen < bytes {
        let end = bytes.min(sent + 700);
        let piece: Vec<u8> = (sent..end).map(pattern).collect();
        vchan.write_all(&piece).await?;
        sent = end;
        while seen < sent {
            let count = vchan.read(&mut buffer).await?;
            let right = buffer[..count]
                .iter()
                .zip(seen..)
                .all(|(&byte, at)| byte == pattern(at));
            if count == 0 || !right {
                Err("other bytes came back")?;
            }
            seen += count;
        }
    }
    Ok(())
}
