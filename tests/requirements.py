"""What this system must do, one row per requirement, and whether a test proves it by now.

Rows ``P1`` to ``S7`` are the table of attacks; ``I2.*`` and ``I3.*`` are the checkable lines of issues 2 and
3. A test names the rows it proves: ``@pytest.mark.requirement("C4")``.
``tests/architecture/test_requirements.py`` holds both sides together: what is met has a test, what is open
has none, and nobody names a row that does not exist.

Knows: the list. Does not know: which tests prove a row (they say so themselves), or how they run. A row is
met when its own test, or an honest smaller version of it, runs against the built parts; ``left`` then says
what a later issue adds. ``make test`` and ``.ci/run`` themselves are no rows: no test can prove itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["REQUIREMENTS", "Requirement"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One thing that must hold."""

    id: str
    text: str
    """The requirement in one sentence."""
    state: Literal["met", "open"]
    left: str = ""
    """Open: what is missing and the issue that builds it. Met: what a later issue adds; often nothing."""


def _met(id: str, text: str, left: str = "") -> Requirement:
    return Requirement(id=id, text=text, state="met", left=left)


def _open(id: str, text: str, left: str) -> Requirement:
    return Requirement(id=id, text=text, state="open", left=left)


INJECTION = (
    _met(
        "P1",
        "A mail with instructions is read like any other and causes no call outside the plan, no egress.",
    ),
    _met("P2", "Private-labelled data offered to a public sink is refused with a why, or a person reads it."),
    _met("P3", "Nothing foreign is fetched or linked by what shows it."),
    _met("P4", "A guest cannot leak through names it has resolved."),
    _met("P5", "Many small permitted requests are noticed as one leak; a recorded day of work is not."),
    _met("P6", "Every foreign string field is data, whatever it says."),
    _met("P7", "A summary never raises the trust of its source."),
    _met("P8", "A child that asks for more than its parent is refused, and labels cross the bus."),
    _met("P9", "No field a model or an agent writes can be a decision."),
)

CONFIRMATION = (
    _met(
        "C1",
        "What differs from the approved bytes in any bound field between approval and dispatch is not done.",
    ),
    _met("C2", "A standing grant cannot be widened by a wrapper."),
    _met("C3", "The same action in another spelling is one prompt and one match."),
    _met("C4", "A decision from anybody but the operator is refused and logged, however it names itself."),
    _met("C5", "An approval is used once, whoever races for it and whenever the daemon dies."),
    _met(
        "C6",
        "No control code, bidi or invisible character acts on a terminal through what rlp or agtop prints.",
    ),
    _met("C7", "A standard day asks only about external effects."),
    _met(
        "C8",
        "Every widening of authority needs the strongest confirmation.",
        "bundles, trust roots, MCP servers and standing grants, whichever program brings the yes; a grant"
        " stays within the bundle that was confirmed; issue 8: unit files",
    ),
    _met("C9", "The same forbidden call gets the same verdict through every front end."),
    _met("C10", "An unattended job has no human authority."),
    _met("C11", "A foreign form that asks for a secret is refused."),
    _met("C12", "Nothing is admitted after a revocation, however many calls are under way."),
)

SUPPLY = (
    _met("M1", "A tool whose definition changed is suspended and the change shown."),
    _met("M2", "Metadata of a foreign server starts no process."),
    _met("M3", "The recipients that are confirmed are the recipients that are sent to, byte for byte."),
    _met("M4", "A hostile bundle is refused before anything beyond its manifest is read."),
    _met("M5", "Popularity is no part of any trust decision."),
    _met("M6", "A planted .pth, sitecustomize or PYTHONPATH is not loaded, nor one that a library brings."),
    _met("M7", "The build needs no network.", "the whole package: packaging/tests/all"),
    _met("M8", "An unreachable advisory source blocks an install."),
    _met("M9", "A bundle signed by another key or with a changed archive is refused."),
    _met("M10", "An older signed bundle or an expired index is refused."),
    _met("M11", "A broken upgrade leaves the old version running.", "systemd: packaging/tests/upgrade-*"),
    _met("M12", "Tampered state, wrong audience and rebinding discovery of MCP are refused."),
    _met("M13", "A policy that cannot be read denies every new effect."),
)

GUESTS = (
    _met(
        "W1",
        "An engine with known holes is not started, and a guest's largest demands cost the daemon nothing.",
        "our guests have no WASI: no iovecs, no handles",
    ),
    _met(
        "W2",
        "A crash of the engine ends one worker, and doctor names the engine's version.",
        "crashes are brought about by signals: no module is known that makes this engine panic",
    ),
    _met(
        "W3",
        "Endless loops, four at once, are cut by the clock while another guest is served.",
        "p99: tests/bench",
    ),
    _met("W4", "A guest that loops over the most expensive host call is bounded."),
    _met(
        "W5", "Pathological modules are refused or compiled in bounded time and memory, outside the daemon."
    ),
    _met(
        "W6",
        "A thousand runs under changed surroundings are identical.",
        "24 in CI, 1 000 by 'python -m tests.bench replays'; arm64: packaging/tests/arm64, by hand, and"
        " docs/howto/arm64.md says how far",
    ),
    _met("W7", "An altered, foreign or exposed entry of the compiled cache is never loaded."),
    _met("W8", "No bomb of any packing is unpacked beyond its bound."),
    _met(
        "W9",
        "Agents that call each other for ever are stopped.",
        "issue 6: agents that start and call one another",
    ),
)

