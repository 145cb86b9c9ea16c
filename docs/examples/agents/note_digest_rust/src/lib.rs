//! One page of Markdown from what the notes say on a topic.

use runloop::{object, Failure, Host, Level, Output, Task};

runloop::agent!(handle);

const MOST: u32 = 5;
const EXCERPT: usize = 280;

fn handle(task: Task, host: &Host) -> Result<Output, Failure> {
    let topic = task.port_str("topic")?.trim();
    if topic.is_empty() {
        return Err(Failure::new("note_digest.topic", "the topic is empty"));
    }
    let found = host.kb_search(topic, MOST, &["note"])?;
    let mut page = format!("# {}\n", one_line(topic));
    let (mut notes, mut skipped) = (0, 0);
    for note in &found {
        let id = note["id"].as_str().unwrap_or("");
        // One note that cannot be read is no reason to give up the others.
        match host.kb_read("document", id) {
            Ok(document) => {
                let title = note["title"].as_str().unwrap_or("Untitled");
                let body = document["body"].as_str().unwrap_or("");
                page.push_str(&format!(
                    "\n## {}\n\n{}\n\nSource: {}\n",
                    one_line(title),
                    excerpt(body),
                    id
                ));
                notes += 1;
            }
            Err(refusal) => {
                host.log(Level::Warning, &format!("skipped {}: {}", id, refusal))?;
                skipped += 1;
            }
        }
    }
    if notes == 0 {
        return Err(Failure::new(
            "note_digest.nothing",
            format!("no note says anything on '{}'", topic),
        ));
    }
    let digest = host.put_text("digest.md", "text/markdown; charset=utf-8", &page)?;
    let out = object! { "digest": &digest, "notes": notes, "skipped": skipped };
    Ok(Output::of("out", out).artifact(digest))
}

/// A heading is one line, whatever a note is called.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The beginning, cut at a word.
fn excerpt(body: &str) -> String {
    let text = one_line(body);
    if text.chars().count() <= EXCERPT {
        return text;
    }
    let cut: String = text.chars().take(EXCERPT).collect();
    format!(
        "{}…",
        cut.rsplit_once(' ').map_or(cut.as_str(), |(head, _)| head)
    )
}
