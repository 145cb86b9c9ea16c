//! RMP v0, Runloop's wire, for programs in Rust. Standard library only, rustc 1.63 or later, no unsafe code.
//!
//! [`Client`] is what most programs need; the rest is the codec it stands on, without I/O.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod envelope;
pub mod frame;
pub mod hello;
pub mod keyed;
pub mod registry;
pub mod seen;
pub mod topics;

mod client;
mod error;
mod session;
mod value;

pub use client::{Client, Options};
pub use envelope::Envelope;
pub use error::{Error, Family, Named, Result};
pub use frame::{Frame, FrameReader};
pub use session::{Delivery, Introduction, Publish, Receipt, Session};
pub use value::{decode_value, encode_value, Map, Value, MAX_DEPTH, MAX_VALUES};
