//! Topics: `/`-separated addresses, checked before they are sent.
//!
//! A pattern may end in a `*` segment, which stands for anything strictly below; `*` alone for everything.
//! Who may publish or read a topic is the daemon's matter.

use crate::error::{Error, Family, Result};

/// Where control requests go.
pub const CTRL: &str = "rlp/ctrl";
/// Where questions to the user appear.
pub const ACTION_REQUEST: &str = "rlp/actions/request";
/// Where operators answer them.
pub const ACTION_DECISION: &str = "rlp/actions/decision";
/// Where drop notices appear.
pub const DROPS: &str = "rlp/sys/drops";
/// Where counters appear.
pub const METRICS: &str = "rlp/sys/metrics";
/// Characters of a topic or pattern.
pub const MAX_TOPIC: usize = 255;

/// `text` if it is a topic.
pub fn topic(text: &str) -> Result<&str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:#@+-".contains(&byte);
    if text.len() <= MAX_TOPIC && text.split('/').all(|part| !part.is_empty() && part.bytes().all(legal)) {
        return Ok(text);
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::new(Family::Usage, "topic", format!("{:?} is not a topic", shown))
        .with_hint("segments of letters, digits and _.:#@+- joined by '/', at most 255 characters"))
}

/// `text` if it is a topic, `*`, or a topic and `/*`.
pub fn pattern(text: &str) -> Result<&str> {
    if text != "*" {
        topic(text.strip_suffix("/*").unwrap_or(text))?;
    }
    Ok(text)
}

/// Whether a checked pattern covers a checked topic.
pub fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.len() > prefix.len() && topic.starts_with(prefix),
        None => pattern == topic,
    }
}

/// The private reply topic of one socket session.
pub fn client_reply(session: &str) -> Result<String> {
    let text = format!("rlp/clients/{}/reply", session);
    topic(&text)?;
    Ok(text)
}
