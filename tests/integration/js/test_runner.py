"""JavaScript in the real sandbox: the library is honest, mistakes are words, runs repeat exactly."""

from __future__ import annotations

from typing import Any

import pytest

from runloopd.runtime.orders import MIB
from tests.integration.guest.conftest import NOW_MS, Script
from tests.integration.js.conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

HEAD = 'const { Fail, HostRefused, Result, handler, tool } = require("runloop");\n'


def serving(body: str) -> str:
    return f"{HEAD}exports.handle = handler((task, host) => {{\n{body}\n}});\n"


async def value(stage: Stage, body: str, script: Script | None = None) -> Any:
    result = await stage.run(serving(body), script)
    assert result.ok, result.error
    assert result.output is not None
    return result.output["ports"]["out"][0]


async def failure(stage: Stage, source: str, **limits: Any) -> tuple[str, str]:
    result = await stage.run(source, **limits)
    assert result.error is not None, result.output
    return result.error.code, result.error.message


# --- clock, chance, talk --------------------------------------------------------------------------


async def test_every_clock_is_the_hosts(stage: Stage) -> None:
    made = await value(
        stage,
        "return { out: [Date.now(), performance.now(), new Date().toISOString(), Date(),"
        " new Date(5).getTime(), new Date(2020, 0, 2).getTimezoneOffset(),"
        " new (new Date(0)).constructor().getTime(),"
        " new Date() instanceof Date, (new (class extends Date {})()).getTime(), Date.length,"
        " Reflect.construct(Date, []).getTime(), Date.UTC(1970, 0, 1, 0, 0, 1), performance.timeOrigin] };",
    )
    assert made == [
        NOW_MS,
        NOW_MS,
        "2025-06-15T15:06:40.123Z",
        "Sun Jun 15 2025 15:06:40 GMT+0000",
        5,
        0,
        NOW_MS,
        True,
        NOW_MS,
        7,
        NOW_MS,
        1000,
        0,
    ]


