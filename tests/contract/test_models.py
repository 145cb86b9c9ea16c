"""The model broker against a real server: what comes back, what it costs, what is tried again."""

from __future__ import annotations

import asyncio
import json

import pytest

from runloop.config import Price
from runloop.errors import RefusedError, RunloopError, UsageError
from runloopd.broker.models import Patience
from runloopd.broker.ports import ModelAnswer, ModelCallError
from runloopd.broker.providers.http import HttpLimits
from tests.contract import fake_model_server as fake
from tests.contract.conftest import (
    CANARY,
    NOWHERE,
    PRICE,
    BrokerMaker,
    RestlessClock,
    ask,
    budget,
    provider,
)
from tests.contract.fake_model_server import FakeModelServer

TEMPLATE = {"template": "Hello {{name}}", "facts": {"name": "Jo"}}


async def complete(made, clock, request=None, on_delta=None, **limits) -> ModelAnswer:
    return await made.complete(
        request or ask(), budget=budget(clock, **limits), on_delta=on_delta, idempotency_key="k" * 64
    )


# --- the three dialects ---------------------------------------------------------------------------


@pytest.mark.requirement("I2.models.2")
async def test_an_openai_answer_arrives_whole_with_the_usage_it_reports(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai("Hello.")) as server:
        answer = await complete(broker(provider(server.url, price=PRICE)), clock)
    assert (answer.text, answer.provider, answer.model) == ("Hello.", "main", "fake-1")
    assert (answer.input_tokens, answer.output_tokens, answer.estimated) == (11, 7, False)
    assert answer.cost_micro_usd == 11 * 3 + 7 * 15
    assert (answer.price_version, answer.finish, answer.generated) == ("2026-11", "stop", True)
    assert answer.fallbacks == () and answer.parts == ()
    (seen,) = server.posts
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] == f"Bearer {CANARY}"
    assert seen.headers["Idempotency-Key"] == "k" * 64
    assert seen.body["messages"][1] == {"role": "user", "content": "Say hello."}
    assert (seen.body["max_tokens"], seen.body["stream"]) == (100, False)


