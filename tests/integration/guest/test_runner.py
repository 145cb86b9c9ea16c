"""The runner in the real sandbox: the standard library is honest, mistakes are words, runs repeat exactly."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.guest.conftest import House, Script

pytestmark = pytest.mark.asyncio(loop_scope="package")

HEAD = "from runloop.agent import *\nfrom runloop.host import *\n@handler\ndef handle(task, host):\n    "


async def value(house: House, body: str, script: Script | None = None) -> Any:
    result = await house.source({"agent": HEAD + body}, script)
    assert result.ok, result.error
    assert result.output is not None
    return result.output["ports"]["out"][0]


async def failure(house: House, body: str) -> tuple[str, str]:
    result = await house.source({"agent": HEAD + body})
    assert result.error is not None
    return result.error.code, result.error.message


@pytest.mark.requirement("I2.sandbox.8")
async def test_every_clock_is_the_hosts(house: House) -> None:
    made = await value(
        house,
        "import time, datetime as d; from datetime import datetime; return {'out': ["
        "time.time(), time.monotonic(), time.strftime('%Y-%m-%d'), time.ctime(),"
        "str(d.date.today()),"
        "str(datetime.now()), str(datetime.now(d.timezone.utc)), str(datetime.utcnow()),"
        " time.localtime().tm_hour,"
        "isinstance(datetime.now(), d.date), datetime.fromtimestamp(5).isoformat(),"
        "str(datetime.now() - datetime(2025, 1, 1))]}",
    )
    assert made == [
        1750000000.123,
        1750000000.123,
        "2025-06-15",
        "Sun Jun 15 15:06:40 2025",
        "2025-06-15",
        "2025-06-15 15:06:40.123000",
        "2025-06-15 15:06:40.123000+00:00",
        "2025-06-15 15:06:40.123000",
        15,
        True,
        "1970-01-01T00:00:05",
        "165 days, 15:06:40.123000",
    ]


async def test_all_chance_is_the_hosts_and_is_asked_for_once_per_generator(house: House) -> None:
    script = Script()
    made = await value(
        house,
        "import random, uuid, os, secrets; return {'out': [random.random(), random.randint(1, 6),"
        " random.Random(42).random(), str(uuid.uuid4()), os.urandom(3).hex(), secrets.token_hex(2),"
        " random.SystemRandom().random() < 1]}",
        script,
    )
    assert made[2] == 0.6394267984578837  # an author's own seed still means what it means everywhere
    assert made[4] == "000102"
    assert [call.op for call in script.calls] == ["random.bytes"] * 5


@pytest.mark.requirement("I2.sandbox.8")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("open('/etc/passwd')", "PermissionError: an agent has no files"),
        ("import pathlib; pathlib.Path('x').read_text()", "no files"),
        ("import os; os.listdir('/')", "no files"),
        ("import io; io.FileIO(0)", "no files"),
        ("import _io; _io.open('x')", "no files"),
        ("import posix; posix.stat('/')", "no files"),
        ("import tempfile; tempfile.mkstemp()", "no files"),
        ("import os; os.system('true')", "no processes"),
        ("import os; os._exit(0)", "no processes"),
        ("import threading; threading.Thread(target=print).start()", "no threads"),
        ("import socket", "no network"),
        ("import asyncio", "no network, processes or threads"),
        ("import urllib.request", "no network"),
        ("import ctypes", "no network"),
        ("import numpy", "ships its own component"),
        ("import time; time.sleep(1)", "no clock to sleep by"),
        ("input('name?')", "no keyboard"),
        ("breakpoint()", "no debugger"),
        ("import uuid; uuid.uuid1()", "no hardware address"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("f = lambda n: f(n + 1); f(0)", "RecursionError"),
        ("f = lambda n: sorted([n, n], key=lambda k: f(k + 1)); f(0)", "RecursionError"),
        ("class A:\n        def __repr__(self): return repr(A())\n    repr(A())", "RecursionError"),
        ("class A:\n        def __getattr__(self, n): return getattr(A(), n)\n    A().x", "RecursionError"),
        ("x = bytearray(500 << 20)", "MemoryError"),
        ("return 1 / 0", "ZeroDivisionError: division by zero (agent.py:5)"),
    ],
)
async def test_what_an_agent_must_not_do_is_an_error_in_words_and_never_a_trap(
    house: House, body: str, words: str
) -> None:
    code, message = await failure(house, body)
    assert code == "agent.exception"
    assert words in message


@pytest.mark.requirement("I2.sandbox.8")
async def test_nothing_of_the_machine_is_visible(house: House) -> None:
    made = await value(
        house,
        "import os, sys, pathlib; return {'out': [dict(os.environ), os.path.exists('/'), os.getpid(),"
        " sys.argv,"
        " sys.path, sys.stdin.read(), sys.stdout.isatty()]}",
    )
    assert made == [{}, False, 1, ["agent"], [], "", False]


async def test_print_logging_and_warnings_become_log_lines(house: House) -> None:
    script = Script()
    await value(
        house,
        "import logging, warnings; print('one\\ntwo'); logging.warning('careful %s', 1); print('half',"
        " end='')\n"
        "    return {'out': 1}",
        script,
    )
    lines = [(call.args["level"], call.args["message"]) for call in script.calls if call.op == "log.write"]
    assert lines == [
        ("info", "one"),
        ("info", "two"),
        ("warning", "WARNING:root:careful 1"),
        ("info", "half"),
    ]


async def test_an_agent_has_a_useful_part_of_the_standard_library(house: House) -> None:
    made = await value(
        house,
        "import json, re, csv, io, hashlib, zlib, html, decimal, fractions, statistics, difflib,"
        " textwrap, string\n"
        "    import dataclasses, enum, typing, itertools, functools, collections, heapq, bisect, copy,"
        " base64\n"
        "    import urllib.parse, unicodedata, datetime, tomllib, calendar, ipaddress,"
        " xml.etree.ElementTree\n"
        "    from email.message import EmailMessage\n"
        "    m = EmailMessage(); m['Subject'] = 'x'; m.set_content('y')\n"
        "    return {'out': [hashlib.sha256(b'').hexdigest()[:8],"
        " str(datetime.datetime.strptime('2020', '%Y')),"
        " m.as_string().splitlines()[0], unicodedata.name('ä')]}",
    )
    assert made == ["e3b0c442", "2020-01-01 00:00:00", "Subject: x", "LATIN SMALL LETTER A WITH DIAERESIS"]


async def test_an_agent_of_several_modules_imports_them(house: House) -> None:
    modules = {
        "agent": "from parts.words import count\ndef handle(task, host): return {'out': count('a b')}",
        "parts.words": "def count(text): return len(text.split())",
    }
    result = await house.source(modules)
    assert result.output == {"ports": {"out": [2]}, "artifacts": []}


async def test_a_refused_call_can_be_survived(house: House) -> None:
    body = (
        "try:\n        host.send_mail(['a@b'], 's', 'b')\n"
        "    except HostRefused as e:\n        return {'out': [e.code, e.hint]}"
    )
    assert await value(house, body) == ["op.refused", "ask"]


@pytest.mark.parametrize(
    "text", ["raise Fail('x', '\\ud800')", "host.log('\\ud800')", "return {'out': '\\ud800'}"]
)
async def test_a_lone_surrogate_never_kills_the_instance(house: House, text: str) -> None:
    code, _ = await failure(house, text)
    assert code in ("x", "agent.exception", "agent.output")


async def test_the_same_answers_give_the_same_calls_output_and_fuel(house: House) -> None:
    body = (
        "import random, datetime; s = {str(n): random.random() for n in range(50)};"
        " print(datetime.datetime.now())\n"
        "    return {'out': [sorted({hash(k) % 97 for k in s}), list({'b', 'a', 'c'}), id(s) % 4096]}"
    )
    runs = []
    for _ in range(3):
        script = Script()
        result = await house.source({"agent": HEAD + body}, script)
        assert result.ok, result.error
        runs.append((result.output, result.fuel, result.calls, script.trace))
    assert runs[0] == runs[1] == runs[2]
