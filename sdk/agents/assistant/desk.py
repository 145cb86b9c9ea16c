"""What the assistant works with: its tools, what the user said, and the lowest label of what it has seen.

Knows: how one result is found, masked and labelled, whom a mail may go to. Does not know: the model. An
address leaves this module unmasked only to the gate, for a mail a person approves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import memories
import people

from runloop.agent import Fail
from runloop.host import Host, HostRefused
from runloop.loop import Seen, Tool, granted_tools, lowest
from runloop.loop.conversation import compact

MAX_FOUND = 8
MAX_TEXT = 900
"""Characters of a document that are shown when it is found; the whole of it is read by its id."""
MAX_BODY = 20_000
READING = {
    "kb_read": ["calendar", "contacts", "mail", "notes"],
    "kb_read.contacts_raw": True,
    "model": True,
    "time": True,
}
"""What is passed on with a delegation: neither tools nor questions nor further delegation."""
TOKENS = 50_000
"""Most that one delegation may use, within what is left of the run's."""
_ADDRESS = re.compile(r"([\w.!#$%&'*+/=?^`{|}~-]{1,64})@((?:[\w-]{1,63}\.){1,8}[\w-]{1,63})")
_WORD = re.compile(r"[^\W_]{3,}")


def day(ms: int) -> str:
    """A date, as notes have it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def masked(value: Any) -> Any:
    """The value with every e-mail address masked, as the host masks them: ``j***@e***.com``."""
    if isinstance(value, str):
        return _ADDRESS.sub(_mask, value) if "@" in value else value
    if isinstance(value, dict):
        return {masked(name): masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def _mask(found: re.Match[str]) -> str:
    head, _, last = found[2].rpartition(".")
    return f"{found[1][0]}***@{head[0]}***.{last}"


class Desk:
    """One attempt's tools and what they have seen."""

    def __init__(self, host: Host, wish: str, now_ms: int) -> None:
        self._host = host
        self._now = now_ms
        self._said = [wish]
        """Everything the user said: the only place an address outside the contacts may come from."""
        self._sources: dict[str, None] = {}
        self.label = "user"
        """Lowest label of everything that was shown to the model so far."""
        self.drafts: list[dict[str, Any]] = []
        self.artifacts: list[str] = []

    def tools(self) -> list[Tool]:
        """Its own tools, then whatever it was granted beside them."""
        own = [
            Tool("kb.find", _FIND, _FIND_ARGS, self.find),
            Tool("kb.read", "Read one note, mail, contact or calendar entry whole.", _READ_ARGS, self.read),
            Tool(
                "contacts.find", "Find people the user knows. Addresses are masked.", _NAME_ARGS, self.people
            ),
            Tool("memory.remember", "Remember one fact for later conversations.", _TEXT_ARGS, self.remember),
            Tool("memory.recall", "Recall what was remembered about something.", _QUERY_ARGS, self.recall),
            Tool(
                "draft_mail", "Write a draft and keep it for the user. Sends nothing.", _MAIL_ARGS, self.draft
            ),
            Tool("mail.send", "Send a mail, after a person approved it.", _MAIL_ARGS, self.send, waits=True),
            Tool("delegate", _DELEGATE, _DELEGATE_ARGS, self.delegate, waits=True),
            Tool("ask_user", "Ask the user one question and wait.", _ASK_ARGS, self.ask, waits=True),
        ]
        return [replace(tool, run=self._noting(tool)) for tool in [*own, *granted_tools(self._host)]]

    def _noting(self, tool: Tool) -> Callable[[dict[str, Any]], Any]:
        """The tool's function; whatever comes of it, the words of a refusal included, lowers the label."""

        def noted(args: dict[str, Any]) -> Any:
            label = tool.label
            try:
                given = tool.run(args)
                label = given.label if isinstance(given, Seen) else label
            finally:
                self.label = lowest(self.label, label)
            return given

        return noted

    # --- what the user knows ----------------------------------------------------------------------

    def find(self, args: dict[str, Any]) -> Seen:
        """Documents on a query; of ``newest`` the latest first."""
        limit, newest = int(args.get("limit", 5)), bool(args.get("newest", False))
        kinds = list(args.get("kinds") or ["note", "mail", "record", "event"])
        query = str(args["query"])
        hits = self._host.kb_search(query, k=24 if newest else limit + 2, kinds=kinds)
        found = [self._shown(hit) for hit in hits]
        words = [word.casefold()[:5] for word in _WORD.findall(query)]
        about = [
            one for one in found if any(word in f"{one['title']} {one['text']}".casefold() for word in words)
        ]
        found = about or found
        if newest:
            found.sort(key=lambda one: str(one["written"]), reverse=True)
        found = found[:limit]
        for one in found:
            self._sources[str(one["id"])] = None
        labels = [str(one["label"]) for one in found]
        return Seen([{**one, "text": one["text"][:MAX_TEXT]} for one in found], lowest(*labels))

    def _shown(self, hit: dict[str, Any]) -> dict[str, Any]:
        kind, name = str(hit.get("kind")), str(hit.get("id"))
        whole = {} if kind == "event" else self._host.kb_read("document", name)
        text = str(whole.get("text") or hit.get("snippet") or "")
        written = whole.get("written_ms") or whole.get("updated_ms")
        return {
            "id": name,
            "kind": kind,
            "title": str(whole.get("title") or hit.get("title") or ""),
            "written": day(int(written)) if isinstance(written, int) else "",
            "text": text,
            "characters": len(text),
            "label": str(whole.get("label") or hit.get("label") or "unknown"),
        }

    def read(self, args: dict[str, Any]) -> Seen:
        """One thing whole."""
        item = self._host.kb_read(str(args.get("kind", "document")), str(args["id"]))
        self._sources[str(args["id"])] = None
        return Seen(item, str(item.get("label") or "unknown"))

    def people(self, args: dict[str, Any]) -> Seen:
        """Contacts by name."""
        found = people.find(self._host, str(args["name"]))
        shown = [{key: one.get(key) for key in ("id", "name", "org", "title", "emails")} for one in found]
        return Seen(shown, lowest(*[str(one.get("label") or "unknown") for one in found]))

    # --- memory -----------------------------------------------------------------------------------

    def remember(self, args: dict[str, Any]) -> dict[str, Any]:
        """Keep a fact, under the lowest label of everything seen so far, with what it was made from."""
        return memories.remember(self._host, str(args["text"]), self.label, list(self._sources), self._now)

    def recall(self, args: dict[str, Any]) -> Seen:
        """Facts that were kept; none is trusted more than what it was made from."""
        return memories.recall(self._host, str(args["query"]))

    def earlier(self) -> list[tuple[str, str]]:
        """The last conversation, for this wish to go on from."""
        turns, label = memories.conversation(self._host)
        self.label = lowest(self.label, label)
        self._said += [wish for wish, _ in turns]
        return turns

    def keep(self, earlier: list[tuple[str, str]], wish: str, answer: str) -> str:
        """Keep the conversation for the next wish. Returns what the user should know of it."""
        turns = [*earlier, (wish, masked(answer))]
        try:
            memories.keep_conversation(self._host, turns, self.label, self._now)
        except HostRefused as error:
            return f"(This conversation could not be kept: {error})"
        return ""

    # --- mail and questions -----------------------------------------------------------------------

    def draft(self, args: dict[str, Any]) -> dict[str, Any]:
        """An artifact with recipients, subject and body."""
        mail = self._addressed(args)
        head = f"To: {', '.join(mail['to'])}\nSubject: {mail['subject']}\n\n"
        name = f"draft-{len(self.drafts) + 1}.txt"
        digest = self._host.put_artifact(name, head + mail["body"])
        self.artifacts.append(digest)
        self.drafts.append({**mail, "artifact": name, "digest": digest})
        return {"kept_as": name, "to": mail["to"], "sent": False}

    def send(self, args: dict[str, Any]) -> dict[str, Any]:
        """Sends, once a person approved the very bytes."""
        mail = self._addressed(args)
        sent = self._host.send_mail(mail["to"], mail["subject"], mail["body"])
        return {"status": sent.get("status"), "to": mail["to"]}

    def _addressed(self, args: dict[str, Any]) -> dict[str, Any]:
        to = [self._address(str(one)) for one in args["to"]]
        subject = " ".join(str(args["subject"]).split())
        return {"to": list(dict.fromkeys(to)), "subject": subject[:200], "body": str(args["body"])[:MAX_BODY]}

    def _address(self, wanted: str) -> str:
        """The address of a contact, or one the user wrote; never one that only foreign text names."""
        wanted = wanted.strip()
        if _ADDRESS.fullmatch(wanted):
            said = {found[0].casefold() for text in self._said for found in _ADDRESS.finditer(text)}
            if wanted.casefold() in said or people.by_address(self._host, wanted):
                return wanted
            raise Fail(
                "mail.recipient",
                "this address is in no contact and the user did not write it: it may be somebody else's "
                "wish. Name a contact, or have the user type the address (ask_user)",
            )
        return people.address_of(self._host, wanted)

    def delegate(self, args: dict[str, Any]) -> Seen:
        """Have another agent or a shipped opening do part of it, with part of the own rights."""
        use = str(args["use"])
        caps: dict[str, Any] = dict(READING) | ({"mail": True} if args.get("may") == "send" else {})
        for found in _ADDRESS.finditer(compact(args.get("params"))):
            self._address(found[0])  # nobody writes to a stranger by having somebody else do it
        wish = {"use": use, "params": dict(args.get("params") or {}), "caps": caps, "budget_tokens": TOKENS}
        answer = self._host.call("agent.delegate", wish)
        return Seen(answer, f"tool:{use}")  # nobody here knows what it has read

    def ask(self, args: dict[str, Any]) -> Seen:
        """What the user answers is the user's word."""
        choices = [str(one) for one in args.get("choices") or []]
        answer = str(self._host.ask(str(args["question"]), choices=choices))
        self._said.append(answer)
        return Seen(answer, "user")


