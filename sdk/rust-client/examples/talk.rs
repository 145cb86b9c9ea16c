//! A program that speaks to a daemon as it is told on stdin, one command and one answer per line; for tests.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use runloop_rmp::{topics, Client, Delivery, Map, Options, Result, Value};

const TYPE: &str = "observation.generic.v1";

fn main() -> io::Result<()> {
    let mut talk = Talk { client: None, last: None };
    let mut output = io::stdout();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match talk.obey(words[0], &words[1..]) {
            Ok(answer) => writeln!(output, "{}", format!("ok {}", answer).trim())?,
            Err(error) => writeln!(output, "error {} {}", error.family.name(), error.code)?,
        }
        output.flush()?;
    }
    Ok(())
}

struct Talk {
    client: Option<Client>,
    last: Option<Delivery>,
}

impl Talk {
    fn obey(&mut self, command: &str, words: &[&str]) -> Result<String> {
        if command == "connect" {
            let credential = Some(words[1]).filter(|word| *word != "-").map(bytes);
            let about = Map::new().with("capabilities", vec![Value::from("talk")]);
            let client = Client::connect(words[0], Options { credential, about, ..Options::default() })?;
            let principal = client.principal().to_owned();
            self.client = Some(client);
            return Ok(principal);
        }
        let client = self.client.as_mut().expect("connect first");
        let nothing = String::new();
        match command {
            "principal" => Ok(client.principal().to_owned()),
            "subscribe" => client.subscribe(words[0]).map(|_| nothing),
            "unsubscribe" => client.unsubscribe(words[0]).map(|_| nothing),
            "consume" => client.consume(words[0], words[1], "first").map(|_| nothing),
            "leave" => client.leave(words[0], false).map(|_| nothing),
            "publish" => {
                client.publish(words[0], TYPE, text(words[1])).map(|receipt| receipt.receivers.to_string())
            }
            "durable" => {
                client.publish_durable(words[0], TYPE, text(words[1])).map(|receipt| receipt.seq.to_string())
            }
            "call" => client.call(words[0], Map::new(), Duration::from_secs(30)).map(|answer| keys(&answer)),
            "announce" => {
                client.announce(Map::new().with("capabilities", vec![Value::from(words[0])])).map(|_| nothing)
            }
            "find" => {
                let wanted = Map::new().with("capability", words[0]);
                let found = client.call("directory.find", wanted, Duration::from_secs(30))?;
                let entries = found.get("entries").and_then(Value::as_array);
                Ok(entries.map_or(0, |entries| entries.len()).to_string())
            }
            "decide" => {
                let decision = Map::new()
                    .with("v", 1)
                    .with("approval", "a")
                    .with("action_digest", "b")
                    .with("decision", "approve")
                    .with("note", "");
                client
                    .request(topics::ACTION_DECISION, "toolresult.action.decision.v1", decision)
                    .map(|answer| keys(&answer))
            }
            "ping" => client.ping().map(|now| if now > 0 { "pong" } else { "silence" }.to_owned()),
            "next" => {
                self.last = client.next_delivery(Some(Duration::from_millis(words[0].parse().unwrap())))?;
                Ok(self.last.as_ref().map_or_else(|| "none".to_owned(), shown))
            }
            "ack" => client.ack(self.last.as_ref().expect("a delivery")).map(|_| nothing),
            _ => panic!("no such command: {}", command),
        }
    }
}

fn text(text: &str) -> Map {
    Map::new().with("text", text)
}

fn shown(delivery: &Delivery) -> String {
    let text = delivery.payload.get("text").and_then(Value::as_str).unwrap_or("");
    let consumer = if delivery.consumer.is_empty() { "-" } else { &delivery.consumer };
    let kept = if delivery.seq > 0 { "recorded" } else { "passing" };
    format!("{} {} {} {}", delivery.topic, text, consumer, kept)
}

fn keys(value: &Value) -> String {
    let pairs = value.as_map().map_or(&[][..], Map::pairs);
    let mut keys: Vec<&str> = pairs.iter().filter_map(|pair| pair.0.as_str()).collect();
    keys.sort_unstable();
    keys.join(",")
}

fn bytes(word: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hex digit") as u8;
    word.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
}