async def test_all_chance_is_the_hosts_and_math_random_asks_once(stage: Stage) -> None:
    body = (
        "const drawn = Array.from({length: 100}, Math.random);"
        "return { out: [drawn, crypto.randomUUID(), [...crypto.getRandomValues(new Uint16Array(2))]] };"
    )
    script = Script()
    drawn, uuid, words = await value(stage, body, script)
    assert [call.op for call in script.calls] == ["random.bytes"] * 3
    assert len(set(drawn)) == 100
    assert all(0 <= number < 1 for number in drawn)
    assert uuid == "00010200-0102-4001-8200-010200010200"
    assert words == [0x0100, 0x0002]
    other = Script(says={"random.bytes": lambda args: {"base64": "/v79" * (args["n"] // 3 + 1)}})
    assert (await value(stage, body, other))[0] != drawn, "nothing of it was baked into the runner"


async def test_a_stream_of_random_bytes_longer_than_one_answer_is_asked_for_in_parts(stage: Stage) -> None:
    script = Script()
    made = await value(stage, "return { out: host.randomBytes(70000).length };", script)
    assert made == 70_000
    assert [call.args["n"] for call in script.calls] == [65_536, 4_464]


async def test_console_becomes_log_lines(stage: Stage) -> None:
    script = Script()
    await value(
        stage,
        "console.log('one\\ntwo'); console.warn('%s is %d%%', 'x', 3, {a: [1]});"
        "console.error(new TypeError('bad')); console.debug('\\ud800');"
        "console.assert(1 > 2, 'no'); console.log(); return { out: 1 };",
        script,
    )
    lines = [(call.args["level"], call.args["message"]) for call in script.calls]
    assert lines == [
        ("info", "one"),
        ("info", "two"),
        ("warning", 'x is 3% {"a":[1]}'),
        ("error", "TypeError: bad"),
        ("debug", "\ufffd"),
        ("error", "Assertion failed no"),
        ("info", ""),
    ]


async def test_text_and_bytes_are_converted_as_everywhere(stage: Stage) -> None:
    made = await value(
        stage,
        "const bytes = new TextEncoder().encode('aä€😀\\ud800');"
        "const bad = Uint8Array.of(0x61, 0xc0, 0x80, 0xe2, 0x82, 0x41, 0xf0, 0x9f, 0xff, 0xed, 0xa0, 0x80);"
        "let fatal; try { new TextDecoder('utf-8', {fatal: true}).decode(bad) } catch (e) { fatal = e.name }"
        "return { out: [[...bytes], new TextDecoder().decode(bytes), new TextDecoder().decode(bad), fatal,"
        " new TextDecoder().decode(Uint8Array.of(0xef, 0xbb, 0xbf, 0x41)), btoa('hi'), atob('aGk=')] };",
    )
    encoded = "aä€😀\ufffd".encode()
    bad = bytes([0x61, 0xC0, 0x80, 0xE2, 0x82, 0x41, 0xF0, 0x9F, 0xFF, 0xED, 0xA0, 0x80])
    expected = [list(encoded), encoded.decode(), bad.decode(errors="replace"), "TypeError", "A", "aGk=", "hi"]
    assert made == expected


# --- modules --------------------------------------------------------------------------------------


async def test_an_agent_of_several_modules_requires_them_by_relative_path(stage: Stage) -> None:
    modules = {
        "agent.js": HEAD
        + 'const { count } = require("./parts/words");\nconst all = require("./parts");\n'
        + "const same = require('./parts/words.js').count === count;\n"
        + "exports.handle = () => ({ out: [count('a b'), all.name, same] });",
        "parts/words.js": "exports.count = (text) => text.split(' ').length;",
        "parts/index.js": "const words = require('./words'); const { up } = require('../up');\n"
        "exports.name = up(words.count('x'));",
        "up.js": "module.exports = { up: (n) => `n${n}` };",
    }
    result = await stage.run(modules)
    assert result.output == {"ports": {"out": [[2, "n1", True]]}, "artifacts": []}


async def test_modules_that_require_each_other_see_what_is_there_so_far(stage: Stage) -> None:
    modules = {
        "agent.js": 'exports.early = 1; const b = require("./b"); exports.handle = () => ({ out: b.seen });',
        "b.js": 'exports.seen = require("./agent").early;',
    }
    result = await stage.run(modules)
    assert result.output == {"ports": {"out": [1]}, "artifacts": []}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fs", "an agent has its own files"),
        ("node:fs", "an agent has its own files"),
        ("lodash", "bundle what else you need"),
        ("./nothing", "the bundle has no such .js file"),
        ("../agent", "the bundle has no such .js file"),
        ("../../etc/passwd", "the bundle has no such .js file"),
        ("/agent.js", "an agent has its own files"),
        ("runloop/testing", "an agent has its own files"),
        ("./__proto__", "the bundle has no such .js file"),
        ("./toString", "the bundle has no such .js file"),
    ],
)
async def test_what_cannot_be_required_is_said(stage: Stage, name: str, words: str) -> None:
    code, message = await failure(stage, f"\nrequire({name!r});")
    assert code == "agent.exception"
    assert message.startswith(f"Error: Cannot find module '{name}': ")
    assert words in message
    assert message.endswith("(agent.js:2)")


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("let x = ;", "agent.js:1: "),
        ("let x = 1;\n\nfoo(\n", "agent.js:4: "),
        ("}})", "agent.js:1: "),
        ("/* open", "agent.js:1: "),
        ("const a = `${", "agent.js:"),
        ('import { handler } from "runloop";', "an agent is CommonJS"),
        ("const a = 1;\nexport default a;", "an agent is CommonJS"),
        ("await 1;", "agent.js:1: "),
        ("}); (function () {", "declares no handler"),
        ("\0", "agent.js:1: "),
    ],
)
async def test_what_is_no_javascript_is_said_with_its_line_and_never_a_trap(
    stage: Stage, source: str, message: str
) -> None:
    code, found = await failure(stage, source)
    assert code in ("agent.syntax", "agent.entrypoint")
    assert message in found


