"""Lines about calls: the same fields for everybody, written where nobody waits, and findable by their trace."""

import io
import json
import logging
import threading
from contextvars import ContextVar

import pytest
import structlog

from groundfault import LoadShedder, Resource, Shedder, WSGILoadShedder, events
from groundfault._context import RequestContext, serving
from groundfault.breaker import Registry, _ending
from groundfault.call_log import CallLog, log_calls
from groundfault.events import CircuitChanged, CommandDone, RequestSeen
from groundfault.integrations import structlog as with_structlog
from groundfault.sinks import Sinks, flush, log_changes
from groundfault.vocabulary import Criticality, Outcome, Reason, State
from groundfault.wire import Refusal

LONG_S = 20.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_TRACE = "00-11111111111111111111111111111111-2222222222222222-01"
FULL = CommandDone(
    "contest-db",
    "entrants",
    Outcome.FAILURE,
    0.0123456789,
    error_type="OSError",
    caller="topps",
    traceparent=TRACE,
)
SEEN = RequestSeen("topps", "GET /scores", Reason.QUEUE_WAIT, Criticality.CRITICAL, 0.25, "tcp-info", traceparent=TRACE)
TRIPPED = CircuitChanged("saber", "get", State.CLOSED, State.OPEN, failures=12, volume=20, sleep_window_s=5.0)

plan = ContextVar("plan", default=None)


class JSONFormatter(logging.Formatter):
    """As python-json-logger has it: what is ``extra`` stands beside the message."""

    def format(self, record):
        return json.dumps({"message": record.getMessage(), "groundfault": record.groundfault})


class Output(io.StringIO):
    """What a logger has written, line by line."""

    def rows(self):
        assert flush(LONG_S)
        return [json.loads(line) for line in self.getvalue().splitlines()]


def attach(formatter):
    output = Output()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    logger = logging.getLogger("groundfault")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return output, lambda: (logger.removeHandler(handler), logger.setLevel(logging.NOTSET))


@pytest.fixture(autouse=True)
def _nothing_told_before(monkeypatch):
    """Let the first failure of each test be told."""
    monkeypatch.setattr(_ending, "_told", {})


@pytest.fixture
def output():
    made, detach = attach(JSONFormatter())
    yield made
    detach()


# --- the line ---------------------------------------------------------------------------------------------------------


def test_a_line_says_all_there_is_to_say(output):
    log_calls()(FULL)
    (row,) = output.rows()
    at = row["groundfault"].pop("at")
    assert at > 1.7e9
    assert row["groundfault"] == {
        "event": "command.done",
        "resource": "contest-db",
        "command": "entrants",
        "outcome": "failure",
        "duration_s": 0.012346,
        "error_type": "OSError",
        "fallback": False,
        "enforced": True,
        "caller": "topps",
        "traceparent": TRACE,
    }
    assert row["message"] == (
        "command.done resource=contest-db command=entrants outcome=failure duration_s=0.012 error_type=OSError "
        f"fallback=False enforced=True caller=topps traceparent={TRACE}"
    )


def test_it_is_dated_when_the_call_ended(caplog):
    caplog.set_level(logging.INFO, "groundfault.calls")
    log = log_calls()
    log._clock = lambda: 1_700_000_000.25
    log(FULL)
    assert flush(LONG_S)
    (record,) = caplog.records
    assert (record.created, record.msecs, record.name) == (1_700_000_000.25, 250.0, "groundfault.calls")
    assert record.groundfault["at"] == 1_700_000_000.25


def test_changes_are_left_to_the_other_sink(output):
    log = log_calls()
    Sinks(log).change(TRIPPED)
    assert output.rows() == []


def test_requests_are_logged_on_demand_alone(output):
    assert Sinks(log_calls()).requests == ()
    sinks = Sinks(log_calls(requests=True))
    sinks.request(SEEN)
    (row,) = output.rows()
    assert row["groundfault"]["event"] == "request.seen"
    assert row["groundfault"]["reason"] == "queue-wait"


