"""What is read of a request's head before gunicorn parses it is what gunicorn finds there, or nothing."""

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundfault.integrations._gunicorn_gate import limits_of
from groundfault.shedding._head import CHUNKED, Head, Limits, read_head

PLAIN = Limits()
TRUSTED = ("127.0.0.1", 1)


class _Nowhere:
    """What the server would write to: nothing that is compared here makes it write."""

    def __init__(self, data: bytes) -> None:
        self._chunks = [data]

    def recv(self, _size: int, *_flags: int) -> bytes:
        return self._chunks.pop() if self._chunks else b""

    def send(self, _data: bytes) -> int:
        raise AssertionError("100 Continue for a request that is read here")


def theirs(data: bytes, cfg: Config) -> tuple[Any, dict[str, Any]]:
    """Return what gunicorn makes of it; raises as gunicorn does."""
    sock = _Nowhere(data)
    request = next(RequestParser(cfg, sock, TRUSTED))
    _, environ = create(request, sock, TRUSTED, ("127.0.0.1", 80), cfg)
    return request, environ


def agree(data: bytes, cfg: Config | None = None) -> Head | None:
    """Compare; return what was read here."""
    cfg = Config() if cfg is None else cfg
    head = read_head(data, limits_of(cfg))
    if head is None:
        return None
    request, environ = theirs(data, cfg)
    assert head.method == environ["REQUEST_METHOD"]
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    assert head.path == path.encode("latin-1").decode("utf-8", "replace")
    assert head.keeps is not request.should_close()
    assert head.minor == str(request.version[1]).encode()
    for name in {name for name, _ in request.headers}:
        key = "HTTP_" + name.replace("-", "_")
        if key in {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}:
            key = key.removeprefix("HTTP_")
        assert head.get(name) == environ[key]
        assert head.get(name.lower()) == environ[key]
    assert head.get("X-Not-There") is None
    if head.body == CHUNKED:
        assert hasattr(request.body.reader, "req")
    else:
        assert request.body.reader.length == head.body
        assert data[head.size :] == request.unreader.buf.getvalue()
    return head


