"""Coverage-guided fuzzing of everything a stranger can put into a header, for as long as it is told.

    python soak/fuzz_headers.py [--seconds 600] [--corpus DIR]

Each input is a request: method, path, protocol headers with hostile values, peer, and what the application answers,
headers of ours included. It goes through both shells, ASGI and WSGI, and its headers through the client's reading of
a response as well. It is a finding if

* anything raises, or an internal error is counted,
* the status is neither the application's own nor 503,
* a header of ours says anything but what it can say,
* the request is still in flight afterwards.

Atheris does the searching (libFuzzer): it measures which branches an input reaches. An input that fails is printed and
kept as ``crash-…`` in the working directory; give it as an argument to see it again.
Its dictionary are the values of SEEDS, which have broken parsers before.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["groundfault"]):
    from groundfault import LoadShedder, Shedder, WSGILoadShedder, wire
    from groundfault._context import Fault, current
    from groundfault.events import internal_errors
    from groundfault.shedding._request import HINTS
    from groundfault.vocabulary import Outcome, Reason

HEADERS = (*HINTS, "Traceparent", "Accept", "Content-Length", "Transfer-Encoding", "Expect", "Origin", wire.HANDLED)
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "\xff", "")
PEERS = ("127.0.0.1", "203.0.113.7", "::1", "testclient", "", None)
STATUSES = (200, 204, 302, 404, 500, 502, 503, 504)
OURS = {wire.HANDLED_VALUE, "fuzzed", *(reason.value for reason in Reason)}  # all that our headers can say

SEEDS = (
    *(b"t=" + b"9" * 400, b"t=-1", b"1e309", b"inf", b"nan", b"t=1512379167.574", b"1570634024294", b"\xff\xfe"),
    *(b"0", b"-0", b"+1", b" 5 ", b"0x10", b"1_000", b"\xd9\xa1\xd9\xa2", b"99999999S", b"1H", b"5m", b"1,2", b""),
    *(b"critical-plus", b"SHEDDABLE", b"sheddable-plus ", b"f" * 16, b"f" * 17, b"-1", b"caller/resource.command"),
    *(b"../../etc/passwd", b"a" * 65, b"application/problem+json;q=0", b"*/*;q=0.000,text/plain", b"handled\r\nX: y"),
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


class Fuzzed:
    """One request and one answer, taken from the fuzzer's bytes."""

    def __init__(self, data: bytes) -> None:
        take = atheris.FuzzedDataProvider(data)
        self.method = METHODS[take.ConsumeIntInRange(0, len(METHODS) - 1)]
        self.peer = PEERS[take.ConsumeIntInRange(0, len(PEERS) - 1)]
        self.status = STATUSES[take.ConsumeIntInRange(0, len(STATUSES) - 1)]
        self.faulty = take.ConsumeBool()
        self.raises = take.ConsumeBool()
        self.path = "/" + take.ConsumeUnicodeNoSurrogates(take.ConsumeIntInRange(0, 40))
        self.headers = [self._header(take) for _ in range(take.ConsumeIntInRange(0, 6))]
        self.answer = [self._header(take) for _ in range(take.ConsumeIntInRange(0, 3))]

    @staticmethod
    def _header(take: "atheris.FuzzedDataProvider") -> tuple[str, bytes]:
        name = HEADERS[take.ConsumeIntInRange(0, len(HEADERS) - 1)]
        if take.ConsumeBool():
            name = name.upper()
        return name, take.ConsumeBytes(take.ConsumeIntInRange(0, 80))


class AppError(Exception):
    """What the application raises."""


def run_application(fuzzed: Fuzzed) -> None:
    context = current()
    if fuzzed.faulty and context is not None:
        context.note(Fault("db", "read", Outcome.TIMEOUT, None, None, None))
    if fuzzed.raises:
        raise AppError


def through_asgi(fuzzed: Fuzzed) -> tuple[int, list[tuple[str, str]]]:
    sent: list[dict] = []

    async def app(_scope, _receive, send):
        run_application(fuzzed)
        headers = [(name.lower().encode(), value) for name, value in fuzzed.answer]
        await send({"type": "http.response.start", "status": fuzzed.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"fine"})

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": fuzzed.method,
        "path": fuzzed.path,
        "headers": [(name.lower().encode(), value) for name, value in fuzzed.headers],
        "client": None if fuzzed.peer is None else (fuzzed.peer, 1),
    }
    coroutine = LoadShedder(app, shedder=ASGI)(scope, receive, send)
    try:
        LOOP.run_until_complete(coroutine)
    except AppError:
        return 0, []
    return sent[0]["status"], [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]


def through_wsgi(fuzzed: Fuzzed) -> tuple[int, list[tuple[str, str]]]:
    begun: list[tuple[str, list[tuple[str, str]]]] = []

    def app(_environ, start_response):
        run_application(fuzzed)
        start_response(f"{fuzzed.status} X", [(name, value.decode("latin-1")) for name, value in fuzzed.answer])
        return [b"fine"]

    environ = {"REQUEST_METHOD": fuzzed.method, "PATH_INFO": fuzzed.path, "REMOTE_ADDR": fuzzed.peer or ""}
    for name, value in fuzzed.headers:
        environ["HTTP_" + name.upper().replace("-", "_")] = value.decode("latin-1")
    try:
        body = WSGILoadShedder(app, shedder=WSGI)(environ, lambda status, headers, *_: begun.append((status, headers)))
    except AppError:
        return 0, []
    list(body)
    if hasattr(body, "close"):
        body.close()
    status, headers = begun[-1]
    return int(status[:3]), headers


class _Lookup(dict):
    def get(self, name, default=None):
        return super().get(name.lower(), default)


def one_input(data: bytes) -> None:
    fuzzed = Fuzzed(data)
    for through, shedder in ((through_asgi, ASGI), (through_wsgi, WSGI)):
        status, headers = through(fuzzed)
        assert status in {0, 503, fuzzed.status}, f"{status} for {fuzzed.status}"
        ours = [(name, value) for name, value in headers if wire.is_ours(name)]
        assert OURS.issuperset(value for _, value in ours), ours
        if ours:
            assert status == wire.SHED_STATUS, f"{ours} beside {status}"
        assert shedder.snapshot().in_flight == 0, "in flight after its end"
    lookup = _Lookup((name.lower(), value.decode("latin-1")) for name, value in fuzzed.headers + fuzzed.answer)
    wire.read_refusal(fuzzed.status, lookup)
    assert not internal_errors(), internal_errors()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long to search (600)")
    parser.add_argument("--corpus", type=Path, help="folder to keep interesting inputs in (a temporary one)")
    parser.add_argument("crash", nargs="*", help="inputs to run once instead of searching")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        words = Path(temporary) / "words"
        words.write_text("\n".join('"' + "".join(f"\\x{byte:02x}" for byte in seed) + '"' for seed in SEEDS if seed))
        arguments = [sys.argv[0], f"-dict={words}", "-max_len=512", "-print_final_stats=1"]
        arguments += options.crash or [f"-max_total_time={options.seconds}", str(corpus)]
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()


LOOP = asyncio.new_event_loop()
ASGI = Shedder(service="fuzzed", mode="enforce")
WSGI = Shedder(service="fuzzed", mode="enforce")

if __name__ == "__main__":
    main()
