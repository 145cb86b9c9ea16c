"""``mail.search`` and ``mail.draft``: mail that was imported, and mail that is only prepared.

Knows: which part of the knowledge is mail, and that a draft is a file. Does not know: how mail leaves. That
is the host call ``mail.send``, where a person approves the very bytes; there is no second way out.
"""

from __future__ import annotations

from typing import Any

from runloop.caps.policy import CONTACTS_RAW
from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.ops import MailSend
from runloopd.broker.labels import lowest
from runloopd.broker.ports import KnowledgePort, MailPort
from runloopd.broker.providers.files import ABSENT, FilePort, Write
from runloopd.broker.toolbox import ToolContext, ToolError, ToolResult
from runloopd.broker.tools.family import Family, HostTool, array, number, policy_of, text
from runloopd.broker.tools.file_tools import granted

__all__ = ["mail_tools"]

_UNSENT = b"X-Unsent: 1\r\n"
"""Mail programs open such a file as a draft."""


class _Mail:
    """The code behind the rows."""

    def __init__(self, knowledge: KnowledgePort, mail: MailPort, files: FilePort, clock: Clock) -> None:
        self._knowledge = knowledge
        self._mail = mail
        self._files = files
        self._clock = clock

    async def search(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        raw = policy_of(context).allows(CONTACTS_RAW).allowed
        items = await self._knowledge.search(args["query"], args.get("limit", 8), ["mail"], raw=raw)
        found = [
            {"id": str(item["id"]), "title": str(item["title"]), "snippet": str(item["snippet"])}
            for item in items
        ]
        return ToolResult(value={"items": found}, label=lowest(*(item.get("label") for item in items)))

    async def draft(self, args: dict[str, Any], context: ToolContext) -> Any:
        path = args["path"]
        if not path.endswith(".eml"):
            raise ToolError("mail.draft: the file's name ends with .eml", code="tool.args")
        mail = MailSend(to=args["to"], cc=args.get("cc", []), subject=args["subject"], body=args["body"])
        made = self._mail.prepare(mail, key=context.key, now_ms=self._clock.now_ms(), sender=None)
        data = _UNSENT + made.content
        write = Write(place=granted(context, "fs_rw", path), data=data, expected=ABSENT, key=context.key)
        await self._files.prepare(write)
        try:
            await self._files.commit(write)
        except BaseException:
            await self._files.discard(write)
            raise
        return {"path": path, "digest": blob_digest(data), "size": len(data)}


def mail_tools(knowledge: KnowledgePort, mail: MailPort, files: FilePort, clock: Clock) -> Family:
    """The family ``mail``."""
    code = _Mail(knowledge, mail, files, clock)
    address = text("An address.", 320, least=3)
    string = {"type": "string"}

    def permit(args: dict[str, Any], context: ToolContext) -> None:
        granted(context, "fs_rw", args["path"])

    return Family(
        (
            HostTool(
                name="mail.search",
                about="Search the mail that was imported, best first.",
                takes={
                    "query": text("Words.", 1_000, least=1),
                    "limit": number("Most mails.", 1, 50, default=8),
                },
                gives={
                    "items": array(
                        "What was found; 'kb.read' gives a whole mail.",
                        {
                            "type": "object",
                            "properties": {"id": string, "title": string, "snippet": string},
                            "required": ["id", "title", "snippet"],
                        },
                        50,
                    )
                },
                effect="read",
                run=code.search,
                needs=("kb_read:mail",),
            ),
            HostTool(
                name="mail.draft",
                about="Write a mail into a new .eml file in a granted folder. Nothing is sent.",
                takes={
                    "path": text("Absolute path of the new file.", 4_095, least=5),
                    "to": array("Who is to get it.", address, 100),
                    "cc": array("Who is to get a copy.", address, 100, default=[]),
                    "subject": text("The subject.", 998),
                    "body": text("The text.", 200_000),
                },
                gives={"path": string, "digest": string, "size": {"type": "integer"}},
                effect="write",
                run=code.draft,
                permit=permit,
                resource=("path",),
            ),
        )
    )
