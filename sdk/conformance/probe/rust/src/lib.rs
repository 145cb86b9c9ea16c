//! The probe in Rust: does what the vectors of `sdk/conformance` command, with nothing but the public SDK.

use runloop::json::Object;
use runloop::{
    list, object, Args, Failure, Host, Level, Mail, Output, Prompt, Refusal, Request, Task, Tool, Value,
};

runloop::agent!(handle, tools = [FAIL, ADD]);

const ADD: Tool = Tool {
    id: "probe.add",
    description: "Adds two numbers.",
    input_schema: r#"{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]}"#,
    result_schema: r#"{"type":"number"}"#,
    call: add,
};

const FAIL: Tool = Tool {
    id: "probe.fail",
    description: "Fails.",
    input_schema: r#"{"type":"object"}"#,
    result_schema: "{}",
    call: |_args, _host| Err(Failure::retryable("probe.failed", "as told")),
};

fn add(args: &Args, _host: &Host) -> Result<Value, Failure> {
    Ok(Value::from(args.as_f64("a")? + args.as_f64("b")?))
}

fn handle(task: Task, host: &Host) -> Result<Output, Failure> {
    let mut outcomes = Vec::new();
    let mut artifacts = Vec::new();
    for command in task.all("in") {
        outcomes.push(follow(command, &task, host, &mut artifacts)?);
    }
    let mut output = Output::new().fill("out", outcomes);
    for digest in artifacts {
        output = output.artifact(digest);
    }
    Ok(output)
}

fn follow(command: &Value, task: &Task, host: &Host, artifacts: &mut Vec<String>) -> Result<Value, Failure> {
    let name = words(&command["name"]);
    Ok(match words(&command["do"]) {
        "echo" => command["value"].clone(),
        "size" => {
            let text = words(&command["text"]);
            object! { "characters": text.chars().count(), "bytes": text.len() }
        }
        "port" => task.port(name)?.clone(),
        "all" => Value::from(task.all(name)),
        "param" => task.param(name)?.clone(),
        "context" => Value::from(task.context.clone()),
        "fail" => {
            let (code, message) = (words(&command["code"]), words(&command["message"]));
            return Err(match command["retryable"].as_bool() {
                Some(true) => Failure::retryable(code, message),
                _ => Failure::new(code, message),
            });
        }
        "call" => survived(host.call(words(&command["op"]), &command["args"])),
        "must" => host.call(words(&command["op"]), &command["args"])?,
        "helper" => survived(helper(words(&command["op"]), &command["args"], host, artifacts)),
        _ => return Err(Failure::new("probe.unknown", "there is no such command")),
    })
}

fn survived(answer: Result<Value, Refusal>) -> Value {
    answer.unwrap_or_else(|refusal| {
        object! { "refused": object! {
            "code": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "retryable": refusal.retryable,
        } }
    })
}

