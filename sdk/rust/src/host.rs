//! The gate, as a guest sees it: one method for every host call of the table in `runloop/ops.py`.

use std::fmt;

use crate::base64;
use crate::json::{Object, Value};
use crate::object;

/// `(op, JSON arguments) -> JSON answer or JSON refusal`: the one import of a guest.
pub trait Transport {
    /// Ask the host.
    fn call(&self, op: &str, payload: &str) -> Result<String, String>;
}

/// The gate refused or could not do a host call. Nothing else happened; the agent may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The host call.
    pub op: String,
    /// Stable and dotted, such as `cap.denied`.
    pub code: String,
    /// For a person.
    pub message: String,
    /// How to obtain the right, where there is a way.
    pub hint: Option<String>,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(to, "; {}", hint))
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn parse(op: &str, text: &str) -> Refusal {
        let value = Value::parse(text).unwrap_or(Value::Null);
        let bare = value.as_object().is_none() && !text.is_empty();
        let words = |key: &str| value[key].as_str().filter(|words| !words.is_empty()).map(str::to_owned);
        Refusal {
            op: op.to_owned(),
            code: words("code").unwrap_or_else(|| "host.error".to_owned()),
            message: words("message").unwrap_or_else(|| {
                if bare {
                    text.to_owned()
                } else {
                    "the host call failed".to_owned()
                }
            }),
            hint: words("hint"),
            retryable: value["retryable"].as_bool().unwrap_or(false),
        }
    }

    fn answer(op: &str, what: &str) -> Refusal {
        Refusal {
            op: op.to_owned(),
            code: "host.answer".to_owned(),
            message: format!("the host's answer to {} {}", op, what),
            hint: None,
            retryable: false,
        }
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// For whoever watches.
    Info,
    /// Somebody should look.
    Warning,
    /// Something went wrong.
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// What to ask a model: `Prompt::user("…")`, then whatever else matters.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// `(role, content)`; role is system, user or assistant.
    pub messages: Vec<(String, String)>,
    /// A pattern from policy; None lets the route decide.
    pub model: Option<String>,
    /// At most so many tokens of answer.
    pub max_tokens: u32,
    /// 0 is the most predictable.
    pub temperature: f64,
    /// When given, the answer's text is JSON that fits it.
    pub json_schema: Option<Value>,
    /// What the offline rules provider fills in: `{{name}}` from `facts`.
    pub template: Option<String>,
    /// For the template.
    pub facts: Object,
}

impl Prompt {
    /// A question.
    pub fn user(content: impl Into<String>) -> Prompt {
        Prompt {
            messages: vec![("user".to_owned(), content.into())],
            model: None,
            max_tokens: 1024,
            temperature: 0.0,
            json_schema: None,
            template: None,
            facts: Object::new(),
        }
    }

    /// One more message at the end.
    pub fn message(mut self, role: &str, content: impl Into<String>) -> Prompt {
        self.messages.push((role.to_owned(), content.into()));
        self
    }

    /// The instructions, before everything else.
    pub fn system(mut self, content: impl Into<String>) -> Prompt {
        self.messages.insert(0, ("system".to_owned(), content.into()));
        self
    }

    fn args(&self) -> Value {
        let messages: Vec<Value> = self
            .messages
            .iter()
            .map(|(role, content)| object! { "role": role, "content": content })
            .collect();
        object! {
            "messages": messages,
            "model": self.model.clone(),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "json_schema": self.json_schema.clone(),
            "template": self.template.clone(),
            "facts": self.facts.clone(),
        }
    }
}

/// What a model, or the offline rules provider standing in for one, answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The answer.
    pub text: String,
    /// Who answered.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// False when no language model wrote the text.
    pub generated: bool,
    /// Why it ended, such as `stop`.
    pub finish: String,
    /// The whole answer, with usage and cost where the provider reports them.
    pub raw: Value,
}

/// A mail: `Mail::new("a@b.example", subject, body)`; further fields as needed.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    /// Addresses.
    pub to: Vec<String>,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// Addresses.
    pub cc: Vec<String>,
    /// Addresses.
    pub bcc: Vec<String>,
    /// Message id of what it answers.
    pub in_reply_to: Option<String>,
}

impl Mail {
    /// A mail to one address.
    pub fn new(to: impl Into<String>, subject: impl Into<String>, body: impl Into<String>) -> Mail {
        Mail { to: vec![to.into()], subject: subject.into(), body: body.into(), ..Mail::default() }
    }
}

/// One HTTP request: `Request::get(url)`; further fields as needed.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, HEAD, POST, …
    pub method: String,
    /// Absolute; https unless policy allows more.
    pub url: String,
    /// Name and value.
    pub headers: Vec<(String, String)>,
    /// None for no body.
    pub body: Option<Vec<u8>>,
    /// Where to cut the answer's body; None is the host's own limit.
    pub max_bytes: Option<u64>,
}

