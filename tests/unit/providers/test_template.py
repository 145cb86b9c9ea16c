"""The template language of the offline rules."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.errors import UsageError
from runloopd.broker.providers.template import TemplateError, render


@pytest.mark.parametrize(
    ("template", "facts", "text"),
    [
        ("plain", {}, "plain"),
        ("", {}, ""),
        ("Hello {{name}}!", {"name": "Jo"}, "Hello Jo!"),
        ("{{ a.b.0 }}", {"a": {"b": ["x"]}}, "x"),
        ("{{n}} {{f}} {{t}} {{u}}", {"n": 3, "f": 1.5, "t": True, "u": False}, "3 1.5 yes no"),
        ("{{#each l}}<{{.}}>{{/each}}", {"l": ["a", "b"]}, "<a><b>"),
        ("{{#each l}}<{{.x}}{{name}}>{{/each}}", {"l": [{"x": 1}], "name": "Jo"}, "<1Jo>"),
        ("{{#each l}}{{#each .m}}{{.}}{{/each}};{{/each}}", {"l": [{"m": [1, 2]}, {"m": []}]}, "12;;"),
        ("{{#if a}}yes{{else}}no{{/if}}", {"a": [1]}, "yes"),
        ("{{#if a}}yes{{else}}no{{/if}}", {"a": []}, "no"),
        ("{{#if a.b.c}}yes{{/if}}", {}, ""),
        ("{{#if a}}{{#if b}}x{{else}}y{{/if}}{{/if}}", {"a": 1}, "y"),
        ("- {{x | line}}", {"x": "one\n  two\t three"}, "- one two three"),
        ("{{x | sentence}}", {"x": "First. Second."}, "First."),
        ("{{x | sentence}}", {"x": "v1.2 is out! Now"}, "v1.2 is out!"),
        ("{{x | sentence}}", {"x": "no end\n\nnext"}, "no end"),
        ('{"a": {{x | json}}}', {"x": 'say "hi"\n'}, '{"a": "say \\"hi\\"\\n"}'),
        ("{{x | json}}", {"x": {"k": [None]}}, '{"k":[null]}'),
        ("a }} b", {}, "a }} b"),
        ("{{x}} {{#if x}}\n{{/if}} \n{{#if x}} \n\n {{/if}}", {"x": "y"}, "y \n\n"),
    ],
)
def test_a_template_is_filled(template: str, facts: dict[str, Any], text: str) -> None:
    assert render(template, facts) == text


def test_a_tag_alone_on_its_line_leaves_no_line() -> None:
    template = "Facts:\n  {{#each facts}}\n- {{.}}\n  {{/each}}\n{{#if none}}\nX\n{{else}}\nBye\n{{/if}}"
    assert render(template, {"facts": ["a", "b"]}) == "Facts:\n- a\n- b\nBye\n"
    assert render("a\r\n{{#if x}}\r\nb\r\n{{/if}}\r\nc", {"x": 1}) == "a\r\nb\r\nc"


def test_a_fact_is_data_and_never_obeyed() -> None:
    facts = {"x": "{{secret}} {{#each x}}", "secret": "s3cret"}
    assert render("{{x}}", facts) == "{{secret}} {{#each x}}"


@pytest.mark.parametrize(
    ("template", "facts", "why"),
    [
        ("{{name}}", {}, "line 1: the fact 'name' is not there"),
        ("\n\n{{a.b}}", {"a": {}}, "line 3: the fact 'a.b' is not there"),
        ("{{a}}", {"a": None}, "is not there"),
        ("{{a}}", {"a": {}}, "is a dict, not text"),
        ("{{.}}", {}, "is not there"),
        ("{{#each a}}{{/each}}", {}, "'a' is missing, not a list"),
        ("{{#each a}}{{/each}}", {"a": "text"}, "'a' is a str, not a list"),
        ("{{name", {}, "never closed"),
        ("{{#if a}}", {}, "never closed with {{/if}}"),
        ("{{#each a}}{{/if}}", {"a": []}, "closes nothing"),
        ("{{/if}}", {}, "closes nothing"),
        ("{{else}}", {}, "closes nothing"),
        ("{{#if a}}{{else}}{{else}}{{/if}}", {}, "second {{else}}"),
        ("{{#with a}}{{/with}}", {}, "unknown section 'with'"),
        ("{{a | shout}}", {"a": 1}, "unknown filter 'shout'"),
        ("{{a.__class__()}}", {"a": 1}, "names no fact"),
        ("{{}}", {}, "names no fact"),
        ("{{a..b}}", {}, "names no fact"),
        ("{{a" + " | line" * 5 + "}}", {"a": "x"}, "more than 4 filters"),
        ("{{a" + ".b" * 16 + "}}", {}, "more than 16 words"),
        ("{{#if " + "a" * 65 + "}}{{/if}}", {}, "more than 16 words"),
        ("{{a | json}}", {"a": 2**70}, "is no JSON"),
        ("{{#if a}}" * 20 + "{{/if}}" * 20, {"a": 1}, "deeper than"),
    ],
)
def test_what_cannot_be_filled_is_an_error_with_its_place(
    template: str, facts: dict[str, Any], why: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template, facts)
    assert why in caught.value.message and caught.value.named_code == "model.template"


def test_a_template_cannot_grow_without_bound() -> None:
    nested = "{{#each l}}" * 5 + "x" + "{{/each}}" * 5
    with pytest.raises(TemplateError, match=r"characters|steps"):
        render(nested, {"l": list(range(100))})
    silent = "{{#each l}}" * 3 + "{{#if no}}{{/if}}" + "{{/each}}" * 3
    with pytest.raises(TemplateError, match="steps"):
        render(silent, {"l": list(range(100))})
    with pytest.raises(TemplateError, match="characters"):
        render("{{x}}" * 100, {"x": "y" * 100_000})
    with pytest.raises(TemplateError, match="characters"):
        render("x" * 300_000, {})


LONG = "First. " + "word " * 120_000


@pytest.mark.parametrize(
    ("template", "facts", "why"),
    [
        ("{{t" + "|line" * 20_000 + "}}", {"t": LONG}, "filters"),
        ("{{t|sentence}}" * 10_000, {"t": LONG}, "filters make more"),
        ("{{#each l}}{{t|line|sentence}}{{/each}}", {"t": LONG, "l": [0] * 99_000}, "filters make more"),
        ("{{#each d}}{{d|json|sentence}}{{/each}}", {"d": [". "] * 99_000}, "filters make more"),
        ("{{t|json|json|json|json}}", {"t": '"' * 600_000}, "filters make more"),
        ("{{#each l}}{{#if " + "a." * 50_000 + "a}}{{/if}}{{/each}}", {"l": [0] * 99_000}, "words"),
        ("{{#each l}}{{#each l}}{{/each}}{{/each}}", {"l": [0] * 99_000}, "steps"),
        ("{{#if a}}{{/if}}" * 15_000 + "{{/if}}", {}, "closes nothing"),
    ],
)
def test_work_that_leaves_no_trace_in_the_text_is_bounded_too(
    template: str, facts: dict[str, Any], why: str
) -> None:
    began = time.process_time()
    with pytest.raises(TemplateError, match=why) as caught:
        render(template, facts)
    assert time.process_time() - began < 2, "hundreds of times the work the limits admit"
    assert len(caught.value.message) < 300


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{{a}}",
                "{{#if a}}",
                "{{/if}}",
                "{{else}}",
                "{{#each l}}",
                "{{.}}",
                "{{/each}}",
                "\n",
                " x",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_any_template_is_filled_or_refused(template: str) -> None:
    try:
        text = render(template, {"a": "A", "l": ["1", "2"]})
    except UsageError:
        return
    assert "{{" not in text
