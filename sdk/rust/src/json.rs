//! JSON values: parse strictly (RFC 8259), write compactly.
//!
//! Numbers keep the digits they came with, so integers of any size pass unchanged. Of equal keys the last one
//! counts. Keys are written in order, so equal values give equal bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;

/// Members of an object, by key.
pub type Object = BTreeMap<String, Value>;

/// Lists and objects inside each other, at most.
pub const MAX_DEPTH: usize = 128;

/// A number, as its JSON digits.
#[derive(Clone, Debug)]
pub struct Number(String);

impl Number {
    /// As a signed integer, when it is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// As an unsigned integer, when it is one and fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// As the nearest double.
    pub fn as_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// The digits, as JSON has them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Number {
    /// By value: 1 is 1.0 is 1e0.
    fn eq(&self, other: &Number) -> bool {
        self.0 == other.0
            || match (self.0.parse::<i128>(), other.0.parse::<i128>()) {
                (Ok(left), Ok(right)) => left == right,
                _ => self.as_f64() == other.as_f64(),
            }
    }
}

/// Any JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number of any size
    Number(Number),
    /// Text
    String(String),
    /// `[…]`
    List(Vec<Value>),
    /// `{…}`
    Object(Object),
}

static NULL: Value = Value::Null;

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Bytes before the fault.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} (byte {})", self.what, self.at)
    }
}

impl std::error::Error for ParseError {}

impl Value {
    /// The value a text stands for.
    pub fn parse(text: &str) -> Result<Value, ParseError> {
        let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
        let value = reader.value(0)?;
        reader.blanks();
        if reader.at < reader.bytes.len() {
            return reader.fail("something follows the value");
        }
        Ok(value)
    }

    /// A member of an object; None for a missing one and for anything that is no object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object().and_then(|members| members.get(key))
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The truth, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, when it is one.
    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The number, when it is a signed integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// The number, when it is an unsigned integer that fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number().and_then(Number::as_u64)
    }

    /// The number, when it is one, as the nearest double.
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number().map(Number::as_f64)
    }

    /// The items, when it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The members, when it is an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }
}

impl Index<&str> for Value {
    type Output = Value;

    /// A member, or `null`.
    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
}

impl Index<usize> for Value {
    type Output = Value;

    /// An item, or `null`.
    fn index(&self, at: usize) -> &Value {
        self.as_list().and_then(|items| items.get(at)).unwrap_or(&NULL)
    }
}

// --- making values -----------------------------------------------------------------------------------

macro_rules! from_integers {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Value {
                Value::Number(Number(value.to_string()))
            }
        }
    )*};
}

from_integers!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

impl From<f64> for Value {
    /// JSON has no NaN and no infinity: they become `null`.
    fn from(value: f64) -> Value {
        if value.is_finite() {
            Value::Number(Number(format!("{:?}", value)))
        } else {
            Value::Null
        }
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Value {
        Value::Number(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Value {
        Value::String(value.clone())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::String(value)
    }
}

impl From<&Value> for Value {
    fn from(value: &Value) -> Value {
        value.clone()
    }
}

impl From<Object> for Value {
    fn from(value: Object) -> Value {
        Value::Object(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Clone + Into<Value>> From<&[T]> for Value {
    fn from(items: &[T]) -> Value {
        Value::List(items.iter().cloned().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// An object: `object! { "name": name, "tags": list!["a", "b"] }`.
#[macro_export]
macro_rules! object {
    ($($key:literal : $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut members = $crate::json::Object::new();
        $(members.insert($key.to_string(), $crate::json::Value::from($value));)*
        $crate::json::Value::Object(members)
    }};
}

/// A list of values of any kinds: `list![1, "a", object! {}]`.
#[macro_export]
macro_rules! list {
    ($($value:expr),* $(,)?) => {
        $crate::json::Value::List(vec![$($crate::json::Value::from($value)),*])
    };
}

// --- writing -----------------------------------------------------------------------------------------

impl fmt::Display for Value {
    /// The shortest JSON text.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => to.write_str("null"),
            Value::Bool(true) => to.write_str("true"),
            Value::Bool(false) => to.write_str("false"),
            Value::Number(number) => to.write_str(&number.0),
            Value::String(text) => write_text(to, text),
            Value::List(items) => {
                to.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    to.write_str(if at == 0 { "" } else { "," })?;
                    item.fmt(to)?;
                }
                to.write_str("]")
            }
            Value::Object(members) => {
                to.write_str("{")?;
                for (at, (key, item)) in members.iter().enumerate() {
                    to.write_str(if at == 0 { "" } else { "," })?;
                    write_text(to, key)?;
                    to.write_str(":")?;
                    item.fmt(to)?;
                }
                to.write_str("}")
            }
        }
    }
}

fn write_text(to: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    to.write_str("\"")?;
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        to.write_str(&text[plain..at])?;
        plain = at + 1;
        match byte {
            b'"' => to.write_str("\\\"")?,
            b'\\' => to.write_str("\\\\")?,
            b'\n' => to.write_str("\\n")?,
            b'\r' => to.write_str("\\r")?,
            b'\t' => to.write_str("\\t")?,
            _ => write!(to, "\\u{:04x}", byte)?,
        }
    }
    to.write_str(&text[plain..])?;
    to.write_str("\"")
}

// --- reading -----------------------------------------------------------------------------------------

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, what: &'static str) -> Result<T, ParseError> {
        Err(ParseError { at: self.at, what })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, ParseError> {
        if depth > MAX_DEPTH {
            return self.fail("too many lists and objects inside each other");
        }
        self.blanks();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.fail("no value begins like this"),
            None => self.fail("the text ends where a value belongs"),
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, ParseError> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("no value begins like this");
        }
        self.at += word.len();
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Value, ParseError> {
        let mut items = Vec::new();
        self.at += 1;
        self.blanks();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blanks();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return self.fail("a ',' or ']' is missing");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, ParseError> {
        let mut members = Object::new();
        self.at += 1;
        self.blanks();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return self.fail("a key in '\"' is missing");
            }
            let key = self.string()?;
            self.blanks();
            if !self.take(b':') {
                return self.fail("a ':' is missing");
            }
            let item = self.value(depth + 1)?;
            members.insert(key, item);
            self.blanks();
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.take(b',') {
                return self.fail("a ',' or '}' is missing");
            }
        }
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return self.fail("a digit is missing");
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, ParseError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Value::Number(Number(self.text[start..self.at].to_owned())))
    }

    fn string(&mut self) -> Result<String, ParseError> {
        self.at += 1;
        let mut made = String::new();
        let mut plain = self.at;
        loop {
            match self.peek() {
                None => return self.fail("a string does not end"),
                Some(b'"') => {
                    made.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    return Ok(made);
                }
                Some(b'\\') => {
                    made.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    made.push(self.escape()?);
                    plain = self.at;
                }
                Some(0..=0x1f) => return self.fail("a control character stands in a string"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, ParseError> {
        let letter = self.peek();
        self.at += 1;
        Ok(match letter {
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return self.fail("there is no such escape"),
        })
    }

    fn unicode(&mut self) -> Result<char, ParseError> {
        let mut code = self.hex4()?;
        if (0xd800..0xdc00).contains(&code) && self.text.get(self.at..self.at + 2) == Some("\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        char::from_u32(code).map_or_else(|| self.fail("half of a surrogate pair is no character"), Ok)
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            match digit {
                Some(digit) => code = code << 4 | digit,
                None => return self.fail("four hexadecimal digits belong here"),
            }
            self.at += 1;
        }
        Ok(code)
    }
}
