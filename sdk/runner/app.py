"""The runner: one component that executes the source of any Python agent.

Knows: the component's import and export, and how to fetch source with ``agent.source``. What an agent is
lives in ``runloop.guest``; what it may not do lives in ``shim``. Everything at module level runs at build
time and is frozen into the component's memory image, which is why an instance answers in milliseconds.
"""

from __future__ import annotations

import gc
import importlib
import sys

import wit_world
from componentize_py_types import Err
from warm_up import warm_up
from wit_world.imports import host as gate

from runloop.guest import Program, error_text
from runloop.host import Host

# Before everything else that is preloaded, so that what every task touches lies together.
warm_up()
gc.collect()
gc.freeze()

PRELOADED = """
_strptime abc annotationlib argparse array ast base64 binascii bisect calendar cmath codecs collections
collections.abc colorsys concurrent.futures._base contextlib contextvars copy copyreg csv dataclasses
datetime decimal difflib email email.base64mime email.charset email.contentmanager email.encoders
email.errors email.generator email.header email.headerregistry email.iterators email.message email.parser
email.policy email.quoprimime email.utils encodings.ascii encodings.cp1252 encodings.idna
encodings.iso8859_1 encodings.iso8859_15 encodings.latin_1 encodings.punycode encodings.utf_16
encodings.utf_8 encodings.utf_8_sig enum errno fnmatch fractions functools gc getpass graphlib hashlib heapq
hmac html html.entities html.parser importlib importlib.resources inspect io ipaddress itertools json
json.decoder json.encoder keyword linecache locale logging math mimetypes numbers operator os os.path
pathlib pickle pprint quopri random re reprlib runloop runloop.agent runloop.guest runloop.host
runloop.schema secrets
shlex statistics string string.templatelib stringprep struct sys tempfile textwrap threading time token
tokenize tomllib traceback types typing unicodedata urllib urllib.parse uuid warnings weakref
xml.etree.ElementTree zlib
""".split()  # noqa: SIM905  words read better than a column of strings
"""The standard library an agent has: imported now, because there is no file system to import from later."""


def _preload() -> list[str]:
    missing = []
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def _transport(op: str, payload: str) -> tuple[bool, str]:
    try:
        return True, gate.call(op, payload)
    except Err as refusal:
        return False, str(refusal.value)


if MISSING := _preload():
    raise ImportError(f"the runner's interpreter lacks {MISSING}")

import shim  # noqa: E402  it replaces what the modules above were imported with

HOST = Host(_transport)
FINISH_TALK = shim.install(HOST)
# Deeper, recursion through C code (sorted, repr, __getattr__) exhausts the engine's 512 KiB stack, which is a
# trap and no RecursionError. Measured: the worst of eight ways traps at 246.
sys.setrecursionlimit(220)


class WitWorld(wit_world.WitWorld):
    """The component's export."""

    program: Program | None = None

    def handle(self, input: str) -> str:
        try:
            if WitWorld.program is None:
                sys.argv[:] = ["agent"]  # the component's start emptied it, and argparse needs a name
                source = HOST.call("agent.source")
                WitWorld.program = Program.from_source(source)
            ok, text = WitWorld.program.handle(input, HOST)
            FINISH_TALK()
        except BaseException as error:  # nothing may unwind into the component's glue
            ok, text = False, error_text(error)
        if ok:
            return text
        raise Err(text)


warm_up()
gc.collect()
gc.freeze()
