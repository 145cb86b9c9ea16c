"""Python agents: source that the shipped runner executes, checked here without running any of it.

Knows: what the runner's interpreter has preloaded, how host calls look in source. Does not know: how the
runner is built, what the gate allows. The source is parsed by this machine's Python, so syntax that is newer
than it is refused although the sandbox might take it.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import ClassVar

from runloop.authoring.findings import LintFinding
from runloop.authoring.source import modules_of, read_source
from runloop.authoring.toolchains import BuildFailed, Missing, OpUse
from runloop.bundle.manifest import Language, Manifest, parse_manifest
from runloop.config import shipped
from runloop.errors import NotFoundError, RunloopError

__all__ = ["PythonToolchain", "decorated", "host_methods", "preloaded"]

MAX_MODULE_BYTES = 512 * 1024
TEST_FILE = "tests/test_agent.py"

_ALONG = frozenset(
    """
    __future__ _collections_abc _io _thread _weakrefset atexit builtins codeop dis email.feedparser
    faulthandler genericpath gettext glob importlib.abc importlib.machinery importlib.util marshal ntpath
    opcode posix posixpath pyexpat runpy select shutil site stat zipimport
    """.split()  # noqa: SIM905
)
"""What the interpreter and the preloaded modules bring along; a test compares with the sandbox itself."""
_GENERIC = frozenset({"log", "progress", "complete", "fetch", "tools", "call_tool"})
"""Names of the host's methods that others have as well: they count on something called ``host`` only."""
_SHIMMED: dict[str, tuple[str, ...]] = {
    "time.now": (
        "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
        "time.perf_counter_ns", "time.gmtime", "time.localtime", "time.ctime", "time.strftime",
        "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
        "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
    ),
    "random.bytes": (
        "os.urandom", "uuid.uuid4", "secrets.token_bytes", "secrets.token_hex", "secrets.token_urlsafe",
        "secrets.choice", "secrets.randbelow", "secrets.randbits", "random.random", "random.randint",
        "random.randrange", "random.choice", "random.choices", "random.shuffle", "random.sample",
        "random.uniform", "random.gauss", "random.getrandbits", "random.randbytes",
    ),
}  # fmt: skip
"""What the runner's shim turns into host calls."""


class PythonToolchain:
    """Copies modules; implements :class:`runloop.authoring.toolchains.Toolchain`."""

    language: ClassVar[str] = "python"
    manifest_language: ClassVar[Language] = "python"
    leftovers: ClassVar[frozenset[str]] = frozenset({"venv", "build", "dist", "htmlcov"})

    def missing(self) -> list[Missing]:
        """Nothing: the runner comes with Runloop."""
        return []

    def versions(self) -> Mapping[str, str]:
        """Nothing but the source determines the bytes."""
        return {}

    def build(self, folder: Path, work: Path) -> dict[str, bytes]:
        """Every module, byte for byte. Raises :class:`BuildFailed` when one of them is no Python."""
        files = read_source(folder, self.leftovers)
        faults = [str(fault) for fault in self.check(folder) if fault.severity == "error"]
        if faults:
            raise BuildFailed("; ".join(faults), hint="'rlp agent lint' lists every mistake")
        return {path: files[path] for path in modules_of(files).values()}

    def native_test(self, folder: Path, work: Path) -> list[str] | None:
        """``python -m unittest`` on the author's tests, where there are any."""
        if not (folder / TEST_FILE).is_file():
            return None
        return [sys.executable, "-B", "-m", "unittest", "discover", "-s", "tests"]

    def check(self, folder: Path) -> list[LintFinding]:
        """Syntax, sizes, imports, entrypoint."""
        files = read_source(folder, self.leftovers)
        modules = modules_of(files)
        trees, findings = {}, []
        for path in modules.values():
            parsed = _parse(path, files[path])
            if isinstance(parsed, LintFinding):
                findings.append(parsed)
            else:
                trees[path] = parsed
                findings += _imports(path, parsed, set(modules))
        return findings + _entrypoint(files.get("manifest.toml", b""), modules, trees)

    def uses(self, folder: Path) -> list[OpUse]:
        """``host.method(…)``, ``host.call("op")``, ``print`` and the clock and chance of the library."""
        files = read_source(folder, self.leftovers)
        found = []
        for path in modules_of(files).values():
            parsed = _parse(path, files[path])
            if isinstance(parsed, ast.Module):
                found += [OpUse(op=op, file=path, line=line) for op, line in _uses(parsed)]
        return found


