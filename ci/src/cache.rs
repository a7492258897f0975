//! The cache folder: found, locked, and never seen half-built.
//!
//! Whatever takes long is a folder below the cache, named after what it is and a hash of the recipe it was made by. It is
//! built under another name and renamed when whole, so a folder with the final name is complete, and a changed recipe
//! builds anew. What an interrupted run left behind is removed by the next.
//!
//! Two checkouts with different recipes share a cache. So what another recipe made stays for a while, and whoever uses a
//! folder holds a shared lock on the file [`IN_USE`] in it, whose time tells when it was last taken.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::Error;
use crate::progress::{Reporter, Stage};

/// The file in a complete folder that its users lock.
const IN_USE: &str = "in-use";

/// The folder in which downloads, the dom0 image and the snapshots are kept between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The documented place: `$FATA_CACHE`, else `$XDG_CACHE_HOME/fata`, else `~/.cache/fata`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when none of the three variables is set.
    pub fn locate() -> Result<Self, Error> {
        Self::locate_with(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn locate_with(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
        let root = set("FATA_CACHE")
            .or_else(|| {
                set("XDG_CACHE_HOME")
                    .filter(|path| path.is_absolute())
                    .map(|path| path.join("fata"))
            })
            .or_else(|| set("HOME").map(|path| path.join(".cache/fata")))
            .ok_or(Error::Unsupported {
                what: "there is no place for the cache: FATA_CACHE, XDG_CACHE_HOME and HOME are all unset".into(),
                next: "set FATA_CACHE to a folder with 1 GB of room",
            })?;
        Ok(Self::at(root))
    }

    /// A cache in the folder `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        // Programs are started with other current folders, so the path must not depend on this one.
        Self {
            root: std::path::absolute(&root).unwrap_or(root),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Takes the lock under which things are built; waits while another process builds. Released on drop or on death.
    pub(crate) fn lock(&self, reporter: &Reporter) -> Result<Lock, Error> {
        fs::create_dir_all(&self.root).map_err(Error::io("create the cache folder", &self.root))?;
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                reporter.stage(Stage::Lock, |_| file.lock().map_err(Error::io("lock", &path)))?
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        Ok(Lock {
            _file: file,
            root: self.root.clone(),
        })
    }

    /// The folder `KIND-KEY` if it is complete. It stays as long as the answer is kept.
    pub(crate) fn ready(&self, kind: &str, key: Key) -> Option<Used> {
        Used::take(self.root.join(format!("{kind}-{key}")))
    }

    /// Bytes that the cache takes on the disk.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read.
    pub fn size(&self) -> Result<u64, Error> {
        if self.root.is_dir() { size(&self.root) } else { Ok(0) }
    }

    /// Removes everything but the folders of hosts that run. The next start builds from nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be removed.
    pub fn clear(&self) -> Result<(), Error> {
        let _lock = self.lock(&Reporter::silent())?;
        for entry in list(&self.root)? {
            if entry.file_name().is_some_and(|name| name != "lock" && name != "run") {
                remove(&entry)?;
            }
        }
        Ok(())
    }
}

/// A complete folder of the cache, which nobody removes while this lives.
#[derive(Debug)]
pub(crate) struct Used {
    path: PathBuf,
    _file: File,
}

impl Used {
    fn take(path: PathBuf) -> Option<Self> {
        let name = path.join(IN_USE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&name)
            .ok()?;
        file.lock_shared().ok()?;
        // Somebody may have removed it before the lock was ours.
        name.exists().then_some(())?;
        // Without the time it would only be removed earlier.
        let _ = file.set_modified(SystemTime::now());
        Some(Self { path, _file: file })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// When a folder was last taken, for sorting.
fn last_used(path: &Path) -> SystemTime {
    let modified = |path: &Path| fs::metadata(path)?.modified();
    modified(&path.join(IN_USE))
        .or_else(|_| modified(path))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Removes the folder `path` unless somebody uses it; first its name, so that nobody sees half of it.
fn remove_unused(path: &Path) -> Result<(), Error> {
    let name = path.join(IN_USE);
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(Error::io("open the lock file", &name))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &name)(error)),
    }
    let part = path.with_extension("part");
    fs::rename(path, &part).map_err(Error::io("rename", path))?;
    remove(&part)
}

/// The held lock of a cache; only its holder may build.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    root: PathBuf,
}

impl Lock {
    /// Builds the folder `KIND-KEY`: `fill` gets an empty folder, which takes its final name when `fill` succeeds. With it
    /// there are `keep` folders of this kind: those last used, and any in use. Remains of interrupted runs are removed.
    pub(crate) fn build(
        &self,
        kind: &str,
        key: Key,
        keep: usize,
        fill: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Used, Error> {
        let ready = self.root.join(format!("{kind}-{key}"));
        let part = self.root.join(format!("{kind}-{key}.part"));
        let ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-'))
        };
        let (remains, mut complete): (Vec<PathBuf>, Vec<PathBuf>) = list(&self.root)?
            .into_iter()
            .filter(ours)
            .partition(|path| path.extension().is_some_and(|extension| extension == "part"));
        remains.iter().try_for_each(|path| remove(path))?;
        complete.sort_by_key(|path| std::cmp::Reverse(last_used(path)));
        complete
            .iter()
            .skip(keep.saturating_sub(1))
            .try_for_each(|path| remove_unused(path))?;
        fs::create_dir_all(&part).map_err(Error::io("create", &part))?;
        fill(&part).inspect_err(|_| drop(remove(&part)))?;
        fs::rename(&part, &ready).map_err(Error::io("rename", &part))?;
        let gone = || Error::io("use", &ready)(io::ErrorKind::NotFound.into());
        Used::take(ready.clone()).ok_or_else(gone)
    }

    /// A folder that is kept and added to (apt's lists and downloads).
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }
}

