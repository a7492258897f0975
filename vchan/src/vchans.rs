//! How the two ends find each other.

use alloc::rc::{Rc, Weak};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use fata_events::xen::Ports;
use fata_events::{JoinHandle, Signal};
use fata_grant::Table;
use fata_hypercall::sync::Ordering;
use fata_hypercall::{DomId, GrantRef, Hypervisor, Port};
use fata_xenstore::wire::{Access, Permission};
use fata_xenstore::{Client, decimal};

use crate::end::End;
use crate::layout::{Layout, ORDERS, Side, Sizes, WAITING, WRITTEN};
use crate::link::{Domain, Granted, Maker};
use crate::vchan::State;
use crate::{Error, Vchan};

/// What a domain makes vchans with. Clones are the same.
#[derive(Clone)]
pub struct Vchans {
    maker: Rc<dyn Maker>,
    store: Client,
    /// Those that were made, some of which are gone.
    made: Rc<RefCell<Vec<Weak<State>>>>,
}

impl Vchans {
    /// With the domain's grant table, event channels and store.
    #[must_use]
    pub fn new<H: Hypervisor>(table: &Table<H>, ports: &Ports<H>, store: &Client) -> Self {
        let (table, ports) = (table.clone(), ports.clone());
        Self {
            maker: Rc::new(Domain { table, ports }),
            store: store.clone(),
            made: Rc::default(),
        }
    }

    /// Makes the server's end of a vchan to the domain `client`, and says in the store where it is: in nodes below `path`,
    /// which only this one client may read. It can be used at once; see also [`Vchan::connected`].
    ///
    /// By custom the path is `data/vchan/NAME`; what begins without a slash is below `/local/domain/<us>`. It is there as
    /// long as the vchan is open. One client can come; for the next one listen again.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; when there is no memory, reference or port, or the client keeps more than 256 pages of vchans that are
    /// closed; what the store says.
    pub async fn listen(&self, client: DomId, path: &str, sizes: Sizes) -> Result<Vchan, Error> {
        let layout = Layout::with_room(sizes)?;
        let Granted { link, references, port } = self.maker.grant(client, 1 + layout.ring_pages())?;
        let page = link.first();
        for (offset, order) in ORDERS.into_iter().zip(layout.orders()) {
            page.store_u16(offset, order, Ordering::Relaxed);
        }
        for (offset, reference) in layout.grants().zip(references.iter().skip(1)) {
            page.store_u32(offset, reference.0, Ordering::Relaxed);
        }
        page.store_u8(Side::Server.peer_live(), WAITING, Ordering::Relaxed);
        let end = End::new(link, layout, Side::Server)?;
        end.ask(WRITTEN);
        end.set_open(true);

        let first = references.first().copied().unwrap_or(GrantRef(0));
        // From here on the nodes go when the vchan does.
        let nodes = Published {
            store: self.store.clone(),
            path: String::from(path),
        };
        let vchan = self.note(end, Kept::Nodes(nodes));
        self.publish(client, path, first, port).await?;
        Ok(vchan)
    }

    /// Closes all that were made. To be called before the domain is suspended: Xen saves no domain that has others' pages mapped.
    pub fn close_all(&self) {
        let made = self.made.take();
        made.iter()
            .filter_map(Weak::upgrade)
            .for_each(|state| state.end_with(Error::Closed));
    }

    fn note(&self, end: End, kept: Kept) -> Vchan {
        let vchan = Vchan::new(end, Some(kept), self.store.handle());
        let mut made = self.made.borrow_mut();
        made.retain(|state| state.strong_count() > 0);
        made.push(Rc::downgrade(&vchan.0));
        drop(made);
        vchan
    }

    async fn publish(&self, client: DomId, path: &str, first: GrantRef, port: Port) -> Result<(), Error> {
        let us: u16 = self.store.read_number("domid", 0..=DomId::FIRST_RESERVED.0 - 1).await?;
        let permissions =
            [(Access::None, DomId(us)), (Access::Read, client)].map(|(access, domain)| Permission { access, domain });
        let nodes = [("ring-ref", first.0), ("event-channel", port.0)];
        let nodes = nodes.map(|(key, number)| (node(path, key), decimal::string(number.into())));
        self.store
            .transaction(async |store| {
                for (node, number) in &nodes {
                    store.write(node, number).await?;
                    store.set_permissions(node, &permissions).await?;
                }
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Makes the client's end of the vchan for which the domain `server` listens at `path`, which is absolute
    /// (`/local/domain/<server>/data/...`) unless it is one of ours. Waits, without limit, until it does.
    ///
    /// # Errors
    /// When the pages or the port are not ours to have; [`Error::Map`] if those of other servers leave no room for
    /// them, too; [`Error::BadOrder`] and [`Error::BadIndex`] if they make no sense;
    /// [`Error::Closed`] if the server has closed its end already; what the store says.
    pub async fn connect(&self, server: DomId, path: &str) -> Result<Vchan, Error> {
        let first = GrantRef(
            self.store
                .wait_for(&node(path, "ring-ref"), |value| number(value?))
                .await?,
        );
        let port = Port(
            self.store
                .wait_for(&node(path, "event-channel"), |value| number(value?))
                .await?,
        );
        let (layout, link) = self.maker.map(server, first, port)?;
        let mut end = End::new(link, layout, Side::Client)?;
        if !end.is_open() {
            return Err(Error::Closed);
        }
        end.ask(WRITTEN);
        end.set_open(true);
        let watch = self.watch(node(path, "ring-ref"), first, end.lost.clone())?;
        Ok(self.note(end, Kept::Watch(watch)))
    }

    /// Raises `lost` when the server's node goes or changes: it goes with the server's domain, unlike the pages.
    fn watch(&self, node: String, first: GrantRef, lost: Signal) -> Result<JoinHandle<()>, Error> {
        let (store, mut watch) = (self.store.clone(), self.store.watch(&node)?);
        Ok(self.store.handle().spawn(async move {
            while watch.changed().await.is_ok() {
                match store.read(&node).await {
                    Ok(value) if number(&value) == Some(first.0) => {}
                    Ok(_) => return lost.raise(),
                    Err(error) if error.is_missing() || error.is_denied() => return lost.raise(),
                    // Without a store nothing is known.
                    Err(_) => {}
                }
            }
        }))
    }
}

impl fmt::Debug for Vchans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vchans").finish_non_exhaustive()
    }
}

fn number(text: &[u8]) -> Option<u32> {
    decimal::parse(text, 0..=u32::MAX.into()).map(|number| number as u32)
}

fn node(path: &str, key: &str) -> String {
    [path, "/", key].concat()
}

/// What an end has in the store as long as it is open.
pub(crate) enum Kept {
    /// A server's.
    Nodes(#[expect(dead_code, reason = "it is there to be dropped")] Published),
    /// A client's: the task that looks whether the server's nodes are still there.
    Watch(#[expect(dead_code, reason = "it is there to be dropped")] JoinHandle<()>),
}

/// A server's nodes. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct Published {
    store: Client,
    path: String,
}

impl Drop for Published {
    fn drop(&mut self) {
        let (store, path) = (self.store.clone(), core::mem::take(&mut self.path));
        let remove = async move {
            // If there is no store any more, there are no nodes either.
            let _ = store.remove(&path).await;
        };
        self.store.handle().spawn(remove).detach();
    }
}