fn helper(op: &str, args: &Value, host: &Host, artifacts: &mut Vec<String>) -> Result<Value, Refusal> {
    let text = |key: &str| words(&args[key]);
    let number = |key: &str| args[key].as_u64().unwrap_or(0);
    Ok(match op {
        "time.now" => host.now_ms()?.into(),
        "random.bytes" => hex(&host.random_bytes(number("n") as usize)?),
        "log.write" => {
            let fields = args["fields"].as_object().cloned().unwrap_or_else(Object::new);
            let level = match text("level") {
                "warning" => Level::Warning,
                _ => Level::Info,
            };
            host.log_with(level, text("message"), fields)?;
            Value::Null
        }
        "progress" => {
            host.progress(text("message"), args["fraction"].as_f64())?;
            Value::Null
        }
        "kb.search" => {
            let kinds: Vec<&str> = args["kinds"].as_list().unwrap_or(&[]).iter().map(words).collect();
            host.kb_search(text("query"), number("k") as u32, &kinds)?.into()
        }
        "kb.query" => {
            let params = args["params"].as_list().unwrap_or(&[]);
            host.kb_query(text("sql"), params, number("limit") as u32)?.into()
        }
        "kb.read" => host.kb_read(text("kind"), text("id"))?,
        "kb.why" => host.kb_why(text("ref"))?,
        "kb.propose" => host.kb_propose(text("kind"), &args["payload"])?,
        "memory.get" => {
            let (value, version) = host.memory_get(text("namespace"), text("key"))?;
            object! { "value": value, "version": version }
        }
        "memory.put" => {
            let expected = args["expected_version"].as_u64();
            host.memory_put(text("namespace"), text("key"), &args["value"], expected)?.into()
        }
        "artifact.put" => {
            let digest = match args.get("base64") {
                Some(data) => host.put_bytes(text("name"), text("media_type"), &from_base64(words(data)))?,
                None => host.put_text(text("name"), text("media_type"), text("text"))?,
            };
            artifacts.push(digest.clone());
            digest.into()
        }
        "blob.read" => hex(&host.blob_read(text("digest"), number("offset"), number("length") as u32)?),
        "model.complete" => {
            let mut prompt = Prompt::user("");
            prompt.messages.clear();
            for message in args["messages"].as_list().unwrap_or(&[]) {
                prompt = prompt.message(words(&message["role"]), words(&message["content"]));
            }
            prompt.model = args["model"].as_str().map(str::to_owned);
            prompt.max_tokens = number("max_tokens") as u32;
            prompt.temperature = args["temperature"].as_f64().unwrap_or(0.0);
            prompt.json_schema = args.get("json_schema").filter(|schema| !schema.is_null()).cloned();
            prompt.template = args["template"].as_str().map(str::to_owned);
            prompt.facts = args["facts"].as_object().cloned().unwrap_or_else(Object::new);
            let made = host.complete(&prompt)?;
            object! {
                "text": made.text, "provider": made.provider, "model": made.model,
                "generated": made.generated, "finish": made.finish,
            }
        }
        "msg.next" => host.next_message(text("stream"))?.into(),
        "mail.send" => {
            let addresses = |key: &str| -> Vec<String> {
                args[key].as_list().unwrap_or(&[]).iter().map(|item| words(item).to_owned()).collect()
            };
            host.send_mail(&Mail {
                to: addresses("to"),
                subject: text("subject").to_owned(),
                body: text("body").to_owned(),
                cc: addresses("cc"),
                bcc: addresses("bcc"),
                in_reply_to: args["in_reply_to"].as_str().map(str::to_owned),
            })?
        }
        "http.fetch" => {
            let mut request = Request::get(text("url"));
            request.method = text("method").to_owned();
            for (name, value) in args["headers"].as_object().into_iter().flatten() {
                request = request.header(name, words(value));
            }
            request.body = match (args["text"].as_str(), args["base64"].as_str()) {
                (Some(text), _) => Some(text.as_bytes().to_vec()),
                (_, Some(data)) => Some(from_base64(data)),
                _ => None,
            };
            request.max_bytes = args["max_bytes"].as_u64();
            let response = host.fetch(&request)?;
            let headers: Object =
                response.headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
            object! {
                "status": u64::from(response.status), "url": response.url, "headers": headers,
                "hex": hex(&response.body)["hex"].clone(), "truncated": response.truncated,
            }
        }
        "fs.read" => hex(&host.fs_read(text("path"), number("offset"), number("length") as u32)?),
        "fs.write" => {
            let data = match args.get("base64") {
                Some(data) => from_base64(words(data)),
                None => text("text").as_bytes().to_vec(),
            };
            host.fs_write(text("path"), &data, args["expected"].as_str())?.into()
        }
        "fs.list" => {
            let (entries, truncated) = host.fs_list(text("path"), text("after"), number("limit") as u32)?;
            object! { "entries": entries, "truncated": truncated }
        }
        "fs.stat" => host.fs_stat(text("path"), args["digest"].as_bool().unwrap_or(false))?,
        "tool.list" => host.tools()?.into(),
        "tool.call" => host.call_tool(text("tool"), &args["args"])?,
        other => list!["no helper for", other],
    })
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn hex(data: &[u8]) -> Value {
    let digits: Vec<String> = data.iter().map(|byte| format!("{:02x}", byte)).collect();
    object! { "hex": digits.concat() }
}

/// Of the commands; the SDK's own reading of base64 is what is tested, so this one is the probe's.
fn from_base64(text: &str) -> Vec<u8> {
    let worth = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.bytes().filter(|letter| *letter != b'=').map(worth).collect();
    letters
        .chunks(4)
        .flat_map(|part| {
            let bits = (0..4).fold(0, |bits, at| bits << 6 | u32::from(part.get(at).copied().unwrap_or(0)));
            bits.to_be_bytes()[1..part.len()].to_vec()
        })
        .collect()
}
