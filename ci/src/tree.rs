//! Unpacked packages as a file tree of its own: its links, its programs, its loader and its libraries.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::packages::output;

/// The dynamic loader of amd64, below the tree.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// Where Debian's loader looks for libraries, below the tree.
const LIBRARY_FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// A folder that packages were unpacked into.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The real file behind `path`: absolute links are links within the tree, not into this computer.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf, Error> {
        let missing = || Error::Package {
            missing: format!("file {path}"),
        };
        let mut at = PathBuf::from(path);
        for _ in 0..16 {
            let full = self.root.join(&at);
            match fs::read_link(&full) {
                Ok(target) => at = follow(&at, &target).ok_or_else(missing)?,
                Err(_) if full.is_file() => return Ok(full),
                Err(_) => break,
            }
        }
        Err(missing())
    }

    /// The folder `path`, which is no link.
    pub(crate) fn folder(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The content of the file `path`.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let path = self.resolve(path)?;
        fs::read(&path).map_err(Error::io("read", &path))
    }

    /// The only path below `folder` whose last part begins with `start`.
    pub(crate) fn find(&self, folder: &str, start: &str) -> Result<String, Error> {
        let entries = crate::cache::list(&self.root.join(folder))?;
        let names = entries.iter().filter_map(|path| path.file_name()?.to_str());
        let name = names.into_iter().find(|name| name.starts_with(start));
        let name = name.ok_or_else(|| Error::Package {
            missing: format!("file {folder}/{start}*"),
        })?;
        Ok(format!("{folder}/{name}"))
    }

    /// A command that runs `program` of the tree with the tree's libraries only.
    pub(crate) fn command(&self, program: &str) -> Result<Command, Error> {
        let mut command = self.loader()?;
        command.arg(self.resolve(program)?);
        Ok(command)
    }

    /// The loader, told to look for libraries in the tree only.
    fn loader(&self) -> Result<Command, Error> {
        let folders = LIBRARY_FOLDERS.map(|folder| self.root.join(folder));
        let folders = folders.each_ref().map(|folder| folder.to_string_lossy());
        let mut command = Command::new(self.resolve(LOADER)?);
        command.args(["--inhibit-cache", "--library-path", &folders.join(":")]);
        Ok(command)
    }

    /// The names of the libraries that `program` needs, by the loader's own account; none for a static program.
    pub(crate) fn libraries(&self, program: &str) -> Result<Vec<String>, Error> {
        let file = self.resolve(program)?;
        if !is_dynamic(&fs::read(&file).map_err(Error::io("read", &file))?) {
            return Ok(Vec::new());
        }
        let mut command = self.loader()?;
        command.arg("--list").arg(file);
        let mut names = Vec::new();
        for line in output(&mut command)?.lines() {
            if let Some(name) = library_name(line)? {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The path of the library `name` below the tree.
    pub(crate) fn library(&self, name: &str) -> Result<PathBuf, Error> {
        let candidates = LIBRARY_FOLDERS.map(|folder| format!("{folder}/{name}"));
        let found = candidates.iter().find_map(|path| self.resolve(path).ok());
        found.ok_or_else(|| Error::Package {
            missing: format!("library {name}"),
        })
    }
}

/// Where a link at `at` with the text `target` leads, below the tree.
fn follow(at: &Path, target: &Path) -> Option<PathBuf> {
    let mut parts: Vec<&std::ffi::OsStr> = if target.is_absolute() {
        Vec::new()
    } else {
        at.parent()?.iter().collect()
    };
    for component in target.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    Some(parts.into_iter().collect())
}

/// Whether an ELF file asks for a loader (has a program header PT_INTERP) or is a library.
fn is_dynamic(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    const ET_DYN: u16 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let headers = || {
        let offset = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
        let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
        elf.get(offset..)?
            .get(..size.checked_mul(count)?)
            .map(|table| table.chunks(size.max(1)))
    };
    let interpreter = |header: &[u8]| header.get(..4) == Some(&PT_INTERP.to_le_bytes());
    let library = half(16) == Some(ET_DYN);
    elf.starts_with(b"\x7fELF") && headers().is_some_and(|mut headers| library || headers.any(interpreter))
}

/// The library in a line of the loader's list: "NAME => PATH (ADDRESS)". The kernel's own and the loader have no entry.
fn library_name(line: &str) -> Result<Option<String>, Error> {
    let Some((name, path)) = line.trim().split_once(" => ") else {
        return Ok(None);
    };
    if path.contains("not found") {
        return Err(Error::Package {
            missing: format!("library {name}"),
        });
    }
    Ok((!name.starts_with('/')).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_tree() {
        let follow = |at: &str, target: &str| follow(Path::new(at), Path::new(target)).unwrap();
        assert_eq!(follow("lib64/ld.so", "/lib/x/ld.so"), Path::new("lib/x/ld.so"));
        assert_eq!(follow("usr/bin/a", "../lib/b"), Path::new("usr/lib/b"));
        assert_eq!(follow("usr/bin/a", "b"), Path::new("usr/bin/b"));
        assert_eq!(follow("a", "../../../etc/passwd"), Path::new("etc/passwd"));
    }

    #[test]
    fn resolves_chains_and_gives_up_on_circles() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib/real"), "x").unwrap();
        symlink("/lib/real", folder.path().join("lib/one")).unwrap();
        symlink("one", folder.path().join("lib/two")).unwrap();
        symlink("circle", folder.path().join("circle")).unwrap();
        symlink("/etc/passwd", folder.path().join("outside")).unwrap();
        let tree = Tree::new(folder.path());
        assert_eq!(tree.read("lib/two").unwrap(), b"x");
        assert!(tree.resolve("circle").is_err());
        assert!(tree.resolve("outside").is_err());
        assert_eq!(tree.find("lib", "rea").unwrap(), "lib/real");
    }

    #[test]
    fn reads_the_loaders_list() {
        let name = |line| library_name(line).unwrap();
        assert_eq!(name("\tlibz.so.1 => /r/libz.so.1 (0x7f)"), Some("libz.so.1".into()));
        assert_eq!(name("\tlinux-vdso.so.1 (0x7f)"), None);
        assert_eq!(name("\t/lib64/ld-linux-x86-64.so.2 => /r/ld (0x7f)"), None);
        assert!(library_name("\tlibx.so => not found").is_err());
    }

    #[test]
    fn this_very_program_is_an_elf_file() {
        assert!(is_dynamic(&fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_dynamic(b"#!/bin/sh\n"));
        assert!(!is_dynamic(b"\x7fELF"));
    }
}