def test_where_the_logger_takes_no_such_lines_nothing_is_gathered(output):
    logging.getLogger("groundfault").setLevel(logging.WARNING)
    asked = []
    log_calls(segment=asked.append)(FULL)
    assert (output.rows(), asked) == ([], [])


def test_level_and_logger_are_to_be_chosen(caplog):
    caplog.set_level(logging.DEBUG, "access")
    log_calls(level=logging.DEBUG, logger="access")(FULL)
    log_calls(level=logging.WARNING, logger=logging.getLogger("access"))(FULL)
    assert flush(LONG_S)
    assert sorted((record.name, record.levelno) for record in caplog.records) == [("access", 10), ("access", 30)]


def test_a_handler_that_waits_holds_up_no_call():
    go, wrote = threading.Event(), []

    class Waiting(logging.Handler):
        def emit(self, record):
            assert go.wait(LONG_S)
            wrote.append(record)

    logger = logging.getLogger("slow")
    logger.setLevel(logging.INFO)
    handler = Waiting()
    logger.addHandler(handler)
    try:
        log = log_calls(logger=logger)
        for _ in range(100):
            log(FULL)
        assert wrote == []
        go.set()
        assert flush(LONG_S)
        assert (len(wrote), log.lost) == (100, 0)
    finally:
        go.set()
        logger.removeHandler(handler)


def test_a_filter_finds_the_context_of_the_call(caplog):
    caplog.set_level(logging.INFO, "groundfault.calls")
    found = []

    def note(record):
        found.append(plan.get())
        return True

    logger = logging.getLogger("groundfault.calls")
    logger.addFilter(note)
    token = plan.set("gold")
    try:
        log_calls()(FULL)
    finally:
        plan.reset(token)
    try:
        assert flush(LONG_S)
    finally:
        logger.removeFilter(note)
    assert found == ["gold"]


# --- segments ---------------------------------------------------------------------------------------------------------


class Odd:
    def __str__(self):
        return "odd"


def test_a_segment_is_added_under_names_that_are_not_taken(output):
    def segment(event):
        return {
            "plan": "gold",
            "customer": 7,
            "share": 0.5,
            "infinite": float("inf"),
            "other": Odd(),
            "nobody": None,
            "command": "forged",
            "forged": "x\nERROR",
        }

    log_calls(segment=segment)(FULL)
    (row,) = output.rows()
    fields = row["groundfault"]
    assert [fields.get(name) for name in ("plan", "customer", "share", "infinite", "other", "nobody", "command")] == [
        *("gold", 7, 0.5, "inf", "odd", None, "entrants")
    ]
    assert fields["forged"] == r"'x\nERROR'"
    assert "plan=gold customer=7" in row["message"]


def test_a_segment_is_asked_where_the_call_ends(output):
    def segment(event):
        return {"thread": threading.current_thread().name, "of": event.command}

    log_calls(segment=segment)(FULL)
    (row,) = output.rows()
    assert (row["groundfault"]["thread"], row["groundfault"]["of"]) == (threading.current_thread().name, "entrants")


@pytest.mark.parametrize("answer", [None, {}])
def test_no_segment_is_no_more_fields(output, answer):
    log_calls(segment=lambda event: answer)(FULL)
    assert len(output.rows()) == 1
    assert events.internal_errors() == {}


def test_a_segment_that_raises_costs_the_line_nothing_else(output):
    def segment(event):
        raise LookupError("no request")

    log_calls(segment=segment)(FULL)
    assert output.rows()[0]["groundfault"]["resource"] == "contest-db"
    assert events.internal_errors() == {"segment of a call": 1}


# --- samples ----------------------------------------------------------------------------------------------------------


def test_a_share_of_the_calls_says_that_it_is_one():
    lines = []
    draws = iter([0.09, 0.1, 0.5])
    log = CallLog(lines.append, sample=0.1, draw=lambda: next(draws))
    for _ in range(3):
        log(CommandDone("saber", "get", Outcome.SUCCESS, 0.1))
    assert flush(LONG_S)
    assert [line.fields["sample"] for line in lines] == [0.1]


