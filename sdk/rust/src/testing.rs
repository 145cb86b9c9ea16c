//! A host for agents under test, in process: no daemon, no sandbox, no waiting.
//!
//! ```
//! use runloop::{object, testing::FakeHost, Agent, Failure, Host, Output, Task};
//!
//! fn handle(_task: Task, host: &Host) -> Result<Output, Failure> {
//!     Ok(Output::of("found", host.kb_search("plan", 3, &[])?.len()))
//! }
//!
//! let host = FakeHost::new().answer("kb.search", object! { "items": vec![object! {}] });
//! let agent = Agent { handle, tools: vec![] };
//! let output = agent.run(object! { "ports": object! {} }, &host).unwrap();
//! assert_eq!(output["ports"]["found"][0], 1.into());
//! assert_eq!(host.made("kb.search")[0]["query"], "plan".into());
//! ```
//!
//! Knows how to run an agent as the sandbox does and how to script host calls. Does not know policy, quotas or
//! fuel: an agent that passes here may still be refused by the gate.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::agent::Agent;
use crate::base64;
use crate::host::{Host, Transport};
use crate::json::Value;
use crate::object;

/// What [`FakeHost`]'s clock says, unless scripted.
pub const NOW_MS: i64 = 1_750_000_000_000;

type Answer = Box<dyn Fn(&Value) -> Result<Value, Value>>;

#[derive(Default)]
struct Script {
    answers: BTreeMap<String, Answer>,
    calls: Vec<(String, Value)>,
}

/// Answers host calls from a script. Clock, randomness, log and progress need none; any other call that is not
/// scripted fails the test.
#[derive(Clone, Default)]
pub struct FakeHost {
    script: Rc<RefCell<Script>>,
}

impl FakeHost {
    /// A host without a script.
    pub fn new() -> FakeHost {
        FakeHost::default()
    }

    /// Answer every call of an op with a value.
    pub fn answer(self, op: &str, value: impl Into<Value>) -> FakeHost {
        let value = value.into();
        self.answer_with(op, move |_| Ok(value.clone()))
    }

    /// Refuse every call of an op.
    pub fn refuse(self, op: &str, code: &str, message: &str) -> FakeHost {
        let refusal = object! { "code": code, "message": message };
        self.answer_with(op, move |_| Err(refusal.clone()))
    }

    /// Answer from the arguments; `Err` is a refusal `{code, message, hint, retryable}`.
    pub fn answer_with(
        self,
        op: &str,
        answer: impl Fn(&Value) -> Result<Value, Value> + 'static,
    ) -> FakeHost {
        self.script.borrow_mut().answers.insert(op.to_owned(), Box::new(answer));
        self
    }

    /// Arguments of every call of one op, in order.
    pub fn made(&self, op: &str) -> Vec<Value> {
        let script = self.script.borrow();
        script.calls.iter().filter(|(name, _)| name == op).map(|(_, args)| args.clone()).collect()
    }

    /// What an agent's handler is given.
    pub fn host(&self) -> Host {
        Host::new(self.clone())
    }
}

impl Transport for FakeHost {
    fn call(&self, op: &str, payload: &str) -> Result<String, String> {
        let args = Value::parse(payload).expect("a host call's arguments are JSON");
        self.script.borrow_mut().calls.push((op.to_owned(), args.clone()));
        let script = self.script.borrow();
        let answer = match script.answers.get(op) {
            Some(answer) => answer(&args),
            None => Ok(unscripted(op, &args)),
        };
        answer.map(|value| value.to_string()).map_err(|refusal| refusal.to_string())
    }
}

fn unscripted(op: &str, args: &Value) -> Value {
    match op {
        "time.now" => object! { "now_ms": NOW_MS },
        "random.bytes" => {
            let wanted = args["n"].as_u64().unwrap_or(0);
            let data: Vec<u8> = (0..wanted).map(|at| (at % 251) as u8).collect();
            object! { "base64": base64::encode(&data) }
        }
        "log.write" | "progress" => object! {},
        _ => panic!("the agent called {}, which the test gives no answer for", op),
    }
}

/// Run the cases of `tests/cases.toml`, which `rlp agent test` hands over as JSON; panics with every case that
/// does not hold. Outside of `rlp agent test` there is nothing to run.
pub fn run_cases(agent: &Agent) {
    let path = match std::env::var_os("RUNLOOP_CASES") {
        Some(path) => path,
        None => return,
    };
    let text = std::fs::read_to_string(path).expect("RUNLOOP_CASES names a file");
    let cases = Value::parse(&text).expect("RUNLOOP_CASES is JSON");
    let wrong: Vec<String> =
        cases.as_list().unwrap_or(&[]).iter().filter_map(|case| fault(agent, case)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn fault(agent: &Agent, case: &Value) -> Option<String> {
    let mut fake = FakeHost::new();
    for (op, answer) in case["host"].as_object().into_iter().flatten() {
        fake = match answer.get("refuse") {
            Some(refusal) => {
                let refusal = refusal.clone();
                fake.answer_with(op, move |_| Err(refusal.clone()))
            }
            None => fake.answer(op, answer),
        };
    }
    let input = object! {
        "op": case.get("op").filter(|op| !op.is_null()).cloned().unwrap_or_else(|| "handle".into()),
        "ports": &case["ports"], "with": &case["with"], "tool": &case["tool"], "args": &case["args"],
    };
    let name = case["name"].as_str().unwrap_or("a case");
    let wanted = &case["expect"];
    match (agent.run(input, &fake), wanted["error"].as_str()) {
        (Err(failure), Some(code)) if failure.code == code => None,
        (Err(failure), _) => Some(format!("{}: failed with {}", name, failure)),
        (Ok(output), None) if includes(&output, wanted) => None,
        (Ok(output), _) => Some(format!("{}: expected {}, got {}", name, wanted, output)),
    }
}

/// Whether every member that `part` names is in `whole`, with an equal value; lists must have equal lengths.
pub fn includes(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, item)| whole.get(key).map_or(false, |found| includes(found, item)))
        }
        (Value::List(whole), Value::List(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(found, item)| includes(found, item))
        }
        _ => whole == part,
    }
}
