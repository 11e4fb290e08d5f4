"""Every grammar of the protocol as a table, and hostile input to all of it."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault import wire
from groundfault.refusals import refusal_in
from groundfault.vocabulary import Criticality, Reason


class Headers(dict):
    """Headers as an adapter shows them: without regard to case, a repeated one joined by commas."""

    def __init__(self, *pairs):
        for name, value in pairs:
            key = name.lower()
            super().__setitem__(key, f"{self[key]}, {value}" if key in self else value)

    def get(self, name, default=None):
        return super().get(name.lower(), default)


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("saber", True),
        ("contest-db", True),
        ("a", True),
        ("0", True),
        ("a.b_c-d", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("Saber", False),
        (".a", False),
        ("-a", False),
        ("_a", False),
        ("a b", False),
        ("a/b", False),
        ("a\n", False),
        ("é", False),
        ("٣", False),
    ],
)
def test_names(name, valid):
    assert wire.valid_name(name) is valid


@pytest.mark.parametrize(
    ("value", "caller"),
    [
        ("topps", "topps"),
        (" Topps\t", "topps"),
        ("topps/grouper.get_entrants", "topps/grouper.get_entrants"),
        ("topps/contest.db.get", "topps/contest.db.get"),
        ("topps/a.b", "topps/a.b"),
        ("s" * 64 + "/" + "r" * 64 + "." + "c" * 64, "s" * 64 + "/" + "r" * 64 + "." + "c" * 64),
        (None, None),
        ("", None),
        ("/", None),
        ("topps/", None),
        ("/grouper.get", None),
        ("topps/grouper", None),
        ("topps/grouper.", None),
        ("topps/.get", None),
        ("topps/grouper.-get", None),
        ("topps/grouper..get", "topps/grouper..get"),  # "grouper." is a name, so is "get"
        ("topps/grouper.get/x", None),
        ("topps grouper", None),
        ("topps, grouper", None),
        ("s" * 65, None),
        ("topps/" + "r" * 65 + ".c", None),
        ("topps/r." + "c" * 65, None),
        ("topps/" + "a" * 130, None),
        ("t\xf6pps", None),
        ("topps\r\nX: y", None),
        ("topps\x00", None),
        (" " * 300 + "topps", None),
    ],
)
def test_callers(value, caller):
    assert wire.parse_caller(value) == caller


@pytest.mark.parametrize(
    ("value", "criticality"),
    [
        ("critical-plus", Criticality.CRITICAL_PLUS),
        ("critical", Criticality.CRITICAL),
        ("sheddable-plus", Criticality.SHEDDABLE_PLUS),
        ("sheddable", Criticality.SHEDDABLE),
        (" Sheddable ", Criticality.SHEDDABLE),
        (None, None),
        ("", None),
        ("CRITICAL_PLUS", None),
        ("critical, critical", None),
        ("0", None),
        ("s" * 100, None),
    ],
)
def test_criticalities(value, criticality):
    assert wire.parse_criticality(value) == criticality


@pytest.mark.parametrize(
    ("value", "key", "fraction"),
    [
        ("0", "0", 0.0),
        ("8", "8", 0.5),
        ("f", "f", 0.9375),
        ("80", "80", 0.5),
        ("0123456789abcdef", "0123456789abcdef", 0x0123456789ABC / 16**13),
        ("DEADBEEF", "deadbeef", 0xDEADBEEF / 16**8),
        (" c0 ", "c0", 0.75),
        ("f" * 16, "f" * 16, 1 - 2**-52),
        ("f" * 17, None, None),
        (None, None, None),
        ("", None, None),
        ("0x1", None, None),
        ("-1", None, None),
        ("1_0", None, None),
        ("g", None, None),
        ("a,b", None, None),
        ("٣", None, None),
        ("a" * 400, None, None),
    ],
)
def test_keys(value, key, fraction):
    assert wire.parse_key(value) == key
    if key is not None:
        assert wire.key_fraction(key) == fraction
        assert 0.0 <= fraction < 1.0


OUR_BUDGET, ENVOY_BUDGET, GRPC_BUDGET = "X-GroundFault-Timeout-Ms", "x-envoy-expected-rq-timeout-ms", "grpc-timeout"


@pytest.mark.parametrize(
    ("pairs", "budget_s"),
    [
        ([], None),
        ([(OUR_BUDGET, "250")], 0.25),
        ([(OUR_BUDGET, " 250 ")], 0.25),
        ([(OUR_BUDGET, "0")], 0.0),
        ([(OUR_BUDGET, "000000001")], 0.001),
        ([(OUR_BUDGET, "3600000")], 3600.0),
        ([(OUR_BUDGET, "3600001")], 3600.0),
        ([(OUR_BUDGET, "999999999")], 3600.0),
        ([(OUR_BUDGET, "1000000000")], None),
        ([(OUR_BUDGET, "9" * 400)], None),
        ([(OUR_BUDGET, "")], None),
        ([(OUR_BUDGET, "-1")], None),
        ([(OUR_BUDGET, "+1")], None),
        ([(OUR_BUDGET, "1.5")], None),
        ([(OUR_BUDGET, "1e3")], None),
        ([(OUR_BUDGET, "1_000")], None),
        ([(OUR_BUDGET, "nan")], None),
        ([(OUR_BUDGET, "inf")], None),
        ([(OUR_BUDGET, "1e309")], None),
        ([(OUR_BUDGET, "٣٤")], None),
        ([(OUR_BUDGET, "²")], None),
        ([(OUR_BUDGET, "250\x00")], None),
        ([(OUR_BUDGET, "250"), (OUR_BUDGET, "250")], None),
        ([(ENVOY_BUDGET, "250")], 0.25),
        ([(OUR_BUDGET, "100"), (ENVOY_BUDGET, "250"), (GRPC_BUDGET, "1S")], 0.1),
        ([(ENVOY_BUDGET, "250"), (GRPC_BUDGET, "1S")], 0.25),
        ([(OUR_BUDGET, "soon"), (ENVOY_BUDGET, "250")], 0.25),
        ([(OUR_BUDGET, "soon"), (ENVOY_BUDGET, "later"), (GRPC_BUDGET, "1S")], 1.0),
        ([(GRPC_BUDGET, "1H")], 3600.0),
        ([(GRPC_BUDGET, "2M")], 120.0),
        ([(GRPC_BUDGET, "2S")], 2.0),
        ([(GRPC_BUDGET, "250m")], 0.25),
        ([(GRPC_BUDGET, "250000u")], 0.25),
        ([(GRPC_BUDGET, "25000000n")], 0.025),
        ([(GRPC_BUDGET, "99999999H")], 3600.0),
        ([(GRPC_BUDGET, "0S")], 0.0),
        ([(GRPC_BUDGET, "100000000n")], None),
        ([(GRPC_BUDGET, "1s")], None),
        ([(GRPC_BUDGET, "1h")], None),
        ([(GRPC_BUDGET, "1")], None),
        ([(GRPC_BUDGET, "S")], None),
        ([(GRPC_BUDGET, "1 S")], None),
        ([(GRPC_BUDGET, "-1S")], None),
        ([(GRPC_BUDGET, "1.5S")], None),
        ([(GRPC_BUDGET, "٣S")], None),
        ([(GRPC_BUDGET, "1S, 1S")], None),
        ([(GRPC_BUDGET, "1" * 400 + "S")], None),
    ],
)
def test_budgets(pairs, budget_s):
    assert wire.parse_budget(Headers(*pairs)) == (None if budget_s is None else pytest.approx(budget_s, rel=1e-12))


MOMENT = 1_512_379_167.574


@pytest.mark.parametrize(
    ("pairs", "started"),
    [
        ([], None),
        ([("X-Request-Start", "1512379167")], 1_512_379_167.0),
        ([("X-Request-Start", "1512379167.574")], MOMENT),
        ([("X-Request-Start", "t=1512379167.574")], MOMENT),
        ([("X-Request-Start", "1512379167574")], MOMENT),
        ([("X-Request-Start", "t=1512379167574")], MOMENT),
        ([("X-Request-Start", "1512379167574.0")], MOMENT),
        ([("X-Request-Start", "1512379167574000")], MOMENT),
        ([("X-Request-Start", "t=1512379167574000")], MOMENT),
        ([("X-Request-Start", "1512379167574000000")], MOMENT),
        ([("X-Request-Start", "t=1512379167574000000")], MOMENT),
        ([("X-Request-Start", " t=1512379167.574 ")], MOMENT),
        ([("X-Queue-Start", "t=1512379167.574")], MOMENT),
        ([("X-Request-Start", "1512379167"), ("X-Queue-Start", "1512379160")], 1_512_379_167.0),
        ([("X-Request-Start", "now"), ("X-Queue-Start", "1512379160")], 1_512_379_160.0),
        ([("X-Request-Start", "0000000000")], 0.0),
        ([("X-Request-Start", "9999999999999999999")], 1e10),
        ([("X-Request-Start", "1512379167.574"), ("X-Request-Start", "1512379167.574")], None),
        ([("X-Request-Start", "")], None),
        ([("X-Request-Start", "t=")], None),
        ([("X-Request-Start", "t=t=1512379167")], None),
        ([("X-Request-Start", "start=1512379167")], None),
        ([("X-Request-Start", "0")], None),
        ([("X-Request-Start", "151237916")], None),
        ([("X-Request-Start", "15123791670")], None),
        ([("X-Request-Start", "-1512379167")], None),
        ([("X-Request-Start", "1512379167.")], None),
        ([("X-Request-Start", ".5")], None),
        ([("X-Request-Start", "1512379167.5.7")], None),
        ([("X-Request-Start", "1512379167,574")], None),
        ([("X-Request-Start", "1512379167.5e9")], None),
        ([("X-Request-Start", "1e309")], None),
        ([("X-Request-Start", "nan")], None),
        ([("X-Request-Start", "inf")], None),
        ([("X-Request-Start", "1" * 400)], None),
        ([("X-Request-Start", "1512379167." + "0" * 30)], None),
        ([("X-Request-Start", "١٥١٢٣٧٩١٦٧")], None),
        ([("X-Request-Start", "1512379167.٣")], None),
        ([("X-Request-Start", "1512379167\x00")], None),
        ([("X-Request-Start", "15123_79167")], None),
    ],
)
def test_request_starts(pairs, started):
    assert wire.parse_request_start(Headers(*pairs)) == (None if started is None else pytest.approx(started, abs=1e-6))


# --- hostile input ----------------------------------------------------------------------------------------------------

NASTY = [
    "nan",
    "inf",
    "-inf",
    "1e309",
    "9" * 400,
    "t=" + "9" * 400,
    "\r\n",
    "a\r\nSet-Cookie: b=c",
    "\x00",
    "\ud800",
    "٣",
    "²",
    "१२३४५६७८९०",
    "\u212a",
    "İ",
    "t=1512379167.574",
    "handled",
    "1S",
    "99999999n",
    "250",
    "f" * 16,
    "critical",
    "queue-wait",
    "a/b.c",
    "*/*;q=0",
    "application/json",
    " ",
    "",
    ",",
    "1" * 10 + "." + "1" * 21,
]
ANYTHING = st.characters(codec=None, categories=None)  # lone surrogates included
PIECES = (
    st.sampled_from(NASTY)
    | st.text(ANYTHING, max_size=20)
    | st.text("0123456789.,;=/tqSHMmun-+eE \t\r\n\x00", max_size=40)
)
HOSTILE = st.lists(PIECES, max_size=4).map("".join) | PIECES | st.text(ANYTHING, max_size=600)
NAMES_READ = [
    wire.HANDLED,
    wire.REASON,
    wire.ORIGIN,
    wire.TIMEOUT_MS,
    wire.ENVOY_TIMEOUT_MS,
    wire.GRPC_TIMEOUT,
    wire.REQUEST_START,
    wire.QUEUE_START,
    wire.FINAGLE_NACK,
    wire.FINAGLE_NONRETRYABLE_NACK,
    wire.ENVOY_OVERLOADED,
]
HOSTILE_HEADERS = st.lists(st.tuples(st.sampled_from(NAMES_READ), HOSTILE)).map(lambda pairs: Headers(*pairs))
CALLER = re.compile(rf"{wire.NAME_GRAMMAR}(/{wire.NAME_GRAMMAR}\.{wire.NAME_GRAMMAR})?", re.ASCII)
NAME = st.from_regex(rf"\A{wire.NAME_GRAMMAR}\Z")
WORDS = (
    {wire.HANDLED_VALUE, "no-store", "application/problem+json", "text/plain; charset=utf-8"}
    | set(Reason)
    | {str(length) for length in range(200)}
)


@given(HOSTILE)
def test_hostile_values_never_raise_and_stay_within_bounds(value):
    caller = wire.parse_caller(value)
    assert caller is None or CALLER.fullmatch(caller)
    assert wire.parse_criticality(value) in {None, *Criticality}
    key = wire.parse_key(value)
    assert key is None or (1 <= len(key) <= 16 and set(key) <= set("0123456789abcdef"))
    assert key is None or 0.0 <= wire.key_fraction(key) < 1.0
    assert wire.valid_name(value) in {True, False}
    assert wire.is_ours(value) in {True, False}


@given(HOSTILE_HEADERS, st.sampled_from([200, 500, 503]), st.booleans())
def test_hostile_headers_never_raise_and_stay_within_bounds(headers, status, envoy):
    budget_s = wire.parse_budget(headers)
    assert budget_s is None or 0.0 <= budget_s <= 3600.0
    started = wire.parse_request_start(headers)
    assert started is None or 0.0 <= started <= 1e10
    refusal = wire.read_refusal(status, headers, envoy_overloaded=envoy)
    if refusal is not None:
        assert status == 503
        assert refusal.reason in {None, *Reason}
        assert refusal.origin is None or wire.valid_name(refusal.origin)
    error = OSError()
    error.status, error.headers = status, headers
    assert refusal_in(error) == wire.read_refusal(status, headers)


@given(st.sampled_from([*Reason]), st.none() | HOSTILE | NAME, st.none() | HOSTILE, st.booleans())
def test_an_answer_is_made_of_constants_and_a_valid_origin(reason, origin, accept, head):
    answer = wire.answer(reason, origin, accept=accept, head=head)
    for name, value in answer.headers:
        assert "\r" not in name + value
        assert "\n" not in name + value
        assert value in WORDS or (name == wire.ORIGIN and value == origin and wire.valid_name(value))
    assert (wire.ORIGIN in dict(answer.headers)) is (origin is not None and wire.valid_name(origin))
    assert (answer.body == b"") is head
    assert answer.body in {b"", wire.answer(reason, None).body, wire.answer(reason, None, accept="text/plain").body}


@given(
    st.none() | HOSTILE,
    st.none() | st.floats(),
    st.none() | st.sampled_from([*Criticality]),
    st.none() | HOSTILE,
)
def test_a_hop_is_always_well_formed_and_read_back(caller, budget_s, criticality, key):
    pairs = [*wire.hop_headers(caller=caller, budget_s=budget_s, criticality=criticality, key=key)]
    for _, value in pairs:
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value
    headers = Headers(*pairs)
    assert wire.parse_caller(headers.get(wire.CALLER)) == wire.parse_caller(caller)
    assert wire.parse_criticality(headers.get(wire.CRITICALITY)) == criticality
    assert wire.parse_key(headers.get(wire.KEY)) == wire.parse_key(key)
    read = wire.parse_budget(headers)
    if budget_s is None or math.isnan(budget_s):
        assert read is None
    else:
        assert max(0.0, min(budget_s, 3600.0)) - 0.0011 <= read <= max(0.0, min(budget_s, 3600.0))


@given(st.from_regex(r"\A[0-9a-f]{1,16}\Z"), st.from_regex(r"\A[0-9a-f]{1,16}\Z"))
def test_keys_keep_their_order(one, other):
    """So that a threshold on the fraction cuts users the same way in every service of a chain."""
    one, other = one.ljust(16, "0"), other.ljust(16, "0")
    if one <= other:
        assert wire.key_fraction(one) <= wire.key_fraction(other)


@given(st.integers(0, 10**10 - 1), st.sampled_from([1, 10**3, 10**6, 10**9]), st.booleans())
def test_the_unit_of_a_request_start_follows_from_its_digits(second, per_second, prefixed):
    digits = str(second * per_second).rjust(len(str(per_second)) + 9, "0")
    value = ("t=" if prefixed else "") + digits
    assert wire.parse_request_start(Headers(("X-Request-Start", value))) == pytest.approx(second, abs=1e-5)


@given(st.text("a-9._/", max_size=12) | st.from_regex(CALLER, fullmatch=True) | st.text("ab./", max_size=140))
def test_callers_follow_their_grammar(value):
    """The parser is written without a regular expression, which hostile input could slow down; it means this one."""
    assert (wire.parse_caller(value) is not None) == (CALLER.fullmatch(value) is not None)


@given(st.text("a-9._A ", max_size=70) | NAME)
def test_names_follow_their_grammar(name):
    assert wire.valid_name(name) == (re.fullmatch(wire.NAME_GRAMMAR, name) is not None)
