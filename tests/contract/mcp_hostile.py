"""An MCP server written by hand, of the protocol of 2025-11-25, that says whatever a file tells it to.

``python mcp_hostile.py SCRIPT``: a JSON object ``{tools, name, result, error, code, flood}``. Read anew for
every list, so that a test changes what it says while it runs. Imports nothing foreign: it starts in no time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.argv[1])


def flood(kind: str) -> None:
    """Without an end."""
    pieces = {
        "line": b"x" * 65536,
        "nonsense": b"no message\n" * 1000,
        "nested": b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        "notices": b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n' * 100,
    }
    while True:
        sys.stdout.buffer.write(pieces[kind])
        sys.stdout.buffer.flush()


def result(script: dict[str, Any], method: str) -> dict[str, Any] | None:
    match method:
        case "initialize":
            info = {"name": script.get("name", "hostile"), "version": "1"}
            told = {"tools": {"listChanged": True}}
            return {"protocolVersion": "2025-11-25", "capabilities": told, "serverInfo": info}
        case "tools/list":
            return {"tools": script.get("tools", []), **script.get("page", {})}
        case "tools/call":
            if kind := script.get("flood"):
                flood(kind)
            return dict(script.get("result") or {"content": [{"type": "text", "text": "fine"}]})
    return None


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked or "method" not in asked:
            continue
        script = json.loads(SCRIPT.read_text())
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        found = result(script, asked["method"])
        if asked["method"] == "tools/call" and "error" in script:
            answer["error"] = {"code": script.get("code", -32000), "message": script["error"]}
        elif found is None:
            answer["error"] = {"code": -32601, "message": "no such method"}
        else:
            answer["result"] = found
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
