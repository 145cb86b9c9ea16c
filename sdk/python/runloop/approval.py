"""Showing a held action exactly, and sending a person's answer.

What is shown is rendered from the very bytes that will leave, and those bytes are first checked against the
digest the answer is bound to: nobody can show one thing and have another approved (attacks.md C1, C6, M3).
Every foreign character that acts or hides is shown escaped. Enforcement is the daemon's; this is only the
face.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from runloop.errors import DivergenceError
from runloop.escape import block, fold, mixed_scripts
from runloop.quantities import dollars, moment, size
from runloop.rmp import topics

if TYPE_CHECKING:
    from email.message import Message

    from runloop.client import BlockingClient

__all__ = [
    "DECISION_TYPE",
    "MAX_NOTE_CHARS",
    "WIDENING",
    "asker",
    "bare",
    "confirming_word",
    "confirms",
    "content_of",
    "decide",
    "decision",
    "describe",
    "raw_lines",
    "widens",
]

WIDENING = ("agent.install", "trust.add", "mcp.add", "mcp.approve")
"""Effects that widen what this machine does or believes: a plain y is not enough (attacks.md C8)."""
_REFLEXES = frozenset({"yes", "ok", "okay", "sure", "approve", "allow", "view"})
"""What fingers type by themselves, or the question takes for something else."""
MAX_NOTE_CHARS = 2_000
"""Of the words that go with a decision; the daemon keeps no more."""
DECISION_TYPE = "toolresult.action.decision.v1"
MAIL = "message/rfc822"
MAX_BODY_LINES = 400


def bare(action: dict[str, Any]) -> str:
    """One line on what the action is, for lists and for people who cannot be asked."""
    return " ".join(str(action.get("summary") or action.get("kind") or "an action").split())


def widens(approval: dict[str, Any]) -> bool:
    """Whether a yes to it takes :func:`confirming_word`, typed out."""
    return approval.get("op") in WIDENING


def confirming_word(approval: dict[str, Any]) -> str:
    """The word that says yes where a plain one is not enough: the name of what is let in, or of the tool."""
    action = approval["action"]
    word = str(action.get("name") or action.get("publisher") or action.get("tool") or "")
    # A publisher who calls his agent "yes" would have the plain yes back; "v" asks to see the bytes.
    return word if len(word) > 1 and word.lower() not in _REFLEXES else str(approval["action_digest"])[:8]


def confirms(approval: dict[str, Any], said: str) -> bool:
    """Whether ``said`` says yes where a plain one is not enough: the word that a person typed out, or, from
    whoever has no terminal, the whole ``action_digest``, which nobody knows before the question is there."""
    return said in (confirming_word(approval), approval["action_digest"])


def content_of(approval: dict[str, Any]) -> bytes:
    """The exact bytes, checked: raises :class:`DivergenceError` when they are not what the answer would
    bind."""
    from runloop.digest import blob_digest, digest

    try:
        content = base64.b64decode(approval["content"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise DivergenceError("the daemon sent no readable content", hint="rlp verify") from error
    bound = digest({"action": approval["action"], "content": blob_digest(content)})
    if bound != approval["action_digest"]:
        raise DivergenceError(
            f"what approval {approval['approval']} shows is not what it binds",
            hint="do not approve it; 'rlp verify' checks the ledger",
            code="approval.digest",
        )
    return content


def describe(approval: dict[str, Any], content: bytes, *, width: int = 80) -> list[str]:
    """The action for people, every line safe for a terminal of ``width`` columns.

    Who receives comes first. Foreign text stands behind a name of ours or a mark, never where a row begins.
    """
    action: dict[str, Any] = approval["action"]
    recipients = [str(one) for one in action.get("recipients") or []]
    rows: list[tuple[str, str]] = [("recipients", ", ".join(recipients))] if recipients else []
    rows.append(("what", bare(action)))
    if approval.get("run") is None:  # asked by the operator himself: the content says it all
        rows.append(("changes", str(action.get("resource", "?"))))
    else:
        rows += [
            ("by", f"{action.get('agent', '?')}, bundle {str(action.get('bundle', '?'))[:16]}"),
            ("run", f"{approval.get('run', '?')}, node {approval.get('node', '?')}"),
            ("leaves to", str(action.get("resource", "?"))),
        ]
    if program := asker(action):
        rows.append(("asked by", program))
    if private := _private(action.get("private")):
        rows.append(("may hold", private))
    if heard := _heard(str(approval.get("label") or action.get("heard") or "")):
        rows.append(("asked after", heard))
    if action.get("amount_micro_usd"):
        rows.append(("costs", dollars(action["amount_micro_usd"])))
    if approval.get("expires_ms"):
        rows.append(("expires", moment(approval["expires_ms"])))
    rows.append(("content", f"{size(len(content))}, BLAKE3 {approval.get('content_blob', '')[:16]}"))
    body: list[str]
    if str(approval.get("content_type", "")).startswith(MAIL):
        headers, body, notes = _mail(content, recipients)
        rows += headers
    else:
        body, notes = _text(content), []
    notes += [f"{name}: {word} mixes alphabets" for name, value in rows for word in mixed_scripts(value)]
    rows += [("NOTE", note) for note in notes]
    lines = [line for name, value in rows for line in fold(f"  {name:<11} ", value, width)]
    lines.append("  " + "-" * min(width - 2, 72))
    shown = [f"  | {line}" for text in body[:MAX_BODY_LINES] for line in block(text, width=max(8, width - 4))]
    if len(body) > MAX_BODY_LINES:
        shown.append(f"  | ... {len(body) - MAX_BODY_LINES} more lines; every byte: v")
    return [*lines, *shown, "  " + "-" * min(width - 2, 72)]


def asker(action: dict[str, Any]) -> str:
    """Who started the run that asks, where that was not the user; empty where it was."""
    kind, _, name = str(action.get("asked_by") or "").partition(":")
    if kind == "face" and name.startswith("acp:"):
        return f"you, in the editor {name.removeprefix('acp:')}"
    if kind in ("face", "mcp"):
        return f"the program {name}, from outside"
    return f"the {kind} {name}" if kind else ""


_STRANGERS = {
    "face": "being told to by a program outside",
    "import": "reading what was imported: mails, notes and contacts hold other people's words",
    "file": "reading files, which may hold other people's words",
    "web": "reading a web page",
    "site": "reading a page that is not for everybody",
    "mcp": "hearing what a foreign server answered",
    "tool": "hearing what a tool answered",
    "unknown": "reading what nobody can say the origin of",
}
"""What stands before the colon of a label -> what the agent did before it asked for this."""


def _private(origins: Any) -> str:
    """Whose words may be in it that are not for whoever gets it; empty where there are none."""
    if not isinstance(origins, list):
        return ""
    return ", ".join("what is private to you" if one == "user" else f"what {one} told" for one in origins)


def _heard(label: str) -> str:
    """Whose words may have put the agent up to it; empty where they are the user's or our own."""
    kind = label.partition(":")[0]
    if not label or kind in ("user", "agent", "model", "host"):
        return ""
    return f"{_STRANGERS.get(kind, _STRANGERS['unknown'])} ({label})"