# --- parsing --------------------------------------------------------------------------------------


def _parse(path: str, data: bytes) -> ast.Module | LintFinding:
    """The tree of a file, or what is wrong with it. Nothing is executed."""
    if len(data) > MAX_MODULE_BYTES:
        return LintFinding(
            file=path, what=f"has more than {MAX_MODULE_BYTES} bytes", fix="split it, or take data out of it"
        )
    try:
        text = data.decode()  # the runner takes UTF-8 whatever a coding line says
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, path)
            compile(tree, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return LintFinding(
            file=path, line=error.lineno or 0, what=f"no Python: {error.msg}", fix="correct it"
        )
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return LintFinding(file=path, line=line, what="not UTF-8", fix="save it as UTF-8")
    except (ValueError, RecursionError, MemoryError) as error:
        return LintFinding(file=path, what=f"cannot be parsed: {type(error).__name__}", fix="simplify it")
    return tree


def _entrypoint(
    text: bytes, modules: Mapping[str, str], trees: Mapping[str, ast.Module]
) -> list[LintFinding]:
    try:
        manifest: Manifest = parse_manifest(text)
    except RunloopError:
        return []  # the manifest's own findings say so
    module, _, name = manifest.entrypoint.partition(":")
    if manifest.language != "python":
        return []
    if module not in modules:
        what = f"the entrypoint {manifest.entrypoint!r} names no module of this folder"
        return [LintFinding(file="manifest.toml", what=what, fix=f"add {module}.py, or correct 'entrypoint'")]
    path = modules[module]
    if path in trees and name not in _defined(trees[path]):
        what = f"the entrypoint's function {name!r} is not defined here"
        return [LintFinding(file=path, what=what, fix=f"define {name}(task, host), or correct 'entrypoint'")]
    return []


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


# --- imports --------------------------------------------------------------------------------------


@cache
def preloaded() -> frozenset[str]:
    """Modules that an agent can import, read from the shipped runner's own list.

    Raises :class:`NotFoundError` when the installation has no such list.
    """
    tree = ast.parse((shipped("runner") / "app.py").read_text(encoding="utf-8"))
    for node in tree.body:
        match node:
            case ast.Assign(
                targets=[ast.Name(id="PRELOADED")],
                value=ast.Call(func=ast.Attribute(value=ast.Constant(str(text)))),
            ):
                names = text.split()
                parents = {".".join(n.split(".")[:end]) for n in names for end in range(1, n.count(".") + 1)}
                return frozenset({*names, *parents, *_ALONG})
    raise NotFoundError(
        "the runner does not say which modules it has", hint="install runloop again", code="runner.missing"
    )


@cache
def served() -> frozenset[str]:
    """Modules of the SDK that an agent is given as source when it imports them."""
    found = {"runloop.speech", "runloop.collab", "runloop.loop"}
    for root in ("collab", "loop"):
        for one in (resources.files("runloop") / root).iterdir():
            if one.name.endswith(".py") and one.name != "__init__.py":
                found.add(f"runloop.{root}.{one.name.removesuffix('.py')}")
    return frozenset(found)


def _imports(path: str, tree: ast.Module, own: set[str]) -> list[LintFinding]:
    packages = {".".join(name.split(".")[:end]) for name in own for end in range(1, name.count(".") + 1)}
    known = preloaded() | served() | own | packages
    findings = []
    for name, line in _imported(tree, path):
        if name in known:
            continue
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            what, fix = (
                f"the sandbox has no module {name!r}",
                "every effect is a host call; see docs/reference/ops.md",
            )
        elif top in {module.partition(".")[0] for module in own} or top == "runloop":
            what, fix = f"there is no module {name!r} here", "add the file, or correct the name"
        else:
            what = f"{name!r} is no module of the standard library, nor of this folder"
            fix = "the sandbox has the standard library only; copy pure Python source into the folder"
        findings.append(LintFinding(file=path, line=line, what=what, fix=fix))
    return findings


def _imported(tree: ast.Module, path: str) -> Iterator[tuple[str, int]]:
    """Dotted names that are imported whatever happens: not for type checkers, not in a ``try``."""
    package = path.split("/")[:-1]
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if name:
                yield name, node.lineno
        elif isinstance(node, ast.Try):
            waiting += [*node.handlers, *node.orelse, *node.finalbody]
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            waiting += reversed(list(ast.iter_child_nodes(node)))


# --- host calls -----------------------------------------------------------------------------------


@cache
def host_methods() -> dict[str, tuple[str, ...]]:
    """Method of ``runloop.host.Host`` -> ops it may call; read from its source, so that they never differ."""
    source = Path(__file__).parents[2] / "host.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    bodies = {
        function.name: function
        for cls in tree.body
        if isinstance(cls, ast.ClassDef) and cls.name == "Host"
        for function in cls.body
        if isinstance(function, ast.FunctionDef)
    }
    made: dict[str, set[str]] = {name: set(_ops_of(body)) for name, body in bodies.items()}
    for _ in bodies:  # methods that call methods: as often as there are methods is enough
        for name, body in bodies.items():
            made[name].update(*(made.get(other, set()) for other in _methods_of(body)))
    return {
        name: tuple(sorted(ops))
        for name, ops in made.items()
        if ops and not name.startswith("_") and name != "call"
    }


