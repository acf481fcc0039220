//! HTTP as both dialects need it. Knows limits, but neither a dialect nor a call.
//!
//! | module | holds |
//! | --- | --- |
//! | `body` | reads bodies within their limits, and discards the rest |
//! | `json` | reads JSON objects |
//! | `advice` | headers that say what to do about a refusal |
//! | `description` | what `/openapi.json` says of one call |

mod advice;
mod body;
mod description;
mod json;

pub(crate) use advice::advise;
pub(crate) use body::{Bodies, check_content_type, text};
pub(crate) use description::{Description, ROUTED};
pub(crate) use json::{object, present};