FILES = (
    _met("F1", "No path leads out of a granted directory."),
    _met("F2", "What was checked is what is used, however it is swapped."),
    _met("F3", "A granted native child stays inside its sandbox, or is refused."),
    _met("F4", "No grant reaches ledger, socket or keys."),
    _met("F5", "An archive writes nothing outside its place."),
)

BUS = (
    _met("B1", "The daemon and everything below it listens on no network socket."),
    _met(
        "B2",
        "Only this user's processes reach the socket, whatever was there before it.",
        "issue 8: mount namespaces",
    ),
    _met("B3", "A second daemon is turned away, and a replaced socket is noticed."),
    _met("B4", "Every broken frame is refused by its name, before its body is held."),
    _met(
        "B5",
        "A flooding or deaf peer costs the others nothing, and notices are rate-limited.",
        "what it costs at p99: docs/internals/figures.md, tests/bench neighbours",
    ),
    _met("B6", "A captured frame or proof is worth nothing in another session, nor is a claimed kind."),
    _met("B7", "Line breaks and escapes in ids and names reach neither log nor terminal."),
)

LEDGER = (
    _met("L1", "An append that fails at any step stops the effect that would have followed."),
    _met("L2", "A rewritten, cut, swapped, doubled or dropped history and changed views are found."),
    _met("L3", "No byte can move from one field to the next without changing the hash."),
    _met("L4", "A damaged file is refused untouched, salvaged offline, and no death loses what was told."),
    _met("L5", "A torn tail of the log is cut, reported, and costs only what was never acknowledged."),
    _met("L6", "A crash at either mark of an effect sends nothing twice and shows an unknown outcome."),
    _met("L7", "A replay asks no model, sends nothing, and opens no socket."),
    _met("L8", "A replay that compares nothing makes the suite red."),
    _met(
        "L9",
        "Events, histories and ledger files of every past format are read.",
        "issue 5: replaying a run of an earlier release, once there is one",
    ),
    _met("L10", "Another price table changes no total of the past."),
)

KEYS = (
    _met("K1", "A key is in no log, file, trace, error, argument or guest, however its provider fails."),
    _met("K2", "A key is found and masked in every encoding and across every cut."),
    _met("K3", "Ten thousand benign items are not taken for secrets."),
    _met("K4", "An export is previewed, scrubbed and says what was removed."),
    _met(
        "K5",
        "Agents and tools hold no key, and nobody but root may look into who does.",
        "under a real systemd: packaging/tests/groups",
    ),
    _met("K6", "No number of parallel calls, crash, price or usage passes the cap."),
    _met("K7", "Twenty agents of one run cannot exceed the run's cap by one micro-dollar."),
    _met("K8", "An idle day costs no more than configured."),
    _met(
        "K9",
        "No agent can read the signing key, and it can be rotated.",
        "packaging: the system's daemon has a user of its own, agents have none",
    ),
)

OPERATIONS = (
    _met(
        "S1",
        "A layer of the sandbox that does not hold refuses to start, and a waived one is named.",
        "workers and programs have Landlock where the kernel has it; control groups: packaging/tests/groups",
    ),
    _met(
        "S2",
        "Removing any guard makes a test red.",
        "each in turn: python -m tests.mutants, make release-test",
    ),
    _met("S3", "Work that was due and did not happen is reported."),
    _met("S4", "Command and daemon of different builds refuse each other with the way out."),
    _met("S5", "A cockpit over a million events stays quick."),
    _met("S6", "Salvage, restore, migrate and vacuum never touch a ledger that a daemon holds."),
    _open(
        "S7",
        "A hanging collector changes no latency, and nothing is sent by default.",
        "issue 8: no exporter exists",
    ),
)

USER = (
    _met("I2.user.1", "The first script runs the main job on the example data and parks at the send."),
    _open(
        "I2.user.2",
        "From a fresh clone `make run` takes less than three minutes.",
        "a figure; no test judges time",
    ),
    _met(
        "I2.user.3",
        "Contacts, mail and notes of the examples are imported, and a second time change nothing.",
    ),
    _met("I2.user.4", "Progress is shown node by node and the draft is shown."),
    _met("I2.user.5", "The send is held for a person at the terminal."),
    _met(
        "I2.user.6", "Without a terminal the run parks, says so by its exit code and prints the line to type."
    ),
    _met("I2.user.7", "The approved mail lands in the outbox as a correct RFC 5322 message."),
    _met("I2.user.8", "rlp run takes an opening's file, parameters and --json."),
    _met("I2.user.9", "rlp plan shows the graph or every mistake."),
    _met("I2.user.10", "rlp runs lists runs and rlp trace shows who sent what to whom, when and how big."),
    _met("I2.user.11", "rlp why explains a prompt by route, rule, features and reason."),
    _met("I2.user.12", "rlp kb query, search and why answer from the knowledge base."),
    _met("I2.user.13", "rlp cap list, grant and revoke show and change what agents may do."),
    _met("I2.user.14", "rlp approvals, approve and deny answer what waits."),
    _met("I2.user.15", "rlp daemon start, stop and status work, and rlp starts the daemon by itself."),
    _met("I2.user.16", "rlp doctor looks at everything, changes nothing and says how to mend it."),
    _met(
        "I2.user.17", "Every command has --json, documented exit codes and errors that end with what to type."
    ),
)

WIRE = (
    _met("I2.wire.1", "The codec does no I/O and refuses by every named error."),
    _met("I2.wire.2", "One registry is the source of all schema ids."),
    _met("I2.wire.3", "Binary frames cross a Unix socket whose peers the kernel names."),
    _met("I2.wire.4", "The hello compares versions and names both."),
    _met("I2.wire.5", "Topics, time to live and duplicates are judged as the spec says."),
    _met("I2.wire.6", "Queues are bounded by class, and every frame is counted."),
    _met("I2.wire.7", "Conformance vectors exist, are fresh and run."),
    _met("I2.wire.8", "An agent or a peer can never publish a decision."),
)

