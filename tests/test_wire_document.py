"""docs/reference/wire-protocol.md says what groundfault.wire does: examples, vectors, tables and grammar."""

import json
import re
from pathlib import Path

import pytest

from groundfault import wire
from groundfault.vocabulary import Criticality, Reason

DOCUMENT = (Path(__file__).parent.parent / "docs" / "reference" / "wire-protocol.md").read_text()
BLOCKS = re.findall(r"^```(\S+)(?: (\S+))?\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
VECTORS = json.loads(next(text for language, kind, text in BLOCKS if (language, kind) == ("json", "vectors")))


def blocks(kind):
    return [pytest.param(text, id=text.partition("\n")[0]) for _, found, text in BLOCKS if found == kind]


class Headers(dict):
    """Headers without regard to case; a repeated one is joined by commas."""

    def __init__(self, pairs):
        for name, value in pairs:
            key = name.lower()
            super().__setitem__(key, f"{self[key]}, {value}" if key in self else value)

    def get(self, name, default=None):
        return super().get(name.lower(), default)


def message(block):
    """Return start line, fields and body of an example."""
    head, _, body = block.partition("\n\n")
    start, *lines = head.rstrip("\n").split("\n")
    return start, [tuple(line.split(": ", 1)) for line in lines], body


def rows(first_cell_of_header):
    """Yield the cells of each row of the table that begins with this header cell."""
    _, _, rest = DOCUMENT.partition(f"\n| {first_cell_of_header} |")
    assert rest, first_cell_of_header
    for line in rest.split("\n")[2:]:
        if not line.startswith("|"):
            return
        yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


# --- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("answer"))
def test_an_example_of_an_answer_is_what_is_sent(block):
    start, fields, body = message(block)
    headers = Headers(fields)
    refusal = wire.read_refusal(503, headers)
    assert start == "HTTP/1.1 503 Service Unavailable"
    is_json = headers.get("Content-Type") == "application/problem+json"
    answer = wire.answer(
        refusal.reason, refusal.origin, accept="application/json" if is_json else "text/plain", head=body == ""
    )
    assert list(answer.headers) == fields
    assert answer.body.decode() == (body.removesuffix("\n") if is_json else body)


def test_every_form_of_an_answer_has_an_example():
    forms = {
        (Headers(message(block.values[0])[1]).get("Content-Type"), bool(message(block.values[0])[2]))
        for block in blocks("answer")
    }
    assert forms == {
        ("application/problem+json", True),
        ("application/problem+json", False),
        ("text/plain; charset=utf-8", True),
    }


@pytest.mark.parametrize("block", blocks("hop"))
def test_an_example_of_a_request_is_what_is_sent(block):
    _, fields, _ = message(block)
    headers = Headers(fields)
    sent = wire.hop_headers(
        caller=wire.parse_caller(headers.get(wire.CALLER)),
        budget_s=wire.parse_budget(headers),
        criticality=wire.parse_criticality(headers.get(wire.CRITICALITY)),
        key=wire.parse_key(headers.get(wire.KEY)),
    )
    assert list(sent) == [(name, value) for name, value in fields if wire.is_ours(name)]
    assert len(fields) == 5


def reading(status, fields):
    refusal = wire.read_refusal(status, Headers(fields))
    if refusal is None:
        return "failure"
    if refusal.retryable:
        return "retryable"
    return "shed" if refusal.by_callee else "passed-on"


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for _, kind, text in BLOCKS if kind.startswith("reads-as=")])
def test_an_example_of_a_response_is_read_as_it_says(kind, text):
    start, fields, _ = message(text)
    assert f"reads-as={reading(int(start.split()[1]), fields)}" == kind


def test_the_examples_are_all_there():
    kinds = [kind for _, kind, _ in BLOCKS]
    assert kinds.count("answer") == 4
    assert kinds.count("hop") == 1
    assert {"reads-as=shed", "reads-as=failure", "reads-as=retryable"} <= set(kinds)


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["timeout_s"], ids=str)
def test_vectors_of_timeouts(case):
    assert wire.parse_budget(Headers(case["fields"])) == pytest.approx(case["result"])


@pytest.mark.parametrize("case", VECTORS["start_s"], ids=str)
def test_vectors_of_starts(case):
    assert wire.parse_request_start(Headers(case["fields"])) == pytest.approx(case["result"], abs=1e-6)


