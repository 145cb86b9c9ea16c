"""Declarations are counted before the engine meets them, in time that the file's size bounds."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloopd.runtime.engine import COMPONENT_HEADER, ComponentRefused
from runloopd.runtime.shape import LIMITS, MAX_DEPTH, check_shape
from tests.unit.runtime.guests import saying

SDK = Path(__file__).parents[3] / "sdk"
CORE_HEADER = b"\0asm\x01\0\0\0"


def leb(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def module(*sections: bytes) -> bytes:
    return section(1, CORE_HEADER + b"".join(sections))


def test_what_we_ship_and_what_authors_write_is_taken() -> None:
    check_shape(saying({"ports": {}}))
    shipped = [*SDK.glob("agents/*/agent.wasm"), *SDK.glob("**/runner.wasm.xz")]
    assert shipped
    for path in shipped:
        data = path.read_bytes()
        check_shape(lzma.decompress(data) if path.suffix == ".xz" else data)


@pytest.mark.requirement("W5")
@pytest.mark.parametrize(
    ("number", "name"), [(2, "core imports"), (3, "functions"), (7, "core exports"), (11, "data segments")]
)
def test_too_many_declarations_are_refused_by_their_name_all_modules_together(number: int, name: str) -> None:
    half = module(section(number, leb(LIMITS[name] // 2)))
    check_shape(COMPONENT_HEADER + half + half)
    with pytest.raises(ComponentRefused, match=f"declares {LIMITS[name] + 1} {name}"):
        check_shape(COMPONENT_HEADER + half + half + module(section(number, leb(1))))


def test_a_count_that_lies_is_refused_by_what_it_says_and_not_by_what_is_there() -> None:
    with pytest.raises(ComponentRefused, match="declares 4294967295 imports"):
        check_shape(COMPONENT_HEADER + section(10, leb(2**32 - 1)))


def test_components_are_not_nested_without_end() -> None:
    inner = COMPONENT_HEADER
    for _ in range(MAX_DEPTH):
        inner = COMPONENT_HEADER + section(4, inner)
    check_shape(inner)
    with pytest.raises(ComponentRefused, match="nested deeper"):
        check_shape(COMPONENT_HEADER + section(4, inner))


def test_very_many_small_modules_are_refused() -> None:
    with pytest.raises(ComponentRefused, match="modules"):
        check_shape(COMPONENT_HEADER + module() * (LIMITS["modules"] + 1))


@given(st.binary(max_size=400))
def test_no_bytes_confuse_it(tail: bytes) -> None:
    try:
        check_shape(COMPONENT_HEADER + tail)
    except ComponentRefused:
        return
