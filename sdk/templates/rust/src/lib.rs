//! Measures a text: words, sentences, and how long the longest sentence is.

use runloop::{object, Args, Failure, Host, Level, Output, Task, Tool, Value};

runloop::agent!(handle, tools = [MEASURE]);

/// What this agent does for others. 'rlp agent build' writes it into tools.json.
const MEASURE: Tool = Tool {
    id: "__NAME__.measure",
    description: "Counts the words and sentences of a text.",
    input_schema: r#"{
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": false
    }"#,
    result_schema: r#"{
        "type": "object",
        "properties": {
            "words": {"type": "integer"},
            "sentences": {"type": "integer"},
            "longest": {"type": "integer"}
        },
        "required": ["words", "sentences", "longest"]
    }"#,
    call: |args: &Args, _host: &Host| measure(args.as_str("text")?),
};

fn handle(task: Task, host: &Host) -> Result<Output, Failure> {
    let text = match task.all("text").last() {
        Some(_) => task.port_str("text")?,
        None => task.param("text")?.as_str().unwrap_or(""),
    };
    let measures = measure(text)?;
    // A refusal is a value: without a log line the work is still done.
    let _ = host.log(
        Level::Info,
        &format!("measured {} words", measures["words"]),
    );
    Ok(Output::of("out", measures))
}

fn measure(text: &str) -> Result<Value, Failure> {
    let lengths: Vec<usize> = text
        .split(|letter| matches!(letter, '.' | '!' | '?'))
        .map(|sentence| sentence.split_whitespace().count())
        .filter(|words| *words > 0)
        .collect();
    match lengths.iter().max() {
        Some(longest) => Ok(object! {
            "words": lengths.iter().sum::<usize>(),
            "sentences": lengths.len(),
            "longest": *longest,
        }),
        None => Err(Failure::new("__NAME__.empty", "there is nothing to read")),
    }
}
