"""The offline provider: fills templates and schemas from facts. Deterministic, free, and honest about it.

Knows: ``template`` + ``facts`` (see ``template``), ``json_schema`` + ``facts`` (see ``schema``), and both
together: a template whose filled text is JSON that must fit. It streams and counts like a model, so that
every pane, budget and replay works without one; what it writes is stamped ``provider=rules,
generated=false``. It never invents: an open-ended prompt is refused plainly, and no tool is ever called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from runloop.digest import canonical
from runloop.errors import RunloopError
from runloop.ops import ModelComplete
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.answer_schema import check, misfit, shape
from runloopd.broker.providers.completion import Completion, Usage, estimated_tokens
from runloopd.broker.providers.template import render

__all__ = ["RULES_MODEL", "RulesProvider"]

RULES_MODEL = "template-1"
"""Name and version of the rules: a change of what they write changes the number."""


class RulesProvider:
    """Stands in for a language model where the answer follows from facts."""

    async def complete(
        self,
        request: ModelComplete,
        *,
        model: str,
        timeout_s: float,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
    ) -> Completion:
        """Fill in. Raises :class:`ModelCallError`, never retryable: the same request fails the same way.

        In a thread: the request is a guest's, and nobody else may wait for what it costs.
        """
        try:
            completion = await asyncio.to_thread(_complete, request)
        except ModelCallError:
            raise
        except RunloopError as error:
            raise ModelCallError(
                f"the offline rules cannot answer: {error.message}",
                hint=error.hint or "give the facts that are missing, or configure a model",
                code=error.named_code,
            ) from error
        if on_delta is not None and completion.text:
            for part in completion.parts or (completion.text,):
                on_delta(part)
        return completion


def _complete(request: ModelComplete) -> Completion:
    text, cut = _limited(_answer(request), request.max_tokens)
    return Completion(
        text=text,
        parts=_pieces(text) if request.stream else (),
        model=RULES_MODEL,
        usage=Usage(
            input_tokens=sum(estimated_tokens(message.content) for message in request.messages),
            output_tokens=estimated_tokens(text),
        ),
        finish="length" if cut else "stop",
    )


def _answer(request: ModelComplete) -> str:
    if request.json_schema is not None:
        check(request.json_schema)
    if request.template is not None:
        text = render(request.template, request.facts)
        if request.json_schema is not None:
            _insist(request.json_schema, text)
        return text
    if request.json_schema is not None:
        asked = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        return canonical(shape(request.json_schema, request.facts, asked)).decode()
    raise ModelCallError(
        "no model available: the offline rules only fill templates and schemas from facts, "
        "they do not answer open questions",
        hint="start a model server on this machine, or name one under [models.providers]; 'rlp providers' "
        "shows what there is",
        code="model.none",
    )


def _insist(schema: object, text: str) -> None:
    try:
        why = misfit(schema, orjson.loads(text))
    except orjson.JSONDecodeError:
        why = "it is not JSON (write values as {{name | json}})"
    if why is not None:
        raise ModelCallError(
            f"the filled template does not fit the schema: {why}",
            code="model.schema",
            hint="correct the template",
        )


def _limited(text: str, max_tokens: int) -> tuple[str, bool]:
    """Cut at ``max_tokens`` by the same guess that counts them, at a character boundary."""
    raw = text.encode()
    limit = max(max_tokens, 0) * 4
    if len(raw) <= limit:
        return text, False
    return raw[:limit].decode(errors="ignore"), True


def _pieces(text: str) -> tuple[str, ...]:
    """The text in lines, as it would stream."""
    return tuple(text.splitlines(keepends=True))