READ = {
    "the plainest": (b"GET / HTTP/1.1\r\n\r\n", ("GET", "/", 0, True)),
    "a query": (b"GET /a?b=/c HTTP/1.1\r\nHost: x\r\n\r\n", ("GET", "/a", 0, True)),
    "an escaped path": (b"GET /%68ealthz%ff HTTP/1.1\r\nHost: x\r\n\r\n", ("GET", "/healthz\ufffd", 0, True)),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", ("GET", "/", 0, False)),
    "HTTP/1.0, kept": (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", ("GET", "/", 0, True)),
    "close": (b"HEAD / HTTP/1.1\r\nconnection:close\r\n\r\n", ("HEAD", "/", 0, False)),
    "a body": (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", ("POST", "/", 3, True)),
    "a body under way": (b"POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nabc", ("POST", "/", 30, True)),
    "a chunked body": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", ("POST", "/", CHUNKED, True)),
    "a pipelined request": (b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", ("GET", "/a", 0, True)),
    "an empty value": (b"GET / HTTP/1.1\r\nX-A:\r\nX-B: \t\r\n\r\n", ("GET", "/", 0, True)),
    "a repeated header": (b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\n\r\n", ("GET", "/", 0, True)),
    "bytes beyond ASCII": (b"GET / HTTP/1.1\r\nX-A: \xc3\xa4\r\n\r\n", ("GET", "/", 0, True)),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, (data, _) in READ.items()])
def test_a_plain_head_is_read_as_gunicorn_reads_it(data):
    head = agree(data)
    assert head is not None
    expected = next(expected for each, expected in READ.values() if each == data)
    assert (head.method, head.path, head.body, head.keeps) == expected


LEFT_TO_GUNICORN = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "half an end": b"GET / HTTP/1.1\r\nHost: x\r\n\r",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n\r\n",
    "an empty line first": b"\r\nGET / HTTP/1.1\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF within": b"GET / HTTP/1.1\r\nX-A: 1\nX-B: 2\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nX-A: 1\rX-B: 2\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nX-A: \0\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nX\0A: 1\r\n\r\n",
    "NUL in the path": b"GET /\0 HTTP/1.1\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nX-A: 1\r\n 2\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc",
    "an underscore": b"GET / HTTP/1.1\r\nContent_Length: 3\r\n\r\nabc",
    "no name": b"GET / HTTP/1.1\r\n: 3\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nfoo\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\n\r\n",
    "absolute form": b"GET http://x/ HTTP/1.1\r\n\r\n",
    "authority form": b"CONNECT x:443 HTTP/1.1\r\n\r\n",
    "CONNECT with a path": b"CONNECT /x HTTP/1.1\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "two slashes": b"GET //x/y HTTP/1.1\r\n\r\n",
    "a fragment": b"GET /x#y HTTP/1.1\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /\xe4 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    "an empty length": b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
    "length and coding": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding twice": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an odd coding": b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an expectation": b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a list of connection options": b"GET / HTTP/1.1\r\nConnection: close, TE\r\n\r\n",
    "schemes that differ": b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n\r\n",
    "a long request line": b"GET /" + b"a" * 4090 + b" HTTP/1.1\r\n\r\n",
    "a long field": b"GET / HTTP/1.1\r\nX-A: " + b"a" * 8190 + b"\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in LEFT_TO_GUNICORN.items()])
def test_what_is_odd_is_left_to_gunicorn(data):
    assert read_head(data, limits_of(Config())) is None


def test_limits_are_those_of_the_configuration_to_the_byte():
    cfg = Config()
    cfg.set("limit_request_line", 30)
    cfg.set("limit_request_fields", 2)
    cfg.set("limit_request_field_size", 20)
    line = b"GET /" + b"a" * 16 + b" HTTP/1.1"
    assert len(line) == 30
    fields = [b"X-A: " + b"a" * 13, b"X-B: b"]
    assert len(fields[0]) + 2 == 20
    assert agree(b"\r\n".join([line, *fields, b"", b""]), cfg) is not None
    for worse in (
        [line.replace(b"/", b"/a"), *fields],
        [line, fields[0] + b"a", fields[1]],
        [line, *fields, b"X-C: c"],
    ):
        data = b"\r\n".join([*worse, b"", b""])
        assert read_head(data, limits_of(cfg)) is None
        with pytest.raises(Exception, match=r".+"):
            theirs(data, cfg)


def test_a_mounted_path_is_the_middlewares(monkeypatch):
    monkeypatch.setenv("SCRIPT_NAME", "/saber")
    assert agree(b"GET /saber/%41 HTTP/1.1\r\n\r\n") is not None
    assert read_head(b"GET /elsewhere HTTP/1.1\r\n\r\n", limits_of(Config())) is None


_NAMES = st.sampled_from(
    [
        b"Host", b"host", b"Content-Length", b"CONTENT-LENGTH", b"Content_Length", b"Transfer-Encoding", b"Expect",
        b"Connection", b"Upgrade", b"X-Forwarded-Proto", b"X-GroundFault-Key", b"X-A", b"Content-Type", b"SCRIPT_NAME",
        b"Content-Length ", b" X", b"", b"X\x00", b"\xc4", b"Accept",
    ]
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(
        [b"3", b"0", b"-1", b"03", b"3,3", b"\xb2", b"chunked", b"Chunked", b"gzip", b"identity", b"close",
         b"keep-alive", b"Keep-Alive, x", b"100-continue", b"https", b"http", b"a\r\n b", b"a\nb", b"a\rb", b"", b" "]
    ),
    st.binary(max_size=12),
)  # fmt: skip
_LINES = st.builds(
    lambda name, blank, value: name + b":" + blank + value, _NAMES, st.sampled_from([b"", b" ", b"\t"]), _VALUES
)
_TARGETS = st.one_of(
    st.sampled_from(
        [b"/", b"/healthz", b"//x", b"*", b"/a?b#c", b"http://x/", b"/%2e%zz", b"/a;b?c?d", b"", b"/[", b"/a:b"]
    ),
    st.binary(max_size=6).map(lambda each: b"/" + each),
)
_FIRST = st.builds(
    lambda method, blank, target, version: method + blank + target + b" " + version,
    st.sampled_from([b"GET", b"POST", b"HEAD", b"get", b"CONNECT", b"X", b"PRI", b"OPTIONS", b"G-T", b"A" * 21]),
    st.sampled_from([b" ", b"  ", b"\t"]),
    _TARGETS,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "]),
)
_REQUESTS = st.builds(
    lambda first, lines, end, rest: b"\r\n".join([first, *lines]) + end + rest,
    _FIRST,
    st.lists(_LINES, max_size=5),
    st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\r\n", b""]),
    st.one_of(st.binary(max_size=8), st.just(b"GET /b HTTP/1.1\r\n\r\n")),
)


def _spoiled(request: bytes, at: int, what: bytes) -> bytes:
    return request[:at] + what + request[at:]


@settings(max_examples=400, deadline=None)
@given(_REQUESTS)
def test_hostile_requests_are_read_alike_or_not_at_all(data):
    agree(data)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([data for data, _ in READ.values()]),
    st.integers(0, 80),
    st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"\r\n", b"\n", b"\r\n ", b": ", b"\r\n\r\n"])),
)
@example(READ["a body"][0], 16, b"\r\nContent-Length: 1")
def test_plain_requests_with_bytes_put_in_are_read_alike_or_not_at_all(data, at, what):
    agree(_spoiled(data, at, what))


@given(st.binary(max_size=200))
def test_no_bytes_raise(data):
    assert read_head(data, PLAIN) is None or data.index(b"\r\n\r\n") > 0


@given(st.text(max_size=20))
def test_no_header_name_that_is_asked_for_raises(name):
    head = read_head(b"GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", PLAIN)
    assert head is not None
    assert head.get(name) in {None, "1"}
