//! The client's half of a session, without I/O: bytes in, answers and deliveries out.
//!
//! Knows: the hello, message ids, which answer belongs to which question; and, over several connections, what
//! was subscribed, consumed and not finished ([`Session::disconnected`]). Does not know: sockets, time (it is
//! an argument).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::envelope::{schema_id, Envelope};
use crate::error::{Error, Family, Named, Result};
use crate::frame::{Frame, FrameReader, DEFAULT_TTL_MS};
use crate::hello::{proof, HELLO_ID, PROTOCOL};
use crate::topics::{self, CTRL};
use crate::value::{Map, Value};

const MAX_DELIVERIES: usize = 65_536;
const STATUS: &str = "look at it with 'rlp daemon status'";

/// One frame that the daemon delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Where it was published.
    pub topic: String,
    /// `family.kind.vN`
    pub type_name: String,
    /// Whatever the type means.
    pub payload: Value,
    /// Everything else that came with it.
    pub meta: Map,
    /// The run it belongs to; 0 for none.
    pub trace_id: u128,
    /// Counts up per publisher.
    pub msg_id: u64,
    /// Id of the type.
    pub schema_id: u16,
    /// The durable consumer it is for; empty for an ordinary subscription.
    pub consumer: String,
    /// Place in the ledger, on durable topics; 0 elsewhere.
    pub seq: u64,
    /// Who published it, on durable topics, as the daemon stamped it.
    pub publisher: String,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// Subscribers it was routed to.
    pub receivers: u64,
    /// Its id.
    pub msg_id: u64,
    /// Place in the ledger, on durable topics; 0 elsewhere.
    pub seq: u64,
    /// It was recorded by an earlier attempt already.
    pub duplicate: bool,
}

/// What a publish may say beyond topic, type and payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Keys of `meta`; the topic is added.
    pub meta: Map,
    /// The run it belongs to; 0 for none.
    pub trace_id: u128,
    /// Time to live, in milliseconds.
    pub ttl_ms: u64,
    /// The topic is durable: the message is sent again, under the same ids, until it is in the ledger, once.
    pub durable: bool,
}

impl Default for Publish {
    fn default() -> Publish {
        Publish { meta: Map::new(), trace_id: 0, ttl_ms: DEFAULT_TTL_MS, durable: false }
    }
}

/// How to say hello.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Introduction {
    /// The 32 bytes that make this session an operator's; without them it is a peer.
    pub credential: Option<Vec<u8>>,
    /// How the daemon's lists call this program.
    pub client: String,
    /// The build to say hello with: the daemon speaks to its own only.
    pub build: String,
    /// 32 secret bytes, the same for every connection of this publisher; none: each connection is another
    /// one.
    pub instance: Option<Vec<u8>>,
    /// What the directory shows: `version`, `serves`, `capabilities`, `heartbeat_ms`.
    pub about: Map,
}

/// A durable consumer over all connections of this client.
#[derive(Clone, Debug)]
struct Consumer {
    pattern: String,
    start: String,
    /// What the program has acknowledged.
    acked: u64,
    /// Newest delivery handed to the program; what is not newer came again.
    seen: u64,
    /// Newest delivery of this connection: the daemon lets nothing beyond be acknowledged.
    received: u64,
    /// Acknowledged on this connection.
    told: u64,
}

/// What is asked again on the next connection.
#[derive(Clone, Debug)]
enum Again {
    Control(Map),
    Consume(String),
    Call(String, Map),
    Publish(String, String, Value, Publish),
}

/// What an answer changes here, whoever waits for it.
#[derive(Clone, Debug)]
enum Then {
    Subscribed(String),
    /// A consumer that was not known before.
    Consuming(String),
    /// Asked again by itself: a refusal ends the session.
    Resumed,
}

