//! Rings of requests and responses in one page (xen/include/public/io/ring.h).

use core::borrow::Borrow;
use core::fmt;
use core::marker::PhantomData;

use fata_hypercall::sync::{Ordering, fence};
use fata_hypercall::{PAGE_SIZE, SharedPage};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Full, RingError};

/// Where the slots begin (`sring` has four indices and padding).
const HEADER: usize = 64;

/// Where the indices of the two directions are: how far the producer is.
const REQUESTS: usize = 0;
const RESPONSES: usize = 8;

/// From there to the index at which the consumer wants to be notified.
const EVENT: usize = 4;

/// How many slots of `slot_size` bytes a ring of one page has: as many as fit, rounded down to a power of two.
///
/// ```
/// assert_eq!(fata_grant::slots_in_page(12), 256, "network, transmit");
/// assert_eq!(fata_grant::slots_in_page(8), 256, "network, receive");
/// assert_eq!(fata_grant::slots_in_page(112), 32, "block");
/// ```
#[must_use]
pub const fn slots_in_page(slot_size: usize) -> u32 {
    1 << ((PAGE_SIZE - HEADER) / slot_size).ilog2()
}

/// Bytes of a slot: those of the larger of the two.
const fn slot_size<Req, Rsp>() -> usize {
    if size_of::<Req>() > size_of::<Rsp>() {
        size_of::<Req>()
    } else {
        size_of::<Rsp>()
    }
}

/// The slot of an index.
const fn slot<Req, Rsp>(index: u32) -> usize {
    (index & (slots_in_page(slot_size::<Req, Rsp>()) - 1)) as usize
}

/// Where in the page that is.
const fn offset<Req, Rsp>(index: u32) -> usize {
    HEADER + slot::<Req, Rsp>(index) * slot_size::<Req, Rsp>()
}

/// What both ends have in common: it produces in one direction and consumes in the other. Own indices are here and never read
/// back from the page, which the peer can write.
#[derive(Debug)]
struct End<P, Req, Rsp, const OUTPUT: usize, const INPUT: usize> {
    page: P,
    /// Our producer, as far as we have filled slots.
    produced: u32,
    /// Our producer, as far as the peer knows.
    published: u32,
    /// Our consumer.
    consumed: u32,
    /// The peer's producer, as read and checked last.
    available: u32,
    broken: Option<RingError>,
    _slots: PhantomData<fn(Req) -> Rsp>,
}

impl<P: Borrow<SharedPage>, Req, Rsp, const OUTPUT: usize, const INPUT: usize> End<P, Req, Rsp, OUTPUT, INPUT> {
    fn new(page: P, start: u32) -> Self {
        Self {
            page,
            produced: start,
            published: start,
            consumed: start,
            available: start,
            broken: None,
            _slots: PhantomData,
        }
    }

    fn put<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.page.borrow().set(offset::<Req, Rsp>(self.produced), value);
        self.produced = self.produced.wrapping_add(1);
    }

    /// Takes the next slot; `limit` is how many more than `consumed` the peer can honestly have produced.
    fn take<T: FromBytes + IntoBytes>(&mut self, limit: u32) -> Result<Option<T>, RingError> {
        if self.available == self.consumed && self.refresh(limit)? == 0 {
            return Ok(None);
        }
        // Copied out once: the peer can change the slot, but not the copy.
        let value = self.page.borrow().get(offset::<Req, Rsp>(self.consumed));
        self.consumed = self.consumed.wrapping_add(1);
        Ok(value)
    }

    /// Reads the peer's producer, once, and checks it. Returns how many slots can be consumed.
    fn refresh(&mut self, limit: u32) -> Result<u32, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        // Acquire: the slots are read after the index that vouches for them.
        let claimed = self
            .page
            .borrow()
            .load_u32(INPUT, Ordering::Acquire)
            .unwrap_or(self.consumed);
        let ahead = claimed.wrapping_sub(self.consumed);
        // Neither more than there can be, nor less than there has been: a producer does not go back.
        if ahead > limit || ahead < self.available.wrapping_sub(self.consumed) {
            let error = RingError {
                claimed,
                own: self.consumed,
                limit,
            };
            self.broken = Some(error);
            // What was announced before is not taken any more either.
            self.available = self.consumed;
            return Err(error);
        }
        self.available = claimed;
        Ok(ahead)
    }

    fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.produced);
        if old == new || self.broken.is_some() {
            return false;
        }
        self.published = new;
        let page = self.page.borrow();
        // The slots before the index, and the index before the look at whether the peer sleeps: it sets its event,
        // then looks at the index, with the same fence in between, so one of the two sees the other.
        page.store_u32(OUTPUT, new, Ordering::Release);
        fence(Ordering::SeqCst);
        let event = page.load_u32(OUTPUT + EVENT, Ordering::Relaxed).unwrap_or(new);
        new.wrapping_sub(event) < new.wrapping_sub(old)
    }

    fn enable_events(&mut self, ahead: u32, limit: u32) -> Result<bool, RingError> {
        let ahead = ahead.max(1);
        self.page
            .borrow()
            .store_u32(INPUT + EVENT, self.consumed.wrapping_add(ahead), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Ok(self.refresh(limit)? >= ahead)
    }
}

