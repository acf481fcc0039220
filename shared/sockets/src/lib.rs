//! Parts of every listening port of message center, whatever protocol it speaks.
//!
//! | module | holds |
//! | --- | --- |
//! | [`source`] | the customer behind an address |
//! | [`slots`] | bounds of simultaneous connections, in all and per source |
//! | [`progress`] | whether the other end of a socket takes data |
//! | [`buffers`] | the bound of written data that the system holds |
//! | [`frames`] | the end of a WebSocket client's close frame, and the number of frames of its messages |
//! | [`patient`] | a stream that fails once its other end takes no data for too long |

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
