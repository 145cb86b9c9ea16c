//! The frame on the byte stream: `u32 length · 64-byte header · body`, big-endian.
//!
//! Knows: where a frame starts and ends, which header is legal, how each refusal is called. Does not know:
//! what is in the body ([`crate::envelope`]), what time it is, sockets.
//!
//! Checks happen as early as their bytes are there, in this order, as in every implementation: length prefix
//! below 64 (TruncatedHeader) or above the cap (BodyTooLarge), magic, version, header length, flags and
//! reserved fields, body length, schema 0, ttl 0, expiry beyond u64.

use crate::error::{Error, Named, Result};

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Largest body by default, in bytes.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// Time to live by default, in milliseconds.
pub const DEFAULT_TTL_MS: u64 = 30_000;

const PREFIX_LEN: usize = 4;
const WHOLE: usize = PREFIX_LEN + HEADER_LEN;
const MAGIC: u32 = 0x524d_5030;

/// One frame, header checked, body not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Id in the registry.
    pub schema_id: u16,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Milliseconds.
    pub ttl_ms: u64,
    /// 0 for traffic that belongs to no run.
    pub trace_id: u128,
    /// Strictly increasing per publisher.
    pub msg_id: u64,
    /// MessagePack.
    pub body: Vec<u8>,
}

impl Frame {
    /// The frame is dead when `now >= expires_at_ms`.
    pub fn expires_at_ms(&self) -> u128 {
        u128::from(self.created_at_ms) + u128::from(self.ttl_ms)
    }

    /// Fails as `Expired` when the time to live is over.
    pub fn check_expiry(&self, now_ms: u64) -> Result<()> {
        if u128::from(now_ms) < self.expires_at_ms() {
            return Ok(());
        }
        let message = format!("the frame expired at {}, it is {}", self.expires_at_ms(), now_ms);
        Err(Error::refusal(Named::Expired, message).with_hint("send it again, as a new frame"))
    }

    /// The bytes on the wire, length prefix included; refuses what a reader would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.encode_within(MAX_BODY)
    }

    /// As [`Frame::encode`], under another cap.
    pub fn encode_within(&self, max_body: usize) -> Result<Vec<u8>> {
        let body_len = match u32::try_from(self.body.len()) {
            Ok(len) if self.body.len() <= max_body && len <= u32::MAX - HEADER_LEN as u32 => len,
            _ => return Err(too_large(self.body.len(), max_body)),
        };
        if self.schema_id == 0 {
            return Err(Error::refusal(Named::UnknownSchema, "schema id 0 is not in 1..65535"));
        }
        check_times(self.created_at_ms, self.ttl_ms)?;
        let mut bytes = Vec::with_capacity(WHOLE + self.body.len());
        bytes.extend_from_slice(&(HEADER_LEN as u32 + body_len).to_be_bytes());
        bytes.extend_from_slice(&MAGIC.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, HEADER_LEN as u8, 0, 0, 0, 0]);
        bytes.extend_from_slice(&self.schema_id.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&body_len.to_be_bytes());
        bytes.extend_from_slice(&self.created_at_ms.to_be_bytes());
        bytes.extend_from_slice(&self.ttl_ms.to_be_bytes());
        bytes.extend_from_slice(&self.trace_id.to_be_bytes());
        bytes.extend_from_slice(&self.msg_id.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    /// Read exactly one frame; the named error, `Incomplete` when bytes are missing.
    pub fn decode(data: &[u8], max_body: usize) -> Result<Frame> {
        let mut reader = FrameReader::new(max_body);
        let mut frames = reader.feed(data)?;
        if let Some(error) = reader.error {
            return Err(error);
        }
        match frames.pop() {
            None => Err(Error::refusal(
                Named::Incomplete,
                format!("{} bytes, at least {} more needed", data.len(), reader.missing()),
            )),
            Some(frame) if frames.is_empty() && reader.pending() == 0 => Ok(frame),
            Some(_) => Err(Error::refusal(
                Named::LengthMismatch,
                format!("{} bytes hold more than one frame", data.len()),
            )),
        }
    }
}

/// Cuts a byte stream into frames. No I/O, no clock; one per connection and direction.
///
/// When legal frames precede a broken one in the same bytes, they are returned and the refusal waits in
/// [`FrameReader::error`]; the next [`FrameReader::feed`] answers it. What a peer sends is judged alike
/// however the stream happens to be cut.
#[derive(Debug)]
pub struct FrameReader {
    max_frame: usize,
    held: Vec<u8>,
    need: usize,
    error: Option<Error>,
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader::new(MAX_BODY)
    }
}

impl FrameReader {
    /// A reader that takes bodies of at most `max_body` bytes.
    pub fn new(max_body: usize) -> FrameReader {
        FrameReader { max_frame: HEADER_LEN + max_body, held: Vec::new(), need: PREFIX_LEN, error: None }
    }

    /// The refusal that ended this stream, if any.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Bytes held of a frame that is not complete.
    pub fn pending(&self) -> usize {
        self.held.len()
    }

    /// How many more bytes are known to be needed before anything can be returned.
    pub fn missing(&self) -> usize {
        self.need - self.held.len()
    }

