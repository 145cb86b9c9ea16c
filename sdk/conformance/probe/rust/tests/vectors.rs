//! Runs `abi.json` in process: `RUNLOOP_ABI=<path> cargo test`.

use std::cell::RefCell;
use std::rc::Rc;

use runloop::json::Object;
use runloop::testing::includes;
use runloop::{Host, Transport, Value};

/// Expects exactly the exchanges of a case, in order.
struct Script {
    defaults: Value,
    exchanges: Vec<Value>,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    made: usize,
    faults: Vec<String>,
}

impl Script {
    fn plain(&self, op: &str, args: &Value) -> Object {
        let members = args.as_object().cloned().unwrap_or_default();
        let left_out =
            |key: &str, value: &Value| value.is_null() || self.defaults[op].get(key) == Some(value);
        members.into_iter().filter(|(key, value)| !left_out(key, value)).collect()
    }
}

impl Transport for Script {
    fn call(&self, op: &str, payload: &str) -> Result<String, String> {
        let mut state = self.state.borrow_mut();
        let exchange = match self.exchanges.get(state.made) {
            Some(exchange) => exchange,
            None => {
                state.faults.push(format!("one call too many: {} {}", op, payload));
                return Err("{}".to_owned());
            }
        };
        state.made += 1;
        let args = Value::parse(payload).expect("arguments are JSON");
        let wanted = exchange["op"].as_str().unwrap();
        if op != wanted || self.plain(op, &args) != self.plain(op, &exchange["args"]) {
            state.faults.push(format!("expected {} {}, got {} {}", wanted, exchange["args"], op, args));
        }
        if let Some(text) = exchange["answer_text"].as_str() {
            return Ok(text.to_owned());
        }
        if let Some(text) = exchange["refusal_text"].as_str() {
            return Err(text.to_owned());
        }
        exchange
            .get("refusal")
            .map_or_else(|| Ok(exchange["answer"].to_string()), |refusal| Err(refusal.to_string()))
    }
}

#[test]
fn every_vector_holds() {
    let path = std::env::var_os("RUNLOOP_ABI").expect("RUNLOOP_ABI names abi.json");
    let vectors = Value::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    let agent = probe::runloop_agent();
    let cases = vectors["cases"].as_list().unwrap();
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in cases {
        let state = Rc::new(RefCell::new(State::default()));
        let exchanges = case["host"].as_list().unwrap_or(&[]).to_vec();
        let wanted_calls = exchanges.len();
        let script = Script { defaults: vectors["defaults"].clone(), exchanges, state: Rc::clone(&state) };
        let answer = agent.answer(case["input"].as_str().unwrap(), &Host::new(script));
        let mut faults = std::mem::take(&mut state.borrow_mut().faults);
        if state.borrow().made != wanted_calls {
            faults.push(format!("made {} of {} host calls", state.borrow().made, wanted_calls));
        }
        faults.extend(judge(case, &answer));
        if !faults.is_empty() {
            wrong.push(format!("{}: {}", case["name"], faults.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    println!("{} vectors hold", cases.len());
}

fn judge(case: &Value, answer: &Result<String, String>) -> Option<String> {
    let text = match answer {
        Ok(text) | Err(text) => text,
    };
    let value = match Value::parse(text) {
        Ok(value) => value,
        Err(error) => return Some(format!("{}: {}", error, text)),
    };
    let fits = match (case.get("error"), answer) {
        (Some(error), Err(_)) => fits_error(error, &value),
        (None, Ok(_)) => match case.get("output") {
            Some(output) => *output == value,
            None => includes(&value, &case["includes"]),
        },
        _ => false,
    };
    if fits {
        None
    } else {
        Some(format!("got {}", text.chars().take(300).collect::<String>()))
    }
}

fn fits_error(error: &Value, value: &Value) -> bool {
    let codes = error["codes"].as_list().unwrap();
    (codes.is_empty() || codes.contains(&value["code"]))
        && value["code"].as_str().is_some()
        && value["message"].as_str().is_some()
        && value["retryable"].as_bool().is_some()
        && error.get("message").map_or(true, |message| *message == value["message"])
        && error.get("retryable").map_or(true, |retryable| *retryable == value["retryable"])
}
