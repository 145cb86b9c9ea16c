"""Every command there is, written out: the one source for parsing, help, completion and the reference page.

Knows: names, arguments, options, one sentence each. Does not know: how to parse them (``parse``), what they
do (``commands``). Read before every command, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

__all__ = ["COMMANDS", "CONTINUE", "DETACH", "GLOBAL", "GROUPS", "Argument", "Command", "Option", "find"]


class Argument(NamedTuple):
    """A positional argument."""

    name: str
    help: str
    many: bool = False
    """Takes everything that is left, at least one unless optional; always the last."""
    optional: bool = False


class Option(NamedTuple):
    """A named option. ``name`` is the keyword of the command's function."""

    name: str
    flags: tuple[str, ...]
    help: str
    kind: Literal["flag", "text", "number", "texts"] = "flag"
    """``texts`` may be given several times."""
    default: Any = None
    metavar: str = ""

    @property
    def start(self) -> Any:
        """The value when the option is not given."""
        return {"flag": False, "texts": ()}.get(self.kind, self.default)


class Command(NamedTuple):
    """One command: where it lives and how it is called."""

    path: str
    """Its words: ``run``, ``kb query``."""
    target: str
    """``module:function`` under ``rlp.commands``."""
    summary: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    details: str = ""


_PARAMS = Option(
    "params", ("-p", "--param"), "a parameter of the opening; NAME:=JSON for other than text", "texts",
    metavar="NAME=VALUE",
)  # fmt: skip
_RUN = Argument("run", "run id, or the beginning of one")
DETACH = _DETACH = Option("detach", ("-d", "--detach"), "submit, print the run's id, do not follow")
_AT = Option(
    "at", ("--at",), "what was known then: an event, a day or a time; needs no daemon", "text", None,
    "EVENT|TIME",
)  # fmt: skip
_BACKUP = "folder of a backup"
_APPROVAL = Argument("approval", "approval id, or the beginning of one")
_NOTE = Option("note", ("--note",), "a remark that is kept with the decision", "text", "", "TEXT")
_OPENING = Argument("opening", "name of an opening, or path of its file")

_SECRET = Argument("name", "name of the secret, such as runloop/models/openai")
_STORE = Option(
    "store", ("--store",), "where to keep it: keyring or age; otherwise the first that works", "text", None,
    "PLACE",
)  # fmt: skip
_SHELL = Argument("shell", "bash, zsh or fish; otherwise the one in $SHELL", optional=True)
_SINCE = Option("since", ("--since",), "runs since then: 30d, 12h, or a day", "text", "30d", "TIME")
_SCHEDULE = Argument("name", "name of the schedule")
_FOLDER = Argument("folder", "the agent's folder; the current one otherwise", optional=True)
_KEYS = (
    Option("key", ("--key",), "sign with the private key in this file", "text", None, "FILE"),
    Option(
        "dev_key", ("--dev-key",), "sign with this home's own key, made on first use; for trying things out"
    ),
)

_AGENT = Argument("agent", "name of the agent, or NAME@VARIANT")
_ALLOWED = (
    Option("dev_key", ("--dev-key",), "take a bundle signed with this home's development key"),
    Option("allow_downgrade", ("--allow-downgrade",), "take an older version than was installed here"),
    Option("allow_stale_index", ("--allow-stale-index",), "go by an index of agents whose time is over"),
)

CONTINUE = Option("continued", ("-c", "--continue"), "go on from the last conversation with the assistant")
"""Of a prompt: its own option beside the global ones and ``-p``."""

GLOBAL: tuple[Option, ...] = (
    Option("json", ("--json",), "data as JSON (one object per line for lists and streams)"),
    Option("quiet", ("-q", "--quiet"), "no talk on stderr"),
    Option("verbose", ("-v", "--verbose"), "more talk on stderr"),
    Option("no_color", ("--no-color",), "no colour; the variable NO_COLOR does the same"),
    Option("no_input", ("--no-input",), "never ask; what needs a person stays parked"),
    Option("home", ("--home",), "use this home instead of $RUNLOOP_HOME or ~/.runloop", "text", None, "DIR"),
)
"""Accepted before and after the command's name."""

