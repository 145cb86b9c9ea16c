"""The corpus against the built daemon: each module is refused or cut by its own code, and harms nobody."""

from __future__ import annotations

import pytest

from tests.integration.hostile.conftest import Den, code_of
from tests.integration.hostile.corpus import CORPUS, good, nan_bits

MIB = 1024 * 1024
KEPT = 64 * MIB
"""How much more private memory the daemon may hold after the whole corpus than before it: the allocator keeps
what one large bundle needed once (measured: 33 MiB)."""
FLAT = 8 * MIB
"""How much more after the worst of it once again, and again: nothing may be lost each time."""
WORST = ("huge_data", "giant_argument", "giant_result", "nested_result", "nested_argument", "loop_of_calls")
PEAK = 256 * MIB
"""How much it may hold at any moment beyond that: one bundle and one compiled form of the largest."""


@pytest.mark.timeout(900)
@pytest.mark.requirement("I3.sandbox.1", "W1", "W5", "I2.sandbox.9")
def test_every_module_of_the_corpus_ends_by_its_own_code_and_the_daemon_stays_as_it_was(den: Den) -> None:
    den.serves()
    before, pid = den.memory(), den.home.pid()
    wrong: dict[str, str] = {}
    for name, case in CORPUS.items():
        folder = den.place({name: case.make(), "good": good()}, where=f"c_{name}", ops=case.ops)
        head = den.head()
        done = den.run(folder)
        ends = den.ends(head)
        if not ends:  # refused before anything ran
            found, told = code_of(done) or f"exit {done.code}", done.err
            den.serves()
        else:
            end = ends[name]
            found = "ok" if end.error is None else end.error.code
            told = str(end.error or end.output)
            if ends["good"].error is not None:
                wrong[f"{name}'s neighbour"] = str(ends["good"].error)
        if found not in case.codes or case.says not in told:
            wrong[name] = f"{found}: {told[:200]}"
    assert wrong == {}
    assert den.home.pid() == pid, "the daemon is another one"
    assert den.memory("VmHWM") - before < PEAK
    settled = den.memory()
    assert settled - before < KEPT
    for name in WORST * 2:
        den.run(den.home.path / f"c_{name}")
    assert den.memory() - settled < FLAT
    den.serves()


@pytest.mark.requirement("W3", "I2.sandbox.5")
def test_four_endless_loops_at_once_are_cut_and_their_neighbours_are_served_meanwhile(den: Den) -> None:
    loop = CORPUS["loop"].make()
    loops = {f"loop_{n}": loop for n in range(4)}
    neighbours = {f"good_{n}": good() for n in range(4)}
    done = den.run(den.place({**loops, **neighbours}, where="four", guest_ms=4_000))
    done.check(1)
    ends = den.ends()
    assert {name: end.error and end.error.code for name, end in ends.items()} == {
        **dict.fromkeys(loops, "guest.deadline"),
        **dict.fromkeys(neighbours, None),
    }
    order = [event.payload.node for event in den.of("node.finished")]  # type: ignore[attr-defined]
    assert set(order[:4]) == set(neighbours), "nobody had to wait for a loop to be cut"


@pytest.mark.requirement("W6")
def test_the_bits_of_a_nan_are_the_same_in_every_process(den: Den) -> None:
    wasm = nan_bits()
    den.run(den.place({"first": wasm, "second": wasm}, where="nan")).check()
    first, second = den.ends()["first"], den.ends()["second"]
    assert first.output == second.output
    assert (first.output_digest, first.fuel) == (second.output_digest, second.fuel)
    assert first.output is not None
    (text,) = first.output["ports"]["out"]
    bits = [text[at : at + 16] for at in range(0, len(text), 16)]
    assert len(bits) == 12
    assert set(bits[:11]) == {"7ff8000000000000"}, "every NaN an operation makes is the canonical one"
