"""What a model server's error means: which code, whether another attempt helps, how long to wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.refusals import status_error


def told(status: int, body: Any = b"", **headers: str) -> ModelCallError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status_error("main", status, raw, named)


WORDINGS = [
    (401, {"error": {"message": "bad key"}}, "model.auth", False),
    (403, b"no", "model.auth", False),
    (402, b"", "model.no_credit", False),
    (429, {"error": {"code": "insufficient_quota", "message": "you"}}, "model.no_credit", False),
    (400, {"error": {"message": "Your credit balance is too low to access"}}, "model.no_credit", False),
    (400, {"error": {"code": "context_length_exceeded", "message": "x"}}, "model.too_long", False),
    (400, {"error": {"type": "exceed_context_size_error", "message": "x"}}, "model.too_long", False),
    (400, {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, "model.too_long", False),
    (400, {"message": "This model's maximum context length is 8"}, "model.too_long", False),
    (413, b"", "model.too_long", False),
    (400, {"error": "registry.ollama.ai/library/x does not support tools"}, "model.no_tools", False),
    (500, {"error": {"message": "tools param requires --jinja flag"}}, "model.no_tools", False),
    (400, {"message": '"auto" tool choice requires --enable-auto-tool-choice'}, "model.no_tools", False),
    (429, b"", "model.overloaded", True),
    (500, b"", "model.overloaded", True),
    (529, b"", "model.overloaded", True),
    (400, {"error": {"message": "temperature"}}, "model.rejected", False),
    (404, {"error": "model 'x' not found"}, "model.rejected", False),
    (302, b"", "model.rejected", False),
]


@pytest.mark.parametrize(
    ("status", "body", "code", "again"), WORDINGS, ids=[f"{w[0]}-{n}" for n, w in enumerate(WORDINGS)]
)
def test_each_wording_has_its_code_and_a_way_on(status: int, body: Any, code: str, again: bool) -> None:
    error = told(status, body)
    assert (error.named_code, error.retryable, error.data["status"]) == (code, again, status)
    assert error.hint and str(status) in error.message
    assert error.cost_micro_usd == 0, "who refuses does not bill"


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"retry_after": "3"}, 3_000),
        ({"retry_after": "1.5"}, 1_500),
        ({"retry_after": "3", "retry_after_ms": "250"}, 250),
        ({"retry_after": "99999999999"}, 86_400_000),
        (
            {"retry_after": "Sat, 21 Nov 2026 15:00:30 GMT", "date": "Sat, 21 Nov 2026 15:00:00 GMT"},
            30_000,
        ),
        ({"retry_after": "Sat, 21 Nov 2026 14:00:00 GMT", "date": "Sat, 21 Nov 2026 15:00:00 GMT"}, None),
        ({"retry_after": "Sat, 21 Nov 2026 15:00:30 GMT"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "1e9"}, None),
        ({"retry_after": "٣"}, None),
        ({}, None),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
)
def test_a_server_may_ask_for_patience_in_three_ways(headers: dict[str, str], wait_ms: int | None) -> None:
    assert told(503, **headers).data.get("retry_after_ms") == wait_ms


@given(st.integers(300, 599), st.binary(max_size=300), st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_server_says_becomes_one_error_of_ours(
    status: int, body: bytes, retry: str, date: str
) -> None:
    error = told(status, body, retry_after=retry, date=date)
    assert error.named_code.startswith("model.")
    assert 0 <= error.data.get("retry_after_ms", 0) <= 86_400_000