SANDBOX = (
    _met("I2.sandbox.1", "The five canonical agents run as Wasm guests."),
    _met("I2.sandbox.2", "One agent exists in C too and answers the same."),
    _met("I2.sandbox.3", "The runner is shipped, pinned by its hash and compiled once."),
    _met("I2.sandbox.4", "Fuel is an exact and repeatable budget."),
    _met("I2.sandbox.5", "A ticker cuts a guest at its deadline, and the daemon a worker that does not."),
    _met("I2.sandbox.6", "Memory and tables stop at their limits."),
    _met("I2.sandbox.7", "The compiled cache is keyed, authenticated and its owner's only."),
    _met("I2.sandbox.8", "A guest has no ambient authority: no file, clock, chance, network or environment."),
    _met("I2.sandbox.9", "A guest that loops, grows, traps or lies harms only its own node."),
)

CAPABILITIES = (
    _met("I2.caps.1", "What an agent may do is manifest, policy, override and token together, never more."),
    _met("I2.caps.2", "What is not granted is denied."),
    _met("I2.caps.3", "A denial explains itself and is on record."),
)

ENGINE = (
    _met("I2.engine.1", "The engine is pure: the same facts lead to the same state however they came."),
    _met("I2.engine.2", "Independent nodes run side by side."),
    _met("I2.engine.3", "Failed and slow attempts are retried after their backoff."),
    _met("I2.engine.4", "Predicates, skips and guards decide what runs."),
    _met("I2.engine.5", "Success is judged at the end and artifacts are kept."),
    _met("I2.engine.6", "Live run, recovery and replay take the same way."),
)

FACTS = (
    _met("I2.ledger.1", "Events are canonical and chained by BLAKE3."),
    _met("I2.ledger.2", "The append precedes the effect."),
    _met("I2.ledger.3", "An effect has its admitted and its delivered mark."),
    _met("I2.ledger.4", "Views are the fold of the events."),
    _met("I2.ledger.5", "Words find contacts, notes and mails with their source."),
    _met("I2.ledger.6", "Why leads back to the root."),
)

MODELS = (
    _met("I2.models.1", "Offline, the rules fill templates and say that nothing was generated."),
    _met("I2.models.2", "OpenAI-compatible and Anthropic servers are spoken to over real HTTP."),
    _met("I2.models.3", "An Ollama on this machine is found and used."),
    _met("I2.models.4", "Answers stream, and slow and cut streams end well."),
    _met("I2.models.5", "Budgets are reserved before and reconciled after a call."),
    _met("I2.models.6", "Keys come from environment, file or keyring."),
    _met("I2.models.7", "No key is ever in the ledger."),
)

MAIL = (
    _met("I2.mail.1", "The outbox is a Maildir of complete messages."),
    _met("I2.mail.2", "SMTP sends to a real server, whole or not at all."),
    _met("I2.mail.3", "The approval shows and binds the exact bytes."),
    _met("I2.mail.4", "A decision can be undone before the dispatch."),
)

REPLAY = (
    _met(
        "I2.replay.1",
        "A replay re-executes guests and engine without effect and says identical with its coverage.",
    ),
    _met("I2.replay.2", "A replay names the first divergence."),
    _met("I2.replay.3", "A flipped byte of the ledger is found and located."),
)

FIGURES = (
    _open(
        "I2.figures.1",
        "The figures of the issue are reached.",
        "reported by tests/bench; no test judges time",
    ),
)

FAULTS = (
    _met("I2.faults.1", "All mistakes of an opening are told at once with line and column."),
    _met("I2.faults.2", "A second daemon is refused and the first lives."),
    _met(
        "I2.faults.3",
        "Killed at any hop, the run goes on or shows an unknown outcome, and no second mail leaves.",
    ),
    _met("I2.faults.4", "On a full disk nothing is dispatched and the error is clear."),
    _met(
        "I2.faults.5", "Broken frames, oversized prefixes and wrong users are refused, logged and harmless."
    ),
    _met("I2.faults.6", "SIGTERM drains."),
    _met("I2.faults.7", "A hostile mail changes nothing and its escapes are shown inert."),
)

HABITS = (
    _met(
        "I2.habits.1",
        "CI runs lint, strict types, arrows and the README's tests; `make coverage` is red below 85 %.",
    ),
    _met("I2.habits.2", "A test executes the quickstart."),
    _met(
        "I2.habits.3", "Architecture page, decisions, glossary, licence, changelog and security policy exist."
    ),
)

AUTHORING = (
    _met(
        "I3.author.1",
        "A folder of a working agent is written in every language, with no network, toolchain or daemon.",
    ),
    _met(
        "I3.author.2",
        "From nothing to a verified message of one's own agent it takes at most eight commands.",
    ),
    _met(
        "I3.author.3",
        "An agent's tests run against a fake host and in the real sandbox, under its own rights.",
    ),
    _met("I3.author.4", "A missing toolchain is named with the package that brings it."),
    _met(
        "I3.author.5", "Every mistake in an agent's folder is told with file and line, and nothing is built."
    ),
    _met("I3.sdk.1", "Python, Rust, C and JavaScript hold the same vectors of one ABI."),
    _met("I3.sdk.2", "Type hints are the schemas of a Python agent's tools and ports."),
    _met("I3.sdk.3", "What is scaffolded in Rust and C is built, installed and run in the real sandbox."),
    _met("I3.config.1", "A config agent is one file, validated whole, run and replayed like any other."),
    _met(
        "I3.dev.1",
        "While an agent is written each good build takes its place; a broken one changes nothing.",
    ),
)

