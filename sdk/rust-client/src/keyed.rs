//! Keyed BLAKE3 of at most one chunk: what the hello's proof needs, and no more.
//!
//! Knows: the compression function and the blocks of one chunk of 1024 bytes. Does not know: trees of chunks,
//! plain hashing, extendable output (the specification of BLAKE3, sections 2.1 to 2.4).

use crate::error::{Error, Family, Result};

/// Most bytes of input.
pub const MAX_INPUT: usize = 1024;

const BLOCK: usize = 64;
const IV: [u32; 4] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a];
const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;
const KEYED_HASH: u32 = 16;

/// The 32 bytes of keyed BLAKE3; refuses more than 1024 bytes of input.
pub fn keyed_hash(key: &[u8; 32], input: &[u8]) -> Result<[u8; 32]> {
    if input.len() > MAX_INPUT {
        let message = format!("an input of {} bytes, at most {} are hashed here", input.len(), MAX_INPUT);
        return Err(Error::new(Family::Usage, "hello.keyed", message));
    }
    let mut chaining: [u32; 8] = words(key);
    let blocks = ((input.len() + BLOCK - 1) / BLOCK).max(1);
    for block in 0..blocks {
        let bytes = &input[block * BLOCK..input.len().min((block + 1) * BLOCK)];
        let mut padded = [0; BLOCK];
        padded[..bytes.len()].copy_from_slice(bytes);
        let first = if block == 0 { CHUNK_START } else { 0 };
        let last = if block == blocks - 1 { CHUNK_END | ROOT } else { 0 };
        chaining = compress(chaining, words(&padded), bytes.len() as u32, KEYED_HASH | first | last);
    }
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(chaining) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Ok(digest)
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut made = [0; N];
    for (word, four) in made.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    }
    made
}

/// The first half of the compression function's output; the chunk counter is always 0 here.
fn compress(chaining: [u32; 8], block: [u32; 16], length: u32, flags: u32) -> [u32; 8] {
    let mut state = [0; 16];
    state[..8].copy_from_slice(&chaining);
    state[8..12].copy_from_slice(&IV);
    state[14] = length;
    state[15] = flags;
    let mut message = block;
    for _ in 0..7 {
        mix(&mut state, [0, 4, 8, 12], message[0], message[1]);
        mix(&mut state, [1, 5, 9, 13], message[2], message[3]);
        mix(&mut state, [2, 6, 10, 14], message[4], message[5]);
        mix(&mut state, [3, 7, 11, 15], message[6], message[7]);
        mix(&mut state, [0, 5, 10, 15], message[8], message[9]);
        mix(&mut state, [1, 6, 11, 12], message[10], message[11]);
        mix(&mut state, [2, 7, 8, 13], message[12], message[13]);
        mix(&mut state, [3, 4, 9, 14], message[14], message[15]);
        message = PERMUTATION.map(|from| message[from]);
    }
    let mut output = [0; 8];
    for (at, word) in output.iter_mut().enumerate() {
        *word = state[at] ^ state[at + 8];
    }
    output
}

fn mix(state: &mut [u32; 16], [a, b, c, d]: [usize; 4], first: u32, second: u32) {
    state[a] = state[a].wrapping_add(state[b]).wrapping_add(first);
    state[d] = (state[d] ^ state[a]).rotate_right(16);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_right(12);
    state[a] = state[a].wrapping_add(state[b]).wrapping_add(second);
    state[d] = (state[d] ^ state[a]).rotate_right(8);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_right(7);
}

#[cfg(test)]
mod tests {
    use super::keyed_hash;

    /// The first 32 bytes of `keyed_hash` in BLAKE3's own test_vectors.json.
    #[test]
    fn the_official_vectors_hold() {
        for (length, wanted) in [
            (0, "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"),
            (1, "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"),
            (1023, "c951ecdf03288d0fcc96ee3413563d8a6d3589547f2c2fb36d9786470f1b9d6e"),
            (1024, "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4"),
        ] {
            let input: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let digest = keyed_hash(b"whats the Elvish word for friend", &input).unwrap();
            let shown: String = digest.iter().map(|byte| format!("{:02x}", byte)).collect();
            assert_eq!(shown, wanted);
        }
        assert!(keyed_hash(&[0; 32], &[0; 1025]).is_err());
    }
}