impl Request {
    /// Read an address.
    pub fn get(url: impl Into<String>) -> Request {
        Request {
            method: "GET".to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            max_bytes: None,
        }
    }

    /// Send a body to an address.
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Request {
        Request { method: "POST".to_owned(), body: Some(body.into()), ..Request::get(url) }
    }

    /// One more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn args(&self) -> Value {
        let headers: Object =
            self.headers.iter().map(|(name, value)| (name.clone(), Value::from(value))).collect();
        let mut args = Object::new();
        args.insert("url".to_owned(), Value::from(&self.url));
        args.insert("method".to_owned(), Value::from(&self.method));
        args.insert("headers".to_owned(), Value::from(headers));
        if let Some(body) = &self.body {
            match std::str::from_utf8(body) {
                Ok(text) => args.insert("text".to_owned(), Value::from(text)),
                Err(_) => args.insert("base64".to_owned(), Value::from(base64::encode(body))),
            };
        }
        if let Some(most) = self.max_bytes {
            args.insert("max_bytes".to_owned(), Value::from(most));
        }
        Value::Object(args)
    }
}

/// What a web server answered, as it is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Any status is an answer, not an error.
    pub status: u16,
    /// Where the answer came from, after redirects.
    pub url: String,
    /// The few that describe the body; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded; cut at the limit when `truncated`.
    pub body: Vec<u8>,
    /// Whether the body was cut.
    pub truncated: bool,
}

impl Response {
    /// The body as UTF-8; what is not becomes U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The gate. Every method may answer a [`Refusal`].
pub struct Host {
    transport: Box<dyn Transport>,
}

impl Host {
    /// A host behind any transport; in an agent [`agent!`](crate::agent) makes it.
    pub fn new(transport: impl Transport + 'static) -> Host {
        Host { transport: Box::new(transport) }
    }

    /// Any host call by name: JSON arguments in, JSON answer out.
    pub fn call(&self, op: &str, args: impl Into<Value>) -> Result<Value, Refusal> {
        match self.transport.call(op, &args.into().to_string()) {
            Ok(text) => {
                Value::parse(&text).map_err(|error| Refusal::answer(op, &format!("is not JSON: {}", error)))
            }
            Err(text) => Err(Refusal::parse(op, &text)),
        }
    }

    // --- time, chance, talk --------------------------------------------------------------------------

    /// Unix time in milliseconds, as recorded for this run. Needs capability `time`.
    pub fn now_ms(&self) -> Result<i64, Refusal> {
        let answer = self.call("time.now", object! {})?;
        answer["now_ms"].as_i64().ok_or_else(|| Refusal::answer("time.now", "has no now_ms"))
    }

    /// Random bytes, recorded for replay. Needs capability `random`.
    pub fn random_bytes(&self, n: usize) -> Result<Vec<u8>, Refusal> {
        let mut made = Vec::with_capacity(n);
        while made.len() < n {
            let wanted = (n - made.len()).min(65_536);
            let part = bytes("random.bytes", &self.call("random.bytes", object! { "n": wanted })?)?;
            if part.is_empty() {
                return Err(Refusal::answer("random.bytes", "is empty"));
            }
            made.extend_from_slice(&part[..part.len().min(wanted)]);
        }
        Ok(made)
    }

    /// One log line of this run.
    pub fn log(&self, level: Level, message: &str) -> Result<(), Refusal> {
        self.log_with(level, message, Object::new())
    }

    /// One log line with fields.
    pub fn log_with(&self, level: Level, message: &str, fields: Object) -> Result<(), Refusal> {
        let args = object! { "message": message, "level": level.word(), "fields": fields };
        self.call("log.write", args).map(drop)
    }

    /// Tell the person watching; `fraction` is 0 to 1, or None when it is not known.
    pub fn progress(&self, message: &str, fraction: Option<f64>) -> Result<(), Refusal> {
        self.call("progress", object! { "message": message, "fraction": fraction }).map(drop)
    }

    // --- knowledge -----------------------------------------------------------------------------------

    /// Best matches first, at most `k`: `{kind, id, title, snippet, score, event}`. No kinds means all of contact,
    /// note and mail.
    pub fn kb_search(&self, query: &str, k: u32, kinds: &[&str]) -> Result<Vec<Value>, Refusal> {
        let answer = self.call("kb.search", object! { "query": query, "k": k, "kinds": kinds })?;
        items("kb.search", &answer, "items")
    }

