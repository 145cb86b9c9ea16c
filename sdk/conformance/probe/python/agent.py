"""The probe in Python: does what the vectors of ``sdk/conformance`` command, with the public SDK alone."""

from __future__ import annotations

import base64
from typing import Any

from runloop.agent import Fail, Result, Task, handler, tool
from runloop.host import Host, HostRefused


@tool("probe.add", description="Adds two numbers.")
def add(a: float, b: float) -> float:
    return a + b


@tool("probe.fail", description="Fails.")
def fail() -> None:
    raise Fail("probe.failed", "as told", retryable=True)


@handler
def handle(task: Task, host: Host) -> Result:
    artifacts: list[str] = []
    return Result({"out": [_follow(command, task, host, artifacts) for command in task.all("in")]}, artifacts)


def _follow(command: dict[str, Any], task: Task, host: Host, artifacts: list[str]) -> Any:  # noqa: PLR0911
    match command:
        case {"do": "echo", "value": value}:
            return value
        case {"do": "size", "text": text}:
            return {"characters": len(text), "bytes": len(text.encode())}
        case {"do": "port", "name": name}:
            return task.port(name)
        case {"do": "all", "name": name}:
            return task.all(name)
        case {"do": "param", "name": name}:
            return task.param(name)
        case {"do": "context"}:
            return task.context
        case {"do": "fail", "code": code, "message": message, "retryable": retryable}:
            raise Fail(code, message, retryable)
        case {"do": "must", "op": op, "args": args}:
            return host.call(op, args)
        case {"do": "call" | "helper" as way, "op": op, "args": args}:
            try:
                return host.call(op, args) if way == "call" else _helper(op, args, host, artifacts)
            except HostRefused as refusal:
                words = ("code", "message", "hint", "retryable")
                return {"refused": {word: getattr(refusal, word) for word in words}}
    raise Fail("probe.unknown", "there is no such command")


def _helper(op: str, args: dict[str, Any], host: Host, artifacts: list[str]) -> Any:  # noqa: PLR0911, PLR0912
    match op:
        case "time.now":
            return host.now_ms()
        case "random.bytes":
            return {"hex": host.random_bytes(**args).hex()}
        case "blob.read":
            return {"hex": host.blob_read(**args).hex()}
        case "log.write":
            host.log(args["message"], args["level"], **args["fields"])
        case "progress":
            host.progress(**args)
        case "kb.search":
            return host.kb_search(**args)
        case "kb.query":
            return host.kb_query(**args)
        case "kb.read":
            return host.kb_read(**args)
        case "kb.why":
            return host.kb_why(**args)
        case "kb.propose":
            return host.kb_propose(**args)
        case "memory.get":
            value, version = host.memory_get(**args)
            return {"value": value, "version": version}
        case "memory.put":
            return host.memory_put(**args)
        case "artifact.put":
            content = args["text"] if "text" in args else base64.b64decode(args["base64"])
            digest = host.put_artifact(args["name"], content, media_type=args["media_type"])
            artifacts.append(digest)
            return digest
        case "model.complete":
            made = host.complete(**args)
            words = ("text", "provider", "model", "generated", "finish")
            return {word: getattr(made, word) for word in words}
        case "msg.next":
            return host.next_message(**args)
        case "mail.send":
            return host.send_mail(**args)
        case "http.fetch":
            body = args.get("text", base64.b64decode(args["base64"]) if "base64" in args else None)
            kept = {key: value for key, value in args.items() if key not in ("text", "base64")}
            answer = host.fetch(**kept, body=body)
            plain = {word: getattr(answer, word) for word in ("status", "url", "headers", "truncated")}
            return {**plain, "hex": answer.body.hex()}
        # Files have no helpers in Python until the next build of its runner.
        case "fs.read":
            made = host.call(op, args)
            data = made["text"].encode() if "text" in made else base64.b64decode(made["base64"])
            return {"hex": data.hex()}
        case "fs.write":
            return host.call(op, args)["digest"]
        case "fs.list":
            made = host.call(op, args)
            return {"entries": made["entries"], "truncated": made["truncated"]}
        case "fs.stat":
            return host.call(op, args)
        case "tool.list":
            return host.tools()
        case "tool.call":
            return host.call_tool(**args)
        case _:
            raise Fail("probe.unknown", f"there is no helper for {op}")
    return None
