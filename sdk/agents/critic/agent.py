"""Reviews a mail by fixed rules. Its twin in C (critic_c) answers alike; change both or neither."""

from __future__ import annotations

from typing import Any

from runloop.agent import Fail, Result, Task, handler

MIN_BODY, MAX_BODY, MAX_SUBJECT, MAX_ADDRESS = 20, 20_000, 120, 254
"""In characters; the address in bytes."""

LEFTOVERS = ("{{", "}}", "[Name]", "[name]", "[Your", "[your", "<name>", "TODO", "TBD", "XXX", "Lorem ipsum")

CHECKS = (
    ("recipient", "the recipient is missing or not an address"),
    ("subject", "the subject is missing"),
    ("subject_length", "the subject is longer than 120 characters"),
    ("subject_line", "the subject is more than one line"),
    ("body", "the body is missing or shorter than 20 characters"),
    ("body_length", "the body is longer than 20000 characters"),
    ("visible", "there are control, bidi or zero-width characters in the text"),
    ("finished", "something was left to fill in"),
    ("sourced", "no source backs this draft"),
)
"""Name and, for when it does not hold, the note. The last one is advice only."""


@handler
def handle(task: Task, host: Any) -> Result:
    """The draft on port ``in`` -> its review on port ``review``."""
    draft = task.port("in")
    if not isinstance(draft, dict):
        raise Fail("critic.draft", "the draft on port 'in' is not an object")
    checks = judge(draft)
    return Result.of(
        review={
            "ok": all(checks[name] for name, _ in CHECKS[:-1]),
            "notes": [note for name, note in CHECKS if not checks[name]],
            "checks": checks,
        }
    )


def judge(draft: dict[str, Any]) -> dict[str, bool]:
    """Every check by name."""
    to, subject, body, sources = (draft.get(key) for key in ("to", "subject", "body", "sources"))
    has_subject, has_body = isinstance(subject, str), isinstance(body, str)
    subject, body = (subject if has_subject else ""), (body if has_body else "")
    return {
        "recipient": isinstance(to, list) and bool(to) and all(is_address(item) for item in to),
        "subject": not blank(subject),
        "subject_length": has_subject and len(subject) <= MAX_SUBJECT,
        "subject_line": has_subject and "\n" not in subject and "\r" not in subject,
        "body": not blank(body) and len(body) >= MIN_BODY,
        "body_length": has_body and len(body) <= MAX_BODY,
        "visible": not any(map(hidden, subject)) and not any(map(hidden, body)),
        "finished": not any(word in subject or word in body for word in LEFTOVERS),
        "sourced": isinstance(sources, list) and bool(sources),
    }


def is_address(value: Any) -> bool:
    """One ``@`` with something on both sides, and no blank in it."""
    if not isinstance(value, str):
        return False
    size = len(value.encode("utf-8", "surrogatepass"))
    left, at, right = value.partition("@")
    return (
        bool(left and at and right)
        and "@" not in right
        and size <= MAX_ADDRESS
        and not any(char <= " " or char == "\x7f" for char in value)
    )


def blank(text: str) -> bool:
    """Nothing but blanks, tabs and line ends."""
    return not text.strip(" \t\r\n")


def hidden(char: str) -> bool:
    """Control (but tab and line ends), soft hyphen, bidi, zero-width, lone surrogate, tag characters."""
    code = ord(char)
    return (
        (code < 0x20 and code not in (0x09, 0x0A, 0x0D))
        or 0x7F <= code <= 0x9F
        or code in (0xAD, 0x061C, 0x180E, 0xFEFF)
        or 0x200B <= code <= 0x200F
        or 0x2028 <= code <= 0x202E
        or 0x2060 <= code <= 0x206F
        or 0xD800 <= code <= 0xDFFF
        or 0xE0000 <= code <= 0xE007F
    )