/// A hash of a recipe: 64-bit FNV-1a, which is stable over compilers and good enough to tell recipes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// The hash of `parts`, each with its length, so that moving a boundary changes the key.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        for part in parts {
            part.len().to_le_bytes().into_iter().for_each(&mut add);
            part.bytes().for_each(&mut add);
        }
        Self(hash)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The paths in the folder `path`, sorted.
pub(crate) fn list(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries: Vec<PathBuf> = entries.map_err(Error::io("read the folder", path))?;
    entries.sort();
    Ok(entries)
}

/// Removes a file, a link or a whole folder; that it is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn size(path: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in list(path)? {
        let meta = fs::symlink_metadata(&entry).map_err(Error::io("read", &entry))?;
        total += if meta.is_dir() {
            size(&entry)?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_environment() {
        let locate = |set: &'static [(&str, &str)]| {
            Cache::locate_with(move |name| {
                set.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| PathBuf::from(value))
            })
        };
        let at = |path| Cache {
            root: PathBuf::from(path),
        };
        assert_eq!(locate(&[("FATA_CACHE", "/c"), ("HOME", "/h")]).unwrap(), at("/c"));
        assert_eq!(
            locate(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]).unwrap(),
            at("/x/fata")
        );
        assert_eq!(
            locate(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]).unwrap(),
            at("/h/.cache/fata")
        );
        assert_eq!(
            locate(&[("FATA_CACHE", ""), ("HOME", "/h")]).unwrap(),
            at("/h/.cache/fata")
        );
        assert!(matches!(locate(&[]), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn a_key_depends_on_every_part_and_its_bounds() {
        assert_eq!(Key::of(["a", "b"]), Key::of(["a", "b"]));
        assert_ne!(Key::of(["ab"]), Key::of(["a", "b"]));
        assert_ne!(Key::of(["a", "b"]), Key::of(["b", "a"]));
        // A fixed value: a key that changed with the compiler would rebuild every cache.
        assert_eq!(Key::of([]).to_string(), "cbf29ce484222325");
    }

    fn fill(path: &Path) -> Result<(), Error> {
        assert!(list(path)?.is_empty(), "remains of an interrupted run");
        fs::write(path.join("x"), "1").map_err(Error::io("write", path))
    }

    #[test]
    fn what_failed_disappears() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("deep/cache"));
        let lock = cache.lock(&Reporter::silent()).unwrap();
        let (old, new) = (Key::of(["old"]), Key::of(["new"]));
        lock.build("machine", old, 2, fill).unwrap();
        assert!(cache.ready("machine", old).is_some());
        // As if a run had been killed.
        fs::create_dir(cache.path().join(format!("machine-{new}.part"))).unwrap();
        fs::write(cache.path().join(format!("machine-{new}.part/rest")), "").unwrap();

        let failed = lock.build("machine", new, 2, |_| Err(Error::Package { missing: "xl".into() }));
        assert!(failed.is_err());
        assert!(cache.ready("machine", new).is_none());
        assert_eq!(list(cache.path()).unwrap().len(), 2, "the lock and the old folder");
        lock.build("machine", new, 2, fill).unwrap();
        assert!(cache.ready("machine", old).is_some() && cache.ready("machine", new).is_some());
    }

    #[test]
    fn the_last_used_stay_and_so_does_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let lock = cache.lock(&Reporter::silent()).unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Key::of([name]));
        let there = |key| cache.path().join(format!("machine-{key}")).is_dir();
        let take = |key| {
            // File systems count time in steps of some milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(20));
            cache.ready("machine", key).unwrap()
        };
        lock.build("machine", a, 2, fill).unwrap();
        lock.build("machine", b, 2, fill).unwrap();
        drop(take(a));
        lock.build("machine", c, 2, fill).unwrap();
        assert!(there(a) && !there(b) && there(c), "a was used after b");

        let in_use = take(a);
        drop(take(c));
        lock.build("machine", d, 1, fill).unwrap();
        assert!(there(a) && !there(c) && there(d), "a is in use");
        drop(in_use);
        lock.build("snapshot", b, 1, fill).unwrap();
        assert!(there(a) && there(d), "another kind is nobody's business");
        lock.build("machine", c, 1, fill).unwrap();
        assert!(!there(a) && there(c) && !there(d));
    }

    #[test]
    fn two_cannot_build_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let lock = cache.lock(&Reporter::silent()).unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let waiting = Reporter::new(move |stage, _| send.send(stage).unwrap());
        let other = std::thread::spawn(move || cache.lock(&waiting).map(drop));
        assert_eq!(receive.recv().unwrap(), Stage::Lock);
        assert!(!other.is_finished());
        drop(lock);
        other.join().unwrap().unwrap();
    }
}