COMMANDS: tuple[Command, ...] = (
    Command(
        "run", "run:run", "run an opening and follow it to its end",
        (_OPENING,),
        (_PARAMS, _DETACH),
        "Shows every node as it moves. Whatever would leave the machine is held for a person: asked here on "
        "a terminal, parked elsewhere (exit 5, with the line to type next).",
    ),
    Command(
        "plan", "plan:plan", "draw what a run would do, without running it",
        (_OPENING,), (_PARAMS, Option("mermaid", ("--mermaid",), "as a Mermaid chart")),
        "Validates the opening against the installed agents and prints every finding at once, with line and "
        "column.",
    ),
    Command(
        "runs", "runs:runs", "list runs, newest first",
        (),
        (
            Option("limit", ("-n", "--limit"), "at most this many", "number", 20, "N"),
            Option("schedule", ("--schedule",), "only what this schedule started", "text", None, "NAME"),
            Option("tree", ("--tree",), "each with the runs inside it"),
        ),
    ),
    Command(
        "cancel", "runs:cancel", "end a run",
        (_RUN,), (Option("reason", ("--reason",), "kept with the run", "text", "asked to", "TEXT"),),
    ),
    Command(
        "artifact", "artifact:artifact", "list the files a run produced, or print one",
        (_RUN, Argument("name", "the artifact, as the list names it", optional=True)),
        (Option("output", ("-o", "--output"), "write it to a new file instead", "text", None, "FILE"),),
        "A pipe gets its bytes; a terminal sees control characters escaped.",
    ),
    Command(
        "trace", "trace:trace", "show who sent what to whom in a run, when, and how big",
        (_RUN,),
        (
            Option("all", ("-a", "--all"), "also timers, capability checks and lifecycle"),
            Option("spans", ("--spans",), "as a tree: what lies inside what, from when to when"),
            Option("rows", ("--rows",), "as rows with every word, also where there is room for a drawing"),
        ),
    ),
    Command(
        "cost", "cost:cost", "what models have cost, by opening, agent, provider, model, run or day",
        (),
        (
            Option("since", ("--since",), "calls since then: 30d, 12h, or a day", "text", "30d", "TIME"),
            Option("by", ("--by",), "opening, agent, provider, model, run or day", "text", "opening", "WHAT"),
        ),
        "As it was booked then: another price list changes no sum of the past. What answers from the cache "
        "or a cassette saved stands beside it, and so does what was held for calls nobody knows the end of.",
    ),
    Command(
        "top", "top:top", "show what agents and the daemon use, drawn anew until interrupted",
        (Argument("agents", "only these agents", many=True, optional=True),),
        (
            Option("once", ("--once",), "one table, with rates over a second at most, and end"),
            Option(
                "sort", ("--sort",), "name, state, cpu, rss, in, out, errors, waits, calls, cost, fuel, "
                "cache, workers, tokens or runs", "text", "cpu", "COLUMN",
            ),
            Option("interval", ("--interval",), "seconds between two looks", "text", "2", "SECONDS"),
        ),
        "Totals are of the time since the daemon started. Starts no daemon: exit 3 without one. With --json "
        "each look is one object for the daemon and one for each agent.",
    ),
    Command(
        "why", "why:why", "explain where a prompt would go, and by which rule",
        (Argument("prompt", "what you would type after rlp", many=True),),
        (), "A run, event, message, artifact or approval id is explained as 'rlp kb why' does.",
    ),
    Command(
        "route", "why:route", "decide where a prompt goes: exit 10 shell, 11 agent, 12 too late, 13 denied",
        (Argument("prompt", "the prompt; '-' reads it from stdin", many=True),),
        (
            Option(
                "known", ("--known",), "a word your shell knows as a command: an alias, say", "texts",
                metavar="WORD",
            ),
            Option(
                "timeout_ms", ("--timeout-ms",), "exit 12 when it takes longer", "number", None, "MS",
            ),
        ),
        "Runs nothing, needs no daemon. 11 is for an agent or an opening; a denied line is never to be run.",
    ),
    Command(
        "replay", "replay:replay", "re-execute a run from its record and compare; nothing is sent",
        (_RUN,),
        (
            Option("faults", ("--faults",), "once more for each effect, with a fault there"),
            Option("every_call", ("--every-call",), "with --faults: at each call, not only at effects"),
        ),
        "Exit 0 identical, 6 diverged or not fully covered. With --faults, 6 when a fault would leave a mail "
        "or a file half done, sent twice, or open.",
    ),
    Command(
        "fork", "fork:fork", "repeat a run from its record up to a point, with something changed",
        (Argument("run", "RUN@NODE, RUN@msg_ID or RUN@#EVENT; RUN alone repeats all of it"),),
        (
            Option("set", ("--set",), "another value for a parameter; NAME:=JSON for other than text",
                   "texts", metavar="NAME=VALUE"),
            Option("model", ("--model",), "ask this model there", "text", None, "PATTERN"),
            Option("agents", ("--agent",), "let another agent serve a node", "texts",
                   metavar="NODE=AGENT"),
            Option("deny", ("--deny",), "do without a capability", "texts", metavar="CAPABILITY"),
            Option("live", ("--live",), "below the point, ask everything anew"),
            Option("recorded", ("--recorded",), "below the point, ask only what the record lacks (default)"),
            _DETACH,
        ),
        "What is not below a change hears the record alone. What was sent is never sent again, and every "
        "other word to be sent needs a new yes. 'rlp diff' compares the two.",
    ),
    Command(
        "diff", "diff:diff", "compare two runs, message by message",
        (Argument("one", "run id, or the beginning of one"), Argument("other", "the other run")),
        (Option("stat", ("--stat",), "only the figures"),),
        "Ids, times and idempotency keys are no difference. Exit 0 identical, 6 different.",
    ),
    Command(
        "retry", "fork:retry", "try again what failed in a run, on the record of what did not",
        (_RUN, Argument("node", "only this node, and what is below it", optional=True)),
        (_DETACH,),
        "Makes another run. What was sent is not sent again.",
    ),
    Command(
        "resume", "fork:resume", "follow a run that goes on, and answer what it asks",
        (_RUN,), (), "As 'rlp run' does, from the run's beginning; Ctrl-C cancels the run here, too.",
    ),
    Command(
        "schedule add", "schedule:add", "have an opening run by itself, at a time or when files change",
        (_SCHEDULE, _OPENING),
        (
            Option("cron", ("--cron",), "minute hour day month weekday, or @daily and its kin", "text", None,
                   "EXPRESSION"),
            Option("zone", ("--zone",), "time zone of the expression; this machine's otherwise", "text", None,
                   "ZONE"),
            Option("watch", ("--watch",), "a folder or file that starts a run when it changes", "texts",
                   metavar="PATH"),
            Option("patterns", ("--pattern",), "only files like this count", "texts", metavar="GLOB"),
            Option("settle", ("--settle",), "how long files must be left alone; 2s otherwise", "text", None,
                   "TIME"),
            _PARAMS,
            Option("missed", ("--missed",), "times that passed unseen: skip, or once for one run", "text",
                   "skip", "skip|once"),
            Option("overlap", ("--overlap",), "while a run goes on: skip, or parallel", "text", "skip",
                   "skip|parallel"),
        ),
        "The text of the opening is kept as it is now. Nobody is asked when it runs: what needs a person "
        "waits for one. A schedule of that name is replaced.",
    ),
    Command("schedule list", "schedule:list_", "list what runs by itself"),
    Command("schedule show", "schedule:show", "show one schedule and the text it runs", (_SCHEDULE,)),
    Command("schedule rm", "schedule:rm", "remove a schedule; runs it started go on", (_SCHEDULE,)),
    Command(
        "schedule pause", "schedule:pause", "have a schedule start nothing for a while",
        (_SCHEDULE,), (Option("off", ("--off",), "let it go on"),),
        "What falls due meanwhile is reported, and not made up for.",
    ),
    Command(
        "schedule run-now", "schedule:run_now", "start now what a schedule would start",
        (_SCHEDULE,), (), "With no more authority than it would have by itself.",
    ),
    Command(
        "schedule next", "schedule:coming", "print the coming due times, with their offset",
        (Argument("name", "name of the schedule; otherwise of all", optional=True),),
        (Option("limit", ("-n", "--limit"), "at most this many", "number", 10, "N"),),
    ),
    Command(
        "verify", "verify:verify", "check the ledger's chain, signatures and views; needs no daemon",
        (Argument("file", "a sealed run to check instead, as 'rlp export-run' makes one", optional=True),),
        (
            Option("chain_only", ("--chain-only",), "do not compare the views"),
            Option("reexecute", ("--reexecute",), "execute the sealed run again, engine and every agent"),
            Option("key", ("--key",), "insist that the sealed run was sealed with this key", "text", None,
                   "FINGERPRINT"),
            Option("timeout", ("--timeout",), "stop re-executing after so many seconds", "number", 600,
                   "SECONDS"),
        ),
        "Exit 6 when something differs. A sealed run needs no home: nothing of it is kept, and its agents "
        "run in the sandbox on recorded answers only.",
    ),
    Command(
        "export-run", "seal:export_run", "seal a finished run into one file that a stranger can re-execute",
        (_RUN,),
        (
            Option("output", ("-o", "--output"), "the file; RUN.rlrun here otherwise", "text", None, "FILE"),
            Option("redact", ("--redact",), "replace secrets, contacts, value:TEXT, field:NODE.PORT[.PATH]",
                   "texts", metavar="RULES"),
            Option("salt", ("--salt",), "draw the stand-ins from this text; by chance otherwise", "text",
                   None, "TEXT"),
            Option("preview", ("--preview",), "show what would be replaced and what remains; write nothing"),
        ),
        "The runs nested in it go along. Rules are separated by commas, or given several times; with any "
        "of them, secrets are replaced too. A stand-in is the same everywhere, and the run still executes.",
    ),
    Command(
        "approvals", "approvals:approvals", "list what waits for a person",
        (), (Option("all", ("-a", "--all"), "also what was decided"),),
    ),
    Command(
        "approve", "approvals:approve", "let one held action happen, after showing exactly what it is",
        (_APPROVAL,),
        (
            _NOTE,
            Option("yes", ("-y", "--yes"), "do not ask again on a terminal, except to widen what is trusted"),
            Option("wait", ("-w", "--wait"), "stay until it has happened or failed; Ctrl-C takes it back"),
            Option("always", ("--always",), "and the same tool on the same resource from now on, unasked"),
            Option("confirm", ("--confirm",), "its action_digest, in place of a word typed at a terminal",
                   "text", None, "DIGEST"),
        ),
        "Without a terminal the command itself is the person's word, but for what widens what is trusted: "
        "that takes --confirm with the digest of what was read. What is allowed for good is bound to "
        "the agent's bundle, the tool's definition and the resource; 'rlp grant list' shows it.",
    ),
    Command("deny", "approvals:deny", "refuse one held action", (_APPROVAL,), (_NOTE,)),
    Command(
        "grant list", "grant:list_", "list what is done without asking, because a person allowed it for good",
        (), (Option("agent", ("--agent",), "of one agent", "text", None, "AGENT"),),
    ),
    Command(
        "grant revoke", "grant:revoke", "take a standing grant back: a person is asked again",
        (Argument("grant", "grant id, or the beginning of one"),),
        (Option("reason", ("--reason",), "why; kept with it", "text", "", "TEXT"),),
    ),
    Command("undo", "approvals:undo", "take an approval back before it leaves", (_APPROVAL,), (_NOTE,)),
    Command(
        "import", "import_:import_", "bring contacts, mail, notes, calendars, tables into the knowledge base",
        (Argument("paths", ".vcf .csv .ics .jsonl .eml .mbox .md .txt, Maildir, folder of them", many=True),),
        (
            Option("dry_run", ("--dry-run",), "read and report; state nothing"),
            Option("columns", ("--column",), "which column of a table is what: email='Mail address'", "texts",
                   metavar="FIELD=HEADER"),
            Option("retract_vanished", ("--retract-vanished",), "retract what is no longer there"),
        ),
        "Importing the same again changes nothing. A bad item is reported and the rest imported.",
    ),
    Command(
        "providers", "providers:providers", "list the models: what they cost and can do, whether they answer",
        (),
        (
            Option("check", ("-c", "--check"), "ask each for one token"),
            Option("yes", ("-y", "--yes"), "with --check: also those that cost money"),
        ),
        "They are found on this machine (models.detect) or named under [models.providers]. With --check the "
        "exit code is 1 when none answers.",
    ),
    Command(
        "promises", "promises:promises", "list what waits for somebody's word",
        (), (Option("all", ("-a", "--all"), "also what was said or timed out"),),
    ),
    Command(
        "promise show", "promises:show", "show one promise, and what was said",
        (Argument("promise", "promise id, or the beginning of one"),),
    ),
    Command(
        "promise resolve", "promises:resolve", "say what was promised, once",
        (
            Argument("promise", "promise id, or the beginning of one"),
            Argument("value", "what to say, as JSON", many=True),
        ),
        (Option("text", ("-t", "--text"), "the words are a text, not JSON"),),
        "Whoever waits for it goes on with this value; a second word is a conflict (exit 8).",
    ),
    Command(
        "secret set", "secret:set_", "set a secret, read from a prompt or from stdin",
        (_SECRET,),
        (
            Option("destinations", ("--for",), "where agents may have it sent: a host, host:port, "
                   "mcp:SERVER, program:NAME", "texts", metavar="DESTINATION"),
            _STORE,
        ),
        "The value is never an argument: arguments are seen by every program. It is used from the next call "
        "on; nothing is restarted. Without --for, no agent may use it; models, mail and MCP servers that the "
        "configuration names it for do.",
    ),
    Command(
        "secret allow", "secret:allow", "say where agents may have a secret sent",
        (
            _SECRET,
            Argument("destinations", "a host, host:port, mcp:SERVER, program:NAME; or none", many=True),
        ),
        (),
        "Replaces what was said before. An agent also needs the capabilities for the secret and the place.",
    ),
    Command(
        "secret list", "secret:list_", "list secrets: where they lie, who used them",
        (), (),
        "Neither values nor their lengths are ever shown.",
    ),
    Command("secret rm", "secret:rm", "remove a secret", (_SECRET,)),
    Command(
        "secret import", "secret:import_", "move the secrets of the old secrets.toml over",
        (), (_STORE,),
        "The file is removed once each of its secrets is found elsewhere.",
    ),
    Command(
        "memory list", "memory:list_", "list what agents remember",
        (Argument("namespace", "agent:NAME or shared:NAME; otherwise all namespaces", optional=True),),
        (
            Option("prefix", ("--prefix",), "only keys that begin with this", "text", "", "TEXT"),
            Option("limit", ("-n", "--limit"), "at most this many keys", "number", 200, "N"),
        ),
    ),
    Command(
        "memory show", "memory:show", "show one value an agent remembers",
        (Argument("namespace", "agent:NAME or shared:NAME"), Argument("key", "the key")),
    ),
    Command(
        "memory forget", "memory:forget", "have an agent forget one key",
        (Argument("namespace", "agent:NAME or shared:NAME"), Argument("key", "the key")),
        (), "The ledger keeps that it was there; the agent's next write must not expect its version.",
    ),
    Command(
        "kb query", "kb:query", "read the views with one SELECT",
        (Argument("sql", "the statement"),),
        (
            Option("params", ("-p", "--param"), "value for the next ? of the SQL", "texts", metavar="VALUE"),
            Option("limit", ("-n", "--limit"), "at most this many rows", "number", 200, "N"),
            _AT,
        ),
    ),
    Command(
        "kb search", "kb:search", "search contacts, notes, mail, records and calendar events",
        (Argument("query", "words to look for", many=True),),
        (
            Option("k", ("-k",), "at most this many hits", "number", 8, "N"),
            Option("kinds", ("--kind",), "contact, note, mail, record or event", "texts", metavar="KIND"),
            _AT,
        ),
        "Entries with every word come first. 'lexical-1' finds words spelt alike and knows no meaning.",
    ),
    Command(
        "kb why", "kb:why", "trace a thing back to what caused it, up to the root",
        (Argument("ref", "event, run, approval, message, digest, address, or path of a written file"),),
        (Option("impact", ("--impact",), "forward: what followed from it"),),
        "Only recorded causes are followed. An edge that leads nowhere is reported as severed.",
    ),
    Command(
        "kb retract", "kb:retract", "take back what was learnt, as if it had never been",
        (Argument("event", "event number of a contact, note, mail, calendar event or memory entry"),),
        (
            Option("cascade", ("--cascade",), "with the knowledge that came of it; hold runs and questions"),
            Option("reason", ("--reason",), "why; needed, and kept with the retraction", "text", "", "TEXT"),
            Option("dry_run", ("--dry-run",), "only tell what would be taken back and held"),
            Option("undo", ("--undo",), "EVENT is a retraction: let what it took back count again"),
        ),
        "Nothing is deleted from the ledger. A mail that was sent is listed; it cannot be taken back.",
    ),
    Command(
        "kb write-event", "ledger:write_event", "state one fact by hand",
        (
            Argument("kind", "such as contact.upserted; 'docs/reference/events.md' lists the fields"),
            Argument("payload", "the fact as one JSON object; - reads it from stdin"),
        ),
        (Option("causes", ("--cause",), "an event it follows from", "texts", metavar="EVENT"),),
        "Knowledge only: what runs, agents and the host did is theirs to state. Checked against the kind's "
        "closed schema and stamped with who stated it.",
    ),
    Command(
        "kb verify", "ledger:verify", "check the ledger and its views, or every byte of a backup",
        (Argument("backup", _BACKUP + "; otherwise the ledger in place", optional=True),),
        (Option("chain_only", ("--chain-only",), "do not compare the views"),),
        "Exit 6 when something differs, with the first bad event. Changes nothing; works beside a daemon.",
    ),
    Command(
        "kb rebuild", "ledger:rebuild", "throw the views away and fold the ledger anew",
        (), (), "Who reads meanwhile sees the old views until the new ones are whole.",
    ),
    Command(
        "kb backup", "ledger:backup", "write a verified, signed copy of the ledger, also while it is written",
        (Argument("folder", "where to; it must not exist"),), (),
        "The folder appears whole or not at all. The keys are not in it: keep them elsewhere.",
    ),
    Command(
        "kb restore", "ledger:restore", "put a backup in the ledger's place; the files before it are kept",
        (Argument("folder", _BACKUP, optional=True),),
        (
            Option("accept_loss", ("--accept-loss",), "go back although events are, or may be, lost"),
            Option("resume", ("--resume",), "finish a restore that was interrupted"),
        ),
        "Needs the daemon stopped. Without --accept-loss it says what would be lost and changes nothing. "
        "Runs that were under way in the backup are asked to end: nothing is sent twice.",
    ),
    Command(
        "kb salvage", "ledger:salvage", "save what can be proven of a damaged ledger, as a backup",
        (Argument("damaged", "the events.db; otherwise this home's", optional=True),),
        (Option("to", ("--to",), "folder to write; it must not exist", "text", None, "FOLDER"),),
        "Needs the daemon stopped. The damaged files are only read. Exit 6 when something is surely lost.",
    ),
    Command(
        "kb migrate", "ledger:migrate", "bring the ledger's file to this build's version",
        (), (), "Needs the daemon stopped. Keeps the old files; a newer file is refused.",
    ),
    Command(
        "kb vacuum", "ledger:vacuum", "give the unused space of ledger and views back",
        (), (), "Needs the daemon stopped, and free space for a copy.",
    ),
    Command(
        "keys rotate", "keys:rotate", "sign the ledger with another key; the old one is gone",
        (), (),
        "Needs the daemon stopped. What the old key has signed stays proven, what it signs later is not. "
        "Back the keys folder up anew afterwards.",
    ),
    Command(
        "cap list", "cap:list_", "what agents may do, and where each limit comes from",
        (Argument("agent", "only this agent", optional=True),),
    ),
    Command(
        "cap grant", "cap:grant", "give a capability back, as far as the agent's own policy reaches",
        (
            Argument("agent", "name of the agent"),
            Argument("capability", "for example mail, model, kb_read"),
            Argument("value", "true, or the value as JSON", optional=True),
        ),
    ),
    Command(
        "cap revoke", "cap:revoke", "take a capability, or a token with all it was narrowed to",
        (
            Argument("agent", "name of the agent", optional=True),
            Argument("capability", "for example mail, model, kb_read", optional=True),
        ),
        (Option("token", ("--token",), "revocation id of a token", "text", None, "ID"),),
    ),
    Command(
        "cap shrink", "whatif:shrink", "the smallest policy under which an agent's recorded runs still pass",
        (Argument("agent", "name of the agent"),),
        (
            _SINCE,
            Option("output", ("-o", "--output"), "write it to this new file", "text", None, "FILE"),
        ),
        "Every run is driven again under it, from its record and in memory, and every grant that stays is "
        "one that a run needs. Never more than the agent may do at present. The file is an override, too.",
    ),
    Command(
        "policy test", "whatif:test", "what recorded runs would have been under another policy",
        (Argument("file", "a policy.caps, or a folder of <agent>.toml"),),
        (
            _SINCE,
            Option("agent", ("--agent",), "the file is this agent's own policy", "text", None, "NAME"),
            Option("rerun", ("--rerun",), "execute also the runs in which no verdict changes"),
        ),
        "With --agent the file stands in for the agent's policy.caps; without, it is an override laid on "
        "every agent; a folder replaces all overrides. Nothing is performed. Exit 6 when anything would "
        "change.",
    ),
    Command("list", "list_:list_", "list the openings that can be run and the installed agents"),
    Command(
        "opening show", "opening:show", "print an opening's definition as YAML or as brace text",
        (_OPENING,),
        (
            Option("yaml", ("--yaml",), "as YAML, which is what is printed otherwise too"),
            Option("brace", ("--brace",), "as brace text, for a file NAME.opening"),
        ),
        "Both are read as the same definition, with the same digest, and --json prints that. Comments of the "
        "file are not part of it.",
    ),
    Command(
        "logs", "log:logs", "show what the daemon wrote down",
        (),
        (
            Option("lines", ("-n", "--lines"), "at most this many, the newest", "number", 50, "N"),
            Option("grep", ("--grep",), "only lines that contain this", "text", None, "TEXT"),
            Option("agent", ("--agent",), "only lines of this agent", "text", None, "NAME"),
            Option("correlation", ("--correlation",), "only lines of this run", "text", None, "RUN"),
        ),
    ),
    Command(
        "agent scaffold", "authoring:scaffold", "write the folder of a new agent",
        (Argument("name", "name of the agent: lower-case letters, digits, underscores"),),
        (
            Option("lang", ("-l", "--lang"), "python, rust, ts, js or c", "text", "python", "LANGUAGE"),
            Option("dir", ("--dir",), "where to; otherwise a folder of its name", "text", None, "DIR"),
        ),
        "A manifest, the rights it asks for, source with a handler and a tool, tests, a README. Overwrites "
        "nothing; needs no network, no toolchain and no daemon.",
    ),
    Command(
        "agent lint", "authoring:lint", "report every mistake in an agent's folder, with file and line",
        (_FOLDER,), (), "Exit 2 when there are errors; warnings alone are no failure.",
    ),
    Command(
        "agent test", "authoring:test", "run an agent's tests: its own, a fake host, the real sandbox",
        (_FOLDER,),
        (
            Option(
                "sandbox_only", ("--sandbox-only",),
                "leave out what runs outside the sandbox: the way to try a stranger's source",
            ),
        ),
        "Every case of tests/cases.toml runs in a worker with the agent's own limits and rights; host calls "
        "are judged as the gate judges and answered by the case. Nothing is sent, spent or recorded.",
    ),
    Command(
        "agent build", "authoring:build", "make the bundle of an agent's folder",
        (_FOLDER,),
        (
            Option("output", ("-o", "--output"), "instead of NAME-VERSION.rlb here", "text", None, "FILE"),
            *_KEYS,
            Option("no_describe", ("--no-describe",), "do not complete tools.json in the sandbox"),
        ),
        "The same source gives the same bytes, wherever and whenever it is built. A folder, or the file of a "
        "config agent. Without a key the bundle is not signed, and cannot be installed.",
    ),
    Command(
        "agent sign", "authoring:sign", "sign a bundle, in place of any signature it has",
        (Argument("bundle", "the .rlb file"),), _KEYS,
    ),
    Command(
        "dev", "dev:dev", "serve an agent as it is being written: build, sign and swap at every change",
        (Argument("source", "its folder, or a config agent's file; otherwise this folder", optional=True),),
        (Option("once", ("--once",), "build and serve it once, do not watch"),),
        "A broken build leaves the last good one serving and says why. Signed with this home's development "
        "key; a person is asked for the first build, and for each that asks for more than the last.",
    ),
    Command(
        "agent install", "agent:install", "judge a bundle file and, after a person's yes, install it",
        (Argument("bundle", "the .rlb file"),), _ALLOWED,
        "Signature, publisher, version and content are judged first; then the rights it asks for are shown, "
        "and a person decides: here on a terminal, else it is parked (exit 5).",
    ),
    Command(
        "agent upgrade", "agent:upgrade", "put another version in the place of an installed agent",
        (Argument("bundle", "the .rlb file, or the agent's name: then the newest of the configured index"),),
        _ALLOWED,
        "Shows what it asked for before, what it asks for now, and what it used in its last runs.",
    ),
    Command(
        "agent rollback", "agent:rollback", "go back to the previous version of an agent",
        (_AGENT,), (),
        "At once when that version may do no more than the present one; else a person is asked.",
    ),
    Command(
        "agent remove", "agent:remove", "serve no new run with an agent",
        (_AGENT,),
        (Option("release_name", ("--release-name",), "let another publisher take the name"),),
        "Runs under way, and replays, keep the bytes they began with.",
    ),
    Command("agent list", "agent:list_", "list agents by who vouches for them, and those that are refused"),
    Command(
        "agent show", "agent:show", "show one agent: what it is, who signed it, what it may do, its versions",
        (_AGENT,),
    ),
    Command(
        "agent key", "agent:key", "make a key to sign bundles with, or show one, and how others trust it",
        (
            Argument("file", "where the private key lies, or will"),
            Argument("publisher", "the name you publish under"),
        ),
    ),
    Command("trust list", "trust:list_", "list who may publish agents here, and what was revoked"),
    Command(
        "trust add", "trust:add", "trust a publisher's key, after a person's yes",
        (
            Argument("publisher", "a name for the publisher"),
            Argument("key", "its public key, ed25519:..."),
        ),
        (
            Option("names", ("--name",), "agent names it may publish; * stands for anything", "texts",
                   metavar="PATTERN"),
            Option("capabilities", ("--capability",), "all its agents may ask for; else anything", "texts",
                   metavar="NAME"),
            Option("expires", ("--expires",), "until when, as 2027-01-31", "text", None, "DATE"),
        ),
        "A second key of a publisher is added beside the first, so that keys can be rotated.",
    ),
    Command(
        "trust remove", "trust:remove", "trust a publisher no longer; what is installed stays",
        (Argument("publisher", "as 'rlp trust list' names it"),),
    ),
    Command(
        "trust revoke", "trust:revoke", "believe a key or a bundle no more, and stop what it is behind",
        (Argument("what", "key id, public key, or bundle digest"),),
        (Option("reason", ("--reason",), "why; kept, and shown to whoever is refused", "text", "not given",
                "TEXT"),),
    ),
    Command("mcp ls", "mcp:list_", "list foreign MCP servers: how they are, what of them is approved"),
    Command(
        "mcp add", "mcp:add", "let a foreign MCP server in, after a person's yes",
        (
            Argument("name", "what it is called here: its tools are mcp.NAME.TOOL"),
            Argument("argv", "the program and its arguments, after '--'", many=True, optional=True),
        ),
        (
            Option("url", ("--url",), "a server in the web instead of a program", "text", None, "URL"),
            Option("net", ("--net",), "a host the program may reach", "texts", metavar="HOST"),
            Option("ro", ("--ro",), "a folder the program may read", "texts", metavar="DIR"),
            Option("rw", ("--rw",), "a folder the program may change", "texts", metavar="DIR"),
            Option(
                "env", ("--env",), "NAME=VALUE of its environment, or NAME=secret:runloop/mcp/NAME", "texts",
                metavar="NAME=VALUE",
            ),
            Option(
                "secret", ("--secret",), "the secret that is the token of a server in the web", "text", None,
                "SECRET",
            ),
            Option("legacy", ("--legacy",), "speak the protocol of 2025-11-25 with it"),
        ),
        "It runs in a sandbox: no network, no folders, no keys but those named here. Adding it lets nobody "
        "call its tools: 'rlp mcp approve' does, for each definition as you saw it.",
    ),
    Command("mcp show", "mcp:show", "what a server runs, how it is, and what changed since you approved it",
            (Argument("name", "as 'rlp mcp ls' names it"),)),
    Command("mcp tools", "mcp:tools", "look at a server now and list what it offers",
            (Argument("name", "as 'rlp mcp ls' names it"),)),
    Command(
        "mcp approve", "mcp:approve", "let tools of a server be called as they are defined now",
        (Argument("what", "NAME for all that are new or changed, or NAME/TOOL"),),
        (
            Option("read", ("--read",), "you know that they only read: calls do not ask a person"),
            Option("write", ("--write",), "they change what is granted; each call asks a person"),
        ),
        "Shows every definition in full, and what changed. Without --read each call asks a person, whatever "
        "the server says of itself.",
    ),
    Command("mcp suspend", "mcp:suspend", "let tools of a server not be called until they are approved again",
            (Argument("what", "NAME for all, or NAME/TOOL"),)),
    Command(
        "acp", "acp:serve", "be an agent in your editor (Agent Client Protocol), over its pipes",
        (),
        (Option("client", ("--as",), "what the editor is called on record", "text", "editor", "NAME"),),
        "The editor starts this. What you type there is routed as 'rlp \"...\"' does; a held action is shown "
        "there and waits for your yes.",
    ),
    Command(
        "a2a serve", "a2a:serve", "let agents outside run the openings you expose (Agent2Agent 1.0)",
        (),
        (
            Option("http", ("--http",), "over HTTP on this machine, behind tokens", "text", "127.0.0.1:0",
                   "ADDRESS:PORT"),
            Option("rate", ("--rate",), "requests of one client per second; 20 otherwise", "number", None,
                   "N"),
        ),
        "Tokens and what is exposed are those of 'rlp mcp serve --http'. A task that waits for you says so; "
        "nothing that an agent says is your yes.",
    ),
    Command(
        "mcp serve", "mcp_serve:serve", "let MCP clients outside use what you expose",
        (),
        (
            Option("stdio", ("--stdio",), "over the pipes of the program that starts this"),
            Option("http", ("--http",), "over HTTP on this machine, behind tokens", "text", None,
                   "ADDRESS:PORT"),
            Option("expose", ("--expose",), "with --stdio: kb, opening:NAME, tool:NAME or tool:NAME@AGENT",
                   "texts", metavar="WHAT"),
            Option("client", ("--as",), "with --stdio: what the client is called on record", "text", "stdio",
                   "NAME"),
            Option("rate", ("--rate",), "with --http: requests of one client per second; 20 otherwise",
                   "number", None, "N"),
            Option("new_token", ("--new-token",), "make a token for a client and show it, once", "text", None,
                   "NAME"),
            Option("revoke", ("--revoke",), "let a token be worth nothing", "text", None, "NAME"),
            Option("tokens", ("--tokens",), "list the tokens"),
        ),
        "A client has no authority of yours: what would leave the machine waits in 'rlp approvals', and its "
        "runs are on record as its own.",
    ),
    Command(
        "mcp expose", "mcp_serve:expose", "say what 'rlp mcp serve --http' exposes; nothing by itself",
        (Argument("items", "kb, opening:NAME, tool:NAME or tool:NAME@AGENT", many=True, optional=True),),
        (Option("hide", ("--hide",), "take it off the list instead"),),
    ),
    Command(
        "mcp rm", "mcp:remove", "end a server and forget every approval of its tools",
        (Argument("name", "as 'rlp mcp ls' names it"),),
        (Option("reason", ("--reason",), "kept with the decision", "text", "not wanted any more", "TEXT"),),
    ),
    Command("agent held", "quarantine:held", "list the agents that may not run, and why"),
    Command(
        "agent quarantine", "quarantine:quarantine", "keep an agent from running until it is released",
        (Argument("agent", "name of the agent"),),
        (Option("reason", ("--reason",), "kept with the decision", "text", "asked to", "TEXT"),),
        "Its attempts under way are answered no more; new ones are refused (agent.quarantined). Holds across "
        "restarts and upgrades. The daemon does the same by itself to an agent that keeps crashing.",
    ),
    Command(
        "agent kill", "stops:kill", "end what an agent does now; its attempts fail",
        (Argument("agent", "name of the agent"),),
        (Option("reason", ("--reason",), "kept with the decision", "text", "asked to", "TEXT"),),
        "Each attempt ends with guest.killed, and the opening's retry decides what follows. New ones may "
        "begin: 'rlp agent quarantine' keeps them from it.",
    ),
    Command(
        "agent restart", "stops:restart", "have what an agent does go on in fresh processes",
        (Argument("agent", "name of the agent"),),
        (Option("reason", ("--reason",), "kept with the decision", "text", "asked to", "TEXT"),),
        "Each attempt is made again from its record: what it has heard arrives at the same place, and "
        "nothing is sent twice. It counts as no failure.",
    ),
    Command(
        "agent release", "quarantine:release", "let a quarantined agent run again",
        (Argument("agent", "name of the agent"),),
        (Option("reason", ("--reason",), "kept with the decision", "text", "asked to", "TEXT"),),
    ),
    Command(
        "shell enable", "shell:enable", "put Runloop at your prompt: a wish is done, a shell line run",
        (_SHELL,),
        (
            Option(
                "key", ("--key",), "enter: judge every line; own: only on Alt-Enter", "text", "enter", "KEY"
            ),
        ),
        "One marked block in the shell's start-up file. Off in CI, over SSH and on dumb terminals, and with "
        "RUNLOOP_SHELL=off.",
    ),
    Command(
        "shell disable", "shell:disable", "take it away again; the start-up file is as before, byte for byte",
        (_SHELL,),
    ),
    Command(
        "shell completion", "completion:completion", "what the Tab key offers behind rlp: print the script",
        (_SHELL,),
        (Option("install", ("--install",), "put it where the shell looks for such scripts"),),
        "Tab starts no program: names come from a small file the daemon keeps. Changes no start-up file.",
    ),
    Command("shell status", "shell:status", "say for each shell whether Runloop is at its prompt", (_SHELL,)),
    Command(
        "eval", "eval:eval_", "play golden tasks against a model and judge what comes of them",
        (Argument("suite", "folder of a suite; otherwise the shipped one", optional=True),),
        (
            Option("provider", ("--provider",), "ask this provider; rules: no language model", "text", None,
                   "NAME"),
            Option("model", ("--model",), "this model of the provider", "text", None, "NAME"),
            Option("tasks", ("-t", "--task"), "only these tasks; patterns such as 'mail.*'", "texts",
                   metavar="TASK"),
            Option("repeat", ("--repeat",), "play each task so often", "number", 1, "N"),
            Option("threshold", ("--threshold",), "per cent that must pass; otherwise the suite's", "number",
                   None, "PERCENT"),
            Option("trend", ("--trend",), "play nothing, show earlier results"),
            Option("show", ("--list",), "play nothing, list the tasks"),
        ),
        "In homes of their own that vanish afterwards: your ledger is not touched, nothing leaves this "
        "machine but what your model is asked. Exit 1 when too few passed.",
    ),
    Command("doctor", "doctor:doctor", "look for what is wrong here; needs no daemon"),
    Command(
        "daemon start", "daemon:start", "start this user's daemon",
        (),
        (Option("settings", ("--set",), "configuration of this daemon", "texts", metavar="KEY=VALUE"),),
        "Every other command starts it by itself when it needs it.",
    ),
    Command(
        "daemon stop", "daemon:stop", "stop it, after the attempts under way have ended",
        (), (Option("now", ("--now",), "do not wait for attempts under way"),),
    ),
    Command("daemon status", "daemon:status", "whether it runs, since when, with what"),
    Command(
        "daemon bus", "peers:bus", "what the bus counted, and what durable topics hold",
        details="Every frame addressed to somebody was delivered, dropped or is queued: the figures add up.",
    ),
    Command(
        "peers", "peers:peers", "who is there: agents, and programs connected to the daemon",
        (Argument("id", "an agent's name, or the beginning of a connection's id", optional=True),),
        (
            Option("topic", ("--topic",), "only who serves this topic", "text", None, "TOPIC"),
            Option("capability", ("--capability",), "only who can, or claims it can", "text", None, "NAME"),
            Option("version", ("--version",), "only versions in a range: '>=1.2 <2'", "text", None, "RANGE"),
            Option("gone", ("--gone",), "also who left lately, or missed its heartbeats"),
        ),
        "What a program says of itself is marked as claimed; what an agent may do comes from its policy.",
    ),
    Command(
        "config show", "config:show", "every value and where it comes from",
        (), (Option("settings", ("--set",), "as if this were set", "texts", metavar="KEY=VALUE"),),
    ),
    Command("config get", "config:get", "one value", (Argument("key", "such as security.undo_window_ms"),)),
    Command("config path", "config:path", "where files, sockets and keys lie"),
    Command("config check", "config:check", "read every layer and report what is wrong"),
)  # fmt: skip

GROUPS: dict[str, str] = {
    "kb": "the knowledge base",
    "keys": "the key that signs the ledger",
    "schedule": "what runs by itself",
    "opening": "the text of openings",
    "agent": "agents: what is installed, and who may run",
    "memory": "what agents remember",
    "promise": "what waits for somebody's word",
    "grant": "what is done without asking, because a person allowed it for good",
    "secret": "what only the host knows",
    "cap": "capabilities of agents",
    "policy": "policies before they hold",
    "trust": "who may publish agents",
    "mcp": "foreign MCP servers and their tools",
    "a2a": "agents outside that use Runloop",
    "daemon": "this user's daemon",
    "config": "configuration",
    "shell": "Runloop at your shell's prompt",
}
"""First words of two-word commands."""


def find(words: list[str]) -> tuple[Command, int] | None:
    """The command that starts a list of words, and how many words name it."""
    for length in (2, 1):
        path = " ".join(words[:length])
        for command in COMMANDS:
            if len(words) >= length and command.path == path:
                return command, length
    return None
