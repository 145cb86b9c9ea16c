"""Words and vectors together: what is found, in which order, by which index."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pog.embed import LEXICAL, Vector, passages, quantised, similarity
from pog.query import Knowledge
from pog.search import CANDIDATES, By, Hit, fused, opening, snippet, words_of
from pog.vectors import Nearest, Scan, VectorIndex, sqlite_vec_loads
from runloop.errors import NotFoundError, UsageError
from runloop.events import SourceRestored, SourceRetracted

from . import facts
from .conftest import Store

SCANS: list[Scan] = ["python", "sqlite-vec"]


def index(store: Store, scan: Scan = "python", name: str = "vectors.db") -> VectorIndex:
    made = VectorIndex.open(
        store.folder / name, store.views_db, store.reader(), LEXICAL.name, LEXICAL.dimensions, scan=scan
    )
    return store._kept(made)


def needs(scan: Scan) -> None:
    if scan == "sqlite-vec" and not sqlite_vec_loads():
        pytest.skip("needs the extra 'vec': pip install sqlite-vec==0.1.9")


def by(store: Store, query: str, vectors: VectorIndex | None = None, kinds: Sequence[str] = ()) -> By:
    vectors = vectors or index(store)
    assert vectors.catch_up(LEXICAL)
    (asked,) = LEXICAL.embed([query])
    floor = LEXICAL.floor_among(vectors.size)
    return By(embedder=LEXICAL.name, hits=vectors.nearest(asked, CANDIDATES, kinds, floor=floor))


def found(store: Store, query: str, **more: object) -> list[str]:
    knowledge: Knowledge = store.knowledge()
    return [item["id"] for item in knowledge.search(query, by=by(store, query), **more)]  # type: ignore[arg-type]


def library(store: Store) -> Store:
    return store.holding(
        facts.draft(facts.contact("c1", "Marion Schmidt"), label="import:contact"),
        facts.draft(facts.note("d1", "Quarterly budget", "Numbers for the board meeting."), label="user"),
        facts.draft(facts.note("d2", "Holiday", "Packing list for the mountains.")),
        facts.draft(facts.note("d3", "Standup", "The meeting moved to nine.", type="mail")),
    )


# --- the lexical embedder -------------------------------------------------------------------------


def test_the_lexical_embedder_gives_the_same_vector_on_every_machine() -> None:
    (vector,) = LEXICAL.embed(["Quarterly budget meeting"])
    assert (LEXICAL.name, len(vector.numbers)) == ("lexical-1", LEXICAL.dimensions)
    # Frozen: another vector under the same name would make every index lie.
    assert f"{vector.bits:064x}" == GOLDEN_BITS
    assert list(memoryview(vector.numbers).cast("b")[:8]) == GOLDEN_NUMBERS


GOLDEN_BITS = "1789a30814132823d058fa50e917524341b3f90836df1ee73c67d2ba72bc7c45"
GOLDEN_NUMBERS = [42, -28, 42, 0, 0, -56, 14, -71]


@pytest.mark.parametrize(
    ("one", "other"),
    [("meeting", "meetng"), ("meetings", "meeting"), ("quarterly budget", "quaterly bugdet")],
)
def test_what_is_spelt_alike_is_near_and_anything_else_is_not(one: str, other: str) -> None:
    a, b, c = LEXICAL.embed([one, other, "lorem ipsum dolor"])
    assert similarity(a.numbers, b.numbers) >= LEXICAL.floor
    assert abs(similarity(a.numbers, c.numbers)) < LEXICAL.floor


def test_the_floor_rises_with_what_chance_can_bring_about() -> None:
    floors = [LEXICAL.floor_among(count) for count in (0, 100, 10_000, 100_000, 10**7)]
    assert floors == sorted(floors)
    assert (floors[0], floors[-1]) == (0.24, LEXICAL.floor)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("hoper", "Grace Hopper"),
        ("shmidt", "Marion Schmidt"),
        ("cater", "John Carter"),
        ("liskow", "Barbara Liskov"),
    ],
)
def test_among_few_one_misspelt_name_is_found(store: Store, typed: str, name: str) -> None:
    store.holding(
        facts.draft(facts.contact("c1", name)),
        facts.draft(facts.contact("c2", "Ada Lovelace")),
        facts.draft(facts.note("d1", "Holiday", "Packing list for the mountains.")),
    )
    assert found(store, typed) == ["c1"]


@given(st.text(max_size=400))
def test_any_text_can_be_embedded(text: str) -> None:
    (vector,) = LEXICAL.embed([text])
    assert len(vector.numbers) == LEXICAL.dimensions
    assert vector.bits < 1 << LEXICAL.dimensions
    assert not words_of(text) or any(vector.numbers) or len(words_of(text)) > 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=64))
def test_a_kept_vector_points_where_the_floats_did(numbers: list[float]) -> None:
    if max(map(abs, numbers)) == 0:
        with pytest.raises(UsageError):
            quantised(numbers)
        return
    kept = memoryview(quantised(numbers).numbers).cast("b")
    most = max(map(abs, numbers))
    assert all(
        abs(number / most - byte / 127) <= 0.5 / 127 + 1e-9
        for number, byte in zip(numbers, kept, strict=True)
    )


@pytest.mark.parametrize("numbers", [[], [0.0], [float("nan")], [float("inf"), 1.0]])
def test_what_is_no_direction_is_no_vector(numbers: list[float]) -> None:
    with pytest.raises(UsageError):
        quantised(numbers)


def test_vectors_of_two_embedders_are_never_compared() -> None:
    with pytest.raises(UsageError, match="different dimensions"):
        similarity(bytes(8), bytes(16))


@given(st.text(max_size=2_000), st.text(max_size=8_000))
def test_passages_are_bounded_and_cover_the_beginning(title: str, body: str) -> None:
    pieces = passages(title, body)
    assert len(pieces) <= 16
    assert all(piece.strip() for piece in pieces)
    if body.split():
        assert body.split(maxsplit=1)[0] in " ".join(pieces).split() or title.strip()


# --- hybrid ---------------------------------------------------------------------------------------


@pytest.mark.requirement("I4.search.1")
def test_a_misspelt_word_is_found_by_vector_and_that_is_said(store: Store) -> None:
    library(store)
    (hit,) = store.knowledge().search("Marrion Schmidtt", by=by(store, "Marrion Schmidtt"), kinds=["contact"])
    assert (hit["id"], hit["found_by"]) == ("c1", {"lexical-1": 1})
    assert store.knowledge().search("Marrion Schmidtt") == []


def test_a_hit_carries_its_label_its_source_and_its_ranks(store: Store) -> None:
    library(store)
    (hit, *_) = store.knowledge().search("quarterly budget", by=by(store, "quarterly budget"))
    assert (hit["id"], hit["label"], hit["event"]) == ("d1", "user", 2)
    assert hit["found_by"] == {"lexical-1": 1, "words": 1}
    assert hit["score"] == round(2 / 61, 9)


def test_words_alone_are_enough(store: Store) -> None:
    library(store)
    (hit,) = store.knowledge().search("mountains")
    assert hit["found_by"] == {"words": 1}


def test_nothing_like_it_is_not_found(store: Store) -> None:
    library(store)
    assert found(store, "zzzyx qwrtp") == []


def test_kinds_scope_words_and_vectors_alike(store: Store) -> None:
    library(store)
    assert found(store, "meetng", kinds=["mail"]) == []  # the floor: a long text is not near one word
    assert found(store, "meeting", kinds=["mail"]) == ["d3"]
    assert set(found(store, "meeting")) == {"d1", "d3"}


def test_a_hit_that_has_left_the_views_is_not_told(store: Store) -> None:
    library(store)
    stale = By(embedder="lexical-1", hits=[Nearest(999, 1.0), Nearest(3, 0.9)])
    assert [item["id"] for item in store.knowledge().search("qqq", 1, by=stale)] == ["d2"]


def test_fusion_is_by_rank_with_one_order_for_equals() -> None:
    hits = [Hit(id=1, every=True), Hit(id=2), Hit(id=3)]
    for rank, hit in enumerate(hits, 1):
        hit.found_by["words"] = rank
    near = By(embedder="e", hits=[Nearest(3, 0.9), Nearest(4, 0.8), Nearest(5, 0.8)])
    order = fused(hits, near, 10)
    assert [hit.id for hit in order] == [1, 3, 2, 5, 4]
    assert order[1].score == 1 / 63 + 1 / 61
    assert order[3].found_by == order[4].found_by == {"e": 2}


@given(
    st.lists(st.integers(1, 40), unique=True, max_size=30),
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), unique_by=lambda pair: pair[0], max_size=30),
    st.integers(1, 50),
)
def test_fusion_loses_and_repeats_nothing(words: list[int], near: list[tuple[int, float]], k: int) -> None:
    def hits() -> list[Hit]:
        return [Hit(id=item, every=at < 3, found_by={"words": at + 1}) for at, item in enumerate(words)]

    order = sorted(near, key=lambda pair: -pair[1])
    both = By(embedder="e", hits=[Nearest(*pair) for pair in order])
    first, again = fused(hits(), both, k), fused(hits(), both, k)
    assert [hit.id for hit in first] == [hit.id for hit in again]
    assert len({hit.id for hit in first}) == len(first) == min(k, len({*words, *(item for item, _ in near)}))
    assert [hit.every for hit in first] == sorted((hit.every for hit in first), reverse=True)


HOSTILE = [
    '"',
    "'",
    "*",
    "NEAR(a b)",
    "a AND",
    "title:x",
    "^a",
    "a\x00b",
    "(",
    "-a",
    "\ud800",
    "{a b}: c",
    "a+b",
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_no_spelling_of_a_question_is_an_error(store: Store, query: str) -> None:
    library(store)
    assert isinstance(found(store, f"meeting {query}"), list)


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_question_has_an_answer(query: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(a)")
    match = " AND ".join(f'"{word}"' for word in words_of(query))
    if match:
        connection.execute("SELECT * FROM t WHERE t MATCH ?", (match,)).fetchall()


# --- what is shown --------------------------------------------------------------------------------


def test_a_snippet_shows_the_stretch_with_the_word() -> None:
    text = "one " * 300 + "the quarterly plans were " + "two " * 300
    shown = snippet(text, words_of("plan quarterly"))
    assert "quarterly plans" in shown
    assert shown.startswith("… ") and shown.endswith(" …") and len(shown.split()) <= 27


@given(st.text(max_size=600), st.text(max_size=30))
def test_a_snippet_is_a_part_of_the_text(text: str, query: str) -> None:
    shown = snippet(text, words_of(query)).removeprefix("… ").removesuffix(" …")
    assert shown in text


def test_an_address_cannot_be_cut_out_of_its_mask(store: Store) -> None:
    words = " ".join(f"w{number}" for number in range(40))
    text = f"{words} john.doe@secret-domain.example {words}"
    store.holding(facts.draft(facts.note("d1", "x", text)))
    for word in [f"w{number}" for number in range(40)]:
        for item in store.knowledge().search(word):
            assert "john" not in item["snippet"] and "secret-domain" not in item["snippet"]


@pytest.mark.requirement("K2")
@pytest.mark.parametrize("length", range(1_560, 1_600, 3))
def test_not_even_a_word_too_long_to_be_shown_whole_gives_half_an_address(store: Store, length: int) -> None:
    text = f"needle {'x' * length}.john@secret-domain.example"
    store.holding(facts.draft(facts.note("d1", "title", text)))
    (item,) = store.knowledge().search("needle")
    assert "needle" in item["snippet"] and "@sec" not in item["snippet"]


def test_a_very_long_text_is_looked_through_at_its_beginning_only() -> None:
    text = "word " * 100_000 + "needle"
    assert len(opening(text)) <= 256 * 1024 and opening(text).endswith("word")
    assert snippet(opening("x" * 400_000), ["needle"]) == ""


# --- the index ------------------------------------------------------------------------------------


def many(store: Store, count: int) -> Store:
    rng = random.Random(7)
    parts = ["ka", "lo", "mi", "ren", "tos", "ver", "pla", "ni", "do", "gra", "shu", "ter"]
    words = ["".join(rng.choice(parts) for _ in range(rng.randint(2, 4))) for _ in range(400)]
    return store.holding(
        *(
            facts.draft(
                facts.note(
                    f"d{number}",
                    " ".join(rng.choices(words, k=3)),
                    " ".join(rng.choices(words, k=rng.randint(0, 150))),
                    type=rng.choice(["note", "mail"]),
                )
            )
            for number in range(count)
        )
    )


@pytest.mark.requirement("I4.search.1")
def test_sqlite_vec_and_python_find_the_same_in_the_same_order(store: Store) -> None:
    needs("sqlite-vec")
    many(store, 400)
    plain, extended = index(store, "python", "a.db"), index(store, "sqlite-vec", "b.db")
    for vectors in (plain, extended):
        vectors.catch_up(LEXICAL)
    assert plain.size == extended.size > 800
    rng = random.Random(3)
    for text in [
        "kalo",
        "mirentos verpla",
        *(" ".join(rng.choices(["ka", "lo", "mi"], k=3)) for _ in range(20)),
    ]:
        (asked,) = LEXICAL.embed([text])
        for kinds in ((), ("mail",), ("note", "mail"), ("contact",)):
            assert plain.nearest(asked, 50, kinds) == extended.nearest(asked, 50, kinds)
            assert plain._candidates(asked.bits, list(kinds)) == extended._candidates(asked.bits, list(kinds))


def test_the_nearest_by_bits_hold_the_nearest_there_are(store: Store) -> None:
    many(store, 600)
    vectors = index(store)
    vectors.catch_up(LEXICAL)
    rows = vectors._connection.execute("SELECT id / 16, numbers FROM vectors").fetchall()
    knowledge, rng, hit = store.knowledge(), random.Random(5), 0
    for number in rng.sample(range(1, 601), 20):
        (title,) = knowledge._rows("SELECT title FROM searchables WHERE id = ?", (number,))
        (asked,) = LEXICAL.embed([title["title"]])
        exact: dict[int, float] = {}
        for item, numbers in rows:
            exact[item] = max(exact.get(item, -1.0), similarity(asked.numbers, numbers))
        best = sorted(exact, key=lambda item: (-exact[item], -item))[:10]
        near = vectors.nearest(asked, 10)
        assert near[0] == (best[0], exact[best[0]])
        hit += len({found.item for found in near} & set(best))
    assert hit >= 0.95 * 200


@pytest.mark.parametrize("scan", SCANS)
def test_an_index_follows_what_is_learnt_and_changed(store: Store, scan: Scan) -> None:
    needs(scan)
    library(store)
    vectors = index(store, scan)
    assert vectors.catch_up(LEXICAL)
    size = vectors.size
    store.holding(facts.draft(facts.contact("c1", "Maria Huber"), label="import:contact"))
    assert vectors.behind() == 1
    assert vectors.catch_up(LEXICAL)
    assert vectors.size == size
    (asked,) = LEXICAL.embed(["Marion Schmidt"])
    assert vectors.nearest(asked, 5, floor=LEXICAL.floor) == []
    (asked,) = LEXICAL.embed(["Maria Huber"])
    assert [near.item for near in vectors.nearest(asked, 5, floor=LEXICAL.floor)] == [5]


def test_an_index_follows_a_retraction_and_its_end(store: Store) -> None:
    library(store)
    store.holding(facts.draft(facts.contact("c1", "Maria Huber")))
    vectors = index(store)
    assert vectors.catch_up(LEXICAL)
    gone = SourceRetracted(
        source=5, facts=[5], cascade=False, runs=[], approvals=[], reason="wrong", principal="operator:1000"
    )
    store.holding(facts.draft(gone))
    assert found_items(vectors, "Maria Huber") == []
    assert found_items(vectors, "Marion Schmidt") == [1]
    store.holding(facts.draft(SourceRestored(retraction=6, reason="right", principal="operator:1000")))
    assert found_items(vectors, "Maria Huber") == [5]
    assert found_items(vectors, "Marion Schmidt") == []
    assert found_items(vectors, "Quarterly budget") == [2]


def found_items(vectors: VectorIndex, text: str) -> list[int]:
    assert vectors.catch_up(LEXICAL)
    (asked,) = LEXICAL.embed([text])
    return [near.item for near in vectors.nearest(asked, 5, floor=LEXICAL.floor)]


def test_an_index_of_another_embedder_or_ledger_is_made_anew(store: Store, stores: object) -> None:
    library(store)
    vectors = index(store)
    vectors.catch_up(LEXICAL)
    assert vectors.size
    vectors.close()
    other = VectorIndex.open(
        store.folder / "vectors.db", store.views_db, store.reader(), "other", 8, scan="python"
    )
    assert store._kept(other).size == 0
    assert other.nearest(LEXICAL.embed(["budget"])[0], 5) == []  # of another length: never compared
    other.keep(other.wanted(1), [[Vector(bytes([1] * 8), 255)] * 2])
    assert other.size == 2
    foreign: Store = stores("foreign")  # type: ignore[operator]
    foreign.holding(facts.draft(facts.note("z", "else", "entirely")))
    shutil.copy(store.folder / "vectors.db", foreign.folder / "vectors.db")
    made = VectorIndex.open(
        foreign.folder / "vectors.db", foreign.views_db, foreign.reader(), "other", 8, scan="python"
    )
    assert foreign._kept(made).size == 0


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_a_damaged_index_is_made_anew(store: Store, content: bytes) -> None:
    library(store)
    (store.folder / "vectors.db").write_bytes(content)
    vectors = index(store)
    assert vectors.catch_up(LEXICAL) and vectors.size


def test_vectors_of_a_wrong_length_are_refused_whole(store: Store) -> None:
    from pog.errors import ViewsError

    library(store)
    vectors = index(store)
    with pytest.raises(ViewsError, match="256 numbers"):
        vectors.keep(vectors.wanted(1), [[Vector(b"\x01", 1)]])
    assert vectors.size == 0


def test_without_the_extension_it_is_said_how_to_get_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(store)
    monkeypatch.setitem(sys.modules, "sqlite_vec", None)
    assert not sqlite_vec_loads()
    with pytest.raises(NotFoundError, match="sqlite-vec"):
        index(store, "sqlite-vec")
    assert index(store, "auto").catch_up(LEXICAL)


def test_the_loader_of_extensions_is_shut_again(store: Store) -> None:
    needs("sqlite-vec")
    library(store)
    vectors = index(store, "sqlite-vec")
    with pytest.raises(sqlite3.OperationalError, match="not authorized"):
        vectors._connection.execute("SELECT load_extension('x')")
