//! Runloop agents in Rust.
//!
//! ```
//! use runloop::{object, Failure, Host, Output, Task};
//!
//! fn handle(task: Task, _host: &Host) -> Result<Output, Failure> {
//!     let words = task.port_str("text")?.split_whitespace().count();
//!     Ok(Output::of("out", object! { "words": words }))
//! }
//!
//! runloop::agent!(handle);
//! ```
//!
//! Knows: the agent ABI (`handle`, `describe`, `tool`), JSON, and one method for every host call. Does not know:
//! who may call what; the gate decides, and a [`Refusal`] is a value that an agent may survive.
//!
//! An agent has no clock, no randomness, no files and no sockets of its own: on this target `std::time` panics and
//! `std::fs` and `std::net` answer "unsupported". Use [`Host::now_ms`] and [`Host::random_bytes`]: what they
//! answer is on record, so a replay sees the same. `HashMap` starts from a fixed seed there, so its order does not
//! differ between runs, but `BTreeMap` says so in its type.

#![forbid(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

#[doc(hidden)]
pub mod abi;
mod agent;
mod base64;
mod host;
pub mod json;
mod task;
pub mod testing;

pub use agent::Agent;
pub use host::{Completion, Host, Level, Mail, Prompt, Refusal, Request, Response, Transport};
pub use json::{Number, Object, Value};
pub use task::{Args, Failure, Output, Task, Tool};

/// Makes the exports of an agent: `agent!(handle)` or `agent!(handle, tools = [ADD, FAIL])`.
///
/// `handle` is `fn(Task, &Host) -> Result<Output, Failure>`; tools are constants of type [`Tool`]. Use it once, at
/// the top level of the crate. It also defines `runloop_agent()`, which tests use.
#[macro_export]
macro_rules! agent {
    ($handle:path) => {
        $crate::agent!($handle, tools = []);
    };
    ($handle:path, tools = [$($tool:expr),* $(,)?]) => {
        /// This crate's agent, for tests and for the exports.
        pub fn runloop_agent() -> $crate::Agent {
            $crate::Agent { handle: $handle, tools: vec![$($tool),*] }
        }

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[export_name = "cabi_realloc"]
            unsafe extern "C" fn realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
                unsafe { $crate::abi::realloc(old, old_size, align, size) }
            }

            #[export_name = "handle"]
            unsafe extern "C" fn handle(data: *mut u8, size: usize) -> *const $crate::abi::Returned {
                unsafe { $crate::abi::handle(data, size, runloop_agent()) }
            }

            #[export_name = "cabi_post_handle"]
            unsafe extern "C" fn post_handle(_returned: *const $crate::abi::Returned) {
                unsafe { $crate::abi::post_handle() }
            }
        };
    };
}
