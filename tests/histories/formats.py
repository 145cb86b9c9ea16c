"""Keep one sample of every format there ever was: ``python -m tests.histories.formats``.

A format is a kind and a version. Its file in ``formats/`` has the schema of the payload and two payloads: one
with every field, one with only those that must be there. A file is written once, while the version is the
newest, and never again: ledgers of that time exist, and every later build must read them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from runloop.events import KINDS, Payload

FOLDER = Path(__file__).parent / "formats"


def place(kind: str, version: int) -> Path:
    return FOLDER / f"{kind}.v{version}.json"


def schema(payload: type[Payload]) -> dict[str, Any]:
    """The shape of a payload, without words: two builds agree on a version when they agree on this."""
    whole: dict[str, Any] = _wordless(msgspec.json.schema(payload))
    return whole


def samples(payload: type[Payload]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A payload with every field, and one with those alone that have no default."""
    shape = schema(payload)
    parts = shape.get("$defs", {})
    whole = _sample(shape, parts)
    required = _resolved(shape, parts).get("required", [])
    return whole, {name: whole[name] for name in required}


def _wordless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _wordless(item) for key, item in sorted(value.items()) if key != "description"}
    return [_wordless(item) for item in value] if isinstance(value, list) else value


def _resolved(shape: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in shape:
        shape = parts[shape["$ref"].rpartition("/")[2]]
    return shape


def _sample(shape: dict[str, Any], parts: dict[str, Any], name: str = "x") -> Any:
    shape = _resolved(shape, parts)
    if "enum" in shape:
        return shape["enum"][0]
    if "anyOf" in shape:
        return _sample(next(each for each in shape["anyOf"] if each.get("type") != "null"), parts, name)
    match shape.get("type"):
        case "object" if "properties" in shape:
            return {key: _sample(each, parts, key) for key, each in shape["properties"].items()}
        case "object":
            return {"key": _sample(shape.get("additionalProperties") or {}, parts, name)}
        case "array":
            return [_sample(shape.get("items") or {}, parts, name)]
        case "string":
            return "ab" * 32 if name.endswith(("_digest", "blob")) else name
        case "integer":
            return 7
        case "boolean":
            return True
        case "number":
            return 0.5
    return {"any": ["value", 1, None]}


def main() -> None:
    for kind, payload in KINDS.items():
        path = place(kind, payload.version)
        if path.exists():
            continue
        whole, least = samples(payload)
        text = {
            "kind": kind,
            "version": payload.version,
            "schema": schema(payload),
            "payloads": [whole, least],
        }
        path.write_text(json.dumps(text, indent=1) + "\n")
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