    /// The frames that `data` completes, oldest first; the named error of a broken one.
    pub fn feed(&mut self, data: &[u8]) -> Result<Vec<Frame>> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut frames = Vec::new();
        if self.held.is_empty() {
            let done = self.cut(data, &mut frames)?;
            self.held.extend_from_slice(&data[done..]);
            return Ok(frames);
        }
        self.held.extend_from_slice(data);
        if self.held.len() < self.need {
            return Ok(frames);
        }
        let held = std::mem::take(&mut self.held);
        let done = self.cut(&held, &mut frames)?;
        self.held = held[done..].to_vec(); // a copy: the room of a large frame is given back
        Ok(frames)
    }

    /// Tell that the stream ended; `TruncatedHeader` or `Incomplete` inside a frame.
    pub fn close(&self) -> Result<()> {
        if self.error.is_some() || self.held.is_empty() {
            Ok(())
        } else if self.held.len() < WHOLE {
            let message = format!("the stream ended {} bytes into a frame's header", self.held.len());
            Err(Error::refusal(Named::TruncatedHeader, message))
        } else {
            let message = format!("the stream ended {} bytes before its last frame", self.missing());
            Err(Error::refusal(Named::Incomplete, message))
        }
    }

    /// Append complete frames; answers how many bytes they took. A refusal behind some of them waits.
    fn cut(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<usize> {
        let mut at = 0;
        loop {
            match self.next(&bytes[at..]) {
                Ok(Some(frame)) => {
                    at += WHOLE + frame.body.len();
                    frames.push(frame);
                }
                Ok(None) => return Ok(at),
                Err(error) => {
                    self.error = Some(error.clone());
                    return if frames.is_empty() { Err(error) } else { Ok(bytes.len()) };
                }
            }
        }
    }

    /// The frame that begins here; None, with what it needs noted, while it is incomplete.
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Frame>> {
        if bytes.len() < PREFIX_LEN {
            self.need = PREFIX_LEN;
            return Ok(None);
        }
        let frame_len = u32_at(bytes, 0) as usize;
        if frame_len < HEADER_LEN {
            let message =
                format!("the length prefix says {}, a header alone has {} bytes", frame_len, HEADER_LEN);
            return Err(Error::refusal(Named::TruncatedHeader, message));
        }
        if frame_len > self.max_frame {
            return Err(too_large(frame_len - HEADER_LEN, self.max_frame - HEADER_LEN));
        }
        if bytes.len() < WHOLE {
            self.need = WHOLE; // the header is judged before its body is waited for
            return Ok(None);
        }
        let mut frame = header(bytes, frame_len)?;
        let end = PREFIX_LEN + frame_len;
        match bytes.get(WHOLE..end) {
            None => {
                self.need = end;
                Ok(None)
            }
            Some(body) => {
                frame.body = body.to_vec();
                Ok(Some(frame))
            }
        }
    }
}

/// The frame without its body; the first thing wrong with the header.
fn header(bytes: &[u8], frame_len: usize) -> Result<Frame> {
    if u32_at(bytes, 4) != MAGIC {
        let message = format!("the header begins with {:08x}, not with 'RMP0'", u32_at(bytes, 4));
        return Err(Error::refusal(Named::InvalidMagic, message).with_hint("is this Runloop's socket?"));
    }
    if u16_at(bytes, 8) != 0 {
        let message = format!("header version {}, this build knows 0", u16_at(bytes, 8));
        return Err(Error::refusal(Named::UnsupportedVersion, message).with_hint("upgrade the older side"));
    }
    if usize::from(u16_at(bytes, 10)) != HEADER_LEN {
        let message =
            format!("the header says it has {} bytes, version 0 has {}", u16_at(bytes, 10), HEADER_LEN);
        return Err(Error::refusal(Named::LengthMismatch, message));
    }
    if u32_at(bytes, 12) != 0 || u16_at(bytes, 18) != 0 || u32_at(bytes, 64) != 0 {
        return Err(Error::refusal(Named::InvalidHeaderFlags, "flags and reserved fields must be 0"));
    }
    if u32_at(bytes, 20) as usize != frame_len - HEADER_LEN {
        let message =
            format!("body_len says {}, the length prefix {}", u32_at(bytes, 20), frame_len - HEADER_LEN);
        return Err(Error::refusal(Named::LengthMismatch, message));
    }
    let frame = Frame {
        schema_id: u16_at(bytes, 16),
        created_at_ms: u64_at(bytes, 24),
        ttl_ms: u64_at(bytes, 32),
        trace_id: u128::from(u64_at(bytes, 40)) << 64 | u128::from(u64_at(bytes, 48)),
        msg_id: u64_at(bytes, 56),
        body: Vec::new(),
    };
    if frame.schema_id == 0 {
        return Err(Error::refusal(Named::UnknownSchema, "schema id 0 is never valid"));
    }
    check_times(frame.created_at_ms, frame.ttl_ms)?;
    Ok(frame)
}

fn check_times(created: u64, ttl: u64) -> Result<()> {
    if ttl == 0 {
        let hint = format!("the default is {} ms", DEFAULT_TTL_MS);
        return Err(Error::refusal(Named::InvalidTtl, "a time to live of 0").with_hint(hint));
    }
    if created.checked_add(ttl).is_none() {
        let message = format!("created_at_ms {} + ttl_ms {} does not fit in 64 bits", created, ttl);
        return Err(Error::refusal(Named::InvalidExpiry, message));
    }
    Ok(())
}

fn too_large(body_len: usize, max_body: usize) -> Error {
    Error::refusal(
        Named::BodyTooLarge,
        format!("a body of {} bytes, at most {} are allowed", body_len, max_body),
    )
    .with_hint("put large content into an artifact and send its digest")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}
