//! Talk to the daemon over its Unix socket, one thread at a time.
//!
//! Knows: connecting, waiting with a bound, what happens when the daemon goes away and comes back. Does not
//! know: how frames look, and what is asked again after a loss ([`crate::Session`]).
//!
//! After a loss the next use connects again, waiting longer each time. Subscriptions stand, durable
//! consumers go
//! on where they were, durable publishes under way are sent again under the same ids. Other questions fail
//! with
//! `client.lost`, because nobody can know whether they were heard; idempotent calls are asked again.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Family, Result};
use crate::registry::BUILD;
use crate::session::{Delivery, Introduction, Publish, Receipt, Session};
use crate::value::{Map, Value};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long one side of the socket is waited for while the other may be ready, too.
const TURN: Duration = Duration::from_millis(5);
/// How long a publish or a request waits for its answer, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The 32 bytes that make this session an operator's; without them it is a peer.
    pub credential: Option<Vec<u8>>,
    /// How the daemon's lists call this program.
    pub client: String,
    /// The build to say hello with: the daemon speaks to its own only.
    pub build: String,
    /// 32 secret bytes that make this publisher one over all its runs; drawn anew when there are none.
    pub instance: Option<Vec<u8>>,
    /// What the directory shows: `version`, `serves`, `capabilities`, `heartbeat_ms`.
    pub about: Map,
    /// Bound of hello, subscribe, unsubscribe and ping.
    pub timeout: Duration,
    /// For how long to try again after a loss; zero for never.
    pub reconnect: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            credential: None,
            client: "rust".to_owned(),
            build: BUILD.to_owned(),
            instance: None,
            about: Map::new(),
            timeout: Duration::from_secs(5),
            reconnect: Duration::from_secs(60),
        }
    }
}

/// A connected session.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
    reconnect: Duration,
    session: Session,
    socket: Option<UnixStream>,
    /// Bytes of `session.outgoing` that are written.
    written: usize,
    buffer: Vec<u8>,
    /// Of the time without a connection: since when, when to try again, and how long the pause was at most.
    away: Option<(Instant, Instant, Duration)>,
    /// What ended this client for good.
    ended: Option<Error>,
}

impl Client {
    /// Connect and say hello. Fails as `Unreachable` when nobody answers, as `Refused` for another build.
    pub fn connect(path: impl AsRef<Path>, options: Options) -> Result<Client> {
        let Options { credential, client, build, instance, about, timeout, reconnect } = options;
        let instance = Some(match instance {
            Some(secret) => secret,
            None => random(32)?,
        });
        let mut made = Client {
            path: path.as_ref().to_owned(),
            timeout,
            reconnect,
            session: Session::new(Introduction { credential, client, build, instance, about }),
            socket: None,
            written: 0,
            buffer: vec![0; 65_536],
            away: None,
            ended: None,
        };
        made.dial()?;
        Ok(made)
    }

    /// `operator` or `peer`: what the daemon takes this session for.
    pub fn principal(&self) -> &str {
        &self.session.principal
    }

    /// This session's private topic, for `meta.reply_to`; another one after each reconnection.
    pub fn reply_topic(&self) -> &str {
        &self.session.reply_topic
    }

    /// Ask the daemon; an error that it answers comes back as it was.
    pub fn call(&mut self, method: &str, params: Map, timeout: Duration) -> Result<Value> {
        let what = format!("no answer to {}", method);
        self.ask(timeout, &what, |session, now| session.call(method, params, false, now))
    }

    /// As [`Client::call`], for what does no harm when it is done twice: asked again after a loss.
    pub fn call_idempotent(&mut self, method: &str, params: Map, timeout: Duration) -> Result<Value> {
        let what = format!("no answer to {}", method);
        self.ask(timeout, &what, |session, now| session.call(method, params, true, now))
    }

    /// The daemon's clock, unix milliseconds.
    pub fn ping(&mut self) -> Result<u64> {
        let answer = self.ask(self.timeout, "no answer to ping", Session::ping)?;
        Ok(answer.get("now_ms").and_then(Value::as_u64).unwrap_or(0))
    }

    /// Say anew what the directory shows of this program.
    pub fn announce(&mut self, about: Map) -> Result<()> {
        self.ask(self.timeout, "no answer to announce", |session, now| session.announce(about, now)).map(drop)
    }

    /// Have frames on `pattern` delivered; in force when this returns, and again after a reconnection.
    pub fn subscribe(&mut self, pattern: &str) -> Result<()> {
        let what = "no answer to subscribe";
        self.ask(self.timeout, what, |session, now| session.subscribe(pattern, now)).map(drop)
    }