@pytest.mark.parametrize(
    ("digits", "sample", "chosen"),
    [("00000000000000", 0.01, True), ("20000000000000", 0.1, False), ("20000000000000", 0.2, True), ("f" * 14, 0.9, 0)],
)
def test_the_calls_of_a_trace_are_chosen_together(digits, sample, chosen):
    lines = []
    log = CallLog(lines.append, sample=sample, draw=lambda: pytest.fail("a trace needs no lot"))
    for span in range(3):
        trace = f"00-{'a' * 18}{digits}-{span:016x}-01"
        log(CommandDone("saber", "get", Outcome.SUCCESS, 0.1, traceparent=trace))
    assert flush(LONG_S)
    assert len(lines) == (3 if chosen else 0)


def test_a_trace_that_is_none_is_chosen_by_lot():
    lines = []
    log = CallLog(lines.append, sample=0.1, draw=lambda: 0.05)
    log(CommandDone("saber", "get", Outcome.SUCCESS, 0.1, traceparent="nonsense"))
    assert flush(LONG_S)
    assert len(lines) == 1


@pytest.mark.parametrize("sample", [0.0, -1.0, 1.1, float("nan")])
def test_a_sample_is_a_share(sample):
    with pytest.raises(ValueError, match="sample must be above 0 and at most 1"):
        log_calls(sample=sample)


def test_a_segment_is_callable():
    with pytest.raises(TypeError, match="segment must be callable, not dict"):
        log_calls(segment={"plan": "gold"})


# --- structlog --------------------------------------------------------------------------------------------------------


@pytest.fixture
def unconfigured():
    yield structlog.reset_defaults()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def structlog_to(output, *more, **settings):
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *more,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(output),
        **settings,
    )


def test_structlog_lines_have_the_same_fields(unconfigured):
    output = Output()
    structlog_to(output)
    with_structlog.log_calls()(FULL)
    with_structlog.log_changes(TRIPPED)
    rows = {row["event"]: row for row in output.rows()}
    done = rows["command.done"]
    assert done.pop("at") > 1.7e9
    assert done == {
        "event": "command.done",
        "level": "info",
        "resource": "contest-db",
        "command": "entrants",
        "outcome": "failure",
        "duration_s": 0.012346,
        "error_type": "OSError",
        "fallback": False,
        "enforced": True,
        "caller": "topps",
        "traceparent": TRACE,
    }
    assert rows["circuit.open"] == {
        "event": "circuit.open",
        "level": "warning",
        "resource": "saber",
        "command": "get",
        "old": "closed",
        "new": "open",
        "failures": 12,
        "volume": 20,
        "sleep_window_s": 5.0,
    }


def test_both_have_the_context_variables_of_the_call(unconfigured):
    output = Output()
    structlog_to(output)
    log = with_structlog.log_calls()
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        log(FULL)
        with_structlog.log_changes(TRIPPED)
    assert [row["request_id"] for row in output.rows()] == ["r-1", "r-1"]
    assert with_structlog.log_changes.prompt


def test_segments_are_named_after_context_variables(unconfigured, output):
    """Also where structlog is not configured, or does not merge them."""
    log = with_structlog.log_calls(segment=("plan", "customer", "unbound"))
    with structlog.contextvars.bound_contextvars(plan="gold", customer="topps", secret="s"):  # noqa: S106  no password
        log(FULL)
    (row,) = output.rows()
    fields = row["groundfault"]
    assert (fields["plan"], fields["customer"]) == ("gold", "topps")
    assert {"unbound", "secret"}.isdisjoint(fields)


def test_an_unconfigured_structlog_prints_nothing(unconfigured, output, capsys):
    with_structlog.log_changes(TRIPPED)
    with_structlog.log_calls()(FULL)
    assert [row["message"].split()[0] for row in output.rows()] == ["circuit.open", "command.done"]
    assert capsys.readouterr().out == ""