def raw_lines(content: bytes, *, width: int = 80) -> list[str]:
    """Every byte: text where it is text, escapes elsewhere."""
    text = content.decode("utf-8", "backslashreplace")
    return [f"  | {line}" for line in block(text, width=max(8, width - 4))]


def _mail(content: bytes, recipients: list[str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Headers, body lines and warnings of a message, read from its bytes."""
    import email
    import email.policy
    from email.utils import getaddresses

    message = email.message_from_bytes(content, policy=email.policy.default)
    rows = []
    named: set[str] = set()
    for header in ("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID"):
        for value in message.get_all(header) or []:
            rows.append((header.lower(), str(value)))
            if header in ("To", "Cc"):
                named |= {address.lower() for _, address in getaddresses([str(value)])}
    notes = []
    unseen = [address for address in recipients if address.lower() not in named]
    if unseen:
        notes.append(f"also goes to, without being named in the message: {', '.join(unseen)}")
    plain = message.get_body(("plain",))
    body = _payload(plain) if plain is not None else _text(content)
    for part in message.iter_attachments() if message.is_multipart() else ():
        notes.append(f"attachment {part.get_filename() or '?'} ({part.get_content_type()})")
    if plain is not None and message.is_multipart() and message.get_body(("html",)) is not None:
        notes.append("there is an HTML part too; every byte: v")
    return rows, body, notes


def _payload(part: Message) -> list[str]:
    raw = part.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else b""
    try:
        return data.decode(part.get_content_charset() or "utf-8", "replace").splitlines()
    except LookupError:
        return _text(data)


def _text(content: bytes) -> list[str]:
    return content.decode("utf-8", "backslashreplace").splitlines()


def decision(approval: dict[str, Any], word: str, note: str = "", confirm: str = "") -> dict[str, Any]:
    """A person's decision, bound to what was shown: the payload of :data:`DECISION_TYPE` on
    ``topics.ACTION_DECISION``. ``word`` is ``approve``, ``deny`` or ``undo``; ``confirm`` is what
    :func:`confirms` takes for a yes to what :func:`widens`, as it was given."""
    return {
        "v": 1,
        "approval": approval["approval"],
        "action_digest": approval["action_digest"],
        "decision": word,
        "note": note,
        **({"confirm": confirm} if confirm else {}),
    }


def decide(
    client: BlockingClient, approval: dict[str, Any], word: str, note: str = "", confirm: str = ""
) -> dict[str, Any]:
    """Send a person's decision; return where the approval stands now.

    Raises what the daemon answers: a conflict when it was decided before, a refusal when we are not the
    operator or a yes needs more than was said.
    """
    payload = decision(approval, word, note, confirm)
    answer: dict[str, Any] = client.request(topics.ACTION_DECISION, DECISION_TYPE, payload, timeout_s=30.0)
    return answer