BUNDLES = (
    _met("I3.bundle.1", "One source gives one bundle, byte for byte, wherever it is built."),
    _met(
        "I3.bundle.2", "The digest covers every file, policy and tools too, and any changed byte is refused."
    ),
    _met("I3.bundle.3", "Signatures are in the documented format and hold for programs that are not ours."),
    _met("I3.bundle.4", "Every hostile archive is refused by a name of its own."),
    _met("I3.bundle.5", "Trust lies outside the bundle, and ends by date, revocation or rotation."),
    _met("I3.install.1", "Killed anywhere, an install is whole or not at all."),
    _met(
        "I3.install.2",
        "An upgrade shows what was asked, is asked and was used, needs a person, and can be rolled back.",
    ),
    _met("I3.install.3", "A downgrade and an old index are refused unless asked for."),
    _met("I3.install.4", "A mismatch of digest or signature is a refusal, never a fall-back."),
    _met("I3.install.5", "A development key counts only when meant, and is shown everywhere."),
    _met(
        "I3.plugin.1",
        "A plugin becomes a bundle whose tool answers, or is refused by the missing permission.",
    ),
)

HOSTILE = (
    _met(
        "I3.sandbox.1",
        "Every hostile module ends by its own code, and daemon and neighbours stay as they were.",
    ),
    _met("I3.sandbox.2", "A crash takes one worker, is told, and the node goes on from its record."),
    _met("I3.sandbox.3", "A breach ends the instance and what it was granted."),
    _met("I3.sandbox.4", "An agent that keeps failing is quarantined until a person releases it."),
    _met("I3.sandbox.5", "Quotas warn, then end the attempt, live and in replay alike."),
    _met("I3.sandbox.6", "Time zone, language, hash seed and cores change no byte of a run."),
)

CLIENTS = (
    _met(
        "I4.clients.1", "JavaScript and Rust hold the vectors of RMP v0, byte for byte, cut at every place."
    ),
    _met("I4.clients.2", "A made-up stream is judged alike by Python, JavaScript and Rust."),
    _met(
        "I4.clients.3",
        "Programs in both talk through a daemon, are refused what is not theirs, and outlive the daemon.",
    ),
    _met("I4.clients.4", "Their durable consumers get every message once, in order, through a crash."),
    _met("I4.clients.5", "A consumer that another session takes up ends with the reason in every client."),
    _met("I4.clients.6", "Publishes without receipts arrive in order; what is refused or lost is told."),
)

BESIDE = (
    _met("I4.figures.1", "A broker that loses, repeats, overtakes or alters one message gets no figure."),
    _met("I4.figures.2", "Our bus carries every pattern and size of the comparison, and drops nothing."),
    _met("I4.load.1", "Of twenty busy agents only the slow one misses, only realtime, and all counted."),
)

REMEMBERED = (
    _met("I4.import.1", "Imported again nothing changes, a change is stated once, what is gone is named."),
    _met("I4.import.2", "No bytes break or hold up a reader; what is left out is told with its line."),
    _met("I4.memory.1", "Of all who write one version exactly one wins, before and after a restart."),
    _met("I4.memory.2", "What agents remember is held in the views, not in the daemon."),
    _met("I4.promise.1", "A promise is kept once or times out by the clock, whenever the daemon dies."),
    _met("I4.promise.2", "What a person is asked no agent can answer."),
)

BUS_SEMANTICS = (
    _met("I4.semantics.1", "A durable topic loses no message, whatever is cut or killed, and repeats none."),
    _met("I4.semantics.2", "A client comes back with all it had, and says what it cannot know."),
    _met("I4.semantics.3", "Who is there is found by id, topic, capability and version, and is alive."),
    _met("I4.semantics.4", "Every frame addressed to somebody was delivered, dropped or is queued."),
    _met("I4.semantics.5", "Whoever joins a conversation in its middle hears the rest, and no more."),
    _met("I4.semantics.6", "Beside a hostile peer neighbours are served, and memory and disk stay bounded."),
    _met("I4.turns.1", "However much one connection sends, others have a turn after so many frames."),
)

FAST_ROAD = (
    _met("I4.road.1", "Compiled or not, the bus tells the same of any stream in any pieces."),
    _met("I4.road.2", "No body takes the fast road that the full check would refuse."),
    _met("I4.road.3", "Without a compiler the bus is whole, in Python; asked for, its absence is an error."),
)

DURABLE_STEP = (
    _met("I4.step.1", "What is written the quick way is what the careful way writes, and is read back."),
    _met("I4.step.2", "Views folded many at once are the views folded one by one."),
    _met("I4.step.3", "The loop waits for no disk, and the log stays short."),
)

KEEPING = (
    _met("I4.keeping.1", "In any order of writing, dying and going back the files say what was told."),
    _met("I4.keeping.2", "A backup beside a busy writer is one verified moment, whole or not there."),
    _met("I4.keeping.3", "Going back names what is lost, is recorded, and sends nothing twice."),
    _met("I4.keeping.4", "An exchange of files that is cut at any step is finished, never guessed."),
    _met("I4.keeping.5", "The views at an event or a time are the fold up to there."),
    _met("I4.keeping.6", "A migration that does not come through leaves the old ledger; a newer is refused."),
    _met("I4.keeping.7", "A fact by hand is knowledge of a known shape, stamped by the host."),
)

