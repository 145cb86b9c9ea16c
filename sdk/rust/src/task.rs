//! What an agent gets and gives: task, output, failure, tools.

use std::fmt;

use crate::host::{Host, Refusal};
use crate::json::{Object, ParseError, Value};
use crate::object;

/// End of an attempt without a result: why, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stable and dotted, such as `weather.no_city`.
    pub code: String,
    /// For a person.
    pub message: String,
    /// Whether the engine may try again as the opening's `retry` says.
    pub retryable: bool,
}

impl Failure {
    /// A failure for good.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { code: code.into(), message: message.into(), retryable: false }
    }

    /// A failure for now.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { retryable: true, ..Failure::new(code, message) }
    }

    pub(crate) fn to_json(&self) -> String {
        object! { "code": &self.code, "message": &self.message, "retryable": self.retryable }.to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Refusal> for Failure {
    /// A refusal that is not survived ends the attempt, with `?`.
    fn from(refusal: Refusal) -> Failure {
        Failure { message: refusal.to_string(), code: refusal.code, retryable: refusal.retryable }
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Failure {
        Failure::new("agent.json", format!("not JSON: {}", error))
    }
}

/// One piece of work: what arrived on the ports, what the opening's `with` says, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// Input port -> the list of values delivered to it, in order.
    pub ports: Object,
    /// The node's `with` block, templates resolved.
    pub with: Object,
    /// `agent`, `node`, `attempt`, `run`, `trace_id`, and `deadline_ms` where there is one.
    pub context: Object,
    /// The envelope that asked: `type`, `payload`, `meta`.
    pub message: Object,
}

impl Task {
    /// The last value on a port; fails the attempt (`task.port`) when none arrived.
    pub fn port(&self, name: &str) -> Result<&Value, Failure> {
        self.all(name)
            .last()
            .ok_or_else(|| Failure::new("task.port", format!("nothing arrived on input port '{}'", name)))
    }

    /// The last value on a port as text; fails the attempt when it is none.
    pub fn port_str(&self, name: &str) -> Result<&str, Failure> {
        self.port(name)?.as_str().ok_or_else(|| {
            Failure::new("task.port", format!("what arrived on input port '{}' is not text", name))
        })
    }

    /// Every value on a port, in order; empty when none arrived.
    pub fn all(&self, name: &str) -> &[Value] {
        self.ports.get(name).and_then(Value::as_list).unwrap_or(&[])
    }

    /// A value of the `with` block; fails the attempt (`task.with`) when it is missing.
    pub fn param(&self, name: &str) -> Result<&Value, Failure> {
        self.with
            .get(name)
            .ok_or_else(|| Failure::new("task.with", format!("the opening gives no '{}' under 'with'", name)))
    }
}

/// What an attempt produced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    ports: Object,
    artifacts: Vec<String>,
}

impl Output {
    /// Nothing on any port.
    pub fn new() -> Output {
        Output::default()
    }

    /// One value on one port.
    pub fn of(port: &str, value: impl Into<Value>) -> Output {
        Output::new().put(port, value)
    }

    /// One more value on a port.
    pub fn put(mut self, port: &str, value: impl Into<Value>) -> Output {
        let values = self.ports.entry(port.to_owned()).or_insert_with(|| Value::List(Vec::new()));
        if let Value::List(items) = values {
            items.push(value.into());
        }
        self
    }

    /// All values of a port, none included.
    pub fn fill(mut self, port: &str, values: Vec<Value>) -> Output {
        self.ports.insert(port.to_owned(), Value::List(values));
        self
    }

    /// A digest that [`Host::put_text`] or [`Host::put_bytes`] returned.
    pub fn artifact(mut self, digest: impl Into<String>) -> Output {
        self.artifacts.push(digest.into());
        self
    }

    /// The values on a port; empty when there are none.
    pub fn values(&self, port: &str) -> &[Value] {
        self.ports.get(port).and_then(Value::as_list).unwrap_or(&[])
    }