async def test_a_syntax_error_in_a_later_module_names_that_module(stage: Stage) -> None:
    modules = {
        "agent.js": "\n\nrequire('./ok'); require('./bad');",
        "ok.js": "1;\n" * 40,
        "bad.js": "1;\nlet = = 2;",
    }
    result = await stage.run(modules)
    assert result.error is not None
    assert (result.error.code, result.error.message[:10]) == ("agent.syntax", "bad.js:2: ")


async def test_a_parse_error_of_the_agents_own_data_is_no_syntax_error_of_the_agent(stage: Stage) -> None:
    code, message = await failure(stage, serving("JSON.parse('{');"))
    assert code == "agent.exception"
    assert message.startswith("SyntaxError: ")
    assert message.endswith("(agent.js:3)")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("null.x;", "TypeError: cannot read property 'x' of null (agent.js:3)"),
        ("\n\nnope();", "ReferenceError: nope is not defined (agent.js:5)"),
        ("fetch('http://x');", "an agent has no network of its own; use host.fetch()"),
        ("new WebSocket('ws://x');", "an agent has no network of its own"),
        ("setTimeout(() => 1, 5);", "an agent has no clock to wait by"),
        ("queueMicrotask(() => 1);", "an agent has no event loop"),
        ("process.exit();", "an agent sees no process and no environment"),
        ("Buffer.from('x');", "use Uint8Array"),
        ("new Intl.NumberFormat();", "the sandbox has no locales"),
        ("throw { a: 1 };", 'the agent threw {"a":1}'),
        ("throw 'text';", "the agent threw text"),
        ("throw null;", "the agent threw null"),
        ("throw Symbol('s');", "the agent threw Symbol(s)"),
        (
            "const e = new Error(); Object.defineProperty(e, 'message', {get() { throw 1 }}); throw e;",
            "cannot be shown",
        ),
        ("throw new Error('\\ud800');", "Error: \ufffd (agent.js:3)"),
        ("host.log('\\ud800');", "half of a surrogate pair"),
        ("host.call('time.now', {a: NaN});", "arguments.a is NaN"),
        ("host.call('\\ud800');", "no such host call"),
        ("return 5;", "returned number"),
        ("return [1];", "returned an array"),
        ("return { out: undefined };", "left port 'out' undefined"),
        ("return { out: NaN };", "the result.ports.out[0] is NaN"),
        ("return { out: { a: 1n } };", "out[0].a is a bigint"),
        ("return { out: '\\udc00x' };", "half of a surrogate pair"),
        ("return { out: new Map() };", "is a Map"),
        ("const a = {}; a.a = a; return { out: a };", "nested deeper than 100 levels"),
        ("Error.prepareStackTrace = () => 7; null.x;", "cannot read property 'x' of null"),
        ("globalThis.JSON = null; null.x;", "cannot read property 'x' of null"),
        ("eval('1 +');", "(agent.js:3)"),
    ],
)
async def test_what_an_agent_does_wrong_is_an_error_in_words_and_never_a_trap(
    stage: Stage, body: str, words: str
) -> None:
    code, message = await failure(stage, serving(body))
    assert code in ("agent.exception", "agent.output")
    assert words in message


@pytest.mark.parametrize(
    "body",
    [
        "} ); exports.handle = async () => ({ out: 1 }); (() => {",
        "return Promise.resolve({ out: 1 });",
        "return { then() {} };",
        "const g = async () => 1; (async () => { await g(); host.log('x'); })(); return { out: 1 };",
        "Promise.resolve(1).then(() => host.log('never')); return { out: 1 };",
        "import('./x.js').then(() => host.log('never')); return { out: 1 };",
        "new Promise(() => {}).catch(() => 1); return { out: 1 };",
        "Promise.all([1]).finally(() => 1); return { out: 1 };",
    ],
)
async def test_waiting_for_a_promise_is_an_error_and_not_silence(stage: Stage, body: str) -> None:
    source = serving(body)
    if body.startswith("}"):
        source = f"{HEAD}handler(async () => ({{ out: 1 }}));"
    assert (await failure(stage, source))[0] == "agent.async"