def test_an_unconfigured_structlog_leaves_the_level_to_the_logger(unconfigured, output):
    logging.getLogger("groundfault").setLevel(logging.ERROR)
    with_structlog.log_changes(TRIPPED)
    with_structlog.log_calls()(FULL)
    assert output.rows() == []


@pytest.mark.parametrize(
    "wrapper",
    [
        structlog.make_filtering_bound_logger(logging.INFO),
        structlog.BoundLogger,
        structlog.stdlib.BoundLogger,
        structlog.stdlib.AsyncBoundLogger,
    ],
)
def test_any_kind_of_bound_logger_does(unconfigured, wrapper):
    output = Output()
    structlog_to(output, wrapper_class=wrapper)
    with_structlog.log_calls()(FULL)
    with_structlog.log_changes(TRIPPED)
    assert {row["event"] for row in output.rows()} == {"command.done", "circuit.open"}
    assert events.internal_errors() == {}


def test_a_console_cannot_be_forged(unconfigured):
    output = Output()
    structlog.configure(
        processors=[structlog.dev.ConsoleRenderer(colors=False)], logger_factory=structlog.PrintLoggerFactory(output)
    )
    forged = CircuitChanged(
        "saber", "get", State.CLOSED, State.OPEN, 12, 20, 5.0, traceparent="x\n\x1b[31mERROR forged"
    )
    with_structlog.log_changes(forged)
    with_structlog.log_calls()(CommandDone("saber", "get", Outcome.SUCCESS, 0.1, origin="x\nERROR forged"))
    assert flush(LONG_S)
    text = output.getvalue()
    assert text.count("\n") == 2
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"level": 99}, ValueError), ({"segment": "plan"}, TypeError), ({"sample": 2.0}, ValueError)],
)
def test_wrong_settings_are_told_at_once(settings, error):
    with pytest.raises(error):
        with_structlog.log_calls(**settings)


# --- the whole story --------------------------------------------------------------------------------------------------


def get(app, trace):
    """Serve one request of a trace; return its status."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/scores",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_TRACEPARENT": trace,
        "wsgi.input": io.BytesIO(),
    }
    answered = []
    body = app(environ, lambda status, headers, exc_info=None: answered.append(int(status[:3])))
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()
    return answered[-1]


@pytest.fixture(params=["logging", "ExtraAdder", "structlog"])
def told(request, unconfigured):
    """Return sinks that log, and the output that they write JSON to."""
    if request.param == "structlog":
        output = Output()
        structlog_to(output)
        yield Sinks(with_structlog.log_changes, with_structlog.log_calls()), output
        return
    formatter = JSONFormatter()
    if request.param == "ExtraAdder":
        formatter = structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    output, detach = attach(formatter)
    yield Sinks(log_changes, log_calls()), output
    detach()


def story(output, trace):
    """Return what a log search for the trace finds: the events' names, and the outcomes of the calls among them."""
    found = []
    for row in output.rows():
        if trace in json.dumps(row):
            words = (row.get("event") or row["message"]).split()
            fields = row.get("groundfault", row)
            found.append((words[0], fields.get("outcome")))
    return sorted(found, key=str)


def test_a_search_for_a_trace_finds_the_whole_story(told):
    """Topps asks saber, which sheds, and then its database, whose failing trips the circuit: all of one request."""
    sinks, output = told
    saber_is_held, release = threading.Event(), threading.Event()

    def saber(environ, start_response):
        saber_is_held.set()
        assert release.wait(LONG_S)
        start_response("200 OK", [])
        return [b"scores"]

    guarded_saber = WSGILoadShedder(saber, shedder=Shedder(service="saber", max_concurrency=1, sinks=sinks))
    registry = Registry()
    scores = Resource("saber", registry=registry, sinks=sinks).command("scores")
    entrants = Resource("contest-db", registry=registry, sinks=sinks).command("entrants", minimum_volume_per_s=0.1)

    def failing():
        raise OSError("gone")

    def topps(environ, start_response):
        with scores.attempt() as attempt:
            if get(guarded_saber, TRACE) == 503:
                attempt.settle(Outcome.SHED)
        with pytest.raises(OSError, match="gone"):
            entrants.call(failing)
        start_response("200 OK", [])
        return [b""]

    holder = threading.Thread(target=get, args=(guarded_saber, OTHER_TRACE))
    holder.start()
    try:
        assert saber_is_held.wait(LONG_S)
        assert get(WSGILoadShedder(topps, shedder=Shedder(service="topps", sinks=sinks)), TRACE) == 200
    finally:
        release.set()
        holder.join(LONG_S)
    assert story(output, TRACE) == [
        ("circuit.open", None),
        ("command.done", "failure"),
        ("command.done", "shed"),
        ("command.failing", "failure"),
        ("server.shedding_started", None),
    ]
    assert story(output, OTHER_TRACE) == []