FINDING = (
    _met("I4.search.1", "Words and vectors find together, with and without an extension, and say who."),
    _met("I4.why.1", "An explanation costs by its own size, and follows recorded causes only, both ways."),
    _met("I4.masking.1", "Masking looks at bounded pieces, and an agent's answer has a size that is told."),
    _met("I4.retract.1", "What is taken back was never learnt, and what came of it is held."),
)

LANGUAGE = (
    _met("I5.language.1", "YAML and brace text are one definition with one digest, and read back as it."),
    _met("I5.language.2", "The published EBNF and the parser accept the same, and every key is on the page."),
    _met("I5.language.3", "Mapped nodes and nested openings are read, judged by item and port, and bound."),
    _met("I5.language.4", "Recursion, depth and size of what is nested are judged before anything runs."),
    _met("I5.language.5", "A line that cannot be read hides nothing of what can, in both syntaxes."),
    _met("I5.language.6", "No text breaks a reader of openings, or makes it work without bound."),
    _met("I5.language.7", "Every opening of the cookbook runs on real data, and its result is looked at."),
)

TREES = (
    _met("I5.engine.1", "A mapped node serves each item like a node, in order, no more at a time than may."),
    _met(
        "I5.engine.2", "A nested opening is a run of its own, found by its attempt, tried again as another."
    ),
    _met("I5.engine.3", "Whatever happens, every run holds, ends, and replays; rebuilt it is the same."),
    _met("I5.engine.4", "What stops an attempt stops the runs that are nested in it."),
    _met("I5.engine.5", "A tree of runs survives kill -9, and nothing of it is started twice."),
    _met("I5.engine.6", "Nested and mapped runs together cannot pass the cap of the whole run."),
    _met("I5.engine.7", "A run is watched, listed and traced with the runs inside it, each under its path."),
    _met("I5.crash.1", "Killed at any write, a run ends as if it had not been, with one mail, and replays."),
    _met("I5.crash.2", "Killed at any sort of write, a tree of runs ends as if not, and does nothing twice."),
    _met("I5.crash.3", "Limits, drains and depth hold for nested runs, before a restart and after it."),
)

FORKING = (
    _met("I5.fork.1", "A fork in which nothing is changed is the run it was made of, and sends nothing."),
    _met("I5.fork.2", "A changed byte shows exactly its causal cone, whatever the graph."),
    _met("I5.fork.3", "Runs are compared message by message, and every difference names what it came of."),
    _met("I5.fork.4", "What is outside the cone of a change is never served live."),
    _met("I5.fork.5", "No fork uses an approval again: other bytes need another yes, sent ones stay sent."),
    _met("I5.fork.6", "A fork goes beyond no limit of its origin, and runs no agent that may not run."),
    _met("I5.fork.7", "Nobody but the operator can make a fork."),
    _met("I5.fork.8", "A daemon killed in the middle of a fork brings it to the same end."),
    _met("I5.fork.9", "What failed is tried again on the record of what did not."),
    _met("I5.fork.10", "A fork of a tree is a tree of forks; a change or a retry inside keeps to its cone."),
)

REPLAYING = (
    _met("I5.replay.1", "A replay makes every hash and message of a run again, and counts what it compared."),
    _met("I5.replay.2", "A changed byte of a run's events is located by event and column."),
    _met("I5.replay.3", "What is missing, asked otherwise or came out otherwise are three errors, exit 6."),
    _met("I5.replay.4", "A run of an engine this build does not know is neither identical nor blamed."),
    _met("I5.replay.5", "A tree of runs is replayed as one; a difference names its path into the tree."),
    _met("I5.replay.6", "Every comparison of a replay is needed: none covers for another."),
    _met("I5.replay.7", "No replay touches a provider or a network; one that would is told."),
    _met("I5.replay.8", "Replays under changed surroundings are the same, byte for byte."),
    _met("I5.replay.9", "Golden histories of every kind of run replay on every change."),
    _met("I5.replay.10", "An attempt that the quota of a whole tree cut is cut again at the same place."),
    _met(
        "I5.replay.11",
        "What agents are served beside their own is kept; its loss is told, and no difference.",
    ),
    _met("I5.replay.12", "Another sandbox is believed where it burns the same fuel, and blamed nowhere."),
)

SEALING = (
    _met("I5.seal.1", "A finished run and all nested in it are one file, the same bytes each time."),
    _met("I5.seal.2", "No byte of a sealed run can be changed unnoticed, and damage is named by its place."),
    _met("I5.seal.3", "A sealed file that is cut, appended to, reordered or hostile is refused by name."),
    _met(
        "I5.seal.4", "Another user without home, daemon and network executes a sealed run again: identical."
    ),
    _met(
        "I5.seal.5", "What was redacted is nowhere in the file in any encoding, and the run still executes."
    ),
    _met("I5.seal.6", "A redaction that would change the run's course, or leave something, writes nothing."),
)

WHAT_IF = (
    _met("I5.whatif.1", "A recorded run driven again in memory under what held is the run it was, exactly."),
    _met(
        "I5.whatif.2", "History under another policy: each verdict that changes, and what comes of the run."
    ),
    _met(
        "I5.whatif.3", "The smallest policy of an agent passes every recorded run, and no grant is too much."
    ),
    _met("I5.whatif.4", "A fault at each effect of a good run tells what would be half done, twice or open."),
    _met("I5.whatif.5", "Nobody but the operator asks what would have been; nothing is written or sent."),
)

