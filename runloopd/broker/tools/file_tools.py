"""``files.*``: reading, listing, searching, writing, moving and deleting files below granted folders.

Knows: how a tool's arguments become a place below a root, as for ``fs.*``. Does not know: how a path is
walked (``providers.walk``), who is asked about a deletion (``tool_ops``).
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from runloop.caps.grants import covers_path
from runloop.digest import blob_digest
from runloopd.broker.asks import CapabilityError
from runloopd.broker.http_ops import how_to_obtain
from runloopd.broker.ports import Outcome
from runloopd.broker.providers.files import MAX_ENTRIES, MAX_READ_BYTES, FilePort, Write
from runloopd.broker.providers.walk import Place, names_of, place
from runloopd.broker.toolbox import ToolContext
from runloopd.broker.tools.changes import Changes
from runloopd.broker.tools.family import Family, HostTool, array, flag, number, policy_of, text

__all__ = ["file_tools", "granted"]

MAX_TEXT = 1 << 20
_PATH = text("Absolute path, written out, below a granted folder.", 4_095, least=1)
_KINDS = {"type": "string", "enum": ["file", "dir", "symlink", "other"]}


def granted(context: ToolContext, capability: str, path: str) -> Place:
    """The path below the narrowest root that covers it. Raises :class:`CapabilityError`."""
    names_of(path)
    policy = policy_of(context)
    verdict = policy.allows(capability, path, agent=context.agent)
    if not verdict.allowed:
        raise CapabilityError(replace(verdict, how_to_obtain=how_to_obtain(context.agent, capability)))
    names = ("fs_rw",) if capability == "fs_rw" else ("fs_ro", "fs_rw")
    roots = [root for name in names for root in _roots(policy.value(name)) if covers_path(root, path)]
    return place(path, max(roots, key=len))


def _roots(value: Any) -> tuple[str, ...]:
    return ("/",) if value is True else tuple(str(root) for root in value or ())


def _may(capability: str, *names: str) -> Any:
    def permit(args: dict[str, Any], context: ToolContext) -> None:
        for name in names:
            granted(context, capability, args[name])

    return permit


class _Files:
    """The code behind the rows."""

    def __init__(self, files: FilePort, changes: Changes) -> None:
        self._files = files
        self._changes = changes

    async def read(self, args: dict[str, Any], context: ToolContext) -> Any:
        where = granted(context, "fs_ro", args["path"])
        part = await self._files.read(where, args.get("offset", 0), args.get("length", 65_536))
        shown: dict[str, str]
        try:
            shown = {"text": part.data.decode()}
        except UnicodeDecodeError:
            shown = {"base64": base64.b64encode(part.data).decode()}
        end = part.offset + len(part.data) >= part.size
        return {**shown, "size": part.size, "eof": end, "digest": blob_digest(part.data)}

    async def list(self, args: dict[str, Any], context: ToolContext) -> Any:
        where = granted(context, "fs_ro", args["path"])
        found = await self._files.list(where, args.get("after", ""), args.get("limit", 200))
        entries = [{"name": name, "kind": kind, "size": size} for name, kind, size in found.entries]
        return {"entries": entries, "truncated": found.truncated, "skipped": found.skipped}

    async def stat(self, args: dict[str, Any], context: ToolContext) -> Any:
        seen = await self._files.stat(granted(context, "fs_ro", args["path"]), digest=False)
        return {"kind": seen.kind, "size": seen.size, "mtime_ms": seen.mtime_ms}

    async def search(self, args: dict[str, Any], context: ToolContext) -> Any:
        where = granted(context, "fs_ro", args["path"])
        found = await self._changes.search(
            where, args["text"], fold=args.get("ignore_case", False), most=args.get("limit", 100)
        )
        matches = [{"path": path, "line": line, "text": shown} for path, line, shown in found.matches]
        return {"matches": matches, "files": found.files, "truncated": found.truncated}

    async def write(self, args: dict[str, Any], context: ToolContext) -> Any:
        write = _write(args, context)
        await self._files.prepare(write)
        try:
            await self._files.commit(write)
        except BaseException:
            await self._files.discard(write)
            raise
        return {"digest": blob_digest(write.data), "size": len(write.data)}

    async def written(self, context: ToolContext) -> Outcome:
        return await self._files.outcome(_write(context.args, context))

    async def move(self, args: dict[str, Any], context: ToolContext) -> Any:
        where, to = granted(context, "fs_rw", args["path"]), granted(context, "fs_rw", args["to"])
        await self._changes.move(where, to)
        return {"path": args["to"]}

    async def delete(self, args: dict[str, Any], context: ToolContext) -> Any:
        await self._changes.delete(granted(context, "fs_rw", args["path"]), context.key)
        return {"path": args["path"]}

    async def deleted(self, context: ToolContext) -> Outcome:
        where = granted(context, "fs_rw", context.args["path"])
        return await self._changes.deleted(where, context.key)


def _write(args: dict[str, Any], context: ToolContext) -> Write:
    return Write(
        place=granted(context, "fs_rw", args["path"]),
        data=args["text"].encode(),
        expected=args.get("expected"),
        key=context.key,
    )


def file_tools(files: FilePort, changes: Changes) -> Family:
    """The family ``files``."""
    code = _Files(files, changes)
    digest = text("BLAKE3 of the content.", 64)
    size = {"type": "integer", "minimum": 0}
    return Family(
        (
            HostTool(
                name="files.read",
                about="Read part of a file. Text where the bytes are UTF-8, else base64.",
                takes={
                    "path": _PATH,
                    "offset": number("First byte.", 0, 1 << 50, default=0),
                    "length": number("Bytes.", 1, MAX_READ_BYTES, default=65_536),
                },
                gives={
                    "text": {"type": "string", "default": ""},
                    "base64": {"type": "string", "default": ""},
                    "size": size,
                    "eof": {"type": "boolean"},
                    "digest": digest,
                },
                effect="read",
                run=code.read,
                permit=_may("fs_ro", "path"),
                resource=("path",),
            ),
            HostTool(
                name="files.list",
                about="List the names in a folder, in order.",
                takes={
                    "path": _PATH,
                    "after": text("Only names after this one.", 255, default=""),
                    "limit": number("Most names.", 1, MAX_ENTRIES, default=200),
                },
                gives={
                    "entries": array(
                        "What is there.",
                        {
                            "type": "object",
                            "properties": {"name": {"type": "string"}, "kind": _KINDS, "size": size},
                            "required": ["name", "kind", "size"],
                        },
                        MAX_ENTRIES,
                    ),
                    "truncated": {"type": "boolean"},
                    "skipped": size,
                },
                effect="read",
                run=code.list,
                permit=_may("fs_ro", "path"),
                resource=("path",),
            ),
            HostTool(
                name="files.stat",
                about="Tell what a path is, how large, and when it was changed.",
                takes={"path": _PATH},
                gives={"kind": _KINDS, "size": size, "mtime_ms": {"type": "integer"}},
                effect="read",
                run=code.stat,
                permit=_may("fs_ro", "path"),
                resource=("path",),
            ),
            HostTool(
                name="files.search",
                about="Find the lines that hold a text, in a file or in every text file below a folder.",
                takes={
                    "path": _PATH,
                    "text": text("The text itself, no pattern.", 1_000, least=1),
                    "ignore_case": flag("Whether capitals count.", default=False),
                    "limit": number("Most lines.", 1, 500, default=100),
                },
                gives={
                    "matches": array(
                        "Path, line and the line itself.",
                        {
                            "type": "object",
                            "properties": {
                                "path": {"type": "string"},
                                "line": {"type": "integer"},
                                "text": {"type": "string"},
                            },
                            "required": ["path", "line", "text"],
                        },
                        500,
                    ),
                    "files": size,
                    "truncated": {"type": "boolean"},
                },
                effect="read",
                run=code.search,
                permit=_may("fs_ro", "path"),
                resource=("path",),
            ),
            HostTool(
                name="files.write",
                about="Write a whole text file, or make one; the folder must exist.",
                takes={
                    "path": _PATH,
                    "text": text("All of the new content.", MAX_TEXT),
                    "expected": text(
                        "Digest the file must have now; empty: it must not exist.", 64, default=None
                    ),
                },
                gives={"digest": digest, "size": size},
                effect="write",
                run=code.write,
                permit=_may("fs_rw", "path"),
                outcome=code.written,
                resource=("path",),
            ),
            HostTool(
                name="files.move",
                about="Give a file another name, which nothing has yet.",
                takes={"path": _PATH, "to": _PATH},
                gives={"path": {"type": "string"}},
                effect="write",
                run=code.move,
                permit=_may("fs_rw", "path", "to"),
                resource=("path", "to"),
            ),
            HostTool(
                name="files.delete",
                about="Delete one file. A person is asked.",
                takes={"path": _PATH},
                gives={"path": {"type": "string"}},
                effect="write",
                run=code.delete,
                permit=_may("fs_rw", "path"),
                outcome=code.deleted,
                confirm=True,
                resource=("path",),
            ),
        )
    )
