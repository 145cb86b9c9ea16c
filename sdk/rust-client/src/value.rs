//! Bounded MessagePack: one value in, one value out, every doubt a `BodyDecodeError`.
//!
//! Knows: the shortest encoding of every value, nesting of at most 64, no extension types, strict UTF-8, and
//! how equal keys of a map are told. Does not know: what a body of a frame must hold ([`crate::envelope`]).

use std::collections::HashMap;
use std::convert::TryFrom;

use crate::error::{Error, Named, Result};

/// Maps and arrays inside one another, the outermost included.
pub const MAX_DEPTH: usize = 64;
/// Values in one body before it is refused as abusive; counted only where containers abound.
pub const MAX_VALUES: usize = 262_144;

/// A value of MessagePack.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A truth.
    Bool(bool),
    /// From -2^63 to 2^64-1; beyond that it cannot be written.
    Integer(i128),
    /// A double.
    Float(f64),
    /// UTF-8.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in a row.
    Array(Vec<Value>),
    /// Values by key.
    Map(Map),
}

/// Pairs in the order of the wire. Of equal keys the last value counts, at the first one's place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(Value, Value)>);

impl Map {
    /// An empty one.
    pub fn new() -> Map {
        Map::default()
    }

    /// The value of a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|pair| pair.0.as_str() == Some(key)).map(|pair| &pair.1)
    }

    /// Put a value under a text key.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|pair| pair.0.as_str() == Some(key)) {
            Some(pair) => pair.1 = value,
            None => self.0.push((Value::from(key), value)),
        }
    }

    /// The same with one more value: `Map::new().with("n", 1)`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Map {
        self.insert(key, value);
        self
    }

    /// Every pair, in order.
    pub fn pairs(&self) -> &[(Value, Value)] {
        &self.0
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A map of pairs with keys of any scalar kind; refuses containers as keys, and equal keys.
    pub fn from_pairs(pairs: Vec<(Value, Value)>) -> Result<Map> {
        let mut known = HashMap::new();
        for (at, (key, _)) in pairs.iter().enumerate() {
            if matches!(key, Value::Array(_) | Value::Map(_)) {
                return Err(refusal("a map or an array as a key"));
            }
            if Key::of(key).map_or(false, |name| known.insert(name, at).is_some()) {
                return Err(refusal("a map has a key twice"));
            }
        }
        Ok(Map(pairs))
    }
}

impl Value {
    /// The value of a text key, when it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map().and_then(|map| map.get(key))
    }

    /// The truth, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The integer, when it is one.
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The integer, when it is one that fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_integer().and_then(|value| u64::try_from(value).ok())
    }

    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, when there are some.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items, when it is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The map, when it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }
}

macro_rules! from_integers {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Value {
                Value::Integer(value as i128)
            }
        }
    )*};
}

from_integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Value {
        Value::Bytes(value.to_vec())
    }
}

impl From<Map> for Value {
    fn from(value: Map) -> Value {
        Value::Map(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Value {
        Value::Array(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Nil, Into::into)
    }
}

/// What tells keys apart: 1, 1.0 and true are equal, a NaN equals nothing.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Nil,
    Number(i128),
    Fraction(u64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Key<'_> {
    fn of(value: &Value) -> Option<Key<'_>> {
        match value {
            Value::Nil => Some(Key::Nil),
            Value::Bool(value) => Some(Key::Number(i128::from(*value))),
            Value::Integer(value) => Some(Key::Number(*value)),
            Value::Float(value) if value.is_nan() => None,
            // Integers have at most 64 bits, so larger floats equal only themselves.
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => {
                Some(Key::Number(*value as i128))
            }
            Value::Float(value) => Some(Key::Fraction(value.to_bits())),
            Value::Text(text) => Some(Key::Text(text)),
            Value::Bytes(bytes) => Some(Key::Bytes(bytes)),
            Value::Array(_) | Value::Map(_) => None,
        }
    }
}

// --- writing -----------------------------------------------------------------------------------------

/// The shortest MessagePack of a value; refuses what no reader would accept.
pub fn encode_value(value: &Value) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    writer.value(value, 0)?;
    writer.done()
}

/// Writes values one after another; [`crate::envelope`] writes the parts of a body.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    values: usize,
}

impl Writer {
    pub(crate) fn done(self) -> Result<Vec<u8>> {
        check_count(&self.bytes, self.values)?;
        Ok(self.bytes)
    }