    /// Rows of one read-only SELECT over the views, as objects by column name.
    pub fn kb_query(&self, sql: &str, params: &[Value], limit: u32) -> Result<Vec<Object>, Refusal> {
        let args = object! { "sql": sql, "params": params, "limit": limit };
        let answer = self.call("kb.query", args)?;
        let names = items("kb.query", &answer, "columns")?;
        let rows = items("kb.query", &answer, "rows")?;
        rows.into_iter()
            .map(|row| match row {
                Value::List(cells) => {
                    let keys = names.iter().map(|name| name.as_str().unwrap_or("").to_owned());
                    Ok(keys.zip(cells).collect())
                }
                Value::Object(members) => Ok(members),
                _ => Err(Refusal::answer("kb.query", "has a row that is none")),
            })
            .collect()
    }

    /// One whole contact or document.
    pub fn kb_read(&self, kind: &str, id: &str) -> Result<Value, Refusal> {
        Ok(self.call("kb.read", object! { "kind": kind, "id": id })?["item"].clone())
    }

    /// Where a thing came from: the graph of causes.
    pub fn kb_why(&self, reference: &str) -> Result<Value, Refusal> {
        self.call("kb.why", object! { "ref": reference })
    }

    /// State a contact or a document of the agent's own: `{kind, id}`. Needs capability `kb_write`.
    pub fn kb_propose(&self, kind: &str, payload: impl Into<Value>) -> Result<Value, Refusal> {
        self.call("kb.propose", object! { "kind": kind, "payload": payload.into() })
    }

    // --- memory, artifacts, blobs --------------------------------------------------------------------

    /// `(value, version)` of durable memory; `(null, 0)` for a key that was never written. The usual namespace is
    /// `private`.
    pub fn memory_get(&self, namespace: &str, key: &str) -> Result<(Value, u64), Refusal> {
        let answer = self.call("memory.get", object! { "key": key, "namespace": namespace })?;
        Ok((answer["value"].clone(), answer["version"].as_u64().unwrap_or(0)))
    }

    /// Write and return the new version. A given `expected` must be the version last read (0: must not exist).
    pub fn memory_put(
        &self,
        namespace: &str,
        key: &str,
        value: impl Into<Value>,
        expected: Option<u64>,
    ) -> Result<u64, Refusal> {
        let args = object! {
            "key": key, "value": value.into(), "namespace": namespace, "expected_version": expected
        };
        let answer = self.call("memory.put", args)?;
        answer["version"].as_u64().ok_or_else(|| Refusal::answer("memory.put", "has no version"))
    }

    /// Keep a text this run produced; returns its digest, for [`Output::artifact`](crate::Output::artifact).
    pub fn put_text(&self, name: &str, media_type: &str, text: &str) -> Result<String, Refusal> {
        self.put_artifact(object! { "name": name, "media_type": media_type, "text": text })
    }

    /// Keep bytes this run produced; returns their digest.
    pub fn put_bytes(&self, name: &str, media_type: &str, data: &[u8]) -> Result<String, Refusal> {
        self.put_artifact(object! { "name": name, "media_type": media_type, "base64": base64::encode(data) })
    }

    fn put_artifact(&self, args: Value) -> Result<String, Refusal> {
        let answer = self.call("artifact.put", args)?;
        let digest = answer["digest"].as_str().map(str::to_owned);
        digest.ok_or_else(|| Refusal::answer("artifact.put", "has no digest"))
    }

    /// Up to `length` bytes of an artifact of the same run, from `offset`.
    pub fn blob_read(&self, digest: &str, offset: u64, length: u32) -> Result<Vec<u8>, Refusal> {
        let args = object! { "digest": digest, "offset": offset, "length": length };
        bytes("blob.read", &self.call("blob.read", args)?)
    }

    // --- models --------------------------------------------------------------------------------------

    /// Ask a model, within the run's budget. Needs capability `model`.
    pub fn complete(&self, prompt: &Prompt) -> Result<Completion, Refusal> {
        let answer = self.call("model.complete", prompt.args())?;
        let words = |key: &str| answer[key].as_str().unwrap_or("").to_owned();
        Ok(Completion {
            text: words("text"),
            provider: words("provider"),
            model: words("model"),
            generated: answer["generated"].as_bool().unwrap_or(true),
            finish: words("finish"),
            raw: answer.clone(),
        })
    }

    /// As [`complete`](Host::complete), but answers a stream to read with [`next_message`](Host::next_message).
    pub fn complete_stream(&self, prompt: &Prompt) -> Result<String, Refusal> {
        let mut args = prompt.args();
        if let Value::Object(members) = &mut args {
            members.insert("stream".to_owned(), Value::Bool(true));
        }
        let answer = self.call("model.complete", args)?;
        let stream = answer["stream"].as_str().map(str::to_owned);
        stream.ok_or_else(|| Refusal::answer("model.complete", "has no stream"))
    }