    /// Undo [`Client::subscribe`].
    pub fn unsubscribe(&mut self, pattern: &str) -> Result<()> {
        let what = "no answer to unsubscribe";
        self.ask(self.timeout, what, |session, now| session.unsubscribe(pattern, now)).map(drop)
    }

    /// Take up the durable consumer `name`: every message of the durable topics under `pattern`, in order,
    /// each once, until it is acknowledged with [`Client::ack`]. `start`: where a new one begins, `first` or
    /// `next`.
    pub fn consume(&mut self, name: &str, pattern: &str, start: &str) -> Result<()> {
        let what = "no answer to consume";
        self.ask(self.timeout, what, |session, now| session.consume(name, pattern, start, now)).map(drop)
    }

    /// Give a durable consumer up: for now, or (`forget`) for ever.
    pub fn leave(&mut self, name: &str, forget: bool) -> Result<()> {
        let what = "no answer to leave";
        self.ask(self.timeout, what, |session, now| session.leave(name, forget, now)).map(drop)
    }

    /// This delivery of a durable consumer, and all before it, are done with.
    pub fn ack(&mut self, delivery: &Delivery) -> Result<()> {
        self.session.ack(&delivery.consumer, delivery.seq, now_ms())?;
        self.write();
        Ok(())
    }

    /// Publish one frame and wait until the bus has routed it; the receipt counts receivers.
    pub fn publish(&mut self, topic: &str, type_name: &str, payload: impl Into<Value>) -> Result<Receipt> {
        self.publish_with(topic, type_name, payload, Publish::default(), PATIENCE)
    }

    /// As [`Client::publish`], for a durable topic: the receipt means that the message is in the ledger,
    /// once, however often the connection was lost on the way.
    pub fn publish_durable(
        &mut self,
        topic: &str,
        type_name: &str,
        payload: impl Into<Value>,
    ) -> Result<Receipt> {
        self.publish_with(
            topic,
            type_name,
            payload,
            Publish { durable: true, ..Publish::default() },
            PATIENCE,
        )
    }

    /// As [`Client::publish`], with all that can be said, and another bound.
    pub fn publish_with(
        &mut self,
        topic: &str,
        type_name: &str,
        payload: impl Into<Value>,
        more: Publish,
        timeout: Duration,
    ) -> Result<Receipt> {
        let mut msg_id = 0;
        let payload = payload.into();
        let answer = self.ask(timeout, "no receipt", |session, now| {
            msg_id = session.publish(topic, type_name, payload, more, now)?;
            Ok(msg_id)
        })?;
        let number = |key| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
        let duplicate = answer.get("duplicate").and_then(Value::as_bool) == Some(true);
        Ok(Receipt { receivers: number("receivers"), msg_id, seq: number("seq"), duplicate })
    }

    /// Publish with `reply_to` and return the answer of whoever serves the topic.
    pub fn request(&mut self, topic: &str, type_name: &str, payload: impl Into<Value>) -> Result<Value> {
        let what = format!("no answer from {}", topic);
        let payload = payload.into();
        self.ask(PATIENCE, &what, |session, now| session.request(topic, type_name, payload, now))
    }

