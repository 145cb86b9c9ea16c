//! The canonical ABI of the agent world, by hand: strings in, strings out, over the guest's own allocator.
//!
//! Used by the code that [`agent!`](crate::agent) writes; authors never need it. Knows nothing of JSON.

#![allow(missing_docs)]

use std::alloc::{alloc, handle_alloc_error, realloc as grow, Layout};

use crate::agent::Agent;
use crate::host::Transport;

/// `result<string, string>` as it lies in memory.
#[repr(C)]
pub struct Returned {
    failed: u8,
    data: *mut u8,
    size: usize,
}

static mut RETURNED: Returned = Returned { failed: 0, data: std::ptr::null_mut(), size: 0 };

/// # Safety
/// For the host: `old` came from here, with `old_size` and `align`.
pub unsafe fn realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return align as *mut u8;
    }
    let (made, layout) = unsafe {
        if old_size == 0 {
            let layout = Layout::from_size_align_unchecked(size, align);
            (alloc(layout), layout)
        } else {
            let layout = Layout::from_size_align_unchecked(old_size, align);
            (grow(old, layout, size), layout)
        }
    };
    if made.is_null() {
        handle_alloc_error(layout);
    }
    made
}

/// Takes over a string that the host put into memory with [`realloc`].
unsafe fn owned(data: *mut u8, size: usize) -> String {
    if size == 0 {
        return String::new();
    }
    // The engine has checked that it is UTF-8.
    unsafe { String::from_utf8_unchecked(Vec::from_raw_parts(data, size, size)) }
}

/// # Safety
/// For the host: `data` and `size` are a string made with [`realloc`].
pub unsafe fn handle(data: *mut u8, size: usize, agent: Agent) -> *const Returned {
    std::panic::set_hook(Box::new(|panic| report(&panic.to_string())));
    let input = unsafe { owned(data, size) };
    let answer = agent.answer(&input, &crate::Host::new(Gate));
    let failed = u8::from(answer.is_err());
    let text = answer.unwrap_or_else(|text| text).into_bytes().into_boxed_slice();
    let size = text.len();
    let data = Box::into_raw(text) as *mut u8;
    unsafe {
        RETURNED = Returned { failed, data, size };
        std::ptr::addr_of!(RETURNED)
    }
}

/// # Safety
/// For the host: once after each [`handle`], when it has read the answer.
pub unsafe fn post_handle() {
    unsafe {
        let text = std::ptr::slice_from_raw_parts_mut(RETURNED.data, RETURNED.size);
        RETURNED = Returned { failed: 0, data: std::ptr::null_mut(), size: 0 };
        drop(Box::from_raw(text));
    }
}

/// A panic ends the instance; its words go to the log of the run first.
fn report(words: &str) {
    let message: String = words.chars().take(2_000).collect();
    let args = crate::object! { "message": message, "level": "error" };
    let _ = Gate.call("log.write", &args.to_string());
}

/// The import.
struct Gate;

#[cfg(target_arch = "wasm32")]
impl Transport for Gate {
    fn call(&self, op: &str, payload: &str) -> Result<String, String> {
        #[link(wasm_import_module = "runloop:agent/host@0.1.0")]
        extern "C" {
            #[link_name = "call"]
            fn host_call(
                op: *const u8,
                op_size: usize,
                args: *const u8,
                args_size: usize,
                answer: *mut Returned,
            );
        }
        let mut answer = Returned { failed: 0, data: std::ptr::null_mut(), size: 0 };
        let text = unsafe {
            host_call(op.as_ptr(), op.len(), payload.as_ptr(), payload.len(), &mut answer);
            owned(answer.data, answer.size)
        };
        if answer.failed == 0 {
            Ok(text)
        } else {
            Err(text)
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Transport for Gate {
    fn call(&self, _op: &str, _payload: &str) -> Result<String, String> {
        Err(r#"{"code":"host.none","message":"there is no host outside the sandbox"}"#.to_owned())
    }
}
