"""The index's own use of an embedding model: bounded, recorded, and only the one that was configured.

Knows: what indexing may cost, and that what was sent, where to, and at what price is a fact. Does not know:
routes and prices (``broker.embedding``), when vectors are wanted (``broker.finder``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from pog.embed import Vector
from pog.vectors import Passages
from runloop.clock import Clock
from runloop.config import Kb
from runloop.digest import blob_digest, canonical
from runloop.errors import RefusedError
from runloop.events import Draft, ModelCalled, Provenance
from runloop.ops import ModelEmbed
from runloopd.broker.embedding import LEXICAL_TARGET, EmbedBroker, EmbedPort
from runloopd.broker.ports import Budget, JournalPort, ModelCallError, Reservation

__all__ = ["IndexEmbedder", "chosen"]

log = structlog.get_logger(__name__)

_QUESTION_MS = 2_000
"""A search waits so long for the vector of its question, and is answered without."""
_BATCH_MS = 120_000
_BATCH_TEXTS = 32


class IndexEmbedder:
    """The index's way to a model: bounded, recorded, and to the one target that was configured.

    Implements :class:`~runloopd.broker.finder.ModelEmbedder`.
    """

    def __init__(
        self,
        broker: EmbedPort,
        target: str,
        journal: JournalPort,
        clock: Clock,
        *,
        spent: Callable[[], Awaitable[int]],
        limit_micro_usd: int,
    ) -> None:
        """``spent`` tells what indexing has cost so far, over all time."""
        self._broker = broker
        self._target = target
        self._journal = journal
        self._clock = clock
        self._spent = spent
        self._limit_micro_usd = limit_micro_usd
        self._questions: dict[str, Vector] = {}

    @property
    def name(self) -> str:
        """``provider:model``."""
        return self._target

    async def question(self, text: str) -> Vector:
        """See the protocol. The last questions are remembered."""
        if text not in self._questions:
            (vector,) = await self._embed([text], _QUESTION_MS, ())
            if len(self._questions) >= 256:
                self._questions.clear()
            self._questions[text] = vector
        return self._questions[text]

    async def passages(self, batch: Sequence[Passages]) -> list[list[Vector]]:
        """See the protocol."""
        texts = [(item.item, text) for item in batch for text in item.texts]
        made: list[Vector] = []
        for at in range(0, len(texts), _BATCH_TEXTS):
            some = texts[at : at + _BATCH_TEXTS]
            causes = tuple(dict.fromkeys(item for item, _ in some))
            made += await self._embed([text for _, text in some], _BATCH_MS, causes)
        vectors = iter(made)
        return [[next(vectors) for _ in item.texts] for item in batch]

    async def _embed(self, texts: list[str], within_ms: int, causes: tuple[int, ...]) -> Sequence[Vector]:
        request = ModelEmbed(texts=texts, model=self._target)
        bound = await self._broker.estimate(request, lambda target: target == self._target)
        left = self._limit_micro_usd - await self._spent() if bound.micro_usd else 0
        if bound.micro_usd > left:
            raise RefusedError(
                f"embedding with {self._target} may cost {bound.micro_usd} micro-dollars; {left} are left",
                hint='raise kb.embed_micro_usd, or set kb.embedder = "lexical"',
                code="budget.exceeded",
            )
        budget = Budget(
            micro_usd=bound.micro_usd,
            tokens=bound.input_tokens,
            deadline_ms=self._clock.now_ms() + within_ms,
            permits=lambda target: target == self._target,
        )
        try:
            answer = await self._broker.embed(request, budget=budget)
        except ModelCallError as error:
            cost = bound.micro_usd if error.cost_micro_usd is None else error.cost_micro_usd
            if cost:
                await self._state(request, bound, cost, 0, causes, finish=error.named_code)
            raise
        # What was sent, where to, and what it cost is a fact like any other, also when it was a question.
        if causes or answer.cost_micro_usd:
            await self._state(
                request, bound, answer.cost_micro_usd, answer.input_tokens, causes, finish="embedded"
            )
        return answer.vectors

    async def _state(
        self,
        request: ModelEmbed,
        bound: Reservation,
        cost: int,
        tokens: int,
        causes: tuple[int, ...],
        *,
        finish: str,
    ) -> None:
        called = ModelCalled(
            node="",
            attempt=0,
            call=0,
            provider=bound.provider,
            model=bound.model,
            generated=False,
            request_digest=blob_digest(canonical(list(request.texts))),
            answer_digest=blob_digest(b""),
            input_tokens=tokens,
            output_tokens=0,
            estimated=False,
            reserved_micro_usd=bound.micro_usd,
            cost_micro_usd=cost,
            price_version=bound.price_version,
            finish=finish,
        )
        await self._journal.append(
            Draft(payload=called, actor="daemon", scope="system", provenance=Provenance(causes=causes))
        )


def chosen(kb: Kb, broker: EmbedBroker) -> str | None:
    """The target that the index uses; None: the lexical embedder alone.

    ``auto`` takes a model only on this machine; another is used when ``kb.embedder`` names its provider.
    """
    if kb.embedder == "lexical":
        return None
    if kb.embedder == "auto":
        target = broker.default()
    else:
        target, local = broker.of_provider(kb.embedder)
        if not local:
            log.warning("index_by_remote_model", target=target)
    return None if target == LEXICAL_TARGET else target
