//! The body of a frame: a MessagePack map `type`, `payload`, optional `meta`, in this order.
//!
//! Knows: legal bodies, the typed keys of `meta`, types against schema ids. Does not know: what a payload
//! means, where a topic leads.

use crate::error::{Error, Named, Result};
use crate::frame::Frame;
use crate::registry::{id_of, type_of, FAMILIES, THIRD_PARTY};
use crate::value::{refusal, Map, Reader, Value, Writer};

/// Characters of a text in `meta`.
pub const MAX_META_TEXT: usize = 1024;

/// A decoded body. Unknown keys of `meta` are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// `family.kind.vN`
    pub type_name: String,
    /// Whatever the type means.
    pub payload: Value,
    /// Topic, reply address, and what else belongs to the letter and not to its content.
    pub meta: Map,
}

impl Envelope {
    /// Where the envelope is published to; None on traffic of the session itself.
    pub fn topic(&self) -> Option<&str> {
        self.meta.get("topic").and_then(Value::as_str)
    }

    /// The body's bytes; refuses what no reader would accept. An empty `meta` is left out.
    pub fn encode(&self) -> Result<Vec<u8>> {
        check_meta(&self.meta)?;
        let mut writer = Writer::default();
        writer.map_head(if self.meta.is_empty() { 2 } else { 3 })?;
        writer.text("type")?;
        writer.text(&self.type_name)?;
        writer.text("payload")?;
        writer.value(&self.payload, 1)?;
        if !self.meta.is_empty() {
            writer.text("meta")?;
            writer.map(&self.meta, 1)?;
        }
        writer.done()
    }

    /// Read a body; `BodyDecodeError` unless it is exactly what the protocol describes.
    pub fn decode(body: &[u8]) -> Result<Envelope> {
        let mut reader = Reader::new(body);
        let pairs = match reader.map_head()? {
            Some(pairs @ 2..=3) => pairs,
            _ => return Err(refusal("the body is not a map of type, payload and perhaps meta")),
        };
        expect(&mut reader, "type")?;
        let type_name = match reader.value(1)? {
            Value::Text(text) => text,
            _ => return Err(refusal("type is not a text")),
        };
        expect(&mut reader, "payload")?;
        let payload = reader.value(1)?;
        let mut meta = Map::new();
        if pairs == 3 {
            expect(&mut reader, "meta")?;
            meta = match reader.value(1)? {
                Value::Map(map) => map,
                _ => return Err(refusal("meta is not a map")),
            };
        }
        reader.end()?;
        check_meta(&meta)?;
        Ok(Envelope { type_name, payload, meta })
    }

    /// Decode a frame's body and hold its type against the header's schema id.
    pub fn open(frame: &Frame) -> Result<Envelope> {
        let envelope = Envelope::decode(&frame.body)?;
        envelope.check_type(frame.schema_id)?;
        Ok(envelope)
    }

    /// Fails unless the type is what the id stands for (`UnknownSchema`, `BodyTypeMismatch`).
    pub fn check_type(&self, schema_id: u16) -> Result<()> {
        match type_of(schema_id) {
            Some(expected) if expected == self.type_name => Ok(()),
            Some(expected) => {
                let said: String = self.type_name.chars().take(80).collect();
                let message = format!("schema {} is {}, the body says {:?}", schema_id, expected, said);
                Err(Error::refusal(Named::BodyTypeMismatch, message))
            }
            None if schema_id < THIRD_PARTY => {
                let message = format!("schema id {} is not in the registry", schema_id);
                Err(Error::refusal(Named::UnknownSchema, message).with_hint("upgrade the older side"))
            }
            None => self.check_third_party(schema_id),
        }
    }

    fn check_third_party(&self, schema_id: u16) -> Result<()> {
        if !is_type(&self.type_name) {
            let said: String = self.type_name.chars().take(80).collect();
            let message = format!("{:?} is not family.kind.vN", said);
            return Err(Error::refusal(Named::BodyTypeMismatch, message));
        }
        let vendor = matches!(self.payload.get("vendor"), Some(Value::Text(_)));
        let hash = matches!(self.payload.get("schema_hash"), Some(Value::Text(_) | Value::Bytes(_)));
        if id_of(&self.type_name).is_some() || !vendor || !hash {
            let message = format!("schema {} belongs to third parties", schema_id);
            let hint = "their payload carries vendor and schema_hash";
            return Err(Error::refusal(Named::BodyTypeMismatch, message).with_hint(hint));
        }
        Ok(())
    }
}

/// The registry's id of a type; fails as `UnknownSchema`.
pub fn schema_id(type_name: &str) -> Result<u16> {
    id_of(type_name).ok_or_else(|| {
        Error::refusal(Named::UnknownSchema, format!("{:?} is not in the registry", type_name))
            .with_hint("see docs/reference/registry.md")
    })
}

fn expect(reader: &mut Reader<'_>, key: &str) -> Result<()> {
    match reader.value(1)? {
        Value::Text(text) if text == key => Ok(()),
        _ => {
            Err(refusal("the keys of a body are type, payload and perhaps meta, once each and in this order"))
        }
    }
}

/// `family.kind.vN` of a known family, with any number of kinds.
fn is_type(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        [family, kinds @ .., version] if !kinds.is_empty() => {
            FAMILIES.contains(family) && kinds.iter().all(|kind| is_kind(kind)) && is_version(version)
        }
        _ => false,
    }
}

fn is_kind(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().next().map_or(false, |byte| byte.is_ascii_lowercase()) && text.bytes().all(rest)
}

fn is_version(text: &str) -> bool {
    match text.strip_prefix('v').map(str::as_bytes) {
        Some([b'1'..=b'9', rest @ ..]) => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Hold the keys we know against their types; whatever else is there is kept.
fn check_meta(meta: &Map) -> Result<()> {
    for (key, value) in meta.pairs() {
        if let Some(key) = key.as_str() {
            if !is_legal(key, value) {
                return Err(refusal(&format!("meta.{} has a wrong type or size", key)));
            }
        }
    }
    Ok(())
}

fn is_legal(key: &str, value: &Value) -> bool {
    match key {
        "topic" | "reply_to" | "conversation" | "correlation" | "performative" | "traceparent" => {
            // Code points: every language must count alike.
            value.as_str().map_or(false, |text| text.chars().count() <= MAX_META_TEXT)
        }
        "priority" => matches!(value, Value::Integer(0..=255)),
        "max_hops" => matches!(value, Value::Integer(0..=0xffff)),
        "tags" => value.as_array().map_or(false, |tags| tags.iter().all(|tag| tag.as_str().is_some())),
        "opening_id" => match value {
            Value::Bytes(bytes) => bytes.len() == 16,
            Value::Integer(number) => *number >= 0,
            _ => false,
        },
        "receipt" => value.as_bool().is_some(),
        _ => true,
    }
}
