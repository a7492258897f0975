use alloc::vec;

use super::*;
use crate::pair::SeedRng;

fn sockets() -> Sockets {
    Sockets::new(Names::new(&mut SeedRng::new(1)))
}

fn connection() -> tcp::Socket<'static> {
    tcp::Socket::new(tcp::SocketBuffer::new(vec![]), tcp::SocketBuffer::new(vec![]))
}

fn name(port: u16) -> Tuple {
    Tuple {
        local: ([10, 0, 0, 1], 80).into(),
        remote: ([10, 0, 0, 2], port).into(),
    }
}

#[test]
fn a_freed_connection_leaves_nothing_behind() {
    let mut sockets = sockets();
    for _ in 0..3 {
        let ids: Vec<Id> = (0..100)
            .map(|port| sockets.add_connection(connection(), name(port), Stage::Open).unwrap())
            .collect();
        for (port, id) in (0..100).zip(&ids) {
            assert_eq!(sockets.find(&name(port)), Some(*id));
            sockets.wait_for(*id, None);
        }
        assert_eq!((sockets.connections(), sockets.names.len()), (100, 100));
        for id in ids {
            sockets.remove(id);
        }
        assert_eq!((sockets.connections(), sockets.names.len()), (0, 0));
        assert!(!sockets.anybody_waits() && sockets.find(&name(7)).is_none());
        sockets.touch_all();
    }
    assert_eq!(sockets.places.len(), 100, "places are used again");
}

#[test]
fn a_name_belongs_to_the_last_who_got_it() {
    let mut sockets = sockets();
    let old = sockets.add_connection(connection(), name(1), Stage::Open).unwrap();
    let new = sockets.add_connection(connection(), name(1), Stage::Open).unwrap();
    assert_eq!(sockets.find(&name(1)), Some(new));
    sockets.remove(old);
    assert_eq!(sockets.find(&name(1)), Some(new));
    sockets.remove(new);
    assert_eq!((sockets.find(&name(1)), sockets.names.len()), (None, 0));
}