@pytest.mark.parametrize("case", VECTORS["criticality"], ids=str)
def test_vectors_of_criticalities(case):
    assert wire.parse_criticality(case["value"]) == case["result"]


@pytest.mark.parametrize("case", VECTORS["caller"], ids=str)
def test_vectors_of_callers(case):
    assert wire.parse_caller(case["value"]) == case["result"]


@pytest.mark.parametrize("case", VECTORS["key"], ids=str)
def test_vectors_of_keys(case):
    assert wire.parse_key(case["value"]) == case["result"]
    if case["result"] is not None:
        assert wire.key_fraction(case["result"]) == case["position"]


@pytest.mark.parametrize("case", VECTORS["response"], ids=str)
def test_vectors_of_responses(case):
    refusal = wire.read_refusal(case["status"], Headers(case["fields"]))
    if case.get("refusal") is False:
        assert refusal is None
    else:
        read = (refusal.reason, refusal.origin, refusal.by_callee, refusal.retryable)
        assert read == (case["reason"], case["origin"], case["by_callee"], case["retryable"])


def test_the_vectors_are_those_that_the_checklist_names():
    checklist = DOCUMENT.partition("## 11.")[2]
    assert all(f"`{name}`" in checklist for name in VECTORS)
    assert set(VECTORS) == {"timeout_s", "start_s", "criticality", "caller", "key", "response"}


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_table_of_reasons_says_what_the_code_does():
    said = {
        cells[0]: cells[2:]
        for cells in rows("reason | what happened | who refused | moves a breaker | throttled on | retryable")
    }
    done = {
        reason.value: [
            "callee" if refusal.by_callee else "below",
            "no",
            "yes" if refusal.by_callee else "no",
            "yes" if refusal.retryable else "no",
        ]
        for reason in Reason
        for refusal in [wire.Refusal(reason)]
    }
    done["*absent*"] = ["callee", "no", "yes", "no"]
    assert said == done
    assert (wire.Refusal().by_callee, wire.Refusal().retryable) == (True, False)


def test_the_table_of_details_is_that_of_the_bodies():
    said = dict(rows("reason | detail"))
    assert said == {reason.value: json.loads(wire.answer(reason, None).body)["detail"] for reason in Reason}


def test_the_table_of_criticalities_is_in_order():
    assert [cells[0] for cells in rows("value | use")] == [*Criticality]


def test_the_grammar_lists_every_word():
    grammar = next(text for language, _, text in BLOCKS if language == "abnf")
    words = set(re.findall(r'"([a-z-]{3,})"', grammar))
    assert words == {wire.HANDLED_VALUE, *Reason, *Criticality}


def test_every_field_is_described():
    fields = {cells[0] for cells in rows("field | value | sent")} | {
        cells[0] for cells in rows("field | value | meaning")
    }
    ours = {getattr(wire, name) for name in wire.__all__ if wire.is_ours(str(getattr(wire, name)))}
    ours.remove(wire.TOKEN)  # to a console, not between services
    assert {field for field in fields if wire.is_ours(field)} == ours
    assert len(ours) == 7


@pytest.mark.parametrize(
    ("parse", "limit", "value"),
    [
        (wire.parse_caller, 256, "topps"),
        (
            lambda text: wire.read_refusal(503, Headers([(wire.HANDLED, "handled"), (wire.ORIGIN, text)])).origin,
            128,
            "a",
        ),
        (lambda text: wire.parse_request_start(Headers([(wire.REQUEST_START, text)])), 32, "1512379167"),
        (lambda text: wire.parse_budget(Headers([(wire.TIMEOUT_MS, text)])), 64, "1"),
        (lambda text: wire.parse_budget(Headers([(wire.GRPC_TIMEOUT, text)])), 64, "1S"),
        (wire.parse_criticality, 64, "critical"),
        (wire.parse_key, 64, "a"),
        (lambda text: wire.read_refusal(503, Headers([(wire.HANDLED, text)])), 64, "handled"),
        (
            lambda text: wire.read_refusal(503, Headers([(wire.HANDLED, "handled"), (wire.REASON, text)])).reason,
            64,
            "deadline",
        ),
    ],
)
def test_values_are_read_up_to_the_stated_length(parse, limit, value):
    assert f"| {limit} |" in DOCUMENT
    assert parse(value.rjust(limit)) is not None
    assert parse(value.rjust(limit + 1)) is None