def test_asgi_requests_carry_their_trace_too(sink):
    """The short way into the application must not lose it."""
    command = Resource("contest-db", registry=Registry(), sinks=[sink]).command("entrants", minimum_volume_per_s=0.1)

    async def app(scope, receive, send):
        with pytest.raises(OSError, match="gone"):
            await command.acall(failing)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def failing():
        raise OSError("gone")

    async def send(message):
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"traceparent", TRACE.encode())],
        "extensions": {},
    }
    with pytest.raises(StopIteration):
        LoadShedder(app, service="topps", sinks=[sink])(scope, None, send).send(None)
    assert {type(event).__name__: event.traceparent for event in sink.events} == {
        "CommandFailing": TRACE,
        "CommandDone": TRACE,
        "CircuitChanged": TRACE,
        "RequestSeen": TRACE,
    }


# --- every change of a request that is being served says whose it was -------------------------------------------------


@pytest.fixture
def served():
    token = serving.set(RequestContext("topps", traceparent=TRACE))
    yield
    serving.reset(token)


def test_concurrency_says_whose_call_it_was_up_and_down(served, sink, clock):
    command = Resource("saber", registry=Registry(clock=clock), sinks=[sink]).command("get", max_concurrent=2)
    with command.attempt(), command.attempt():
        pass
    changes = [(event.level, event.traceparent) for event in sink.events if hasattr(event, "level")]
    assert changes[-1] == ("normal", TRACE)
    assert {trace for _, trace in changes} == {TRACE}


def test_the_throttle_says_whose_call_it_was(served, sink, clock):
    command = Resource("saber", registry=Registry(clock=clock, draw=lambda: 0.0), sinks=[sink]).command("get")
    for _ in range(5):
        for _ in range(20):
            with command.attempt() as attempt:
                attempt.settle(Outcome.SHED, refusal=Refusal(Reason.QUEUE_WAIT))
        clock.advance(1.1)
    changes = [event for event in sink.events if type(event).__name__ == "ThrottleChanged"]
    assert changes
    assert {event.traceparent for event in changes} == {TRACE}


def test_shedding_says_whose_request_began_and_whose_ended_it(sink, clock):
    shedder = Shedder(service="topps", sinks=[sink], clock=clock, max_concurrency=1)
    held = shedder.admit("GET /", 0.0, traceparent=OTHER_TRACE)
    shedder.admit("GET /", 0.0, traceparent=TRACE)
    shedder.release(held)
    clock.advance(4.0)
    shedder.release(shedder.admit("GET /", 0.0, traceparent=OTHER_TRACE))
    changes = [(event.shedding, event.traceparent) for event in sink.events if hasattr(event, "shedding")]
    assert changes == [(True, TRACE), (False, OTHER_TRACE)]


def test_a_request_that_is_withdrawn_says_whose_it_was(sink, clock):
    shedder = Shedder(service="topps", sinks=[sink], clock=clock)
    admission = shedder.admit("GET /", 0.0)
    assert shedder.withdraw(admission, Reason.QUEUE_WAIT, Criticality.CRITICAL, TRACE)
    assert [event.traceparent for event in sink.events if hasattr(event, "shedding")] == [TRACE]