    /// The next item of a stream, or None at its end.
    pub fn next_message(&self, stream: &str) -> Result<Option<Value>, Refusal> {
        let answer = self.call("msg.next", object! { "stream": stream })?;
        let done = answer["done"].as_bool().unwrap_or(false);
        Ok(if done { None } else { Some(answer["item"].clone()) })
    }

    // --- files ---------------------------------------------------------------------------------------

    /// Up to `length` bytes of a file, from `offset`. Needs capability `fs_ro` or `fs_rw` for its directory.
    pub fn fs_read(&self, path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Refusal> {
        let args = object! { "path": path, "offset": offset, "length": length };
        let answer = self.call("fs.read", args)?;
        match answer["text"].as_str() {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => bytes("fs.read", &answer),
        }
    }

    /// Replace a file or make one, whole or not at all; returns its digest. A given `expected` must be the digest the
    /// file has now (empty: it must not exist). Needs capability `fs_rw` for its directory.
    pub fn fs_write(&self, path: &str, data: &[u8], expected: Option<&str>) -> Result<String, Refusal> {
        let args = match std::str::from_utf8(data) {
            Ok(text) => object! { "path": path, "text": text, "expected": expected },
            Err(_) => object! { "path": path, "base64": base64::encode(data), "expected": expected },
        };
        let answer = self.call("fs.write", args)?;
        let digest = answer["digest"].as_str().map(str::to_owned);
        digest.ok_or_else(|| Refusal::answer("fs.write", "has no digest"))
    }

    /// At most `limit` names after `after` (empty: from the first): `{name, kind, size}`, and whether there are more.
    pub fn fs_list(&self, path: &str, after: &str, limit: u32) -> Result<(Vec<Value>, bool), Refusal> {
        let answer = self.call("fs.list", object! { "path": path, "after": after, "limit": limit })?;
        let truncated = answer["truncated"].as_bool().unwrap_or(false);
        Ok((items("fs.list", &answer, "entries")?, truncated))
    }

    /// What a path is: `{kind, size, mtime_ms}`, for a file with `digest`, when it is asked for.
    pub fn fs_stat(&self, path: &str, digest: bool) -> Result<Value, Refusal> {
        self.call("fs.stat", object! { "path": path, "digest": digest })
    }

    // --- the web, tools, effects ---------------------------------------------------------------------

    /// One HTTP exchange. Needs capability `net` for the host.
    pub fn fetch(&self, request: &Request) -> Result<Response, Refusal> {
        let answer = self.call("http.fetch", request.args())?;
        let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let headers = answer["headers"].as_object();
        Ok(Response {
            status: status.ok_or_else(|| Refusal::answer("http.fetch", "has no status"))?,
            url: answer["url"].as_str().unwrap_or(&request.url).to_owned(),
            headers: headers
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
                .collect(),
            body: match answer["text"].as_str() {
                Some(text) if answer["base64"].is_null() => text.as_bytes().to_vec(),
                _ if answer["base64"].is_null() => Vec::new(),
                _ => bytes("http.fetch", &answer)?,
            },
            truncated: answer["truncated"].as_bool().unwrap_or(false),
        })
    }

    /// The agent's own tools: `{id, description, input_schema, result_schema, granted, missing}`.
    pub fn tools(&self) -> Result<Vec<Value>, Refusal> {
        items("tool.list", &self.call("tool.list", object! {})?, "tools")
    }

    /// Call one of the agent's own tools; the answer fits the tool's `result_schema`.
    pub fn call_tool(&self, tool: &str, args: impl Into<Value>) -> Result<Value, Refusal> {
        Ok(self.call("tool.call", object! { "tool": tool, "args": args.into() })?["result"].clone())
    }

    /// Send a mail, after a person approved its exact bytes. Needs capability `mail`.
    pub fn send_mail(&self, mail: &Mail) -> Result<Value, Refusal> {
        let args = object! {
            "to": mail.to.clone(),
            "subject": &mail.subject,
            "body": &mail.body,
            "cc": mail.cc.clone(),
            "bcc": mail.bcc.clone(),
            "in_reply_to": mail.in_reply_to.clone(),
        };
        self.call("mail.send", args)
    }
}

fn bytes(op: &str, answer: &Value) -> Result<Vec<u8>, Refusal> {
    let data = answer["base64"].as_str().and_then(base64::decode);
    data.ok_or_else(|| Refusal::answer(op, "has no base64"))
}

fn items(op: &str, answer: &Value, key: &str) -> Result<Vec<Value>, Refusal> {
    match answer.get(key) {
        Some(Value::List(items)) => Ok(items.clone()),
        _ => Err(Refusal::answer(op, &format!("has no list of {}", key))),
    }
}
