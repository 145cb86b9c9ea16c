"""Sends a reviewed draft to the one it was written for."""

from __future__ import annotations

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    """Ports ``draft``, ``review``, ``contact`` -> what became of the mail on port ``out``."""
    draft, review, contact = (task.port(name) for name in ("draft", "review", "contact"))
    if not all(isinstance(value, dict) for value in (draft, review, contact)):
        raise Fail("mailer.input", "draft, review and contact must be objects")
    if review.get("ok") is not True:
        notes = "; ".join(str(note) for note in review.get("notes") or []) or "no reason given"
        raise Fail("mailer.not_reviewed", f"the review does not clear this draft: {notes}")
    to = draft.get("to")
    if not isinstance(to, list) or to != [contact.get("email")]:
        raise Fail("mailer.recipient", "the draft is addressed to somebody else than the contact")
    if not draft.get("subject") or not draft.get("body"):
        raise Fail("mailer.input", "the draft has no subject or no body")
    sent = host.send_mail(to, str(draft["subject"]), str(draft["body"]))
    return Result.of(
        out={
            "message_id": str(sent.get("message_id", "")),
            "status": str(sent.get("status") or "sent"),
            "to": to,
        }
    )
