//! A shared directory, used whenever a line on the console says so: `share TAG`, and then `work`, `use`, `read PATH` or
//! `end`.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::error::Error;
use core::fmt::Write;

use fata::Env;
use fata::p9::{File, Share};

pub(crate) async fn run(env: &Env, tag: &str) -> Result<(), Box<dyn Error>> {
    let share = env.share(tag).await?;
    let mut console = env.console();
    let file = share.open("in").await?;
    writeln!(console, "there are {}", list(&share, "").await?)?;
    for round in 0.. {
        writeln!(console, "round {round}")?;
        let outcome = match env.console().read_line().await.as_deref() {
            Some("work") => {
                share.connected().await;
                work(&share).await
            }
            Some("use") => touch(&file).await,
            Some(line) if let Some(path) = line.strip_prefix("read ") => text(&share, path).await,
            _ => break,
        };
        match outcome {
            Ok(said) => writeln!(console, "well: {said}")?,
            Err(error) => writeln!(console, "failed: {error}")?,
        }
    }
    Ok(())
}

/// Does with files what can be done with them.
async fn work(share: &Share) -> Result<String, Box<dyn Error>> {
    let bytes = share.read("in", 1 << 20).await?;
    share.write("out", &bytes).await?;
    let copy = share.edit("out").await?;
    copy.write_all_at(bytes.len() as u64, b"and more").await?;
    copy.set_len(bytes.len() as u64).await?;
    copy.sync().await?;

    share.create_dir("new").await?;
    share.write("new/one", b"1\n").await?;
    share.rename("new/one", "new/two").await?;
    let listed = list(share, "new").await?;
    let text = share.read("new/two", 4).await?;
    if listed != "two" || text != b"1\n" || share.metadata("new/two").await?.len != 2 {
        return Err("a directory is not what it should be".into());
    }
    share.remove_file("new/two").await?;
    share.remove_dir("new").await?;
    let missing = share.read("new/two", 4).await.err().map(|error| error.to_string());
    let room = share.space().await?.available > 0;
    Ok([missing.as_deref().unwrap_or_default(), if room { ", room" } else { "" }].concat())
}

async fn text(share: &Share, path: &str) -> Result<String, Box<dyn Error>> {
    let bytes = share.read(path, 100).await?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_string())
}

/// Reads from a file that was opened at the start.
async fn touch(file: &File) -> Result<String, Box<dyn Error>> {
    file.read_at(0, &mut [0; 10]).await?;
    Ok(String::from("open"))
}

async fn list(share: &Share, path: &str) -> Result<String, fata::p9::Error> {
    let mut directory = share.read_dir(path).await?;
    let mut names = Vec::new();
    while let Some(entry) = directory.next().await? {
        names.push(entry.name);
    }
    names.sort();
    Ok(names.join(" "))
}
