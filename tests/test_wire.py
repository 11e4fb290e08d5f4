"""The bytes of the protocol: names, answers, what counts as a refusal, and the headers of a hop."""

import math
from itertools import product
from types import SimpleNamespace

import pytest

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


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constant", "name"),
    [
        ("HANDLED", "X-GroundFault"),
        ("REASON", "X-GroundFault-Reason"),
        ("ORIGIN", "X-GroundFault-Origin"),
        ("CALLER", "X-GroundFault-Caller"),
        ("TIMEOUT_MS", "X-GroundFault-Timeout-Ms"),
        ("CRITICALITY", "X-GroundFault-Criticality"),
        ("KEY", "X-GroundFault-Key"),
        ("TOKEN", "X-GroundFault-Token"),
        ("ENVOY_TIMEOUT_MS", "X-Envoy-Expected-Rq-Timeout-Ms"),
        ("GRPC_TIMEOUT", "Grpc-Timeout"),
        ("REQUEST_START", "X-Request-Start"),
        ("QUEUE_START", "X-Queue-Start"),
        ("FINAGLE_NACK", "Finagle-Http-Nack"),
        ("FINAGLE_NONRETRYABLE_NACK", "Finagle-Http-Nonretryable-Nack"),
        ("ENVOY_OVERLOADED", "X-Envoy-Overloaded"),
        ("HANDLED_VALUE", "handled"),
    ],
)
def test_names_are_pinned(constant, name):
    assert getattr(wire, constant) == name


def test_a_refusal_has_status_503():
    assert wire.SHED_STATUS == 503


def test_values_are_pinned():
    """They travel between versions, so a rename is a break of the protocol."""
    assert [*Reason] == [
        "queue-wait",
        "deadline",
        "concurrency",
        "draining",
        "circuit-open",
        "throttled",
        "dependency",
    ]
    assert [*Criticality] == ["critical-plus", "critical", "sheddable-plus", "sheddable"]
    assert [c.rank for c in Criticality] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("X-GroundFault", True),
        ("x-groundfault", True),
        ("X-GROUNDFAULT-REASON", True),
        ("X-GroundFault-Anything", True),
        ("X-Ground-Fault", False),
        ("X-Request-Start", False),
        ("Not-X-GroundFault", False),
        ("", False),
    ],
)
def test_our_header_names_are_told_by_their_prefix(name, ours):
    assert wire.is_ours(name) is ours


# --- answers ----------------------------------------------------------------------------------------------------------

TITLES = {
    "queue-wait": "shedding load on purpose: the request waited too long",
    "deadline": "shedding load on purpose: no answer is possible within the caller's deadline",
    "concurrency": "shedding load on purpose: too many requests in progress",
    "draining": "shedding load on purpose: this instance is stopping",
    "circuit-open": "a dependency is failing and is not being called",
    "throttled": "a dependency is shedding load and is called less",
    "dependency": "a dependency did not answer",
}


def on_the_wire(answer: wire.Answer) -> bytes:
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in answer.headers), "", ""]
    return "\r\n".join(lines).encode("ascii") + answer.body


@pytest.mark.parametrize(("reason", "origin", "head"), [*product(TITLES, [None, "saber"], [False, True])])
def test_golden_bytes_of_json_answers(reason, origin, head):
    body = b'{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"%s"}' % TITLES[reason].encode()
    golden = (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"X-GroundFault: handled\r\n"
        b"X-GroundFault-Reason: %s\r\n"
        % reason.encode()
        + (b"X-GroundFault-Origin: saber\r\n" if origin else b"")
        + b"Cache-Control: no-store\r\n"
        b"Content-Type: application/problem+json\r\n"
        b"Content-Length: %d\r\n"
        b"\r\n" % len(body)
    )
    answer = wire.answer(Reason(reason), origin, accept="application/json", head=head)
    assert on_the_wire(answer) == golden + (b"" if head else body)


@pytest.mark.parametrize(("reason", "origin", "head"), [*product(TITLES, [None, "saber"], [False, True])])
def test_golden_bytes_of_text_answers(reason, origin, head):
    body = b"Ground Fault: %s.\n" % TITLES[reason].encode()
    golden = (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"X-GroundFault: handled\r\n"
        b"X-GroundFault-Reason: %s\r\n"
        % reason.encode()
        + (b"X-GroundFault-Origin: saber\r\n" if origin else b"")
        + b"Cache-Control: no-store\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\n"
        b"\r\n" % len(body)
    )
    answer = wire.answer(Reason(reason), origin, accept="text/html", head=head)
    assert on_the_wire(answer) == golden + (b"" if head else body)


