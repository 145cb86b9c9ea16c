"""The shipped JavaScript runner, with the probe as its source, runs the vectors of the agent ABI."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from tests.conformance.abi import Component, Transport, play_all

JS = Path(__file__).resolve().parents[2] / "sdk" / "js"


@pytest.mark.requirement("I3.sdk.1")
def test_the_vectors_of_the_abi_hold() -> None:
    source = json.dumps(
        {"modules": {"agent.js": (JS / "probe/agent.js").read_text()}, "entrypoint": "agent.js"}
    )
    with Component.of(lzma.decompress((JS / "runner/runner.wasm.xz").read_bytes())) as component:

        def serve(text: str, transport: Transport) -> tuple[bool, str]:
            return component(
                text, lambda op, args: (True, source) if op == "agent.source" else transport(op, args)
            )

        # JavaScript's numbers are doubles (docs/howto/agents-in-typescript.md).
        assert play_all(serve, lacks=frozenset({"exact_integers"})) == {}
