//! The dialect of connmix: requests, and the shape of their answers. The same for HTTP and WebSocket.
//!
//! | module | holds |
//! | --- | --- |
//! | `call` | requests (pure) |
//! | `answer` | answers (pure) |
//! | `field` | a field of a request, read without trusting it |
//! | `http`, `ws` | the calls over HTTP and over WebSocket |
//! | `description` | what `/openapi.json` says of these calls |

mod answer;
mod call;
mod description;
mod field;
pub(crate) mod http;
pub(crate) mod ws;

pub(crate) use answer::{http_answer, ws_answer};
pub(crate) use call::{Call, read_message, unknown_path};
pub(crate) use description::describe;

#[cfg(test)]
mod tests;