def test_one_answer_in_full():
    """A golden text with nothing computed, so that the two tests above cannot be wrong in step."""
    assert on_the_wire(wire.answer(Reason.QUEUE_WAIT, "saber")) == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"X-GroundFault: handled\r\n"
        b"X-GroundFault-Reason: queue-wait\r\n"
        b"X-GroundFault-Origin: saber\r\n"
        b"Cache-Control: no-store\r\n"
        b"Content-Type: application/problem+json\r\n"
        b"Content-Length: 130\r\n"
        b"\r\n"
        b'{"type":"about:blank","title":"Service Unavailable","status":503,'
        b'"detail":"shedding load on purpose: the request waited too long"}'
    )


def test_no_answer_asks_for_a_retry():
    """urllib3's default policy turns one shed GET with Retry-After into four hits without jitter."""
    for reason in Reason:
        assert "retry-after" not in {name.lower() for name, _ in wire.answer(reason, "saber").headers}


@pytest.mark.parametrize(
    "origin",
    ["", "Saber", "sa ber", "-saber", "saber\r\nSet-Cookie: a=b", "saber\n", "säber", "a" * 65, "\x00", "\ud800"],
)
def test_an_origin_outside_its_grammar_is_left_out(origin):
    answer = wire.answer(Reason.DEPENDENCY, origin)
    assert answer == wire.answer(Reason.DEPENDENCY, None)
    assert wire.ORIGIN not in dict(wire.annotations(Reason.DEPENDENCY, origin))


def test_annotations_are_the_head_of_an_answer():
    annotations = wire.annotations(Reason.THROTTLED, "saber")
    assert wire.answer(Reason.THROTTLED, "saber").headers[: len(annotations)] == annotations


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("origin", [None, "saber"])
def test_an_answer_is_read_back_as_what_was_said(reason, origin):
    refusal = wire.read_refusal(503, Headers(*wire.answer(reason, origin).headers))
    assert refusal == wire.Refusal(reason, origin)
    assert refusal.by_callee is reason.refused_here
    assert refusal.retryable is reason.retryable


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        (None, True),
        ("", True),
        (" ", True),
        ("*/*", True),
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/problem+json", True),
        ("application/*;q=0.1", True),
        ("text/html, application/xml;q=0.9, */*;q=0.8", True),
        ("text/html;level=1, application/json; charset=utf-8; q=0.5", True),
        ("application/json;q=0.001", True),
        ("text/html", False),
        ("text/plain, image/*", False),
        ("application/jsonx", False),
        ("*/*;q=0", False),
        ("*/*; q=0.0", False),
        ("*/* ;\tQ = 0.000", False),
        ("application/json;q=0, */*", False),
        ("application/problem+json;q=0, application/json", False),
        ("*/*;q=0, application/json", True),
        ("application/*;q=0, */*", False),
        ("application/json;q=0, application/json", True),
        ("application/json, application/json;q=0", True),
        ("application/json;charset=utf-8;q=0", False),
        ("application/json;q=", True),
        ("text/plain" + ", text/plain" * 200 + ", application/json", False),  # beyond what is read
        (",;=,;q,", False),
    ],
)
def test_the_form_follows_accept(accept, json):
    content_type = dict(wire.answer(Reason.DEADLINE, None, accept=accept).headers)["Content-Type"]
    assert content_type == ("application/problem+json" if json else "text/plain; charset=utf-8")


# --- refusals ---------------------------------------------------------------------------------------------------------

OURS = ("X-GroundFault", "handled")
UNKNOWN = wire.Refusal()