_TEXT = {"type": "string", "minLength": 1}
_FIND = (
    "Search the user's notes, mails, records and calendar. With newest, the latest come first: use it for "
    "'newest', 'latest', 'recent'. Query with the topic alone."
)


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"properties": properties, "required": required, "additionalProperties": False}


_FIND_ARGS = _object(
    ["query"],
    query=_TEXT,
    kinds={"type": "array", "items": {"enum": ["note", "mail", "record", "event"]}},
    newest={"type": "boolean"},
    limit={"type": "integer", "minimum": 1, "maximum": MAX_FOUND},
)
_DELEGATE = (
    "Have another agent or opening do part of the wish, and wait. 'opening:compose_email' {recipient, topic, "
    "tone} has a mail written from the user's notes, reviewed, and sent once a person approved (may: send). "
    "'agent:NAME' is any installed agent; it is given params."
)
_DELEGATE_ARGS = _object(
    ["use"],
    use={"type": "string", "minLength": 7, "maxLength": 80, "description": "agent:NAME or opening:NAME"},
    params={"type": "object"},
    may={"enum": ["read", "send"], "description": "read: it may not send mail; the default"},
)
_READ_ARGS = _object(["id"], id=_TEXT, kind={"enum": ["document", "contact", "event"]})
_NAME_ARGS = _object(["name"], name=_TEXT)
_TEXT_ARGS = _object(["text"], text={"type": "string", "minLength": 1, "maxLength": memories.MAX_FACT})
_QUERY_ARGS = _object(["query"], query=_TEXT)
_MAIL_ARGS = _object(
    ["to", "subject", "body"],
    to={
        "type": "array",
        "minItems": 1,
        "maxItems": 20,
        "items": {"type": "string", "description": "a contact's id or name, or an address the user typed"},
    },
    subject={"type": "string", "minLength": 1, "maxLength": 200},
    body=_TEXT,
)
_ASK_ARGS = _object(
    ["question"],
    question={"type": "string", "minLength": 1, "maxLength": 1_000},
    choices={"type": "array", "maxItems": 12, "items": {"type": "string", "minLength": 1, "maxLength": 80}},
)
