//! Bytes as JSON carries them (RFC 4648, with padding).

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(data: &[u8]) -> String {
    let mut made = String::with_capacity((data.len() + 2) / 3 * 4);
    for part in data.chunks(3) {
        let bits =
            part.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            if place <= part.len() {
                made.push(char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
            } else {
                made.push('=');
            }
        }
    }
    made
}

/// None for anything that is not base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.len() % 4 != 0 {
        return None;
    }
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let letters = &bytes[..bytes.len() - padding];
    let mut made = Vec::with_capacity(bytes.len() / 4 * 3);
    for part in letters.chunks(4) {
        let mut bits = 0;
        for place in 0..4 {
            bits = bits << 6 | part.get(place).map_or(Some(0), |letter| worth(*letter))?;
        }
        made.extend_from_slice(&[(bits >> 16) as u8, (bits >> 8) as u8, bits as u8][..part.len() - 1]);
    }
    Some(made)
}

fn worth(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        for size in 0..300 {
            let data: Vec<u8> = (0..size).map(|at| (at * 7 % 256) as u8).collect();
            assert_eq!(decode(&encode(&data)), Some(data));
        }
    }

    #[test]
    fn known_texts() {
        assert_eq!(encode(b"f"), "Zg==");
        assert_eq!(encode(b"foobar"), "Zm9vYmFy");
        for bad in ["Z", "Zg=", "Z===", "Zg==Zg==", "Z g=", "====", "Zm9*"] {
            assert_eq!(decode(bad), None, "{}", bad);
        }
    }
}
