"""Every header of the wire, with whatever a stranger may put into it, on every server."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundfault import wire

pytestmark = pytest.mark.e2e

_BURSTS = settings().max_examples // 4  # of several requests each

_NAMES = [
    *(wire.TIMEOUT_MS, wire.ENVOY_TIMEOUT_MS, wire.GRPC_TIMEOUT, wire.REQUEST_START, wire.QUEUE_START),
    *(wire.CRITICALITY, wire.KEY, wire.CALLER, wire.HANDLED, wire.REASON, wire.ORIGIN),
    *("Traceparent", "Accept", "Groundfault.visit", "Groundfault-Visit"),
]
_VALUES = [
    *(b"0", b"1", b"500", b" 5 ", b"\t5", b"-1", b"+1", b"1.5", b"nan", b"inf", b"1e309", b"0x10", b"1_000", b"1, 2", b""),
    *(b"9" * 9, b"9" * 10, b"9" * 400, b"\xd9\xa1\xd9\xa2", b"1H", b"99999999S", b"99999999999S", b"1H\t0", b"5m"),
    *(b"t=1512379167.574", b"t=9999999999.999", b"t=-1", b"1570634024294", b"0000000000", b"t=" + b"9" * 400),
    *(b"critical-plus", b"CRITICAL", b"sheddable", b"f" * 16, b"f" * 17, b"../../etc/passwd", b"a/b.c", b"handled"),
    *(b"application/problem+json;q=0", b"*/*;q=0.000,text/plain", b"," * 3000, b"\x80", b"\xff\xfe", b"%0d%0aX: y"),
    *(b"a\0b", b"a\rb", b"a\nb", b"a\r\n b", b"a\r\nX-GroundFault: handled", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\n"),
    *(b"v" * 8_000, b"v" * 65_536),
]


@st.composite
def _header_lines(draw):
    """A header as it stands on the wire: its name in any spelling, its value from the list or from the dice."""
    name = draw(st.sampled_from(_NAMES)).encode()
    spell = draw(st.sampled_from([bytes, bytes.upper, bytes.lower, lambda name: name.replace(b"-", b"_")]))
    around = draw(st.sampled_from([b": ", b":", b":\t ", b" : "]))
    value = draw(st.sampled_from(_VALUES) | st.binary(max_size=40))
    return spell(name) + around + value


_REQUESTS = st.lists(
    st.tuples(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"]), st.lists(_header_lines(), max_size=6)),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=_BURSTS,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(requests=_REQUESTS)
def test_no_header_is_an_error_stalls_the_server_or_keeps_a_place(server, requests):
    for method, lines in requests:
        status = _status(server, "/", method, lines)
        if status not in {None, 200, 503} and not 400 <= status < 500:
            assert _status(server, "/bare", method, lines) == status, "the bare application answers otherwise"
    server.assert_well()


def _status(server, path, method, lines):
    """Return the status of the server's answer; None if it answers nothing, or waits for what was never sent."""
    with server.connect() as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.socket.settimeout(1)
        connection.send(method, path, b"Connection: close", *lines)
        return connection.receive(head=method == "HEAD").status
    return None


@pytest.mark.parametrize("name", [wire.TIMEOUT_MS, wire.CRITICALITY, wire.REQUEST_START, wire.KEY, wire.CALLER])
def test_hostile_values_disturb_no_later_request_of_a_connection(server, name):
    """Several per connection: each is answered in its turn, by the shedder, the application, or the server's own 4xx."""
    answered = 0
    connection = server.connect()
    try:
        for value in _VALUES:
            if b"\r" in value or b"\n" in value or b"\0" in value or len(value) > 4_000:  # no longer one header
                continue
            connection.send("GET", "/marked", name.encode() + b": " + value)
            response = connection.receive()
            answered += 1
            assert response.status in {200, 503} or 400 <= response.status < 500
            if response.status == 200:
                assert response.body == b"GET /marked\n"
            if response.closes or response.status >= 400 and response.status < 500:
                connection.close()
                connection = server.connect()
    finally:
        connection.close()
    assert answered >= 30
    server.assert_well()


def test_a_repeated_header_is_no_statement(server):
    """Two start times, or two budgets of nothing, decide about nothing: they may be anybody's."""
    line = wire.TIMEOUT_MS.encode() + b": 0"
    assert server.ask("/", line).status == 503
    assert server.ask("/", line, line).status in {200, 503}
    response = server.ask("/", wire.REQUEST_START.encode() + b": t=1.5", wire.REQUEST_START.encode() + b": t=2.5")
    assert response.status == 200
    server.assert_well()


def test_a_stranger_cannot_claim_what_a_worker_class_has_decided(server):
    """What one room of the process hands to another has a name that no header can spell."""
    for name in (b"groundfault.visit", b"Groundfault-Visit", b"groundfault_visit"):
        response = server.ask("/", name + b": x", wire.TIMEOUT_MS.encode() + b": 0")
        assert response.status == 503 or 400 <= response.status < 500
    server.assert_well()