/// One publisher's state. Feed it what was read, write what stands in `outgoing`.
#[derive(Debug)]
pub struct Session {
    introduction: Introduction,
    reader: FrameReader,
    msg_id: u64,
    awaited: HashSet<u64>,
    answers: HashMap<u64, Result<Value>>,
    /// By the id of the answer, so in the order it was asked.
    again: BTreeMap<u64, Again>,
    then: HashMap<u64, Then>,
    patterns: Vec<String>,
    consumers: BTreeMap<String, Consumer>,
    last_report: Option<Map>,
    /// What was delivered and not yet taken, oldest first.
    pub deliveries: VecDeque<Delivery>,
    /// Why durable consumers ended, each for the program to hear of once.
    pub ended: VecDeque<Error>,
    /// Bytes to be written; the owner takes them away.
    pub outgoing: Vec<u8>,
    /// True once the daemon accepted the hello.
    pub ready: bool,
    /// `operator` or `peer`, as the daemon decided.
    pub principal: String,
    /// Names this connection.
    pub session: String,
    /// This connection's private topic.
    pub reply_topic: String,
}

impl Session {
    /// A session that has heard nothing yet.
    pub fn new(introduction: Introduction) -> Session {
        Session {
            introduction,
            reader: FrameReader::default(),
            msg_id: 0,
            awaited: HashSet::new(),
            answers: HashMap::new(),
            again: BTreeMap::new(),
            then: HashMap::new(),
            patterns: Vec::new(),
            consumers: BTreeMap::new(),
            last_report: None,
            deliveries: VecDeque::new(),
            ended: VecDeque::new(),
            outgoing: Vec::new(),
            ready: false,
            principal: String::new(),
            session: String::new(),
            reply_topic: String::new(),
        }
    }

    // --- in ------------------------------------------------------------------------------------------

