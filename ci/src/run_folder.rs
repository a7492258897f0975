//! A folder for the sockets, links and logs of one running host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::cache::{Cache, list, remove};
use crate::error::Error;

/// The longest name in it is shorter than this; a socket's path has to fit into 107 bytes (unix(7)).
const ROOM: usize = "/fata-123456/control".len();
const LONGEST: usize = 107;
/// The file that the owner of a run folder keeps locked.
const LOCK: &str = "lock";

/// A new folder, removed when dropped; if its owner dies, QEMU's guard does it, or the next start.
///
/// It lies in the cache's folder `run`, or where the system keeps temporary files if the cache's path is too long.
#[derive(Debug)]
pub(crate) struct RunFolder {
    folder: tempfile::TempDir,
    _lock: File,
}

impl RunFolder {
    pub(crate) fn new(cache: &Cache) -> Result<Self, Error> {
        let base = base(cache.path(), std::env::temp_dir());
        fs::create_dir_all(&base).map_err(Error::io("create", &base))?;
        let within = base == cache.path().join("run");
        // Held until our own lock is: nobody shall take the new folder for a dead one's.
        let _all = within.then(|| lock(&base)).transpose()?;
        if within {
            sweep(&base)?;
        }
        let folder = tempfile::Builder::new()
            .prefix("fata-")
            .tempdir_in(&base)
            .map_err(Error::io("create a folder in", &base))?;
        let own = lock(folder.path())?;
        Ok(Self { folder, _lock: own })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Where run folders go.
fn base(cache: &Path, usual: PathBuf) -> PathBuf {
    [cache.join("run"), usual]
        .into_iter()
        .find(|path| path.as_os_str().len() + ROOM <= LONGEST)
        .unwrap_or_else(|| "/tmp".into())
}

/// Locks the file `lock` in a folder, waiting for it.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(Error::io("open the lock file", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}

/// Removes the folders whose owner has died.
fn sweep(base: &Path) -> Result<(), Error> {
    for folder in list(base)?.iter().filter(|path| path.is_dir()) {
        let alive = File::open(folder.join(LOCK)).is_ok_and(|file| file.try_lock().is_err());
        if !alive {
            remove(folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_avoided() {
        let usual = || PathBuf::from("/usual");
        assert_eq!(
            base(Path::new("/home/a/.cache/fata"), usual()),
            Path::new("/home/a/.cache/fata/run")
        );
        let long = format!("/{}", "x".repeat(90));
        assert_eq!(base(Path::new(&long), usual()), Path::new("/usual"));
        assert_eq!(base(Path::new(&long), PathBuf::from(&long)), Path::new("/tmp"));
    }

    #[test]
    fn folders_of_the_dead_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let alive = RunFolder::new(&cache).unwrap();
        // As if the power had failed: the files are there, the lock is not.
        let dead = root.path().join("run/fata-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let other = RunFolder::new(&cache).unwrap();
        assert!(!dead.exists());
        assert!(alive.path().exists());
        let path = other.path().to_owned();
        drop(other);
        assert!(!path.exists());
    }
}
