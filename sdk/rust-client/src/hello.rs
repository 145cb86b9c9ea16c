//! The hello: who speaks, which build, and the proof of the operator credential.
//!
//! The server speaks first (schema 101, with a fresh nonce), the client answers (schema 100), the server
//! closes with 2002 `{id: "hello"}`. The proof binds the credential to this very session; the credential
//! never travels.

use crate::error::{Error, Family, Result};
use crate::keyed::keyed_hash;

/// Version of the session protocol.
pub const PROTOCOL: u8 = 0;
/// The id of the answer to the hello.
pub const HELLO_ID: &str = "hello";

const CONTEXT: &[u8] = b"runloop operator hello v0";

/// Keyed BLAKE3 over the context and the server's nonce.
pub fn proof(credential: &[u8], nonce: &[u8]) -> Result<[u8; 32]> {
    match <&[u8; 32]>::try_from(credential) {
        Ok(key) => keyed_hash(key, &[CONTEXT, nonce].concat()),
        Err(_) => Err(Error::new(
            Family::Usage,
            "hello.credential",
            format!("the operator credential has {} bytes, not 32", credential.len()),
        )
        .with_hint("read them from keys/operator.key in Runloop's home")),
    }
}
