//! Paths within a share.

use alloc::vec::Vec;

use crate::Error;
use crate::wire::LONGEST_NAME;

/// The names in a path, checked. `.` and empty ones are left out, so that a path may begin or end with `/`.
///
/// `..` is refused, and not understood: at the server it would depend on links.
pub(crate) fn names(path: &str) -> Result<Vec<&str>, Error> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(Error::BadPath),
            name if name.len() > LONGEST_NAME || name.contains('\0') => return Err(Error::BadPath),
            name => names.push(name),
        }
    }
    Ok(names)
}

/// The names of the directory that a path leads to, and the name in it.
pub(crate) fn split(path: &str) -> Result<(Vec<&str>, &str), Error> {
    let mut names = names(path)?;
    let last = names.pop().ok_or(Error::BadPath)?;
    Ok((names, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_into_names() {
        assert_eq!(names("a/b/c"), Ok(["a", "b", "c"].to_vec()));
        assert_eq!(names("/a//./b/"), Ok(["a", "b"].to_vec()));
        assert_eq!(names(""), Ok(Vec::new()));
        assert_eq!(split("/a/b"), Ok((["a"].to_vec(), "b")));
    }

    #[test]
    fn what_leads_elsewhere_is_no_path() {
        for bad in ["..", "a/../b", "/..", "nul\0", "a/nul\0/b"] {
            assert_eq!(names(bad), Err(Error::BadPath), "{bad:?}");
        }
        assert!(names(&"x".repeat(LONGEST_NAME)).is_ok());
        assert_eq!(names(&"x".repeat(LONGEST_NAME + 1)), Err(Error::BadPath));
        assert_eq!(split("/"), Err(Error::BadPath));
        assert!(names("...").is_ok() && names("..a").is_ok());
    }
}