TALKING = (
    _met("I5.talk.1", "Nodes without an edge talk, ask and answer in time; every word is in the ledger."),
    _met("I5.talk.2", "Killed between a word and its hearing, nothing is lost, heard or said twice."),
    _met(
        "I5.talk.3", "Who answers what is judged by the host: heard, of the conversation, a fit act, in time."
    ),
    _met("I5.talk.4", "A stream ends when nobody can speak any more, and not before."),
    _met("I5.talk.5", "Without the capability nothing is said and nothing heard."),
    _met("I5.talk.6", "A flood of messages ends at the quota of its agent."),
    _met("I5.talk.7", "A message can be made again from the call that said it."),
    _met("I5.talk.8", "A run of agents that talk is replayed, forked, sealed and executed again."),
)

COLLAB = (
    _met("I5.collab.1", "Many are asked, as many are heard as are needed, and nobody is waited for in vain."),
    _met("I5.collab.2", "A barrier lets nobody through before everybody has come."),
    _met("I5.collab.3", "A contract net ends done, failed or without a bid, whatever is late or missing."),
    _met("I5.collab.4", "A vote passes with strictly more than half of all; an even split fails."),
    _met("I5.collab.5", "An election gives one leader without dice, and everybody the same."),
    _met("I5.collab.6", "Work that many share comes out in the order of the items, whoever was faster."),
    _met("I5.collab.7", "Every template of collaboration is run, its talk looked at, and replayed."),
)

MARKET = (
    _met("I5.market.1", "The figures are those of the recorded prices, whichever the user puts there."),
    _met(
        "I5.market.2", "Whoever fails or is late is named, and the plan is made; a rule stands for a model."
    ),
    _met("I5.market.3", "The same order of another run is held for five minutes, at the same moment, too."),
    _met("I5.market.4", "An order is stated once by its key: over kill -9, a retry, a fork."),
    _met("I5.market.5", "A run is one trace with one root: every event and every span leads to its start."),
)

SWARM = (
    _met("I5.swarm.1", "Readers, planner and patcher work at the same time; the ledger shows it."),
    _met("I5.swarm.2", "Every word between the agents of the swarm is a message in the ledger."),
    _met(
        "I5.swarm.3", "Memory is each agent's own but the shared one; only the patcher writes, in its place."
    ),
    _met(
        "I5.swarm.4", "The diffs apply and do what was asked; what is not certain is refused with a reason."
    ),
)

TRIGGERS = (
    _met("I5.triggers.1", "A schedule runs an opening at its times, whatever daemon and clock do meanwhile."),
    _met("I5.triggers.2", "A file that changes starts one run, which hears its path and nothing else."),
    _met("I5.triggers.3", "No watch leads out of its folders, or into the daemon's own places."),
    _met("I5.triggers.4", "Runs that are started by nothing but what such runs wrote come to an end."),
)

DELEGATION = (
    _met("I6.delegate.1", "A delegated agent holds what was passed on, never more than its parent."),
    _met("I6.delegate.2", "Agents that delegate to one another are stopped by depth."),
    _met("I6.delegate.3", "A delegated run survives kill, is started once, and is sealed with the rest."),
    _met("I6.delegate.4", "What was delegated ends with its parent, and with its own time."),
)

TOOLS = (
    _met("I6.tools.1", "A call that changes something is shown whole, and done once, after a yes."),
    _met("I6.tools.2", "What was begun and not finished is told, and never repeated."),
    _met("I6.tools.3", "Every way a tool fails has a code of the closed list."),
    _met("I6.tools.4", "What is allowed for good is one tool on one resource; it is listed and taken back."),
    _met("I6.tools.5", "A program of a tool sees what it names, and writes only where it says so."),
    _met("I6.tools.6", "A secret is put in where a tool's bytes leave, and comes back to nobody."),
    _met("I6.tools.7", "A run with effects of tools replays identical, and its fork does nothing again."),
    _met("I6.tools.8", "A push brings its token to the place the token is for, and to no other."),
    _met("I6.tools.9", "A redirect of a tool leads nowhere the call itself could not have gone."),
    _met("I6.tools.10", "A yes for good is for all that leaves: method, place, query and body of a request."),
)

ADAPTERS = (
    _met("I6.adapters.1", "Ollama, llama.cpp, vLLM and LM Studio here are found by what they list."),
    _met("I6.adapters.2", "What a model asks of tools is on record, and its run replays identical."),
    _met("I6.adapters.3", "Whoever stops a run hangs up on its model."),
    _met("I6.adapters.4", "The models are listed with price and state; asking one that costs takes a word."),
    _met("I6.adapters.5", "A stranger's server on a usual port, or another user's, is told nothing."),
    _met("I6.adapters.6", "Every dialect carries several calls, whole and in fragments, and malformed ones."),
)

SECRETS = (
    _met("I6.secrets.1", "A secret is set from a prompt or stdin, listed without its value, and removed."),
    _met("I6.secrets.2", "Each place keeps what it is given, refuses what is unsafe, and loses nothing."),
    _met("I6.secrets.3", "The old file in clear is read with a warning, and moved over whole or not at all."),
    _met("I6.secrets.4", "The scrubber finds a secret in every usual encoding and in pieces of any size."),
    _met("I6.secrets.5", "Ten thousand benign items pass the scrubber untouched."),
    _met("I6.secrets.6", "A reference becomes the secret towards destinations bound to it, nowhere else."),
    _met("I6.secrets.7", "After every failure of every provider no file and no output holds a canary."),
    _met("I6.secrets.8", "No process shows a key, and one that dies badly leaves none in a core file."),
    _met("I6.secrets.9", "A run that used a secret replays identical without it."),
    _met("I6.secrets.10", "A secret lent to a program is in its environment alone, however it spells it."),
)