def _ops_of(body: ast.FunctionDef) -> Iterator[str]:
    """Ops that a method of the host calls by their names."""
    for node in ast.walk(body):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="self"), attr="call"), args=[ast.Constant(str(op)), *_]
            ):
                yield op


def _methods_of(body: ast.FunctionDef) -> Iterator[str]:
    """Other methods that it calls."""
    for node in ast.walk(body):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)) if name != "call":
                yield name


def _uses(tree: ast.Module) -> Iterator[tuple[str, int]]:
    methods = host_methods()
    shimmed = {name: op for op, names in _SHIMMED.items() for name in names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id="print"):
                yield "log.write", node.lineno
            case ast.Attribute(value=owner, attr="call") if _is_host(owner):
                if (
                    node.args
                    and isinstance(node.args[0], ast.Constant)
                    and isinstance(node.args[0].value, str)
                ):
                    yield node.args[0].value, node.lineno
            case ast.Attribute(value=owner, attr=name) if name in methods and (
                _is_host(owner) or name not in _GENERIC
            ):
                yield from ((op, node.lineno) for op in methods[name])
            case ast.Attribute() as function if (dotted := ast.unparse(function)) in shimmed:
                yield shimmed[dotted], node.lineno


def _is_host(owner: ast.expr) -> bool:
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return name.strip("_") in ("host", "gate")


def decorated(folder: Path, name: str = "tool") -> bool:
    """Whether a function of the agent carries the decorator ``name``."""
    files = read_source(folder, PythonToolchain.leftovers)
    for path in modules_of(files).values():
        parsed = _parse(path, files[path])
        for node in ast.walk(parsed) if isinstance(parsed, ast.Module) else ():
            for mark in getattr(node, "decorator_list", ()):
                bare = mark.func if isinstance(mark, ast.Call) else mark
                if getattr(bare, "id", getattr(bare, "attr", "")) == name:
                    return True
    return False
