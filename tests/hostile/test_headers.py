"""Every header of the wire, with whatever a stranger may put into it, on every server."""

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
    *(
        b"0",
        b"1",
        b"500",
        b" 5 ",
        b"\t5",
        b"-1",
        b"+1",
        b"1.5",
        b"nan",
        b"inf",
        b"1e309",
        b"0x10",
        b"1_000",
        b"1, 2",
        b"",
    ),
    *(b"9" * 9, b"9" * 10, b"9" * 400, b"\xd9\xa1\xd9\xa2", b"1H", b"99999999S", b"99999999999S", b"1H\t0", b"5m"),
    *(b"t=1512379167.574", b"t=9999999999.999", b"t=-1", b"1570634024294", b"0000000000", b"t=" + b"9" * 400),
    *(b"critical-plus", b"CRITICAL", b"sheddable", b"f" * 16, b"f" * 17, b"../../etc/passwd", b"a/b.c", b"handled"),
    *(b"application/problem+json;q=0", b"*/*;q=0.000,text/plain", b"," * 3000, b"\x80", b"\xff\xfe", b"%0d%0aX: y"),
]
_BREAKING = [  # no server may take these for one header
    *(b"a\0b", b"a\rb", b"a\nb", b"a\r\n b", b"a\r\nX-GroundFault: handled", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\n"),
    *(b"v" * 8_000, b"v" * 65_536, b"\x7f\x1b[2J"),
]
_DOOMED = wire.TIMEOUT_MS.encode() + b": 0"

_spelled = st.sampled_from([bytes, bytes, bytes.upper, bytes.lower, lambda name: name.replace(b"-", b"_")])
_printable = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


def _lines(values, colons=(b": ",)):
    """Return a header as it stands on the wire: its name in any spelling, then what ``values`` gives."""
    return st.builds(
        lambda name, spell, colon, value: spell(name.encode()) + colon + value,
        st.sampled_from(_NAMES),
        _spelled,
        st.sampled_from(colons),
        values,
    )


_ordinary = _lines(
    st.sampled_from(_VALUES) | _printable.map(lambda text: text.encode("latin-1")), (b": ", b":", b":\t ")
)
_broken = _lines(st.sampled_from(_BREAKING) | st.binary(max_size=40), (b": ", b" : "))
_request = st.tuples(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"]),
    st.lists(_ordinary, max_size=5)
    | st.lists(_ordinary, max_size=3).map(lambda lines: [*lines, _DOOMED])
    | st.lists(_ordinary | _broken, max_size=4),
)


@settings(
    max_examples=_BURSTS,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(requests=st.lists(_request, min_size=3, max_size=8))
def test_no_header_is_an_error_stalls_the_server_or_keeps_a_place(server, requests):
    statuses = _statuses(server, "/", requests)
    if any(status is not None and not _is_expected(status) for status in statuses):
        assert statuses == _statuses(server, "/bare", requests), "the bare application answers otherwise"
    server.assert_well()


def _is_expected(status):
    return status in {200, 503} or 400 <= status < 500


def _statuses(server, path, requests):
    """Send the requests over as few connections as the server allows; None stands for no answer."""
    statuses = []
    connection = server.connect()
    try:
        for method, lines in requests:
            alone = any(byte in line for line in lines for byte in (b"\r", b"\n"))  # may be more than one request
            try:
                connection.socket.settimeout(1)
                connection.send(method, path, *lines, *([b"Connection: close"] if alone else []))
                response = connection.receive(head=method == "HEAD")
            except (ConnectionError, TimeoutError):
                response = None
            statuses.append(None if response is None else response.status)
            if response is None or alone or response.closes or 400 <= response.status < 500:
                connection.close()
                connection = server.connect()
    finally:
        connection.close()
    return statuses


def test_what_is_fuzzed_gets_through(server):
    """The test above would show nothing if the server stopped every request at its own door."""
    seen = [
        server.ask("/", *lines).status for lines in ([], [_DOOMED], [b"X-GroundFault-Key: \xff"], [_DOOMED.lower()])
    ]
    assert seen[0] == 200
    assert seen.count(503) == 2


@pytest.mark.parametrize("name", [wire.TIMEOUT_MS, wire.CRITICALITY, wire.REQUEST_START, wire.KEY, wire.CALLER])
def test_hostile_values_disturb_no_later_request_of_a_connection(server, name):
    """Several per connection: each is answered in its turn, by shedder, application, or the server's own 4xx."""
    answered = 0
    connection = server.connect()
    try:
        for value in _VALUES:
            connection.send("GET", "/marked", name.encode() + b": " + value)
            response = connection.receive()
            answered += 1
            assert _is_expected(response.status)
            if response.status == 200:
                assert response.body == b"GET /marked\n"
            if response.closes or 400 <= response.status < 500:
                connection.close()
                connection = server.connect()
    finally:
        connection.close()
    assert answered >= 30
    server.assert_well()


def test_a_repeated_header_is_no_statement(server):
    """Two budgets of nothing, or two start times: one of them may be anybody's."""
    assert server.ask("/", _DOOMED).status == 503
    assert server.ask("/", _DOOMED, _DOOMED).status == (503 if server.name == "cheroot" else 200)  # it keeps the last
    response = server.ask("/", wire.REQUEST_START.encode() + b": t=1.5", wire.REQUEST_START.encode() + b": t=2.5")
    assert response.status == 200
    server.assert_well()


def test_an_underscore_is_no_hyphen(server):
    """But to cheroot. It hurts the request alone; a proxy that removes headers should refuse such names."""
    response = server.ask("/", _DOOMED.replace(b"-", b"_"))
    assert response.status == (503 if server.name == "cheroot" else 200)


def test_a_stranger_cannot_claim_what_a_worker_class_has_decided(server):
    """What one room of the process hands to another has a name that no header can spell."""
    for name in (b"groundfault.visit", b"Groundfault-Visit", b"groundfault_visit"):
        response = server.ask("/", name + b": x", _DOOMED)
        assert response.status == 503 or 400 <= response.status < 500
    server.assert_well()