MODEL_POLICY = (
    _met("I6.policy.1", "Privacy and preference choose the model; the reason and each cost are told."),
    _met("I6.policy.2", "Hosted models have dated listed prices; what is not on the list is refused."),
    _met("I6.policy.3", "A run waits for a person before it spends more than a threshold; asked once."),
    _met("I6.policy.4", "An equal request of the same agent is answered once and paid for once."),
    _met("I6.policy.5", "Recorded answers are told again without a server; nothing else is asked."),
    _met("I6.policy.7", "An opening has people asked earlier than the operator configured, never later."),
    _met("I6.policy.6", "What models cost is summed by whom and for what, as it was booked."),
)

ASSISTANT = (
    _met("I6.assistant.1", "A model on this machine summarises notes and drafts a mail; -c goes on."),
    _met("I6.assistant.2", "Without a model it says so and what would help, and shows what it found."),
    _met("I6.assistant.3", "The user is asked when something is unclear; the answer is the user's word."),
    _met("I6.assistant.4", "A model that obeys a mail gets nothing by it but a question to a person."),
    _met("I6.assistant.5", "A fact from a mail stays a mail's word when it is remembered and recalled."),
    _met("I6.assistant.6", "Every run of the assistant replays identical without a model."),
    _met("I6.assistant.7", "It delegates with part of its rights; what leaves waits for the same person."),
    _met("I6.loop.1", "Wrong names, malformed arguments and cut streams are told; the loop goes on."),
    _met("I6.loop.2", "Turns, calls, repetition, tokens, budget and clock each end an endless loop."),
)

ROUTER = (
    _met("I6.router.1", "A labelled corpus, half hostile, is routed with pinned precision and recall."),
    _met("I6.router.2", "A line that destroys is denied however it is spelt, and no other line is."),
    _met("I6.router.3", "Among installed openings the one that is meant is chosen, the others explained."),
    _met("I6.router.4", "In bash, zsh and fish a wish is done, a shell line run, a denied line only shown."),
    _met("I6.router.5", "The shell's part is off where it must be, backs off, and leaves no byte behind."),
    _met("I6.router.6", "The exit code of rlp route says shell, agent, too late or denied; stdin is read."),
)

FACES = (
    _met("I6.faces.1", "Over pipes, in both eras, an MCP client reaches what is exposed; a mail waits."),
    _met("I6.faces.2", "A client outside is a principal of its own; its runs replay identical."),
    _met("I6.faces.3", "Over HTTP nothing comes in without a token, our name and room; tokens end at once."),
    _met("I6.faces.4", "Nothing listens unless asked, on loopback only, and nothing is exposed by itself."),
    _met("I6.faces.5", "An editor drives wishes and openings: plan, steps, words, cancel, history."),
    _met("I6.faces.6", "An editor's yes counts only for the very bytes it was shown; all else is no."),
    _met("I6.faces.7", "Foreign text reaches an editor escaped; an agent's question is answered there."),
    _met(
        "I6.faces.8", "Agents outside run exposed openings as tasks; one that waits takes no word for a yes."
    ),
    _met("I6.faces.9", "Of a run's files only those its opening saves are handed out."),
    _met("I6.faces.10", "No client takes the room of others, and strangers cost little, however slow."),
    _met("I6.faces.11", "What lies in the folder a face was started in is not believed, nested or not."),
    _met("I6.faces.12", "What is approved or allowed for one program outside is so for no other."),
    _met("I6.faces.13", "An agent's message that comes again is the task it began, after a crash as before."),
    _met("I6.faces.14", "An agent's list of its tasks is filtered before it is counted and cut into pages."),
    _met("I6.faces.15", "What one agent outside is refused pushes nothing of another's out."),
)

HOST_TOOLS = (
    _met("I6.programs.1", "A program sees its folders and its words, and ends whole at each of its limits."),
    _met("I6.programs.2", "A layer of the sandbox that is missing is a refusal, and doctor names each."),
    _met("I6.programs.3", "A program reaches the hosts that are granted, at the addresses that were judged."),
    _met("I6.programs.4", "A person reads what a program may reach, and the record says what it reached."),
    _met("I6.container.1", "A container holds a program as bubblewrap does, and ends with the daemon."),
    _met("I6.container.2", "An engine is not believed: one wall that is not there, and nothing is started."),
    _met("I6.container.3", "An image is named by digest, an engine is there, or no program is run."),
    _met("I6.host.1", "Every tool of the host keeps the contract, and the kit finds who breaks it."),
    _met("I6.host.2", "A hostile repository has nothing run, whatever is asked of it."),
    _met("I6.host.3", "A run that used the host's tools replays identical without them."),
    _met("I6.host.4", "What is not granted is refused before a person is asked about it."),
)

MCP_CLIENT = (
    _met("I6.mcp.1", "Nobody calls a tool of a foreign server before a person approved its definition."),
    _met("I6.mcp.2", "A run that called a foreign server replays identical without it."),
    _met("I6.mcp.3", "Both eras, over pipes and over HTTP: tools, resources, prompts, cancel, questions."),
    _met("I6.mcp.4", "Two published servers are served as they come."),
    _met("I6.mcp.5", "A foreign server sees what it was granted; its secret reaches it and nobody else."),
    _met("I6.mcp.6", "Widening takes a person's typed word; narrowing happens at once."),
    _met("I6.mcp.7", "A server that dies is unavailable, its call unknown, and comes back after a pause."),
    _met("I6.mcp.8", "No bound of a message, a list or a result of a foreign server can be broken."),
    _met("I6.mcp.9", "A server in the web is dialled where and at which address it was named, nowhere else."),
    _met("I6.mcp.10", "A question of a foreign server reaches a person with its origin."),
    _met("I6.mcp.12", "Another server under an old name has no grant and no approval of the old one."),
)