    pub(crate) fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        match value {
            Value::Array(items) => {
                check_depth(depth)?;
                self.values += 1;
                self.counted(items.len(), 0x90, 0xdc)?;
                items.iter().try_for_each(|item| self.value(item, depth + 1))
            }
            Value::Map(map) => self.map(map, depth),
            Value::Text(text) => {
                self.text(text)?;
                Ok(())
            }
            _ => {
                self.values += 1;
                self.scalar(value)
            }
        }
    }

    pub(crate) fn map(&mut self, map: &Map, depth: usize) -> Result<()> {
        check_depth(depth)?;
        self.map_head(map.len())?;
        for (key, item) in map.pairs() {
            if matches!(key, Value::Array(_) | Value::Map(_)) {
                return Err(refusal("a map or an array as a key"));
            }
            self.value(key, depth + 1)?;
            self.value(item, depth + 1)?;
        }
        Ok(())
    }

    pub(crate) fn map_head(&mut self, pairs: usize) -> Result<()> {
        self.values += 1;
        self.counted(pairs, 0x80, 0xde)
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.values += 1;
        if text.len() < 32 {
            self.bytes.push(0xa0 | text.len() as u8);
        } else {
            self.sized(text.len(), 0xd9)?;
        }
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn scalar(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Bool(value) => self.bytes.push(if *value { 0xc3 } else { 0xc2 }),
            Value::Integer(value) => return self.integer(*value),
            Value::Float(value) => {
                // One NaN for all.
                let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() };
                self.head(0xcb, &bits.to_be_bytes());
            }
            Value::Bytes(bytes) => {
                self.sized(bytes.len(), 0xc4)?;
                self.bytes.extend_from_slice(bytes);
            }
            _ => self.bytes.push(0xc0),
        }
        Ok(())
    }

    fn integer(&mut self, value: i128) -> Result<()> {
        if let Ok(value) = u64::try_from(value) {
            match value {
                0..=0x7f => self.bytes.push(value as u8),
                0x80..=0xff => self.head(0xcc, &[value as u8]),
                0x100..=0xffff => self.head(0xcd, &(value as u16).to_be_bytes()),
                0x1_0000..=0xffff_ffff => self.head(0xce, &(value as u32).to_be_bytes()),
                _ => self.head(0xcf, &value.to_be_bytes()),
            }
        } else if let Ok(value) = i64::try_from(value) {
            match value {
                -0x20..=-1 => self.bytes.push(value as u8),
                -0x80..=-0x21 => self.head(0xd0, &[value as u8]),
                -0x8000..=-0x81 => self.head(0xd1, &(value as i16).to_be_bytes()),
                -0x8000_0000..=-0x8001 => self.head(0xd2, &(value as i32).to_be_bytes()),
                _ => self.head(0xd3, &value.to_be_bytes()),
            }
        } else {
            return Err(refusal("an integer beyond 64 bits"));
        }
        Ok(())
    }

    fn head(&mut self, head: u8, number: &[u8]) {
        self.bytes.push(head);
        self.bytes.extend_from_slice(number);
    }

    /// The head of a container; `long` is followed by its 32-bit form.
    fn counted(&mut self, count: usize, fix: u8, long: u8) -> Result<()> {
        match u32::try_from(count) {
            Ok(count) if count < 16 => self.bytes.push(fix | count as u8),
            Ok(count) if count < 0x1_0000 => self.head(long, &(count as u16).to_be_bytes()),
            Ok(count) => self.head(long + 1, &count.to_be_bytes()),
            Err(_) => return Err(refusal("a container beyond 32 bits")),
        }
        Ok(())
    }

    /// The head of bytes or of a longer text, of 8, 16 or 32 bits.
    fn sized(&mut self, length: usize, head: u8) -> Result<()> {
        match u32::try_from(length) {
            Ok(length) if length < 0x100 => self.head(head, &[length as u8]),
            Ok(length) if length < 0x1_0000 => self.head(head + 1, &(length as u16).to_be_bytes()),
            Ok(length) => self.head(head + 2, &length.to_be_bytes()),
            Err(_) => return Err(refusal("a text beyond 32 bits")),
        }
        Ok(())
    }
}

// --- reading -----------------------------------------------------------------------------------------

/// Read one value; refuses depth, extension types, bytes that follow, and lies about lengths.
pub fn decode_value(data: &[u8]) -> Result<Value> {
    let mut reader = Reader::new(data);
    let value = reader.value(0)?;
    reader.end()?;
    Ok(value)
}

