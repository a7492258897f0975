//! What libxl does about devices: it makes the nodes of both ends, and takes them away.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fata_hypercall::DomId;

use super::life::Life;
use super::{Backend, Driver, End};
use crate::domain::Domain;
use crate::sim::{Sim, Waker};
use crate::store::{Perm, domain_path};

/// A key and its value.
type Node = (&'static str, String);

/// What is written about a device of one kind.
pub struct Nodes {
    /// In the frontend's directory.
    pub(crate) front: Vec<Node>,
    /// In the backend's.
    pub(crate) back: Vec<Node>,
}

impl Sim {
    /// Adds a device to a domain, with the nodes that libxl writes, and starts its backend. `make` gets the device's index
    /// and the service's waker.
    pub(crate) fn add_device<D: Driver>(&self, domain: &Domain, make: impl FnOnce(u32, &Waker) -> D) -> Backend<D> {
        let directory = format!("{}/device/{}", domain_path(domain.id()), D::KIND);
        let index = self.free_index(&directory);
        let mut made = None;
        let waker = self.add_service(&format!("{} for {}", D::NAME, domain.id()), |waker| {
            let driver = make(index, &waker);
            let at = self.write_nodes(domain.id(), index, &driver);
            let end = End::new(self, D::NAME, at, driver.is_responsive(), waker);
            let life = Rc::new(RefCell::new(Life { end, driver, index }));
            made = Some(Rc::clone(&life));
            move || life.borrow_mut().step()
        });
        let life = made.expect("made above");
        self.stalls.watch({
            let life = Rc::clone(&life);
            move || life.borrow().due()
        });
        self.when_restored(domain, {
            let (life, waker, domain) = (Rc::clone(&life), waker.clone(), domain.clone());
            move |sim: &Self| {
                let mut life = life.borrow_mut();
                if !life.end.is_removed() {
                    let (guest, front, back) = sim.write_nodes(domain.id(), life.index, &life.driver);
                    life.move_to(guest, front, back);
                    waker.wake();
                }
            }
        });
        Backend { life, waker }
    }

    fn free_index(&self, directory: &str) -> u32 {
        let is_free = |index: &u32| self.store.read(&format!("{directory}/{index}")).is_none();
        (0..).find(is_free).unwrap_or(0)
    }

    /// The nodes of a device's two ends: whose it is, and where they are.
    fn write_nodes<D: Driver>(&self, id: DomId, index: u32, driver: &D) -> (DomId, String, String) {
        let front = format!("{}/device/{}/{index}", domain_path(id), D::KIND);
        let back = format!("{}/backend/{}/{}/{index}", domain_path(DomId::DOM0), D::KIND, id.0);
        let own = driver.nodes(index);
        self.write_backend(&back, id, &front, own.back);
        let in_front = [("backend", back.clone()), ("backend-id", DomId::DOM0.0.to_string())];
        self.write_end(&front, [Perm::none(id), Perm::read(DomId::DOM0)], in_front, own.front);
        (id, front, back)
    }

    fn write_backend(&self, path: &str, id: DomId, front: &str, own: Vec<Node>) {
        let first = [
            ("frontend", front.to_owned()),
            ("frontend-id", id.0.to_string()),
            ("online", "1".to_owned()),
        ];
        self.write_end(path, [Perm::none(DomId::DOM0), Perm::read(id)], first, own);
    }

    fn write_end(&self, path: &str, perms: [Perm; 2], first: impl IntoIterator<Item = Node>, then: Vec<Node>) {
        self.node(path, "", &perms);
        for (key, value) in first.into_iter().chain(then).chain([("state", "1".to_owned())]) {
            self.node(&format!("{path}/{key}"), &value, &perms);
        }
    }

    /// Gives a device another backend, in another directory; the one before is gone without a word. What the frontend has
    /// written stays as it is.
    pub fn move_device<D: Driver>(&self, device: &Backend<D>) {
        let mut life = device.life.borrow_mut();
        let (guest, front, old) = (life.end.guest, life.end.front().to_owned(), life.end.back().to_owned());
        let directory = format!("{}/backend/{}/{}", domain_path(DomId::DOM0), D::KIND, guest.0);
        let back = format!("{directory}/{}", self.free_index(&directory));
        self.write_backend(&back, guest, &front, life.driver.nodes(life.index).back);
        let _ = self.store.write(&format!("{front}/backend"), &back);
        let _ = self.store.remove(&old);
        life.move_to(guest, front, back);
        device.waker.wake();
    }

    /// `xl network-detach` and its relatives: asks the frontend to close and takes the device away when it has, or after
    /// `limit`. Says whether it has.
    pub fn remove_device<D: Driver>(&self, device: &Backend<D>, limit: Duration) -> bool {
        device.driver_mut().excuse();
        let back = device.backend_path();
        let _ = self.store.write(&format!("{back}/online"), "0");
        let _ = self.store.write(&format!("{back}/state"), "5");
        let closed = self.try_run_until(|| device.is_closed(), limit);
        self.forget_device(device);
        closed
    }

    /// Removes a device's nodes at once, as a toolstack in a hurry does.
    pub fn forget_device<D: Driver>(&self, device: &Backend<D>) {
        device.stop();
        let _ = self.store.remove(&device.frontend_path());
        let _ = self.store.remove(&device.backend_path());
    }
}