@pytest.mark.requirement("I2.models.4")
async def test_an_openai_stream_arrives_piece_by_piece_and_joins_to_the_text(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    deltas: list[str] = []
    with FakeModelServer(fake.openai_stream("Hel", "lo, ", "wörld", ".")) as server:
        answer = await complete(broker(provider(server.url)), clock, on_delta=deltas.append)
    assert "".join(deltas) == "".join(answer.parts) == answer.text == "Hello, wörld."
    assert len(answer.parts) == 4
    assert (answer.input_tokens, answer.output_tokens, answer.finish) == (11, 7, "stop")
    assert server.posts[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.requirement("I2.models.2")
async def test_an_anthropic_answer_arrives_whole(broker: BrokerMaker, clock: RestlessClock) -> None:
    usage = {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 4}
    with FakeModelServer(fake.anthropic("Hello.", usage=usage)) as server:
        answer = await complete(broker(provider(server.url + "/v1", "anthropic", price=PRICE)), clock)
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("Hello.", 14, 4)
    (seen,) = server.posts
    assert seen.path == "/v1/messages"
    assert seen.headers["x-api-key"] == CANARY and "Authorization" not in seen.headers
    assert seen.body["system"] == "Be brief." and len(seen.body["messages"]) == 1


@pytest.mark.requirement("I2.models.4")
async def test_an_anthropic_stream_arrives_and_says_that_it_was_too_long(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.anthropic_stream("Hel", "lo")) as server:
        answer = await complete(broker(provider(server.url, "anthropic")), clock, ask(stream=True))
    assert (answer.text, answer.finish, answer.parts) == ("Hello", "length", ("Hel", "lo"))
    assert (answer.input_tokens, answer.output_tokens) == (9, 4)


async def test_an_anthropic_schema_is_asked_for_as_a_forced_tool(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    content = [{"type": "tool_use", "name": "answer", "input": {"ok": True}}]
    with FakeModelServer(fake.anthropic("", content=content)) as server:
        answer = await complete(broker(provider(server.url, "anthropic")), clock, ask(json_schema=schema))
    assert json.loads(answer.text) == {"ok": True}
    assert server.posts[0].body["tool_choice"] == {"type": "tool", "name": "answer"}
    assert server.posts[0].body["tools"][0]["input_schema"] == schema


async def test_an_ollama_answer_arrives_whole_and_streamed(broker: BrokerMaker, clock: RestlessClock) -> None:
    with FakeModelServer(fake.ollama("Hello."), fake.ollama_stream("Hel", "lo.")) as server:
        made = broker(provider(server.url, "ollama", api_key_env=None))
        whole = await complete(made, clock)
        streamed = await complete(made, clock, ask(stream=True))
    assert whole.text == streamed.text == "Hello."
    assert (whole.input_tokens, whole.output_tokens, whole.cost_micro_usd) == (5, 2, 0)
    assert streamed.parts == ("Hel", "lo.")
    assert server.posts[0].path == "/api/chat" and server.posts[0].body["options"]["num_predict"] == 100


async def test_a_schema_goes_to_openai_and_ollama_in_their_own_form(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    request = ask(json_schema={"type": "integer"})
    with FakeModelServer(fake.openai("7")) as server:
        await complete(broker(provider(server.url)), clock, request)
    assert server.posts[0].body["response_format"]["json_schema"]["schema"] == {"type": "integer"}
    with FakeModelServer(fake.ollama("7")) as server:
        await complete(broker(provider(server.url, "ollama")), clock, request)
    assert server.posts[0].body["format"] == {"type": "integer"}


@pytest.mark.parametrize("text", ['{"ok": "yes"}', "Sure! Here you go", '{"ok": tr'])
async def test_an_answer_that_does_not_fit_its_schema_fails_and_is_paid(
    broker: BrokerMaker, clock: RestlessClock, text: str
) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    with FakeModelServer(fake.openai(text)) as server:
        made = broker(provider(server.url, price=PRICE))
        with pytest.raises(ModelCallError) as caught:
            await complete(made, clock, ask(json_schema=schema))
    assert caught.value.named_code == "model.schema"
    assert caught.value.cost_micro_usd == 11 * 3 + 7 * 15


# --- routes ---------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.models.1")
async def test_without_any_model_the_rules_fill_a_template_and_say_so(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    answer = await complete(broker(), clock, ask(**TEMPLATE))
    assert (answer.text, answer.provider, answer.generated) == ("Hello Jo", "rules", False)
    assert (answer.cost_micro_usd, answer.price_version, answer.estimated) == (0, "rules", True)


@pytest.mark.requirement("I2.models.1")
async def test_without_any_model_an_open_question_is_refused_plainly(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with pytest.raises(ModelCallError) as caught:
        await complete(broker(), clock)
    assert caught.value.named_code == "model.none"
    assert not caught.value.retryable and caught.value.cost_micro_usd == 0
    assert "no model available" in caught.value.message


@pytest.mark.requirement("I2.models.3")
async def test_an_ollama_on_this_machine_is_found_and_asked_before_the_rules(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.ollama("Hi."), tags=fake.tags("tiny:1b", "big:70b")) as server:
        made = broker(ollama_url=server.url)
        reservation = await made.estimate(ask(), lambda target: True)
        answer = await complete(made, clock)
        await complete(made, clock)
    assert reservation.target == "ollama:big:70b" and reservation.micro_usd == 0
    assert (answer.provider, answer.model, answer.text) == ("ollama", "big:70b", "Hi.")
    assert sum(seen.method == "GET" for seen in server.seen) == 1, "the list is cached"


async def test_an_ollama_that_only_embeds_or_lists_nonsense_is_not_asked(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    for listing in (
        fake.tags("nomic", family="nomic-bert"),
        fake.as_json({"models": "?"}),
        fake.raw(b"<html>"),
        fake.tags("evil\x1b[2J"),
        fake.status(500),
    ):
        with FakeModelServer(fake.ollama("no"), tags=listing) as server:
            answer = await complete(broker(ollama_url=server.url), clock, ask(**TEMPLATE))
        assert answer.provider == "rules" and not server.posts


async def test_a_server_that_does_not_list_its_models_in_time_is_taken_as_absent(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.ollama("no"), tags=fake.stall) as server:
        made = broker(ollama_url=server.url, patience=Patience(detect_ms=50))
        answer = await complete(made, clock, ask(**TEMPLATE))
    assert answer.provider == "rules"


async def test_a_pattern_chooses_among_all_routes(broker: BrokerMaker, clock: RestlessClock) -> None:
    with FakeModelServer(fake.ollama("Hi."), tags=fake.tags("tiny:1b", "big:70b")) as server:
        made = broker(ollama_url=server.url, default="rules")
        answer = await complete(made, clock, ask(model="ollama:tiny*"))
        assert answer.model == "tiny:1b"
        plain = await complete(made, clock, ask(**TEMPLATE))
        assert plain.provider == "rules", "default = rules stays offline"
        with pytest.raises(UsageError) as caught:
            await complete(made, clock, ask(model="gpt-*"))
    assert caught.value.named_code == "model.unknown" and "ollama:tiny:1b" in str(caught.value.hint)


async def test_a_route_that_policy_does_not_permit_is_never_asked(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai("no")) as server:
        made = broker(provider(server.url))
        answer = await complete(
            made, clock, ask(**TEMPLATE), permits=lambda target: target.startswith("rules:")
        )
        with pytest.raises(RefusedError) as caught:
            await made.estimate(ask(), lambda target: False)
    assert answer.provider == "rules" and not server.seen
    assert caught.value.named_code == "cap.denied"


async def test_what_failed_on_the_way_is_told_in_the_answer(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    answer = await complete(broker(provider(NOWHERE)), clock, ask(**TEMPLATE))
    assert answer.provider == "rules"
    (met,) = answer.fallbacks
    assert met.startswith("main:fake-1: ") and "nobody answers" in met


async def test_when_nobody_answers_every_reason_is_told(broker: BrokerMaker, clock: RestlessClock) -> None:
    with pytest.raises(ModelCallError) as caught:
        await complete(broker(provider(NOWHERE)), clock)
    assert caught.value.named_code == "model.unreachable" and caught.value.retryable
    assert "main:fake-1" in caught.value.message and "rules:" in caught.value.message


async def test_the_routes_are_listed_in_the_order_they_are_tried(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    made = broker(provider("https://models.example.org", name="far"))
    assert [(r.target, r.local, r.price_version) for r in await made.routes()] == [
        ("far:fake-1", False, None),
        ("rules:template-1", True, "rules"),
    ]


# --- money ----------------------------------------------------------------------------------------


@pytest.mark.requirement("K6")
async def test_a_remote_model_without_a_price_is_refused(broker: BrokerMaker, clock: RestlessClock) -> None:
    made = broker(provider("https://models.example.org"))
    with pytest.raises(RefusedError) as caught:
        await made.estimate(ask(), lambda target: True)
    assert caught.value.named_code == "model.unpriced"
    answer = await complete(made, clock, ask(**TEMPLATE))
    assert answer.provider == "rules" and "no price" in answer.fallbacks[0]


async def test_the_reservation_bounds_what_the_call_may_cost(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai("Hello.")) as server:
        made = broker(provider(server.url, price=PRICE))
        reserved = await made.estimate(ask("ä" * 50), lambda target: True)
        answer = await complete(made, clock, ask("ä" * 50), micro_usd=reserved.micro_usd)
        with pytest.raises(RefusedError) as caught:
            await complete(made, clock, micro_usd=10)
    assert reserved.input_tokens >= 100, "bytes, not characters"
    assert reserved.micro_usd == reserved.input_tokens * 3 + 100 * 15
    assert answer.cost_micro_usd <= reserved.micro_usd
    assert caught.value.named_code == "budget.exceeded" and len(server.posts) == 1


async def test_a_call_beyond_its_token_budget_is_refused_before_anything_is_sent(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai("Hello.")) as server, pytest.raises(RefusedError) as caught:
        await complete(broker(provider(server.url)), clock, tokens=120)
    assert caught.value.named_code == "budget.exceeded" and not server.seen


@pytest.mark.requirement("K6")
@pytest.mark.parametrize(
    "usage", [(-5, 7), (11, -1), (10**12, 7), (11, 10**12), (0, 0), (11, 101), ("11", 7), (1.5, 7), None]
)
async def test_usage_that_cannot_be_true_is_booked_at_the_bound_never_below_and_never_above(
    broker: BrokerMaker, clock: RestlessClock, usage: object
) -> None:
    with FakeModelServer(fake.openai("Hello.", usage=usage)) as server:
        made = broker(provider(server.url, price=PRICE))
        reserved = await made.estimate(ask(), lambda target: True)
        try:
            answer = await complete(made, clock, micro_usd=reserved.micro_usd)
        except ModelCallError as error:
            assert error.named_code == "model.protocol" and error.cost_micro_usd is None
        else:
            assert answer.estimated and answer.cost_micro_usd == reserved.micro_usd


async def test_a_free_model_without_usage_is_guessed_and_marked(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai("Hello there.", usage=None)) as server:
        answer = await complete(broker(provider(server.url)), clock)
    assert answer.estimated and answer.output_tokens == 3 and answer.cost_micro_usd == 0


async def test_a_priced_call_that_was_cut_is_not_repeated_and_its_cost_is_unknown(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai_cut("Hel"), fake.openai("again")) as server:
        made = broker(provider(server.url, price=PRICE))
        with pytest.raises(ModelCallError) as caught:
            await complete(made, clock, ask(stream=True))
    assert len(server.posts) == 1
    assert caught.value.named_code == "model.cut" and caught.value.cost_micro_usd is None


async def test_a_fall_back_after_a_cut_priced_call_still_pays_for_it(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai_cut("Hel")) as server:
        made = broker(provider(server.url, price=PRICE))
        reserved = await made.estimate(ask(stream=True, **TEMPLATE), lambda target: True)
        answer = await complete(made, clock, ask(stream=True, **TEMPLATE), micro_usd=reserved.micro_usd)
    assert answer.provider == "rules" and answer.cost_micro_usd == reserved.micro_usd


# --- trying again ---------------------------------------------------------------------------------


async def test_an_overloaded_server_is_asked_again_after_a_pause(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    script = (fake.status(503), fake.status(529), fake.openai("Hello."))
    with FakeModelServer(*script) as server:
        answer = await complete(broker(provider(server.url, price=PRICE)), clock)
    assert answer.text == "Hello." and answer.fallbacks == ()
    assert clock.slept_ms == [188, 375], "backoff doubles, shortened by the jitter"


async def test_a_server_that_asks_for_more_time_gets_it_within_bounds(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    script = (fake.status(429, Retry_After="3"), fake.status(429, Retry_After="99999"), fake.openai("Hello."))
    with FakeModelServer(*script) as server:
        await complete(broker(provider(server.url)), clock)
    assert clock.slept_ms == [3_000, 20_000]


async def test_no_pause_goes_beyond_the_deadline(broker: BrokerMaker, clock: RestlessClock) -> None:
    with (
        FakeModelServer(fake.status(429, Retry_After="15")) as server,
        pytest.raises(ModelCallError) as caught,
    ):
        await complete(broker(provider(server.url)), clock, deadline_ms=clock.now_ms() + 10_000)
    assert caught.value.named_code == "model.overloaded"
    assert clock.slept_ms == [] and len(server.posts) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(400, "model.rejected"), (401, "model.auth"), (404, "model.rejected")]
)
async def test_a_refused_request_is_neither_repeated_nor_hidden_by_a_fall_back(
    broker: BrokerMaker, clock: RestlessClock, status: int, code: str
) -> None:
    with (
        FakeModelServer(fake.status(status, "bad \x1b[31mthing")) as server,
        pytest.raises(ModelCallError) as caught,
    ):
        await complete(broker(provider(server.url)), clock, ask(**TEMPLATE))
    assert caught.value.named_code == code and len(server.posts) == 1
    assert "bad  [31mthing".replace("  ", " ") in caught.value.message and "\x1b" not in caught.value.message


async def test_a_redirect_is_not_followed(broker: BrokerMaker, clock: RestlessClock) -> None:
    with FakeModelServer(fake.openai("stolen")) as thief:
        away = fake.status(307, Location=f"{thief.url}/v1/chat/completions")
        with FakeModelServer(away) as server, pytest.raises(ModelCallError):
            await complete(broker(provider(server.url)), clock)
    assert not thief.seen


async def test_a_free_call_that_was_cut_before_anything_was_shown_is_repeated(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai_cut("Hel"), fake.openai_stream("Hello.")) as server:
        answer = await complete(broker(provider(server.url)), clock, ask(stream=True))
    assert answer.text == "Hello." and len(server.posts) == 2


@pytest.mark.requirement("I2.models.4")
async def test_a_call_that_was_cut_after_text_was_shown_fails(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    deltas: list[str] = []
    with (
        FakeModelServer(fake.openai_cut("Hel"), fake.openai_stream("Hello.")) as server,
        pytest.raises(ModelCallError) as caught,
    ):
        await complete(broker(provider(server.url)), clock, ask(**TEMPLATE), on_delta=deltas.append)
    assert caught.value.named_code == "model.cut" and caught.value.retryable
    assert deltas == ["Hel"] and len(server.posts) == 1


async def test_a_stream_that_ends_without_saying_why_is_cut(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    for kind, behaviour in (
        ("openai", fake.openai_stream("Hel", done=False)),
        ("anthropic", fake.anthropic_stream("Hel", stop=False)),
        ("ollama", lambda x: x.chunks(b'{"message": {"content": "Hel"}}\n')),
    ):
        with FakeModelServer(behaviour) as server, pytest.raises(ModelCallError) as caught:
            await complete(broker(provider(server.url, kind)), clock, ask(stream=True))
        assert caught.value.named_code == "model.cut", kind


async def test_an_error_inside_a_stream_is_an_error(broker: BrokerMaker, clock: RestlessClock) -> None:
    for kind, event in (
        ("openai", fake.sse({"error": {"message": "Overloaded"}})),
        (
            "anthropic",
            fake.sse({"type": "error", "error": {"type": "x", "message": "Overloaded"}}, event="error"),
        ),
        ("ollama", [b'{"error": "Overloaded"}\n']),
    ):
        with (
            FakeModelServer(lambda x, event=event: x.chunks(*event)) as server,
            pytest.raises(ModelCallError, match="Overloaded"),
        ):
            await complete(broker(provider(server.url, kind)), clock, ask(stream=True))


async def test_a_server_that_keeps_failing_is_left_alone_and_tried_again_after_a_rest(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    failing = [fake.status(503)] * 5
    with FakeModelServer(*failing, fake.openai("Back.")) as server:
        made = broker(provider(server.url))
        for _ in range(2):
            assert (await complete(made, clock, ask(**TEMPLATE))).provider == "rules"
        assert len(server.posts) == 5
        resting = await complete(made, clock, ask(**TEMPLATE))
        assert "left alone" in resting.fallbacks[0] and len(server.posts) == 5
        assert (await made.routes())[0].resting
        clock.advance(30_000)
        assert (await complete(made, clock)).text == "Back."
        assert not (await made.routes())[0].resting


async def test_after_a_rest_only_one_call_tries(broker: BrokerMaker, clock: RestlessClock) -> None:
    patience = Patience(breaker_failures=1, attempts=1, detect_ms=2_000)
    with FakeModelServer(fake.status(503), fake.stall) as server:
        made = broker(provider(server.url), patience=patience)
        await complete(made, clock, ask(**TEMPLATE))
        clock.advance(30_000)
        trial = asyncio.create_task(complete(made, clock, ask(**TEMPLATE)))
        await asyncio.to_thread(server.stalled.wait, 10)
        other = await complete(made, clock, ask(**TEMPLATE))
        assert "left alone" in other.fallbacks[0] and len(server.posts) == 2
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)


# --- hostile and broken servers -------------------------------------------------------------------


async def test_a_silent_server_is_given_up(broker: BrokerMaker, clock: RestlessClock) -> None:
    patience = Patience(attempts=1, detect_ms=2_000)
    with FakeModelServer(fake.stall) as server:
        made = broker(provider(server.url, price=PRICE, timeout_ms=80), patience=patience)
        with pytest.raises(ModelCallError) as caught:
            await complete(made, clock)
    assert caught.value.named_code == "model.timeout" and caught.value.cost_micro_usd is None


@pytest.mark.requirement("I2.models.4")
async def test_a_server_that_falls_silent_midway_is_given_up(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.stall_midway) as server:
        made = broker(provider(server.url, price=PRICE), limits=HttpLimits(idle_ms=80))
        with pytest.raises(ModelCallError) as caught:
            await complete(made, clock, ask(stream=True))
    assert caught.value.named_code == "model.timeout"


async def test_a_server_that_never_ends_is_given_up_although_it_is_never_silent(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.drip) as server:
        made = broker(provider(server.url, price=PRICE, timeout_ms=150))
        with pytest.raises(ModelCallError) as caught:
            await complete(made, clock, ask(stream=True))
        assert server.client_gone.wait(10), "the connection was closed"
    assert caught.value.named_code == "model.timeout"


async def test_cancelling_a_call_closes_its_connection(broker: BrokerMaker, clock: RestlessClock) -> None:
    with FakeModelServer(fake.drip) as server:
        made = broker(provider(server.url))
        call = asyncio.create_task(complete(made, clock, ask(stream=True)))
        await asyncio.to_thread(server.stalled.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(server.client_gone.wait, 10)


@pytest.mark.parametrize("behaviour", [fake.bomb, fake.small_bomb, fake.flood])
async def test_an_answer_beyond_all_bounds_is_refused_early(
    broker: BrokerMaker, clock: RestlessClock, behaviour: fake.Behaviour
) -> None:
    stream = behaviour is fake.flood
    with FakeModelServer(behaviour) as server, pytest.raises(ModelCallError) as caught:
        await complete(broker(provider(server.url)), clock, ask(stream=stream))
    assert caught.value.named_code == "model.too_large"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b'{"choices": 7}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
        b'{"error": {"message": "out of tokens"}}',
    ],
)
async def test_an_answer_that_is_not_the_protocol_is_refused(
    broker: BrokerMaker, clock: RestlessClock, body: bytes
) -> None:
    with FakeModelServer(fake.raw(body)) as server, pytest.raises(ModelCallError) as caught:
        await complete(broker(provider(server.url)), clock)
    assert caught.value.named_code in ("model.protocol", "model.cut")


async def test_a_stream_with_an_endless_line_is_refused(broker: BrokerMaker, clock: RestlessClock) -> None:
    def endless(x: fake.Exchange) -> None:
        x.head(Content_Type="text/event-stream", Transfer_Encoding="chunked")
        for _ in range(40):
            x.chunk(b"d" * 65_536)
        x.chunk(b"")

    for kind in ("openai", "ollama"):
        with FakeModelServer(endless) as server, pytest.raises(ModelCallError) as caught:
            await complete(broker(provider(server.url, kind)), clock, ask(stream=True))
        assert caught.value.named_code == "model.protocol"


async def test_many_calls_at_once_each_get_their_own_answer(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    def echo(x: fake.Exchange) -> None:
        text = x.seen.body["messages"][1]["content"]
        fake.openai_stream(*text)(x)

    with FakeModelServer(echo) as server:
        made = broker(provider(server.url))
        asked = [f"question {n}" for n in range(40)]
        answers = await asyncio.gather(*(complete(made, clock, ask(text, stream=True)) for text in asked))
    assert [answer.text for answer in answers] == asked


# --- what is refused before it is sent ------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"max_tokens": 10**9},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"model": ""},
        {"model": "*" * 201},
        {"json_schema": {"pattern": "(a+)+$"}},
        {"json_schema": {"$ref": "http://127.0.0.1/"}},
    ],
)
async def test_a_request_out_of_bounds_is_refused(
    broker: BrokerMaker, clock: RestlessClock, fields: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        await complete(broker(), clock, ask(**fields))
    with pytest.raises(UsageError):
        await broker().estimate(ask(**fields), lambda target: True)


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "http://models.example.org"},
        {"base_url": "https://user:word@models.example.org"},
        {"base_url": "ftp://127.0.0.1"},
        {"base_url": "https://models.example.org/?key=1"},
        {"model": None},
        {"kind": "telepathy"},
    ],
)
def test_a_provider_that_cannot_be_right_is_refused_at_the_start(
    fields: dict[str, object],
) -> None:
    from runloop.config import Models
    from runloop.testing import ManualClock
    from runloopd.broker.models import ModelBroker
    from runloopd.broker.secrets import SecretStore

    bad = provider(**({"url": "https://models.example.org"} | {}))._replace(**fields)
    with pytest.raises(UsageError) as caught:
        ModelBroker(
            Models(providers={"main": bad}),
            secrets=SecretStore(environ={}),
            clock=ManualClock(),
            jitter=lambda: 0.0,
        )
    assert "word" not in caught.value.message


async def test_a_missing_key_is_named_and_nothing_is_sent(broker: BrokerMaker, clock: RestlessClock) -> None:
    with FakeModelServer(fake.openai("no")) as server, pytest.raises(RefusedError) as caught:
        await complete(broker(provider(server.url), environ={}), clock, ask(**TEMPLATE))
    assert caught.value.named_code == "secret.missing" and "FAKE_KEY" in caught.value.message
    assert not server.seen


def test_a_cost_is_rounded_up_and_never_down() -> None:
    from runloopd.broker.models import price_of

    tiny = Price(input_micro_usd_per_mtok=1, output_micro_usd_per_mtok=0)
    assert price_of(tiny, 1, 0) == 1 and price_of(tiny, 1_000_001, 0) == 2 and price_of(tiny, 0, 9) == 0


def test_every_error_of_a_provider_is_of_the_house() -> None:
    assert issubclass(ModelCallError, RunloopError)