@pytest.mark.parametrize(
    ("status", "pairs", "refusal"),
    [
        (503, [OURS], UNKNOWN),
        (503, [("x-groundfault", "HANDLED")], UNKNOWN),
        (503, [("X-GroundFault", " \thandled\t ")], UNKNOWN),
        (503, [OURS, ("X-GroundFault-Reason", "queue-wait")], wire.Refusal(Reason.QUEUE_WAIT)),
        (503, [OURS, ("X-GroundFault-Reason", " Circuit-Open ")], wire.Refusal(Reason.CIRCUIT_OPEN)),
        (503, [OURS, ("X-GroundFault-Reason", "bored")], UNKNOWN),
        (503, [OURS, ("X-GroundFault-Reason", "deadline"), ("X-GroundFault-Reason", "deadline")], UNKNOWN),
        (503, [OURS, ("X-GroundFault-Origin", "Saber ")], wire.Refusal(None, "saber")),
        (503, [OURS, ("X-GroundFault-Origin", "sa/ber")], UNKNOWN),
        (503, [OURS, ("X-GroundFault-Origin", "\u212aey")], UNKNOWN),  # the Kelvin sign's lower case is an ASCII k
        (
            503,
            [OURS, ("X-GroundFault-Reason", "dependency"), ("X-GroundFault-Origin", "saber")],
            wire.Refusal(Reason.DEPENDENCY, "saber"),
        ),
        # One of the two conditions alone is none.
        (503, [], None),
        (503, [("X-GroundFault-Reason", "queue-wait")], None),
        (200, [OURS], None),
        (429, [OURS], None),
        (500, [OURS], None),
        (502, [OURS], None),
        (504, [OURS], None),
        # The value is exactly one word.
        (503, [("X-GroundFault", "")], None),
        (503, [("X-GroundFault", "true")], None),
        (503, [("X-GroundFault", "handled; origin=self")], None),
        (503, [OURS, OURS], None),
        (503, [("X-GroundFault", " " * 60 + "handled")], None),
        (503, [("X-GroundFault", "\xa0handled")], None),
        (503, [("X-GroundFault", "handled\x00")], None),
        (503, [("X-GroundFault", "handled\r\n")], None),
        # Finagle.
        (503, [("finagle-http-nack", "true")], wire.Refusal(Reason.QUEUE_WAIT)),
        (503, [("Finagle-Http-Nack", "")], wire.Refusal(Reason.QUEUE_WAIT)),
        (503, [("finagle-http-nonretryable-nack", "true")], UNKNOWN),
        (503, [("finagle-http-nack", "true"), ("finagle-http-nonretryable-nack", "true")], UNKNOWN),
        (500, [("finagle-http-nack", "true")], None),
        # Our own header, once there, has the only word.
        (503, [("X-GroundFault", "no"), ("finagle-http-nack", "true")], None),
        (503, [OURS, ("finagle-http-nack", "true")], UNKNOWN),
        # Envoy's is understood where it is asked for, below.
        (503, [("x-envoy-overloaded", "true")], None),
    ],
)
def test_which_responses_are_refusals(status, pairs, refusal):
    assert wire.read_refusal(status, Headers(*pairs)) == refusal


@pytest.mark.parametrize(
    ("status", "pairs", "refusal"),
    [
        (503, [("X-Envoy-Overloaded", "true")], UNKNOWN),
        (429, [("X-Envoy-Overloaded", "true")], None),
        (503, [], None),
        (503, [("X-GroundFault", "no"), ("X-Envoy-Overloaded", "true")], None),
    ],
)
def test_envoy_is_understood_if_asked_for(status, pairs, refusal):
    assert wire.read_refusal(status, Headers(*pairs), envoy_overloaded=True) == refusal


@pytest.mark.parametrize(
    ("refusal", "by_callee", "retryable"),
    [
        (wire.Refusal(), True, False),
        (wire.Refusal(Reason.QUEUE_WAIT), True, True),
        (wire.Refusal(Reason.CONCURRENCY), True, True),
        (wire.Refusal(Reason.DRAINING), True, True),
        (wire.Refusal(Reason.DEADLINE), True, False),
        (wire.Refusal(Reason.CIRCUIT_OPEN), False, False),
        (wire.Refusal(Reason.THROTTLED), False, False),
        (wire.Refusal(Reason.DEPENDENCY), False, False),
    ],
)
def test_what_a_refusal_obliges_the_client_to(refusal, by_callee, retryable):
    assert (refusal.by_callee, refusal.retryable) == (by_callee, retryable)


class Response:
    def __init__(self, status_code=503, headers=None):
        self.status_code = status_code
        self.headers = Headers(OURS) if headers is None else headers