async def test_deep_recursion_ends_the_attempt_and_harms_nobody(stage: Stage) -> None:
    for body in (
        "const f = (n) => f(n + 1) + 1; f(0);",
        "let x = []; for (let i = 0; i < 100000; i++) x = [x]; JSON.stringify(x);",
        "JSON.parse('['.repeat(100000));",
        "const o = { get a() { return this.a; } }; o.a;",
        "new RegExp('('.repeat(50000) + ')'.repeat(50000));",
        "eval('('.repeat(50000));",
    ):
        code, _ = await failure(stage, serving(body))
        assert code in ("guest.trap", "agent.exception"), body
    assert await value(stage, "return { out: 'still here' };") == "still here"


async def test_hoarding_looping_and_backtracking_are_cut(stage: Stage) -> None:
    hoard = serving("const held = []; for (;;) held.push(new Uint8Array(1 << 20).fill(1));")
    code, message = await failure(stage, hoard, memory_bytes=16 * MIB)
    assert code in ("agent.exception", "guest.memory"), message
    code, _ = await failure(stage, serving("for (;;);"), guest_ms=300)
    assert code == "guest.deadline"
    code, _ = await failure(stage, serving("/(a*)*b/.test('a'.repeat(40));"), fuel=50_000_000)
    assert code == "guest.fuel"
    code, _ = await failure(stage, "for (;;);", fuel=50_000_000)
    assert code == "guest.fuel", "at module level as well"


async def test_nothing_of_the_machine_is_visible(stage: Stage) -> None:
    made = await value(
        stage,
        "return { out: ['process', 'require', 'module', '__filename', 'wit', '__cqjs', 'WebAssembly', 'os']"
        ".filter((name) => name in globalThis) };",
    )
    assert made == []


async def test_a_failure_on_purpose_keeps_its_code_and_whether_to_try_again(stage: Stage) -> None:
    result = await stage.run(serving("throw new Fail('x.busy', 'später', true);"))
    assert result.error is not None
    assert (result.error.code, result.error.message, result.error.retryable) == ("x.busy", "später", True)


async def test_the_line_of_typescript_is_named_where_the_compiler_left_a_list(stage: Stage) -> None:
    source = '"use strict";\nexports.handle = () => {\n  null.x;\n};\n//# runloop-lines=agent.ts:3,0,4,1\n'
    code, message = await failure(stage, source)
    assert (code, message[-12:]) == ("agent.exception", "(agent.ts:7)")
    code, message = await failure(stage, "1;\nlet = ;\n//# runloop-lines=src/a.ts:5,-2,1\n")
    assert (code, message[:11]) == ("agent.syntax", "src/a.ts:3:")


# --- host calls and tools -------------------------------------------------------------------------


async def test_a_refused_call_can_be_survived(stage: Stage) -> None:
    body = (
        "try { host.sendMail({ to: ['a@b'], subject: 's', body: 'b' }); }"
        "catch (e) { return { out: [e instanceof HostRefused, e.code, e.hint, e.op, e.retryable] }; }"
    )
    assert await value(stage, body) == [True, "op.refused", "ask", "mail.send", False]


async def test_a_refused_call_that_is_not_caught_fails_with_its_code_and_hint(stage: Stage) -> None:
    code, message = await failure(stage, serving("host.kbSearch('x');"))
    assert (code, message) == ("op.refused", "no kb.search; ask")