    /// The oldest delivery not taken yet; None when none comes in time (None: wait on). Survives losses.
    /// Fails with `bus.consumer_taken`, once, when another session took up a durable consumer of this one.
    pub fn next_delivery(&mut self, timeout: Option<Duration>) -> Result<Option<Delivery>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let next = |session: &mut Session| match session.ended.pop_front() {
            Some(error) => Some(Err(error)),
            None => session.deliveries.pop_front().map(Ok),
        };
        self.pumped(deadline, next)?.transpose()
    }

    // --- inside ----------------------------------------------------------------------------------------

    /// Put a question once connected, and wait for its answer, `timeout` in all.
    fn ask(
        &mut self,
        timeout: Duration,
        what: &str,
        put: impl FnOnce(&mut Session, u64) -> Result<u64>,
    ) -> Result<Value> {
        let deadline = Some(Instant::now() + timeout);
        self.pumped(deadline, |session| session.ready.then(|| ()))?.ok_or_else(|| late(what, timeout))?;
        let id = put(&mut self.session, now_ms())?;
        let answer = self.pumped(deadline, |session| session.answer(id));
        self.session.give_up(id);
        answer?.unwrap_or_else(|| Err(late(what, timeout)))
    }

    /// Read and write until `done` has something; None when the deadline passed first.
    fn pumped<T>(
        &mut self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut Session) -> Option<T>,
    ) -> Result<Option<T>> {
        loop {
            if let Some(found) = done(&mut self.session) {
                return Ok(Some(found));
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            let on_time = match self.socket {
                Some(_) => match self.turn(deadline) {
                    Ok(on_time) => on_time,
                    Err(error) => {
                        self.lost(error);
                        true
                    }
                },
                None => self.return_to_daemon(deadline),
            };
            if !on_time {
                return Ok(done(&mut self.session));
            }
        }
    }

    /// Write and read once; false when the deadline passed and nothing lay there.
    fn turn(&mut self, deadline: Option<Instant>) -> Result<bool> {
        self.write();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let over = left.map_or(false, |left| left.is_zero());
        let wait = match left {
            // The daemon stops reading from a peer that does not take its answers: never wait for one side
            // only.
            _ if !self.session.outgoing.is_empty() => Some(left.map_or(TURN, |left| left.min(TURN))),
            other => other,
        };
        let read = match &mut self.socket {
            None => return Err(self.session.lost()),
            Some(socket) => {
                let _ = socket.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))));
                socket.read(&mut self.buffer)
            }
        };
        match read {
            Ok(count) if count > 0 => {
                self.session.feed(&self.buffer[..count], now_ms())?;
                Ok(true)
            }
            Err(error) if is_pause(&error) => Ok(!over),
            _ => Err(self.session.lost()),
        }
    }

    /// Write what the daemon takes now.
    fn write(&mut self) {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            None => return,
        };
        while self.written < self.session.outgoing.len() {
            let turn = socket.set_write_timeout(Some(TURN));
            match turn.and_then(|_| socket.write(&self.session.outgoing[self.written..])) {
                Ok(count) => self.written += count,
                Err(error) if is_pause(&error) => return,
                // The reason, if the daemon gave one, is still to be read.
                Err(_) => break,
            }
        }
        self.session.outgoing.clear();
        self.written = 0;
    }

    /// The connection is gone: another will be made, or this was the end.
    fn lost(&mut self, error: Error) {
        self.hang_up();
        if error.family != Family::Unreachable || self.reconnect.is_zero() {
            self.ended = Some(error);
        } else {
            self.away = Some((Instant::now(), Instant::now() + jittered(FIRST_PAUSE), FIRST_PAUSE));
        }
    }

    fn hang_up(&mut self) {
        self.socket = None;
        self.written = 0;
        self.session.disconnected();
    }

    /// One more attempt after a pause; false when the deadline comes first.
    fn return_to_daemon(&mut self, deadline: Option<Instant>) -> bool {
        let now = Instant::now();
        let (since, due, bound) = self.away.unwrap_or((now, now, FIRST_PAUSE));
        let until = deadline.map_or(due, |deadline| deadline.min(due));
        thread::sleep(until.saturating_duration_since(now));
        if until < due {
            return false;
        }
        match self.dial() {
            Ok(()) => self.away = None,
            Err(error) if error.family == Family::Unreachable && since.elapsed() < self.reconnect => {
                let bound = LONGEST_PAUSE.min(bound * 2);
                self.away = Some((since, Instant::now() + jittered(bound), bound));
            }
            Err(error) => self.ended = Some(error),
        }
        true
    }

    /// One attempt: connect and hello.
    fn dial(&mut self) -> Result<()> {
        let nobody = |error: std::io::Error| {
            let message = format!("no daemon answers on {}: {}", self.path.display(), error);
            Error::new(Family::Unreachable, "client.unreachable", message)
                .with_hint("start it with 'rlp daemon start'")
        };
        self.socket = Some(UnixStream::connect(&self.path).map_err(nobody)?);
        let deadline = Instant::now() + self.timeout;
        while !self.session.ready {
            let failed = match self.turn(Some(deadline)) {
                Ok(true) => continue,
                Ok(false) => late("the daemon did not say hello", self.timeout),
                Err(error) => error,
            };
            self.hang_up();
            return Err(failed);
        }
        Ok(())
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A part of the bound, so that many clients do not come back at once.
fn jittered(bound: Duration) -> Duration {
    bound.mul_f64(random(1).map_or(0.5, |byte| f64::from(byte[0]) / 256.0))
}

/// Bytes from the kernel.
fn random(count: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    match File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Error::new(Family::Failed, "client.entropy", format!("no randomness: {}", error))),
    }
}

fn late(what: &str, timeout: Duration) -> Error {
    let message = format!("{} within {} ms", what, timeout.as_millis());
    Error::new(Family::Unreachable, "client.timeout", message)
        .with_hint("look at it with 'rlp daemon status'")
}