    /// As the ABI has it: `{ports, artifacts}`.
    pub fn to_value(&self) -> Value {
        object! { "ports": self.ports.clone(), "artifacts": self.artifacts.clone() }
    }
}

/// Something an agent can do for others. Make constants of it and name them in [`agent!`](crate::agent).
#[derive(Clone, Copy)]
pub struct Tool {
    /// `family.verb`, unique in the agent.
    pub id: &'static str,
    /// One sentence for whoever chooses.
    pub description: &'static str,
    /// JSON Schema of the arguments, as JSON text. The host checks arguments against it.
    pub input_schema: &'static str,
    /// JSON Schema of the result, as JSON text.
    pub result_schema: &'static str,
    /// The work.
    pub call: fn(&Args, &Host) -> Result<Value, Failure>,
}

/// Arguments of a tool call; a missing or unfitting one fails with `task.arguments`.
#[derive(Clone, Debug, Default)]
pub struct Args(pub Object);

macro_rules! typed_arguments {
    ($($(#[$meta:meta])* $name:ident -> $kind:ty, $what:literal;)*) => {$(
        $(#[$meta])*
        pub fn $name<'a>(&'a self, key: &str) -> Result<$kind, Failure> {
            self.required(key)?.$name().ok_or_else(|| {
                Failure::new("task.arguments", format!("argument '{}' is not {}", key, $what))
            })
        }
    )*};
}

impl Args {
    /// An argument that may be missing.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// An argument that must be there.
    pub fn required(&self, key: &str) -> Result<&Value, Failure> {
        self.get(key).ok_or_else(|| {
            Failure::new("task.arguments", format!("nothing was given for argument '{}'", key))
        })
    }

    typed_arguments! {
        /// A text.
        as_str -> &'a str, "text";
        /// A whole number.
        as_i64 -> i64, "a whole number";
        /// A number.
        as_f64 -> f64, "a number";
        /// A truth.
        as_bool -> bool, "true or false";
        /// A list.
        as_list -> &'a [Value], "a list";
        /// An object.
        as_object -> &'a Object, "an object";
    }
}

/// What `handle` is asked for.
pub(crate) enum Asked {
    Task(Task),
    Describe,
    Tool(String, Args),
}

impl Asked {
    /// The input of the ABI; fails with `abi.input` or `abi.op`.
    pub(crate) fn parse(text: &str) -> Result<Asked, Failure> {
        let value = Value::parse(text)
            .map_err(|error| Failure::new("abi.input", format!("the input is not JSON: {}", error)))?;
        let mut input = match value {
            Value::Object(members) => members,
            _ => return Err(Failure::new("abi.input", "the input is not a JSON object")),
        };
        let mut part = |name: &str| match input.remove(name) {
            None | Some(Value::Null) => Ok(Object::new()),
            Some(Value::Object(members)) => Ok(members),
            Some(_) => Err(Failure::new("abi.input", format!("'{}' of the input is not an object", name))),
        };
        let ports = part("ports")?;
        let task = Task { ports, with: part("with")?, context: part("context")?, message: part("message")? };
        let args = Args(part("args")?);
        if task.ports.values().any(|values| values.as_list().is_none()) {
            return Err(Failure::new("abi.input", "a port of the input is not a list of values"));
        }
        match input.get("op").map(|op| op.as_str()) {
            None | Some(Some("handle")) => Ok(Asked::Task(task)),
            Some(Some("describe")) => Ok(Asked::Describe),
            Some(Some("tool")) => {
                let name = input.get("tool").and_then(Value::as_str).unwrap_or("");
                Ok(Asked::Tool(name.to_owned(), args))
            }
            Some(Some(other)) => Err(Failure::new("abi.op", format!("this agent cannot do '{}'", other))),
            Some(None) => Err(Failure::new("abi.input", "'op' of the input is not text")),
        }
    }
}