/// The frontend's end of a ring: it sends requests and takes responses.
///
/// `P` is whatever holds the page: a [`Shared`](crate::Shared) one in a driver, `&SharedPage` in a test. `Req` and
/// `Rsp` are plain values; a slot has the size of the larger one. Where a protocol lays several things over a slot,
/// `Req` or `Rsp` is a type of the slot's size that can be turned into each.
///
/// Values are copied in and out once. The backend's producer is read once for each batch and must make sense;
/// otherwise the ring is broken for good and each later call says so.
///
/// ```
/// use fata_grant::{BackRing, FrontRing};
/// use fata_hypercall::SharedPage;
///
/// let page = SharedPage::new_zeroed();
/// let mut front = FrontRing::<_, u64, u32>::new(&page);
/// let mut back = BackRing::<_, u64, u32>::attach(&page)?;
///
/// front.push(&7)?;
/// assert!(front.publish(), "the backend wants to be notified");
/// assert_eq!(back.pop()?, Some(7));
/// back.push(&49)?;
/// assert!(back.publish());
/// assert_eq!(front.pop()?, Some(49));
/// assert!(!front.enable_events(1)?, "nothing more: sleep until notified");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct FrontRing<P, Req, Rsp>(End<P, Req, Rsp, REQUESTS, RESPONSES>);

impl<P: Borrow<SharedPage>, Req: IntoBytes + Immutable, Rsp: FromBytes + IntoBytes> FrontRing<P, Req, Rsp> {
    /// How many slots there are.
    pub const SLOTS: u32 = slots_in_page(slot_size::<Req, Rsp>());

    /// Makes the ring in `page`. Only the frontend does this: producers 0, events 1 (with events 0 the backend would
    /// never be told of the first request).
    pub fn new(page: P) -> Self {
        Self::starting_at(page, 0)
    }

    /// The same with indices that begin elsewhere: for tests of how they wrap.
    pub fn starting_at(page: P, index: u32) -> Self {
        for producer in [REQUESTS, RESPONSES] {
            page.borrow().store_u32(producer, index, Ordering::Relaxed);
            page.borrow()
                .store_u32(producer + EVENT, index.wrapping_add(1), Ordering::Relaxed);
        }
        fence(Ordering::Release);
        Self(End::new(page, index))
    }

    /// How many requests can be pushed before a response has to come.
    #[must_use]
    pub fn free(&self) -> u32 {
        Self::SLOTS - self.outstanding()
    }

    /// How many requests wait for their response, published or not.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.0.produced.wrapping_sub(self.0.consumed)
    }

    /// The slot (index modulo [`SLOTS`](Self::SLOTS)) that the next request goes to.
    #[must_use]
    pub fn request_slot(&self) -> usize {
        slot::<Req, Rsp>(self.0.produced)
    }

    /// The slot that the next response comes from.
    #[must_use]
    pub fn response_slot(&self) -> usize {
        slot::<Req, Rsp>(self.0.consumed)
    }

    /// How many responses have been popped, modulo 2^32.
    #[must_use]
    pub fn consumed(&self) -> u32 {
        self.0.consumed
    }

    /// Fills the next slot. The backend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] if every slot waits for a response.
    pub fn push(&mut self, request: &Req) -> Result<(), Full> {
        if self.free() == 0 {
            return Err(Full);
        }
        self.0.put(request);
        Ok(())
    }

    /// Shows all pushed requests to the backend at once. `true` if it asked to be notified of them.
    #[must_use = "the backend may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        self.0.publish()
    }

    /// Takes the next response, if there is one.
    ///
    /// # Errors
    /// [`RingError`] if the backend claims more responses than there are requests.
    pub fn pop(&mut self) -> Result<Option<Rsp>, RingError> {
        let limit = self.answerable();
        self.0.take(limit)
    }

    /// How many responses can be popped right now; reads the backend's producer anew.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn ready(&mut self) -> Result<u32, RingError> {
        let limit = self.answerable();
        self.0.refresh(limit)
    }

    /// Asks the backend for a notification at the `ahead`th response from here (1: at the next one), and looks once
    /// more. `true` if they are there already: then no notification will come for them, and they must be taken
    /// before going to sleep.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn enable_events(&mut self, ahead: u32) -> Result<bool, RingError> {
        let limit = self.answerable();
        self.0.enable_events(ahead, limit)
    }

    /// The ring's page.
    #[must_use]
    pub fn page(&self) -> &P {
        &self.0.page
    }

    /// Gives up the ring and returns its page.
    pub fn into_page(self) -> P {
        self.0.page
    }

    /// Published requests without a response.
    fn answerable(&self) -> u32 {
        self.0.published.wrapping_sub(self.0.consumed)
    }
}

