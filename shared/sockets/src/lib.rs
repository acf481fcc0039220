//! What every listening port of message center needs, whatever it speaks.
//!
//! | module | holds |
//! | --- | --- |
//! | [`source`] | whom an address stands for |
//! | [`slots`] | connections at a time, in all and from each source |
//! | [`progress`] | whether the other end of a socket takes anything |
//! | [`buffers`] | what the system holds of what was written |
//! | [`frames`] | where the close frame of a WebSocket's client ends, and how many frames its messages have |
//! | [`patient`] | a stream that fails once its other end takes nothing for too long |

pub mod buffers;
pub mod frames;
pub mod patient;
pub mod progress;
pub mod slots;
pub mod source;

pub use buffers::bound_send_buffers;
pub use frames::Frames;
pub use patient::Patient;
pub use progress::{Acknowledged, Progress, reset_on_close};
pub use slots::{Claim, NoSlot, Slot, Slots};
pub use source::Source;
