"""What a guest computes depends on its input and its answers, and on nothing around the daemon (W6)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runloop.digest import digest
from runloop.events import NodeFinished, encode_payload
from tests.home import wait_until
from tests.integration.hostile.conftest import Den
from tests.integration.hostile.corpus import nan_bits

SURROUNDINGS = [
    {},
    {"TZ": "Pacific/Kiritimati", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "1"},
    {"TZ": "America/St_Johns", "LC_ALL": "C", "PYTHONHASHSEED": "4242", "affinity": "one"},
    {"TZ": "Asia/Kathmandu", "LANG": "de_DE@euro", "LANGUAGE": "ar", "PYTHONUTF8": "0"},
]

PROBE = '''
"""Everything a Python program could notice of its surroundings."""

import json
import math
import sys

from runloop.agent import handler


class Thing:
    pass


def seen(what):
    try:
        return what()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


@handler
def handle(task, host):
    words = ["z\\u00e4h", "zahl", "I\\u0131i\\u0130", "\\u00df", "a", "B"]
    return {
        "out": {
            "hash": hash("runloop") % 1000003,
            "set": list({*words, 3, 2.5, ("t", None)} - {3})[:0] or sorted(map(str, {*words})),
            "order": [str(item) for item in {*words}],
            "dict": list({word: 1 for word in words}),
            "repr": repr(Thing())[:30],
            "id": id(words) % 97,
            "case": [word.upper() + word.lower() + word.casefold() for word in words],
            "sorted": sorted(words),
            "floats": [repr(0.1 + 0.2), repr(math.sin(1e22)), repr(1e16 / 3), format(1234567.891, "n")],
            "nan": [json.dumps(math.inf - math.inf), math.copysign(1, math.inf - math.inf)],
            "float_info": [repr(part) for part in sys.float_info],
            "encoding": [sys.getdefaultencoding(), sys.getfilesystemencoding()],
            "cpus": seen(lambda: __import__("os").cpu_count()),
            "environ": seen(lambda: dict(__import__("os").environ)),
            "zone": seen(lambda: __import__("time").tzname),
            "locale": seen(lambda: __import__("locale").setlocale(0)),
            "seed": seen(lambda: sys.flags.hash_randomization),
        }
    }
'''
MANIFEST = """
name = "probe"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "looks around"
ops = []
accepts = "intent.generic.v1"
replies = "toolresult.generic.v1"
[ports.out.out]
type = "any"
"""


def place(den: Den) -> Path:
    folder = den.place({"nan": nan_bits()}, where="around")
    agent = folder / "agents" / "probe"
    agent.mkdir()
    (agent / "manifest.toml").write_text(MANIFEST)
    (agent / "policy.caps").write_text("[capabilities]\n")
    (agent / "tools.json").write_text('{"version": 1, "tools": []}\n')
    (agent / "README.md").write_text("# probe\n")
    (agent / "agent.py").write_text(PROBE)
    opening = folder / "hostile.yaml"
    opening.write_text(opening.read_text() + '  - {id: probe, use: "agent:probe"}\n')
    return folder


@pytest.mark.requirement("I3.sandbox.6", "W6")
def test_the_same_run_under_other_surroundings_gives_the_same_bytes(den: Den) -> None:
    folder = place(den)
    found: dict[str, set[str]] = {"nan": set(), "probe": set()}
    for surroundings in SURROUNDINGS:
        den.home.rlp("daemon", "stop").check()
        env = {name: value for name, value in surroundings.items() if name != "affinity"}
        before = os.sched_getaffinity(0)
        if "affinity" in surroundings:
            os.sched_setaffinity(0, {min(before)})  # the daemon inherits it
        try:
            den.home.rlp("daemon", "start", env=env).check()
        finally:
            os.sched_setaffinity(0, before)
        pid = den.home.pid()
        assert pid is not None
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert all(f"{name}={value}".encode() in environ for name, value in env.items()), "it proves nothing"
        wait_until(den.home.agents_ready, "the runner to be ready")
        head = den.head()
        done = den.run(folder)
        assert done.code == 0, (done.out[-2000:], done.err)
        for node, end in den.ends(head).items():
            assert isinstance(end, NodeFinished)
            found[node].add(digest(encode_payload(end)))
    assert {node: len(digests) for node, digests in found.items()} == {"nan": 1, "probe": 1}