async def test_tools_are_described_and_called(stage: Stage) -> None:
    source = (
        f"{HEAD}tool('w.sum', {{ description: 'Adds.', input: {{ type: 'object', required: ['a'],"
        " properties: { a: { type: 'integer', minimum: 0 }, b: { enum: [1, 2] } },"
        " additionalProperties: false }, result: { type: 'integer' } },"
        " ({ a, b = 1 }, host) => a + b + host.nowMs());"
        "tool('w.again', { input: {} }, () => null); tool('w.nothing', { input: {} }, () => undefined);"
    )
    described = await stage.run(source, input={"op": "describe"})
    assert described.output is not None, described.error
    assert [tool["id"] for tool in described.output["tools"]] == ["w.again", "w.nothing", "w.sum"]
    assert described.output["tools"][2]["description"] == "Adds."
    assert described.output["tools"][2]["result_schema"] == {"type": "integer"}

    async def call(tool: str, args: dict[str, Any]) -> Any:
        result = await stage.run(source, input={"op": "tool", "tool": tool, "args": args})
        if result.error is not None:
            return result.error.code, result.error.message
        assert result.output is not None
        return result.output["ports"]["result"][0]

    assert await call("w.sum", {"a": 2}) == NOW_MS + 3
    assert await call("w.again", {}) is None
    assert await call("w.nothing", {}) == ("agent.output", "the tool 'w.nothing' returned undefined")
    assert await call("w.sum", {}) == ("task.arguments", "args has no 'a'")
    assert await call("w.sum", {"a": "2"}) == ("task.arguments", "args.a must be integer")
    assert await call("w.sum", {"a": -1}) == ("task.arguments", "args.a must be at least 0")
    assert await call("w.sum", {"a": 1, "b": 3}) == ("task.arguments", "args.b must be one of [1,2]")
    assert await call("w.sum", {"a": 1, "c": 3}) == ("task.arguments", "args has no place for 'c'")
    assert await call("w.no", {}) == (
        "abi.tool",
        "there is no tool 'w.no'; there is w.again, w.nothing, w.sum",
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("tool('x', { input: {} }, () => 1);", "takes an id first"),
        ("tool('x.y', { input: {} });", "takes its function last"),
        ("tool('x.y', {}, () => 1);", "needs a JSON Schema object as its 'input'"),
        ("tool('x.y', { input: {} }, () => 1); tool('x.y', { input: {} }, () => 1);", "two tools 'x.y'"),
        ("handler(1);", "handler() takes the function"),
        ("handler(() => 1); handler(() => 2);", "an agent has one handler"),
    ],
)
async def test_a_wrong_declaration_is_said_with_its_line(stage: Stage, source: str, words: str) -> None:
    code, message = await failure(stage, f"{HEAD}\n{source}")
    assert code == "agent.exception"
    assert words in message
    assert message.endswith("(agent.js:3)")


# --- determinism ----------------------------------------------------------------------------------


async def test_the_same_answers_give_the_same_calls_output_and_fuel(stage: Stage) -> None:
    body = (
        "const weak = new WeakRef({}); const held = [];"
        "for (let i = 0; i < 300; i++)"
        "  held.push({ [`k${Math.random()}`]: new Date(), m: new Map([[{}, i]]) });"
        "console.log(Object.keys(held[7])); host.kbSearch;"
        "return { out: [held.length, JSON.stringify(held).length, 0.1 + 0.2, Math.sin(1e10),"
        " [3, 1, 2].sort(() => 0), typeof weak.deref()] };"
    )
    runs = []
    for _ in range(3):
        script = Script()
        result = await stage.run(serving(body), script)
        assert result.ok, result.error
        runs.append((result.output, result.fuel, result.calls, script.trace))
    assert runs[0] == runs[1] == runs[2]


async def test_loading_source_costs_in_proportion_to_its_size(stage: Stage) -> None:
    small = await stage.run("exports.handle = () => ({});")
    comment = "// words and words\n" * 5_000
    large = await stage.run(
        {"agent.js": "require('./b');" + comment + "exports.handle = () => ({});", "b.js": comment}
    )
    assert small.ok and large.ok
    assert small.fuel < 1_000_000
    assert large.fuel - small.fuel < 250 * 2 * len(comment), (
        "a pattern over the source costs 2000 a character"
    )


async def test_the_outside_changes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "return { out: [new Date().toString(), new Date(2020, 6, 1).getHours(), (1234.5).toLocaleString()] };"
    )
    before = await stage.run(serving(body))
    for name, setting in (("TZ", "Asia/Tokyo"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "de_DE.UTF-8")):
        monkeypatch.setenv(name, setting)
    assert await stage.run(serving(body)) == before
