//! What every backend is: a service in dom0 that follows a frontend's state, and may hang, die, come back, move and be
//! taken away. What is a device's own is a [`Driver`].
//!
//! * `devices`: what libxl writes for a device, and how the device ends.
//! * [`Backend`]: how a test looks at one.
//! * [`End`]: a backend's place in the store and its state there.
//! * [`Line`]: its end of an event channel.
//! * [`Malice`]: how often it breaks the rules.

mod devices;
mod end;
mod handle;
mod life;
mod line;
mod malice;
mod state;

pub(crate) use devices::Nodes;
pub(crate) use end::End;
pub use handle::Backend;
pub(crate) use line::Line;
pub(crate) use malice::Malice;
pub use state::XenbusState;

use crate::sim::Next;

/// What one kind of backend does in its own way.
pub trait Driver: 'static {
    /// The device's type: it is at `device/<type>/<index>`.
    const KIND: &'static str;
    /// The backend's name, for messages.
    const NAME: &'static str;

    /// What libxl writes about the device, beside what it writes about all.
    fn nodes(&self, index: u32) -> Nodes;

    /// False: it never says a word, unless it is started anew.
    fn is_responsive(&self) -> bool {
        true
    }

    /// Writes what a frontend may want to know before it connects.
    fn offer(&mut self, end: &End);

    /// The frontend is in this state now, perhaps not for the first time.
    fn follow(&mut self, end: &mut End, frontend: XenbusState);

    /// One small piece of work, if it is connected.
    fn work(&mut self, end: &mut End) -> Next;

    /// What waits for somebody who sleeps, while all sleep and both ends are connected.
    fn due(&self) -> Option<&'static str>;

    /// The toolstack has asked the frontend to leave, and has not told us: nothing that it does is its fault.
    fn excuse(&mut self);

    /// Lets go of all that the guest has shared.
    fn disconnect(&mut self);

    /// The device was taken away: lets go of the rest, too.
    fn remove(&mut self) {}
}