impl<P, Req, Rsp> fmt::Debug for FrontRing<P, Req, Rsp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FrontRing(requests {}, responses {})",
            self.0.produced, self.0.consumed
        )
    }
}

/// The backend's end of a ring: it takes requests and sends responses. See [`FrontRing`].
pub struct BackRing<P, Req, Rsp>(End<P, Req, Rsp, RESPONSES, REQUESTS>);

impl<P: Borrow<SharedPage>, Req: FromBytes + IntoBytes, Rsp: IntoBytes + Immutable> BackRing<P, Req, Rsp> {
    /// How many slots there are.
    pub const SLOTS: u32 = slots_in_page(slot_size::<Req, Rsp>());

    /// Joins a ring that the frontend has made, and perhaps already used with another backend: goes on after the
    /// last response found in the page. The page is not written.
    ///
    /// # Errors
    /// [`RingError`] if the page holds more requests than slots.
    pub fn attach(page: P) -> Result<Self, RingError> {
        let start = page.borrow().load_u32(RESPONSES, Ordering::Acquire).unwrap_or(0);
        let mut ring = Self(End::new(page, start));
        ring.ready()?;
        Ok(ring)
    }

    /// How many requests have been taken and not been answered.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.0.consumed.wrapping_sub(self.0.produced)
    }

    /// The slot that the next request comes from.
    #[must_use]
    pub fn request_slot(&self) -> usize {
        slot::<Req, Rsp>(self.0.consumed)
    }

    /// The slot that the next response goes to.
    #[must_use]
    pub fn response_slot(&self) -> usize {
        slot::<Req, Rsp>(self.0.produced)
    }

    /// Takes the next request, if there is one.
    ///
    /// # Errors
    /// [`RingError`] if the frontend claims more requests than there are slots.
    pub fn pop(&mut self) -> Result<Option<Req>, RingError> {
        let limit = self.askable();
        self.0.take(limit)
    }

    /// How many requests can be popped right now; reads the frontend's producer anew.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn ready(&mut self) -> Result<u32, RingError> {
        let limit = self.askable();
        self.0.refresh(limit)
    }

    /// Fills the next slot. The frontend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] if every request taken has its response.
    pub fn push(&mut self, response: &Rsp) -> Result<(), Full> {
        if self.outstanding() == 0 {
            return Err(Full);
        }
        self.0.put(response);
        Ok(())
    }

    /// Shows all pushed responses to the frontend at once. `true` if it asked to be notified of them.
    #[must_use = "the frontend may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        self.0.publish()
    }

    /// Asks the frontend for a notification at the `ahead`th request from here, and looks once more; see
    /// [`FrontRing::enable_events`].
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn enable_events(&mut self, ahead: u32) -> Result<bool, RingError> {
        let limit = self.askable();
        self.0.enable_events(ahead, limit)
    }

    /// The ring's page.
    #[must_use]
    pub fn page(&self) -> &P {
        &self.0.page
    }

    /// Gives up the ring and returns its page.
    pub fn into_page(self) -> P {
        self.0.page
    }

    /// Slots that the frontend may have filled: those whose response it cannot still be waiting for.
    fn askable(&self) -> u32 {
        Self::SLOTS - self.0.consumed.wrapping_sub(self.0.published)
    }
}

impl<P, Req, Rsp> fmt::Debug for BackRing<P, Req, Rsp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BackRing(requests {}, responses {})",
            self.0.consumed, self.0.produced
        )
    }
}
