//! The tree itself, and transactions over it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fata_hypercall::{DomId, Errno};

use super::perms::{Perm, rights};

/// A node. Generations are never used twice, so equal generations mean an unchanged node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Vec<u8>,
    pub(crate) perms: Vec<Perm>,
    /// Changes with the value, the permissions and the list of children.
    pub(crate) generation: u64,
}

/// All nodes by absolute path; the root is "/". Cloning is cheap enough for a snapshot per transaction.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Rc<Node>>,
}

/// What happened to a path, for the watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: String,
    /// Fires only for watches on exactly this path: it vanished with a node above it.
    pub(crate) exact: bool,
    /// Who may know.
    pub(crate) perms: Vec<Perm>,
}

pub(crate) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// Whether `path` is `above` or lies below it.
pub(crate) fn is_within(path: &str, above: &str) -> bool {
    above == "/"
        || path
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node {
            value: Vec::new(),
            perms: vec![Perm::read(DomId::DOM0)],
            generation: 0,
        };
        Self {
            nodes: BTreeMap::from([("/".to_owned(), Rc::new(root))]),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(|node| &**node)
    }

    pub(crate) fn generation(&self, path: &str) -> Option<u64> {
        self.get(path).map(|node| node.generation)
    }

    pub(crate) fn children(&self, path: &str) -> Vec<&str> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        let below = self.nodes.range(prefix.clone()..).map(|(path, _)| path.as_str());
        below
            .take_while(|path| path.starts_with(&prefix))
            .map(|path| &path[prefix.len()..])
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .collect()
    }

    pub(crate) fn owned_by(&self, domain: DomId) -> usize {
        self.nodes
            .values()
            .filter(|node| node.perms.first().is_some_and(|owner| owner.domain == domain))
            .count()
    }

    fn nearest(&self, path: &str) -> (&str, &Node) {
        let mut path = path;
        loop {
            path = parent(path);
            if let Some((path, node)) = self.nodes.get_key_value(path) {
                return (path, node);
            }
        }
    }

    /// The node, if `who` may use it so. Whether it is missing is told only to those who may read above it.
    pub(crate) fn access(&self, path: &str, who: DomId, write: bool) -> Result<&Node, Errno> {
        let allowed = |perms: &[Perm]| {
            let (may_read, may_write) = rights(perms, who);
            if write { may_write } else { may_read }
        };
        match self.get(path) {
            Some(node) if allowed(&node.perms) => Ok(node),
            Some(_) => Err(Errno::EACCES),
            None if rights(&self.nearest(path).1.perms, who).0 => Err(Errno::ENOENT),
            None => Err(Errno::EACCES),
        }
    }

    fn touch(&mut self, path: &str, generation: u64) {
        if let Some(node) = self.nodes.get_mut(path) {
            Rc::make_mut(node).generation = generation;
        }
    }

    /// Makes a node and what is missing above it, or changes its value. `value` None: only make it.
    pub(crate) fn write(
        &mut self,
        path: &str,
        value: Option<&[u8]>,
        who: DomId,
        generation: u64,
    ) -> Result<Vec<String>, Errno> {
        if self.get(path).is_some() {
            self.access(path, who, true)?;
            if let (Some(value), Some(node)) = (value, self.nodes.get_mut(path)) {
                let node = Rc::make_mut(node);
                node.value = value.to_vec();
                node.generation = generation;
            }
            return Ok(vec![path.to_owned()]);
        }
        let (above, node) = self.nearest(path);
        if !rights(&node.perms, who).1 {
            return Err(Errno::EACCES);
        }
        let mut perms = node.perms.clone();
        if let Some(owner) = perms.first_mut()
            && who != DomId::DOM0
        {
            owner.domain = who;
        }
        let above = above.to_owned();
        let mut made = Vec::new();
        let mut missing = path;
        while missing != above {
            let node = Node {
                value: Vec::new(),
                perms: perms.clone(),
                generation,
            };
            self.nodes.insert(missing.to_owned(), Rc::new(node));
            made.push(missing.to_owned());
            missing = parent(missing);
        }
        self.touch(&above, generation);
        made.push(above);
        if let (Some(value), Some(node)) = (value, self.nodes.get_mut(path)) {
            Rc::make_mut(node).value = value.to_vec();
        }
        Ok(made)
    }

    /// Removes a node with all below it. Returns the paths that are gone, the topmost first.
    pub(crate) fn remove(&mut self, path: &str, generation: u64) -> Vec<(String, Rc<Node>)> {
        let gone: Vec<String> = self.nodes.keys().filter(|key| is_within(key, path)).cloned().collect();
        self.touch(parent(path), generation);
        gone.into_iter()
            .filter_map(|key| self.nodes.remove(&key).map(|node| (key, node)))
            .collect()
    }

    pub(crate) fn set_perms(&mut self, path: &str, perms: Vec<Perm>, generation: u64) {
        if let Some(node) = self.nodes.get_mut(path) {
            let node = Rc::make_mut(node);
            node.perms = perms;
            node.generation = generation;
        }
    }
}

/// A transaction: its own view of the tree, what it looked at, and what it changed.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) view: Tree,
    base: Tree,
    /// Paths whose state the transaction depends on or changed.
    touched: BTreeSet<String>,
    changed: BTreeSet<String>,
    pub(crate) changes: Vec<Change>,
}

impl Transaction {
    pub(crate) fn new(tree: &Tree) -> Self {
        Self {
            view: tree.clone(),
            base: tree.clone(),
            touched: BTreeSet::new(),
            changed: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// How many nodes it has looked at or changed.
    pub(crate) fn nodes(&self) -> usize {
        self.touched.len()
    }

    pub(crate) fn looked_at(&mut self, path: &str) {
        self.touched.insert(path.to_owned());
    }

    pub(crate) fn changed(&mut self, path: &str) {
        self.touched.insert(path.to_owned());
        self.changed.insert(path.to_owned());
    }

    /// Puts the changes into `tree`, unless anything the transaction saw has changed since it began.
    pub(crate) fn commit(self, tree: &mut Tree) -> Result<Vec<Change>, Errno> {
        if self
            .touched
            .iter()
            .any(|path| tree.generation(path) != self.base.generation(path))
        {
            return Err(Errno::EAGAIN);
        }
        for path in self.changed {
            match self.view.nodes.get(&path) {
                Some(node) => tree.nodes.insert(path, Rc::clone(node)),
                None => tree.nodes.remove(&path),
            };
        }
        Ok(self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_common_beginning_are_not_within() {
        assert!(is_within("/a/b", "/a"));
        assert!(is_within("/a", "/a"));
        assert!(is_within("/a", "/"));
        assert!(!is_within("/ab", "/a"));
        assert_eq!(parent("/a"), "/");
        assert_eq!(parent("/a/b"), "/a");
    }

    #[test]
    fn a_new_child_changes_its_parent() {
        let mut tree = Tree::new();
        tree.write("/a/b", Some(b"1"), DomId::DOM0, 1).unwrap();
        assert_eq!(tree.children("/"), ["a"]);
        assert_eq!(tree.children("/a"), ["b"]);
        tree.write("/a/c", None, DomId::DOM0, 2).unwrap();
        assert_eq!(tree.generation("/a"), Some(2));
        assert_eq!(tree.generation("/a/b"), Some(1));
        assert_eq!(tree.remove("/a", 3).len(), 3);
        assert_eq!(tree.generation("/"), Some(3));
    }
}
