//! Who may do what to a node (xen/docs/misc/xenstore.txt, "Permissions").

use fata_hypercall::DomId;

/// One entry of a node's list. The first names the owner and what everybody else may; the others make exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// May read (`r`, `b`).
    pub read: bool,
    /// May write (`w`, `b`).
    pub write: bool,
    /// Who.
    pub domain: DomId,
}

impl Perm {
    /// Nothing for others (`n`).
    #[must_use]
    pub const fn none(domain: DomId) -> Self {
        Self {
            read: false,
            write: false,
            domain,
        }
    }

    /// Reading (`r`).
    #[must_use]
    pub const fn read(domain: DomId) -> Self {
        Self {
            read: true,
            write: false,
            domain,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (letter, number) = text.split_at_checked(1)?;
        let (read, write) = match letter {
            "r" => (true, false),
            "w" => (false, true),
            "b" => (true, true),
            "n" => (false, false),
            _ => return None,
        };
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let domain = DomId(number.parse().ok().filter(|_| digits)?);
        Some(Self { read, write, domain })
    }

    pub(crate) fn text(self) -> String {
        let letter = match (self.read, self.write) {
            (true, true) => 'b',
            (true, false) => 'r',
            (false, true) => 'w',
            (false, false) => 'n',
        };
        format!("{letter}{}", self.domain.0)
    }
}

/// What `who` may do to a node with this list: (read, write). Dom0 and the owner may do everything.
pub(crate) fn rights(perms: &[Perm], who: DomId) -> (bool, bool) {
    let Some((owner, exceptions)) = perms.split_first() else {
        return (false, false);
    };
    if who == DomId::DOM0 || owner.domain == who {
        return (true, true);
    }
    let entry = exceptions.iter().find(|entry| entry.domain == who).unwrap_or(owner);
    (entry.read, entry.write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_is_owner_and_default() {
        let list = [
            Perm::read(DomId(3)),
            Perm::parse("b5").unwrap(),
            Perm::parse("n6").unwrap(),
        ];
        assert_eq!(rights(&list, DomId(0)), (true, true));
        assert_eq!(rights(&list, DomId(3)), (true, true));
        assert_eq!(rights(&list, DomId(4)), (true, false));
        assert_eq!(rights(&list, DomId(5)), (true, true));
        assert_eq!(rights(&list, DomId(6)), (false, false));
        assert_eq!(list[1].text(), "b5");
        for bad in ["", "r", "x3", "r-1", "r+1", "r70000", "é"] {
            assert_eq!(Perm::parse(bad), None, "{bad:?}");
        }
    }
}