    /// Take bytes from the daemon; answers what ends the session.
    pub fn feed(&mut self, data: &[u8], now_ms: u64) -> Result<()> {
        for frame in self.reader.feed(data)? {
            self.take(&frame, now_ms)?;
        }
        self.reader.error().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// The error for a connection that the daemon closed, with the reason it gave, if any.
    pub fn lost(&self) -> Error {
        let said = |key| self.last_report.as_ref().and_then(|report| report.get(key)).and_then(Value::as_str);
        let why = said("message").map_or_else(String::new, |message| format!(": {}", message));
        let message = format!("the daemon closed the connection{}", why);
        Error::new(Family::Unreachable, "client.lost", message).with_hint(said("hint").unwrap_or(STATUS))
    }

    /// The answer to a question, once it is there.
    pub fn answer(&mut self, id: u64) -> Option<Result<Value>> {
        let answer = self.answers.remove(&id)?;
        self.awaited.remove(&id);
        Some(answer)
    }

    /// Nobody waits for this answer any more.
    pub fn give_up(&mut self, id: u64) {
        self.awaited.remove(&id);
        self.answers.remove(&id);
        self.again.remove(&id);
    }

    /// The connection is gone and another will be made: what can be asked again will be, once the next hello
    /// is accepted; everything else under way fails with `client.lost`, its outcome unknown.
    pub fn disconnected(&mut self) {
        self.reader = FrameReader::default();
        self.outgoing.clear();
        self.ready = false;
        self.last_report = None;
        let message = "the connection was lost before the answer came; whether it was done is not known";
        let lost = Error::new(Family::Unreachable, "client.lost", message)
            .with_hint("ask again, if doing it twice does no harm");
        for id in &self.awaited {
            if !self.again.contains_key(id) {
                self.answers.entry(*id).or_insert_with(|| Err(lost.clone()));
            }
        }
        let again = &self.again;
        self.then.retain(|id, _| again.contains_key(id));
        for consumer in self.consumers.values_mut() {
            consumer.received = 0;
            consumer.told = 0;
        }
    }

    // --- out: each answers the id that its answer will carry -------------------------------------------

    /// Ask on rlp/ctrl. `idempotent`: asked again after a reconnection.
    pub fn call(&mut self, method: &str, params: Map, idempotent: bool, now_ms: u64) -> Result<u64> {
        let again = Again::Call(method.to_owned(), params);
        self.ask(again, idempotent, now_ms)
    }

    /// Have frames on `pattern` delivered, on this connection and the next ones.
    pub fn subscribe(&mut self, pattern: &str, now_ms: u64) -> Result<u64> {
        let id = self.control(subscription(topics::pattern(pattern)?), now_ms)?;
        self.then.insert(id, Then::Subscribed(pattern.to_owned()));
        Ok(id)
    }

    /// Undo [`Session::subscribe`].
    pub fn unsubscribe(&mut self, pattern: &str, now_ms: u64) -> Result<u64> {
        self.patterns.retain(|known| known != pattern);
        let asked = Map::new().with("action", "unsubscribe").with("pattern", topics::pattern(pattern)?);
        self.control(asked, now_ms)
    }

    /// The daemon's clock; also a sign of life for the directory.
    pub fn ping(&mut self, now_ms: u64) -> Result<u64> {
        self.control(Map::new().with("action", "ping"), now_ms)
    }

    /// Say anew what the directory shows of this program.
    pub fn announce(&mut self, about: Map, now_ms: u64) -> Result<u64> {
        let id = self.control(about.clone().with("action", "announce"), now_ms)?;
        self.introduction.about = about;
        Ok(id)
    }

    /// Take up the durable consumer `name`: its deliveries bear its name, come in order, each once, and wait
    /// for [`Session::ack`]. `start`: where a new one begins, at the `first` message or the `next`.
    pub fn consume(&mut self, name: &str, pattern: &str, start: &str, now_ms: u64) -> Result<u64> {
        topics::pattern(pattern)?;
        let known = self.consumers.get(name).map(|consumer| consumer.pattern.clone());
        if let Some(other) = known.as_deref().filter(|other| *other != pattern) {
            let message = format!("the consumer {} reads {}", name, other);
            return Err(Error::new(Family::Usage, "usage", message).with_hint("leave it first"));
        }
        let (pattern, start) = (pattern.to_owned(), start.to_owned());
        let fresh = Consumer { pattern, start, acked: 0, seen: 0, received: 0, told: 0 };
        self.consumers.entry(name.to_owned()).or_insert(fresh);
        let asked = self.ask(Again::Consume(name.to_owned()), true, now_ms);
        if known.is_none() {
            match &asked {
                Ok(id) => drop(self.then.insert(*id, Then::Consuming(name.to_owned()))),
                Err(_) => drop(self.consumers.remove(name)),
            }
        }
        asked
    }

    /// Give a durable consumer up: for now, or (`forget`) for ever.
    pub fn leave(&mut self, name: &str, forget: bool, now_ms: u64) -> Result<u64> {
        self.consumers.remove(name);
        let asked = Map::new().with("action", "unsubscribe").with("durable", name).with("forget", forget);
        self.control(asked, now_ms)
    }

    /// Everything that `name` was delivered up to `seq` is done with. Nothing comes back for it.
    pub fn ack(&mut self, name: &str, seq: u64, now_ms: u64) -> Result<()> {
        if let Some(consumer) = self.consumers.get_mut(name) {
            consumer.acked = consumer.acked.max(seq);
        }
        self.tell(name, now_ms)
    }

    /// Publish and want a receipt.
    pub fn publish(
        &mut self,
        topic: &str,
        type_name: &str,
        payload: Value,
        mut more: Publish,
        now_ms: u64,
    ) -> Result<u64> {
        topics::topic(topic)?;
        more.meta.insert("receipt", true);
        let durable = more.durable;
        self.ask(Again::Publish(topic.to_owned(), type_name.to_owned(), payload, more), durable, now_ms)
    }

    /// Publish and want an answer (2002) from whoever serves the topic.
    pub fn request(&mut self, topic: &str, type_name: &str, payload: Value, now_ms: u64) -> Result<u64> {
        topics::topic(topic)?;
        let mut more = Publish::default();
        more.meta.insert("reply_to", self.reply_topic.as_str());
        more.meta.insert("correlation", (self.msg_id + 1).to_string());
        self.ask(Again::Publish(topic.to_owned(), type_name.to_owned(), payload, more), false, now_ms)
    }

    // --- inside ----------------------------------------------------------------------------------------

    fn control(&mut self, asked: Map, now_ms: u64) -> Result<u64> {
        self.ask(Again::Control(asked), true, now_ms)
    }

    /// Put a question. Its id is the msg_id of its frame: a refusal names it, so one id serves for both.
    fn ask(&mut self, question: Again, repeat: bool, now_ms: u64) -> Result<u64> {
        let id = self.msg_id + 1;
        self.put(id, &question, id, now_ms)?;
        self.msg_id = id; // not before: what cannot be encoded was never sent
        self.awaited.insert(id);
        if repeat {
            self.again.insert(id, question);
        }
        Ok(id)
    }

    /// Send a question whose answer carries `id` as the frame `msg_id`.
    fn put(&mut self, id: u64, question: &Again, msg_id: u64, now_ms: u64) -> Result<()> {
        let name = id.to_string();
        let plain = Publish::default();
        match question {
            Again::Control(asked) => {
                let asked = asked.clone().with("id", name);
                self.send(None, "intent.control.v1", asked.into(), &plain, msg_id, now_ms)
            }
            Again::Consume(consumer) => {
                let asked = self.consumption(consumer).with("id", name);
                self.send(None, "intent.control.v1", asked.into(), &plain, msg_id, now_ms)
            }
            Again::Call(method, params) => {
                let asked = Map::new()
                    .with("id", name)
                    .with("method", method.as_str())
                    .with("params", params.clone());
                let meta = Map::new().with("reply_to", self.reply_topic.as_str());
                let more = Publish { meta, ..plain };
                self.send(Some(CTRL), "intent.ctrl.request.v1", asked.into(), &more, msg_id, now_ms)
            }
            Again::Publish(topic, type_name, payload, more) => {
                self.send(Some(topic), type_name, payload.clone(), more, msg_id, now_ms)
            }
        }
    }

    fn consumption(&self, name: &str) -> Map {
        match self.consumers.get(name) {
            Some(consumer) => subscription(&consumer.pattern)
                .with("durable", name)
                .with("start", consumer.start.as_str())
                .with("after", consumer.acked),
            None => Map::new(),
        }
    }

    /// Acknowledge what the program is done with and this connection has seen.
    fn tell(&mut self, name: &str, now_ms: u64) -> Result<()> {
        let seq = match self.consumers.get_mut(name) {
            Some(consumer) => {
                let seq = consumer.acked.min(consumer.received);
                if !self.ready || seq <= consumer.told {
                    return Ok(());
                }
                consumer.told = seq;
                seq
            }
            None => return Ok(()),
        };
        let asked = Map::new().with("action", "ack").with("durable", name).with("seq", seq);
        self.tell_daemon("intent.control.v1", asked, now_ms)
    }

    /// Send what has no answer.
    fn tell_daemon(&mut self, type_name: &str, payload: Map, now_ms: u64) -> Result<()> {
        self.send(None, type_name, payload.into(), &Publish::default(), self.msg_id + 1, now_ms)?;
        self.msg_id += 1;
        Ok(())
    }

    /// A new connection: everything stands as it stood, then what was under way goes on.
    fn resume(&mut self, now_ms: u64) -> Result<()> {
        let mut standing: Vec<Again> =
            self.patterns.iter().map(|pattern| Again::Control(subscription(pattern))).collect();
        standing.extend(self.consumers.keys().map(|name| Again::Consume(name.clone())));
        for question in standing {
            let id = self.msg_id + 1;
            self.put(id, &question, id, now_ms)?;
            self.msg_id = id;
            self.then.insert(id, Then::Resumed);
        }
        for (id, question) in self.again.clone() {
            // A publish keeps its ids, so that it is recorded once; anything else is a frame of its own.
            let msg_id = if matches!(question, Again::Publish(..)) { id } else { self.msg_id + 1 };
            self.put(id, &question, msg_id, now_ms)?;
            self.msg_id = self.msg_id.max(msg_id);
        }
        Ok(())
    }

    fn send(
        &mut self,
        topic: Option<&str>,
        type_name: &str,
        payload: Value,
        more: &Publish,
        msg_id: u64,
        now_ms: u64,
    ) -> Result<()> {
        let mut pairs: Vec<(Value, Value)> =
            topic.map(|topic| ("topic".into(), topic.into())).into_iter().collect();
        // Only the checked topic is sent.
        let others =
            more.meta.pairs().iter().filter(|pair| topic.is_none() || pair.0.as_str() != Some("topic"));
        pairs.extend(others.cloned());
        let envelope = Envelope { type_name: type_name.to_owned(), payload, meta: Map::from_pairs(pairs)? };
        let frame = Frame {
            schema_id: schema_id(type_name)?,
            created_at_ms: now_ms,
            ttl_ms: more.ttl_ms,
            trace_id: more.trace_id,
            msg_id,
            body: envelope.encode()?,
        };
        self.outgoing.extend(frame.encode()?);
        Ok(())
    }

    fn take(&mut self, frame: &Frame, now_ms: u64) -> Result<()> {
        let envelope = match Envelope::open(frame) {
            Ok(envelope) => envelope,
            Err(error) if error.named() == Some(Named::BodyDecodeError) => return Err(error),
            Err(_) => return Ok(()), // a schema newer than ours: not for us
        };
        let topic = envelope.topic().unwrap_or("").to_owned();
        let ours = topic == self.reply_topic;
        match (frame.schema_id, &envelope.payload) {
            (101, payload) if !self.ready => self.greet(payload, now_ms),
            (10, Value::Map(report)) if ours || topic.is_empty() => {
                self.report(report);
                Ok(())
            }
            (2002, Value::Map(answer)) if ours || !self.ready => self.answered(answer, now_ms),
            _ if self.deliveries.len() >= MAX_DELIVERIES => {
                let message = format!("{} deliveries wait and nobody takes them", MAX_DELIVERIES);
                Err(Error::new(Family::Failed, "client.overrun", message)
                    .with_hint("read deliveries while waiting for answers"))
            }
            _ => self.delivered(frame, envelope, topic, now_ms),
        }
    }

    fn delivered(&mut self, frame: &Frame, envelope: Envelope, topic: String, now_ms: u64) -> Result<()> {
        let text = |key| envelope.meta.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let (name, publisher) = (text("consumer"), text("publisher"));
        let seq = envelope.meta.get("seq").and_then(Value::as_u64).unwrap_or(0);
        if !name.is_empty() {
            match self.consumers.get_mut(&name) {
                None => return Ok(()), // given up meanwhile
                Some(consumer) => {
                    consumer.received = consumer.received.max(seq);
                    if seq <= consumer.seen {
                        // It came again: the daemon had not heard that it was acknowledged.
                        return self.tell(&name, now_ms);
                    }
                    consumer.seen = seq;
                }
            }
        }
        self.deliveries.push_back(Delivery {
            topic,
            type_name: envelope.type_name,
            payload: envelope.payload,
            meta: envelope.meta,
            trace_id: frame.trace_id,
            msg_id: frame.msg_id,
            schema_id: frame.schema_id,
            consumer: name,
            seq,
            publisher,
        });
        Ok(())
    }

    fn greet(&mut self, payload: &Value, now_ms: u64) -> Result<()> {
        let said = (payload.get("session").and_then(Value::as_str), payload.get("nonce"));
        let (session, nonce) = match said {
            (Some(session), Some(Value::Bytes(nonce))) => (session, nonce),
            _ => {
                let message = "the daemon's hello is not one";
                return Err(Error::new(Family::Refused, "hello.shape", message)
                    .with_hint("is this Runloop's socket?"));
            }
        };
        self.reply_topic = topics::client_reply(session)?;
        let ours = &self.introduction;
        let proof = match &ours.credential {
            Some(credential) => Value::Bytes(proof(credential, nonce)?.to_vec()),
            None => Value::Nil,
        };
        let mut hello = Map::new()
            .with("protocol", PROTOCOL)
            .with("build", ours.build.as_str())
            .with("client", ours.client.as_str())
            .with("proof", proof);
        if let Some(instance) = &ours.instance {
            hello.insert("instance", instance.as_slice());
        }
        for (key, value) in ours.about.pairs() {
            hello.insert(key.as_str().unwrap_or(""), value.clone());
        }
        self.tell_daemon("observation.agent.hello.v1", hello, now_ms)
    }

    fn answered(&mut self, answer: &Map, now_ms: u64) -> Result<()> {
        let id = answer.get("id").and_then(Value::as_str).unwrap_or("");
        let outcome = if answer.get("ok").and_then(Value::as_bool) == Some(true) {
            Ok(answer.get("result").cloned().unwrap_or(Value::Nil))
        } else {
            Err(Error::from_wire(answer.get("error").unwrap_or(&Value::Nil)))
        };
        if id == HELLO_ID && !self.ready {
            let result = outcome?;
            let text = |key| result.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            self.principal = text("principal");
            self.session = text("session");
            self.ready = true;
            return self.resume(now_ms);
        }
        match id.parse() {
            Ok(id) => self.settle(id, outcome),
            Err(_) => Ok(()),
        }
    }

    fn settle(&mut self, id: u64, outcome: Result<Value>) -> Result<()> {
        let closing = outcome.as_ref().err().map_or(false, |error| error.code == "bus.closing");
        if closing && (self.again.contains_key(&id) || self.then.contains_key(&id)) {
            return Ok(()); // the daemon goes away; the next one is asked
        }
        self.again.remove(&id);
        match self.then.remove(&id) {
            Some(Then::Resumed) => return outcome.map(drop),
            Some(Then::Subscribed(pattern)) if outcome.is_ok() && !self.patterns.contains(&pattern) => {
                self.patterns.push(pattern);
            }
            Some(Then::Consuming(name)) if outcome.is_err() => drop(self.consumers.remove(&name)),
            _ => {}
        }
        if self.awaited.contains(&id) {
            self.answers.insert(id, outcome);
        }
        Ok(())
    }

    fn report(&mut self, report: &Map) {
        self.last_report = Some(report.clone());
        let whole = Value::Map(report.clone());
        let error = Error::from_wire(report.get("wire").unwrap_or(&whole));
        if let Some(id) = report.get("msg_id").and_then(Value::as_u64) {
            self.again.remove(&id);
            if self.awaited.contains(&id) {
                self.answers.insert(id, Err(error));
            }
        } else {
            self.lose(error);
        }
    }

    /// A consumer is no longer ours: whoever takes it up gets again what was not acknowledged.
    fn lose(&mut self, error: Error) {
        let name = error.data.get("consumer").and_then(Value::as_str).unwrap_or("").to_owned();
        if self.consumers.remove(&name).is_some() {
            self.deliveries.retain(|delivery| delivery.consumer != name);
            self.ended.push_back(error);
        }
    }
}

fn subscription(pattern: &str) -> Map {
    Map::new().with("action", "subscribe").with("pattern", pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon of a few lines, and what the session told it.
    struct Pair {
        session: Session,
        told: FrameReader,
        count: u64,
    }

    impl Pair {
        fn new() -> Pair {
            let mut pair = Pair {
                session: Session::new(Introduction::default()),
                told: FrameReader::default(),
                count: 0,
            };
            pair.greet("one");
            pair
        }

        fn say(&mut self, type_name: &str, payload: Map, meta: Map) -> Result<()> {
            self.count += 1;
            let envelope = Envelope { type_name: type_name.to_owned(), payload: payload.into(), meta };
            let frame = Frame {
                schema_id: schema_id(type_name).unwrap(),
                created_at_ms: 1_000,
                ttl_ms: 1_000,
                trace_id: 0,
                msg_id: self.count,
                body: envelope.encode().unwrap(),
            };
            self.session.feed(&frame.encode().unwrap(), 1_000)
        }

        fn answer(&mut self, id: &str, answer: Map) -> Result<()> {
            let topic = self.session.reply_topic.clone();
            let meta = Map::new().with("topic", topic);
            self.say("toolresult.ctrl.response.v1", answer.with("id", id), meta)
        }

        fn greet(&mut self, name: &str) {
            let hello = Map::new().with("session", name).with("nonce", &[0; 32][..]);
            self.say("observation.runtime.hello.v1", hello, Map::new()).unwrap();
            let result = Map::new().with("principal", "operator").with("session", name);
            self.answer("hello", Map::new().with("ok", true).with("result", result)).unwrap();
        }

        fn deliver(&mut self, seq: u64) {
            let meta = Map::new().with("topic", "durable/a").with("consumer", "c").with("seq", seq);
            self.say("observation.generic.v1", Map::new(), meta).unwrap();
        }

        fn told(&mut self) -> Vec<(Frame, Envelope)> {
            let bytes = std::mem::take(&mut self.session.outgoing);
            let frames = self.told.feed(&bytes).unwrap();
            frames.into_iter().map(|frame| (frame.clone(), Envelope::open(&frame).unwrap())).collect()
        }

        fn acked(&mut self) -> Vec<u64> {
            let ack =
                |envelope: &Envelope| envelope.payload.get("action").and_then(Value::as_str) == Some("ack");
            let told = self.told().into_iter().filter(|told| ack(&told.1));
            told.map(|told| told.1.payload.get("seq").and_then(Value::as_u64).unwrap()).collect()
        }
    }

    #[test]
    fn after_a_loss_a_durable_publish_is_sent_again_under_its_own_id_and_a_plain_one_fails() {
        let mut pair = Pair::new();
        let durable = Publish { durable: true, ..Publish::default() };
        let kind = "observation.generic.v1";
        let kept = pair.session.publish("durable/a", kind, 1.into(), durable, 1_000).unwrap();
        let plain = pair.session.publish("demo/a", kind, 2.into(), Publish::default(), 1_000).unwrap();
        pair.told();
        pair.session.disconnected();
        pair.greet("two");
        let again: Vec<u64> =
            pair.told().iter().filter(|told| told.0.schema_id == 1).map(|told| told.0.msg_id).collect();
        assert_eq!(again, [kept]);
        assert!(pair.session.answer(kept).is_none());
        assert_eq!(pair.session.answer(plain).unwrap().unwrap_err().code, "client.lost");
        let closing = Map::new().with("family", "unreachable").with("code", "bus.closing");
        pair.answer(&kept.to_string(), Map::new().with("ok", false).with("error", closing)).unwrap();
        assert!(pair.session.answer(kept).is_none(), "the daemon goes away; the next one is asked");
        pair.answer(&kept.to_string(), Map::new().with("ok", true)).unwrap();
        assert!(pair.session.answer(kept).unwrap().is_ok());
    }

    #[test]
    fn a_consumer_that_another_session_took_ends_with_the_reason_and_is_not_taken_back() {
        let mut pair = Pair::new();
        let id = pair.session.consume("c", "durable/*", "first", 1_000).unwrap();
        pair.answer(&id.to_string(), Map::new().with("ok", true)).unwrap();
        pair.deliver(3);
        let wire = Map::new()
            .with("family", "conflict")
            .with("code", "bus.consumer_taken")
            .with("data", Map::new().with("consumer", "c"));
        let meta = Map::new().with("topic", pair.session.reply_topic.as_str());
        pair.say("error.report.v1", Map::new().with("wire", wire), meta).unwrap();
        pair.deliver(5);
        assert_eq!(pair.session.ended.pop_front().unwrap().code, "bus.consumer_taken");
        assert!(pair.session.deliveries.is_empty(), "the other session gets them again");
        pair.told();
        pair.session.disconnected();
        pair.greet("two");
        let asked = |told: &(Frame, Envelope)| told.1.payload.get("action").is_some();
        assert_eq!(pair.told().iter().filter(|told| asked(told)).count(), 0);
    }

    #[test]
    fn a_consumer_goes_on_behind_what_the_program_has_had() {
        let mut pair = Pair::new();
        let id = pair.session.consume("c", "durable/*", "first", 1_000).unwrap();
        pair.answer(&id.to_string(), Map::new().with("ok", true)).unwrap();
        pair.deliver(3);
        pair.deliver(5);
        pair.session.ack("c", 3, 1_000).unwrap();
        assert_eq!(pair.acked(), [3]);
        pair.session.disconnected();
        pair.session.ack("c", 5, 1_000).unwrap();
        pair.greet("two");
        let resumed = pair.told();
        let after = |told: &(Frame, Envelope)| told.1.payload.get("after").and_then(Value::as_u64);
        assert_eq!(resumed.iter().filter_map(after).collect::<Vec<_>>(), [5]);
        pair.deliver(5);
        pair.deliver(7);
        assert_eq!(pair.acked(), [5], "it came again and is done with already");
        let taken: Vec<u64> = pair.session.deliveries.iter().map(|delivery| delivery.seq).collect();
        assert_eq!(taken, [3, 5, 7]);
    }
}