EVALUATION = (
    _met("I6.eval.1", "A check of a golden task fails for a model that nearly does it, and says why."),
    _met("I6.eval.2", "Golden tasks are played apart from the user's ledger; results are kept as a trend."),
)

COCKPIT_DECISIONS = (
    _met("I7.trace.1", "The ladder of a long run costs no more to look at than that of a short one."),
    _met("I7.inbox.1", "In the cockpit a yes follows every byte, and what does not add up gets none."),
    _met("I7.inbox.2", "Keys typed ahead or held down, pastes and clicks approve nothing."),
    _met("I7.inbox.3", "Editing what is held denies it with a person's words; its bytes never change."),
    _met("I7.inbox.4", "A held mail is read and approved by keys on a real terminal."),
    _met("I7.views.1", "Every pane looks as it did, at every size, fed by golden histories."),
)

SHELL = (
    _met("I7.top.1", "What agents and the daemon use is told to who asks, with rates over his interval."),
    _met("I7.top.2", "The operator alone restarts and kills an agent at work, on record before it is done."),
    _met("I7.top.3", "The pane of agents has every figure, and every order of it is asked about first."),
    _met("I7.run.1", "A run that is watched shows each node live, as lines elsewhere, and leaves no trace."),
    _met("I7.ladder.1", "A run's trace is drawn as a ladder where it fits, told in rows where it does not."),
    _met(
        "I7.complete.1", "Tab offers commands, options and names in bash, zsh and fish; nothing is started."
    ),
    _met("I7.complete.2", "The daemon keeps a file of names: harmless words only, no value of anything."),
    _met("I7.words.1", "A mistyped command, option, opening, key or name is answered with what was meant."),
    _met("I7.man.1", "Every command, option and key has a manual page made from where it is true."),
)

COCKPIT = (
    _met("I7.feed.1", "The cockpit says when the daemon is gone, shows the record, and comes back."),
    _met("I7.record.1", "Every fact of a tree of runs is shown once and in the ledger's order, as it grows."),
    _met("I7.model.1", "Any moment of a run is the fold of the facts before it, kept or not."),
    _met("I7.model.2", "Folding in pieces is folding at once, and no later fact changes an earlier state."),
    _met("I7.plan.1", "A graph of ten thousand nodes scrolls; only the rows on the screen are drawn."),
    _met("I7.log.1", "The log follows, stays, filters and searches a long run without holding keys up."),
    _met("I7.time.1", "Pause, steps, marks and the time line move every pane to the same moment."),
    _met("I7.keys.1", "Help tells every key of every pane, and no pane takes a key that works everywhere."),
    _met("I7.search.1", "A search in Plan and Trace goes from row to row with the words, and hides none."),
    _met("I7.start.1", "A pane chosen before anything is known fills by itself; keys wait for no daemon."),
    _met("I7.theme.1", "Colours are those of the option, or else of 'ui.theme', for agtop and for rlp."),
    _met("I7.wish.1", "A line typed in the cockpit goes where rlp takes it, and into no argument."),
    _met("I7.plain.1", "Words alone say all that signs, colours and lanes say."),
)

PACKAGE = (
    _met("I8.groups.1", "Each run, and each process of one, is a control group, and ends whole."),
    _met("I8.groups.2", "A program or guest that cannot be given its control group does not run."),
    _met("I8.groups.3", "What a crashed daemon left in its control groups is killed at the next start."),
    _met(
        "I8.groups.4", "Who insists on control groups starts no daemon without; 'rlp doctor' says which hold."
    ),
    _met("I8.groups.5", "A guest that the kernel ends for want of memory fails with a name, and alone."),
    _met("I8.policy.1", "The shipped policy changes nothing, and names every bound an operator may set."),
    _met("I8.policy.2", "No user is beyond a rule of the shipped policy, and whoever tries is told."),
    _met("I8.first.1", "The first command waits for the daemon that a service manager starts behind it."),
    _met("I8.first.2", "What does not start or cannot be compiled is told to who asks, with its reason."),
    _met("I8.licences.1", "The copyright file names the licence and holder of every file, or no package."),
    _met("I8.sbom.1", "The SBOM has every distribution as locked, and what is inside the runners."),
)

REQUIREMENTS: tuple[Requirement, ...] = (
    *(*INJECTION, *CONFIRMATION, *SUPPLY, *GUESTS, *FILES, *BUS, *LEDGER, *KEYS, *OPERATIONS),
    *(*USER, *WIRE, *SANDBOX, *CAPABILITIES, *ENGINE, *FACTS, *MODELS, *MAIL, *REPLAY),
    *(*FIGURES, *FAULTS, *HABITS),
    *(*AUTHORING, *BUNDLES, *HOSTILE, *FINDING),
    *BUS_SEMANTICS,
    *MCP_CLIENT,
    *HOST_TOOLS,
    *FAST_ROAD,
    *CLIENTS,
    *REMEMBERED,
    *BESIDE,
    *DURABLE_STEP,
    *KEEPING,
    *LANGUAGE,
    *TREES,
    *FORKING,
    *REPLAYING,
    *SEALING,
    *WHAT_IF,
    *TALKING,
    *COLLAB,
    *MARKET,
    *SWARM,
    *TRIGGERS,
    *ASSISTANT,
    *ADAPTERS,
    *DELEGATION,
    *TOOLS,
    *SECRETS,
    *MODEL_POLICY,
    *ROUTER,
    *FACES,
    *EVALUATION,
    *COCKPIT,
    *COCKPIT_DECISIONS,
    *SHELL,
    *PACKAGE,
)
