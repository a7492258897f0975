//! Linux modules in the order in which they must be loaded, so that neither depmod nor modprobe is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cache;
use crate::error::Error;

/// The modules below a folder like lib/modules/VERSION.
pub(crate) struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    /// Finds them all.
    pub(crate) fn below(folder: &Path) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in cache::list(&folder)? {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .and_then(|name| name.strip_suffix(".ko"));
                match name {
                    Some(name) => drop(found.insert(canonical(name), path)),
                    None if path.is_dir() && !path.is_symlink() => folders.push(path),
                    None => {}
                }
            }
        }
        Ok(Self(found))
    }

    /// `wanted` and what they depend on, each after all that it needs.
    ///
    /// A wanted module that does not exist is an error: a kernel that has it built in needs another recipe.
    pub(crate) fn in_order(&self, wanted: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(&canonical(name), &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<(), Error> {
        let path = self.0.get(name).ok_or_else(|| Error::Package {
            missing: format!("Linux module {name}"),
        })?;
        if order.contains(path) {
            return Ok(());
        }
        let content = fs::read(path).map_err(Error::io("read", path))?;
        // Linux's modules cannot depend on each other in a circle, so this ends.
        for dependency in depends(&content) {
            self.add(&canonical(&dependency), order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// Module names mix "-" and "_"; the kernel itself takes both for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The field "depends" of a module's .modinfo section: names, separated by commas.
fn depends(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else {
        return Vec::new();
    };
    let value = module
        .get(at + FIELD.len()..)
        .and_then(|rest| rest.split(|byte| *byte == 0).next());
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let module = |path: &str, depends: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("ELF\0license=GPL\0depends={depends}\0name=x\0")).unwrap();
        };
        module("kernel/net/bridge.ko", "stp,llc");
        module("kernel/net/stp.ko", "llc");
        module("kernel/llc.ko", "");
        module("kernel/xen-netback.ko", "");
        let modules = Modules::below(folder.path()).unwrap();
        let order = modules.in_order(&["xen_netback", "bridge"]).unwrap();
        let names: Vec<_> = order
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["xen-netback", "llc", "stp", "bridge"]);
        assert!(modules.in_order(&["absent"]).is_err());
    }
}