class CarryingError(Exception):
    def __init__(self, **attributes):
        super().__init__("boom")
        self.__dict__.update(attributes)


class HostileError(Exception):
    @property
    def response(self):
        raise RuntimeError("no response here")


class Repeating:
    """aiohttp's headers: ``get`` shows the first of several."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def items(self):
        return self.pairs

    def getall(self, name):
        return [value for key, value in self.pairs if key.lower() == name.lower()]

    def get(self, name):
        return next(iter(self.getall(name)), None)


class Rpc(Exception):  # noqa: N818  gRPC's error, by its shape
    def __init__(self, code, *trailing):
        super().__init__(code)
        self._code, self._trailing = code, trailing

    def code(self):
        return SimpleNamespace(name=self._code)

    def trailing_metadata(self):
        return self._trailing


class Stream(Rpc):
    """A stream of gRPC's is an error too, and waits for its end when asked for its code."""

    def done(self):
        return False

    def is_active(self):
        return True

    def code(self):
        raise AssertionError("would wait")


DRAINING = wire.Refusal(Reason.DRAINING)


class HostileHeaders:
    def get(self, name):
        raise OSError(name)


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (CarryingError(response=Response()), UNKNOWN),
        (CarryingError(status=503, headers=Headers(OURS)), UNKNOWN),
        (CarryingError(status_code=503, headers=Headers(OURS)), UNKNOWN),
        (CarryingError(response=None, status=503, headers=Headers(OURS)), UNKNOWN),
        (CarryingError(response=Response(status_code=500)), None),
        (CarryingError(response=Response(headers=Headers())), None),
        (CarryingError(response=object()), None),
        (CarryingError(response=Response(headers=42)), None),
        (CarryingError(response=Response(headers=HostileHeaders())), None),
        (CarryingError(response=Response(headers={"X-GroundFault": b"handled"})), None),
        (CarryingError(status=503, headers=None), None),
        (CarryingError(status=503, headers=Repeating(("X-GroundFault", "handled"))), UNKNOWN),
        (
            CarryingError(status=503, headers=Repeating(("X-GroundFault", "handled"), ("X-Groundfault", "handled"))),
            None,
        ),
        (Rpc("UNAVAILABLE", ("x-groundfault", "handled"), ("x-groundfault-reason", "draining")), DRAINING),
        (Rpc("UNAVAILABLE", ("x-groundfault", b"handled")), UNKNOWN),
        (Rpc("UNAVAILABLE"), None),
        (Stream("UNAVAILABLE", ("x-groundfault", "handled")), None),
        (Rpc("INTERNAL", ("x-groundfault", "handled")), None),
        (HostileError(), None),
        (ValueError("boom"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_refusals_inside_errors(error, refusal):
    assert refusal_in(error) == refusal


# --- the headers of a hop ---------------------------------------------------------------------------------------------


def hop(caller=None, budget_s=None, criticality=None, key=None):
    return list(wire.hop_headers(caller=caller, budget_s=budget_s, criticality=criticality, key=key))


def test_golden_headers_of_a_hop():
    assert hop("topps/grouper.get_entrants", 0.25, Criticality.SHEDDABLE_PLUS, "9f3a") == [
        ("X-GroundFault-Caller", "topps/grouper.get_entrants"),
        ("X-GroundFault-Timeout-Ms", "250"),
        ("X-GroundFault-Criticality", "sheddable-plus"),
        ("X-GroundFault-Key", "9f3a"),
    ]


def test_a_hop_says_nothing_that_is_not_known():
    assert hop() == []


@pytest.mark.parametrize(
    ("budget_s", "value"),
    [
        (0.0, "0"),
        (-3.0, "0"),
        (-0.0, "0"),
        (0.0009, "0"),
        (0.0019, "1"),
        (1.0, "1000"),
        (3600.0, "3600000"),
        (1e9, "3600000"),
        (math.inf, "3600000"),
        (-math.inf, "0"),
    ],
)
def test_a_budget_is_rounded_down_and_bounded(budget_s, value):
    assert hop(budget_s=budget_s) == [("X-GroundFault-Timeout-Ms", value)]


def test_what_is_outside_its_grammar_is_left_out_of_a_hop():
    assert hop(caller="a\r\nb: c", budget_s=math.nan, key="no-hex") == []
