//! Answers the questions of sdk/conformance/README.md ("The probe") about this crate, line by line on stdin.

use std::io::{self, BufRead, Write};

use runloop_rmp::{
    frame, hello, keyed, registry, seen::Seen, topics, Envelope, Error, Frame, FrameReader, Map, Named, Value,
};

fn main() -> io::Result<()> {
    let (input, output) = (io::stdin(), io::stdout());
    let mut output = io::BufWriter::new(output.lock());
    for line in input.lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        writeln!(output, "{}", answer(words[0], &words[1..]))?;
        output.flush()?;
    }
    Ok(())
}

fn answer(question: &str, words: &[&str]) -> String {
    match question {
        "read" => read(words),
        "write" => write(words).map_or_else(|error| name(&error), |bytes| hex(&bytes)),
        "proof" => hex(&hello::proof(&bytes(words[0]), &bytes(words[1])).unwrap()),
        "keyed" => {
            hex(&keyed::keyed_hash(bytes(words[0]).as_slice().try_into().unwrap(), &bytes(words[1])).unwrap())
        }
        "registry" => {
            let rows: Vec<String> =
                registry::TYPES.iter().map(|row| format!("{}={}", row.0, row.1)).collect();
            format!("{} {}", registry::BUILD, rows.join(","))
        }
        "names" => {
            let rows: Vec<String> =
                Named::ALL.iter().map(|named| format!("{}={}", named.name(), named.code())).collect();
            rows.join(",")
        }
        "topic" => yes(topics::topic(&text(words[0])).is_ok()),
        "pattern" => yes(topics::pattern(&text(words[0])).is_ok()),
        "matches" => yes(topics::matches(&text(words[0]), &text(words[1]))),
        _ => panic!("no such question: {}", question),
    }
}

fn read(words: &[&str]) -> String {
    let (now, end): (u64, bool) = (words[1].parse().unwrap(), words[2] == "1");
    let mut publishers = words[3].split(',').filter(|name| *name != "-");
    let mut judge = Judge {
        reader: FrameReader::new(words[0].parse().unwrap()),
        seen: Seen::default(),
        now,
        frames: Vec::new(),
    };
    let refused = judge.all(&words[4..], end, &mut publishers).err();
    let mut answer =
        vec![judge.frames.len().to_string(), refused.as_ref().map_or_else(|| "-".to_owned(), name)];
    answer.append(&mut judge.frames);
    answer.join(" ")
}

struct Judge {
    reader: FrameReader,
    seen: Seen,
    now: u64,
    frames: Vec<String>,
}

impl Judge {
    fn all<'a>(
        &mut self,
        pieces: &[&str],
        end: bool,
        publishers: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        for piece in pieces {
            for frame in self.reader.feed(&bytes(piece))? {
                let envelope = Envelope::open(&frame)?;
                frame.check_expiry(self.now)?;
                let publisher = publishers.next().unwrap_or("a");
                if !self.seen.first(publisher, frame.trace_id, frame.msg_id, self.now) {
                    return Err(Error::refusal(Named::Duplicate, "seen"));
                }
                self.frames.push(described(&frame, &envelope)?);
            }
            if let Some(error) = self.reader.error() {
                return Err(error.clone());
            }
        }
        if end {
            self.reader.close()?;
        }
        if self.reader.pending() > 0 {
            return Err(Error::refusal(Named::Incomplete, "more"));
        }
        Ok(())
    }
}

fn described(frame: &Frame, envelope: &Envelope) -> Result<String, Error> {
    let again = Frame { body: envelope.encode()?, ..frame.clone() };
    Ok([
        frame.schema_id.to_string(),
        frame.created_at_ms.to_string(),
        frame.ttl_ms.to_string(),
        format!("{:032x}", frame.trace_id),
        frame.msg_id.to_string(),
        shown(&Value::from(envelope.type_name.as_str())),
        shown(&envelope.payload),
        shown(&Value::from(envelope.meta.clone())),
        hex(&again.encode()?),
    ]
    .join(";"))
}

fn write(words: &[&str]) -> Result<Vec<u8>, Error> {
    let envelope = Envelope {
        type_name: value(words[5]).as_str().unwrap().to_owned(),
        payload: value(words[6]),
        meta: value(words[7]).as_map().unwrap().clone(),
    };
    Frame {
        schema_id: words[0].parse().unwrap(),
        created_at_ms: words[1].parse().unwrap(),
        ttl_ms: words[2].parse().unwrap(),
        trace_id: u128::from_str_radix(words[3], 16).unwrap(),
        msg_id: words[4].parse().unwrap(),
        body: envelope.encode()?,
    }
    .encode_within(frame::MAX_BODY)
}

fn name(error: &Error) -> String {
    error
        .named()
        .map_or_else(|| panic!("an error without a name: {}", error), |named| named.name().to_owned())
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

// --- the notation of values ------------------------------------------------------------------------

fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "n".to_owned(),
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::Integer(value) => format!("i{}", value),
        Value::Float(value) if value.is_nan() => "dnan".to_owned(),
        Value::Float(value) => format!("d{:016x}", value.to_bits()),
        Value::Text(text) => format!("s{}", hex(text.as_bytes())),
        Value::Bytes(bytes) => format!("b{}", hex(bytes)),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Map(map) => {
            let pair = |pair: &(Value, Value)| format!("{}={}", shown(&pair.0), shown(&pair.1));
            format!("{{{}}}", map.pairs().iter().map(pair).collect::<Vec<_>>().join(","))
        }
    }
}

fn value(text: &str) -> Value {
    Parser { text: text.as_bytes(), at: 0 }.value()
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Value {
        let kind = self.next();
        match kind {
            b'[' => {
                let mut items = Vec::new();
                while !self.ends(b']') {
                    items.push(self.value());
                }
                items.into()
            }
            b'{' => {
                let mut pairs = Vec::new();
                while !self.ends(b'}') {
                    let key = self.value();
                    self.at += 1;
                    pairs.push((key, self.value()));
                }
                Map::from_pairs(pairs).unwrap().into()
            }
            _ => self.scalar(kind),
        }
    }

    fn scalar(&mut self, kind: u8) -> Value {
        let from = self.at;
        while matches!(self.text.get(self.at), Some(b'-' | b'0'..=b'9' | b'a'..=b'z')) {
            self.at += 1;
        }
        let rest = std::str::from_utf8(&self.text[from..self.at]).unwrap();
        match kind {
            b'n' => Value::Nil,
            b't' | b'f' => Value::Bool(kind == b't'),
            b'i' => Value::Integer(rest.parse().unwrap()),
            b'd' if rest == "nan" => Value::Float(f64::NAN),
            b'd' => Value::Float(f64::from_bits(u64::from_str_radix(rest, 16).unwrap())),
            b's' => Value::Text(String::from_utf8(bytes(rest)).unwrap()),
            _ => Value::Bytes(bytes(rest)),
        }
    }

    fn next(&mut self) -> u8 {
        self.at += 1;
        self.text[self.at - 1]
    }

    /// Whether the container ends here; steps over the end, or over a comma before the next item.
    fn ends(&mut self, mark: u8) -> bool {
        let here = self.text[self.at];
        self.at += usize::from(here == mark || here == b',');
        here == mark
    }
}

fn bytes(word: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hex digit") as u8;
    let digits = if word == "-" { "" } else { word };
    digits.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
}

fn text(word: &str) -> String {
    String::from_utf8(bytes(word)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}
