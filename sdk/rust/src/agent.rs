//! An agent as a whole: its handler, its tools, and how an input of the ABI finds them.

use crate::host::Host;
use crate::json::Value;
use crate::object;
use crate::task::{Asked, Failure, Output, Task, Tool};
use crate::testing::FakeHost;

/// An agent: its handler and its tools. [`agent!`](crate::agent) makes one: `runloop_agent()`.
#[derive(Clone)]
pub struct Agent {
    /// Serves tasks.
    pub handle: fn(Task, &Host) -> Result<Output, Failure>,
    /// Offered to others.
    pub tools: Vec<Tool>,
}

impl Agent {
    /// Serve one input as the ABI has it: output text, or the text of the failure.
    pub fn answer(&self, input: &str, host: &Host) -> Result<String, String> {
        self.serve(input, host).map(|output| output.to_string()).map_err(|failure| failure.to_json())
    }

    /// Serve one input against a scripted host, for tests.
    pub fn run(&self, input: Value, host: &FakeHost) -> Result<Value, Failure> {
        self.serve(&input.to_string(), &host.host())
    }

    fn serve(&self, input: &str, host: &Host) -> Result<Value, Failure> {
        match Asked::parse(input)? {
            Asked::Task(task) => Ok((self.handle)(task, host)?.to_value()),
            Asked::Describe => self.describe(),
            Asked::Tool(id, args) => {
                let tool = self.tools.iter().find(|tool| tool.id == id);
                let tool =
                    tool.ok_or_else(|| Failure::new("abi.tool", format!("there is no tool '{}'", id)))?;
                Ok(Output::of("result", (tool.call)(&args, host)?).to_value())
            }
        }
    }

    fn describe(&self) -> Result<Value, Failure> {
        let mut tools: Vec<&Tool> = self.tools.iter().collect();
        tools.sort_by_key(|tool| tool.id);
        let mut described = Vec::new();
        for tool in tools {
            let schema = |text: &str| {
                Value::parse(text).map_err(|error| {
                    Failure::new("agent.tools", format!("a schema of {} is not JSON: {}", tool.id, error))
                })
            };
            described.push(object! {
                "id": tool.id,
                "description": tool.description,
                "input_schema": schema(tool.input_schema)?,
                "result_schema": schema(tool.result_schema)?,
            });
        }
        Ok(object! { "tools": described })
    }
}