/// Reads values one after another; [`crate::envelope`] asks it for the parts of a body.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, values: 0 }
    }

    /// Nothing may follow, and it must not have been too many values.
    pub(crate) fn end(&self) -> Result<()> {
        if self.at != self.bytes.len() {
            return Err(refusal("bytes follow the value"));
        }
        check_count(self.bytes, self.values)
    }

    /// The number of pairs of the map that begins here; None when it is something else.
    pub(crate) fn map_head(&mut self) -> Result<Option<usize>> {
        self.values += 1;
        Ok(match self.byte()? {
            head @ 0x80..=0x8f => Some(usize::from(head & 0x0f)),
            0xde => Some(self.number(2)?),
            0xdf => Some(self.number(4)?),
            _ => None,
        })
    }

    /// The value that begins here, inside of `depth` containers.
    pub(crate) fn value(&mut self, depth: usize) -> Result<Value> {
        self.values += 1;
        Ok(match self.byte()? {
            head @ 0x00..=0x7f => Value::from(head),
            head @ 0xe0..=0xff => Value::from(head as i8),
            head @ 0x80..=0x8f => self.map(usize::from(head & 0x0f), depth)?,
            head @ 0x90..=0x9f => self.array(usize::from(head & 0x0f), depth)?,
            head @ 0xa0..=0xbf => self.text(usize::from(head & 0x1f))?,
            0xc0 => Value::Nil,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            head @ 0xc4..=0xc6 => {
                let length = self.number(1 << (head - 0xc4))?;
                Value::Bytes(self.take(length)?.to_vec())
            }
            0xca => Value::Float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => Value::Float(f64::from_bits(u64::from_be_bytes(self.eight()?))),
            0xcc => Value::from(self.number(1)?),
            0xcd => Value::from(self.number(2)?),
            0xce => Value::from(self.number(4)?),
            0xcf => Value::from(u64::from_be_bytes(self.eight()?)),
            0xd0 => Value::from(self.number(1)? as u8 as i8),
            0xd1 => Value::from(self.number(2)? as u16 as i16),
            0xd2 => Value::from(self.number(4)? as u32 as i32),
            0xd3 => Value::from(i64::from_be_bytes(self.eight()?)),
            head @ 0xd9..=0xdb => {
                let length = self.number(1 << (head - 0xd9))?;
                self.text(length)?
            }
            head @ 0xdc..=0xdd => {
                let count = self.number(2 << (head - 0xdc))?;
                self.array(count, depth)?
            }
            head @ 0xde..=0xdf => {
                let count = self.number(2 << (head - 0xde))?;
                self.map(count, depth)?
            }
            _ => return Err(refusal("extension types and 0xc1 are not allowed")),
        })
    }

    fn array(&mut self, count: usize, depth: usize) -> Result<Value> {
        self.enter(count, depth)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, count: usize, depth: usize) -> Result<Value> {
        self.enter(count.saturating_mul(2), depth)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            if matches!(self.bytes.get(self.at), Some(0x80..=0x9f | 0xdc..=0xdf)) {
                return Err(refusal("a map or an array as a key"));
            }
            let key = self.value(depth + 1)?;
            pairs.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Map(Map(last_of_equals(pairs))))
    }

    /// Step into a container; every item has at least a byte, so a count beyond them is a lie.
    fn enter(&self, items: usize, depth: usize) -> Result<()> {
        check_depth(depth)?;
        if items > self.bytes.len() - self.at {
            return Err(cut_off());
        }
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<Value> {
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::from(text)),
            Err(_) => Err(refusal("a text is not UTF-8")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or_else(cut_off)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A big-endian number of at most 4 bytes.
    fn number(&mut self, width: usize) -> Result<usize> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn eight(&mut self) -> Result<[u8; 8]> {
        let mut taken = [0; 8];
        taken.copy_from_slice(self.take(8)?);
        Ok(taken)
    }
}

fn last_of_equals(pairs: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
    let mut first: HashMap<Key<'_>, usize> = HashMap::with_capacity(pairs.len());
    let mut moved = Vec::new();
    for (at, (key, _)) in pairs.iter().enumerate() {
        if let Some(name) = Key::of(key) {
            let place = *first.entry(name).or_insert(at);
            if place != at {
                moved.push((at, place));
            }
        }
    }
    drop(first);
    if moved.is_empty() {
        return pairs;
    }
    let mut slots: Vec<Option<(Value, Value)>> = pairs.into_iter().map(Some).collect();
    for (from, to) in moved {
        if let (Some((_, later)), Some(pair)) = (slots[from].take(), slots[to].as_mut()) {
            pair.1 = later;
        }
    }
    slots.into_iter().flatten().collect()
}

fn check_depth(depth: usize) -> Result<()> {
    if depth == MAX_DEPTH {
        return Err(refusal(&format!("nested deeper than {}", MAX_DEPTH)));
    }
    Ok(())
}

/// The bound on values holds where more than 64 bytes could open a container, or one could be an extension
/// type: the same rule, over the same bytes, in every implementation.
fn check_count(bytes: &[u8], values: usize) -> Result<()> {
    if values <= MAX_VALUES {
        return Ok(());
    }
    let containers = bytes.iter().filter(|byte| matches!(byte, 0x80..=0x9f | 0xdc..=0xdf)).count();
    let extension = |byte: &u8| matches!(byte, 0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8);
    if containers > MAX_DEPTH || bytes.iter().any(extension) {
        return Err(refusal(&format!("more than {} values", MAX_VALUES)));
    }
    Ok(())
}

/// The error for what is no legal body.
pub(crate) fn refusal(why: &str) -> Error {
    Error::refusal(Named::BodyDecodeError, format!("not a legal body: {}", why))
}

fn cut_off() -> Error {
    refusal("the value is cut off")
}
