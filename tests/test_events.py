"""Events: said once, to whoever listens, and never at the cost of the call they tell of."""

import logging
import threading
from functools import partial

import pytest

from groundfault import events
from groundfault import sinks as sinks_module
from groundfault.events import (
    BacklogWarning,
    CircuitChanged,
    CommandDone,
    CommandFailing,
    ConcurrencyChanged,
    HealthChanged,
    RequestSeen,
    SaturationChanged,
    SettingsChanged,
    SettingsStoreChanged,
    SheddingChanged,
    ThrottleChanged,
)
from groundfault.sinks import Sinks
from groundfault.testing import ManualClock, RecordingSink
from groundfault.vocabulary import Criticality, Outcome, Reason, State


def circuit(new, **more):
    return CircuitChanged("saber", "get", State.CLOSED, new, failures=12, volume=20, sleep_window_s=5.0, **more)


DONE = CommandDone("saber", "get", Outcome.SUCCESS, 0.012)
SEEN = RequestSeen("saber", "GET /", None, Criticality.CRITICAL, 0.003, "kernel")
TRIPPED = circuit(State.OPEN)

NAMES = [
    (DONE, "command.done", False),
    (SEEN, "request.seen", False),
    (TRIPPED, "circuit.open", True),
    (circuit(State.HALF_OPEN), "circuit.half_open", False),
    (circuit(State.CLOSED), "circuit.closed", False),
    (ConcurrencyChanged("saber", "get", "high", 4, 5), "command.concurrency_high", True),
    (ConcurrencyChanged("saber", "get", "full", 5, 5), "command.concurrency_full", True),
    (ConcurrencyChanged("saber", "get", "normal", 1, 5), "command.concurrency_normal", False),
    (ThrottleChanged("saber", "get", 0.5), "command.throttle_started", True),
    (ThrottleChanged("saber", "get", 1.0), "command.throttle_ended", False),
    (SaturationChanged("saber", "get", saturated=True, refusals=20), "command.saturated", True),
    (SaturationChanged("saber", "get", saturated=False, refusals=90), "command.answering", False),
    (SheddingChanged("saber", shedding=True, queue_wait_s=0.3, shed=1), "server.shedding_started", True),
    (SheddingChanged("saber", shedding=False, queue_wait_s=0.0, shed=90), "server.shedding_ended", False),
    (BacklogWarning("saber", port=8000, depth=9, limit=10), "server.backlog_high", True),
    (CommandFailing("saber", "get", Outcome.TIMEOUT, 0.5, "TimeoutError"), "command.failing", True),
    (HealthChanged("saber", "get", healthy=False, error="OSError"), "command.unhealthy", True),
    (HealthChanged("saber", "get", healthy=True), "command.healthy", False),
    (SettingsChanged("saber/get", {"timeout_s": 1.0}, {"timeout_s": 2.0}), "settings.changed", False),
    (SettingsStoreChanged("file", "applied", "7"), "settings.applied", False),
    (SettingsStoreChanged("file", "rejected", "8", error="timeout_s"), "settings.rejected", True),
    (SettingsStoreChanged("file", "unreachable", error="gone", retry_s=2.0), "settings.unreachable", True),
    (SettingsStoreChanged("file", "reached", "7"), "settings.reached", False),
]


@pytest.mark.parametrize(("event", "name", "warning"), NAMES, ids=[name for _, name, _ in NAMES])
def test_every_kind_has_a_name_and_a_level(event, name, warning):
    assert events.name_of(event) == name
    assert events.is_warning(event) is warning


def test_no_kind_is_left_out_above():
    assert {type(event) for event, _, _ in NAMES} == set(events.Event.__args__)


@pytest.mark.parametrize("event", [event for event, _, _ in NAMES], ids=[name for _, name, _ in NAMES])
def test_events_have_no_dict_of_their_own(event):
    """Slots: half the price of building one, and a misspelled field is an error."""
    with pytest.raises(AttributeError):
        event.misspelled = 1


# --- sinks ------------------------------------------------------------------------------------------------------------


def rare_only(sink):
    def changes(event):
        sink(event)

    changes.changes_only = True
    return changes


def test_sinks_get_calls_and_changes_in_order(sink):
    sinks = Sinks(sink)
    sinks.command(DONE)
    sinks.change(TRIPPED)
    sinks.request(SEEN)
    assert sink.events == [DONE, TRIPPED, SEEN]


def test_a_sink_for_changes_is_never_given_calls(sink):
    sinks = Sinks.direct(rare_only(sink))
    sinks.command(DONE)
    sinks.change(TRIPPED)
    assert sink.events == [TRIPPED]
    assert sinks.commands == ()  # so that a component need not even build the event


def test_a_false_changes_only_changes_nothing(sink):
    changes = rare_only(sink)
    changes.changes_only = False
    Sinks.direct(changes).command(DONE)
    assert sink.events == [DONE]


def test_sinks_are_replaced_as_a_whole_or_added_to():
    first, second, third = RecordingSink(), RecordingSink(), RecordingSink()
    sinks = Sinks(first)
    sinks.use(second)
    third.changes_only = True
    sinks.add(third)
    sinks.command(DONE)
    sinks.change(TRIPPED)
    assert (first.events, second.events, third.events) == ([], [DONE, TRIPPED], [TRIPPED])


def test_no_sink_is_no_work():
    sinks = Sinks()
    sinks.command(DONE)
    sinks.change(TRIPPED)
    assert (sinks.commands, sinks.requests, sinks.changes) == ((), (), ())


def broken(event):
    raise RuntimeError("sink")


def test_a_raising_sink_is_counted_and_the_others_still_hear(sink, caplog):
    sinks = Sinks.direct(broken, sink)
    sinks.command(DONE)
    sinks.change(TRIPPED)
    assert sink.events == [DONE, TRIPPED]
    assert events.internal_errors() == {"sink broken": 2}


def test_a_sink_without_a_name_is_known_by_its_type():
    Sinks.direct(partial(broken)).command(DONE)
    assert events.internal_errors() == {"sink partial": 1}


def test_what_is_not_an_error_passes_a_sink():
    """Ctrl-C must end the process even while a sink runs."""

    def interrupted(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sinks.direct(interrupted).command(DONE)
    assert events.internal_errors() == {}


def test_the_process_wide_sinks_log_changes_unless_others_are_chosen():
    assert sinks_module.default_sinks().changes == (sinks_module.log_changes,)
    assert sinks_module.default_sinks().commands == ()
    assert sinks_module.default_sinks() is sinks_module.default_sinks()


# --- internal errors --------------------------------------------------------------------------------------------------


def test_internal_errors_are_logged_once_a_minute_for_each_place(caplog, monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(events, "monotonic", clock)
    error = RuntimeError("boom")
    for _ in range(3):
        events.note_internal_error("here", error)
    events.note_internal_error("there", error)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "internal error in here (1 so far)",
        "internal error in there (1 so far)",
    ]
    clock.advance(59.9)
    events.note_internal_error("here", error)
    assert len(caplog.records) == 2
    clock.advance(0.1)
    events.note_internal_error("here", error)
    assert caplog.records[-1].getMessage().startswith("internal error in here (5 so far)")
    assert caplog.records[-1].exc_info[1] is error
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert events.internal_errors() == {"here": 5, "there": 1}


def test_the_count_handed_out_is_a_copy():
    events.note_internal_error("here", RuntimeError("boom"))
    events.internal_errors()["here"] = 99
    assert events.internal_errors() == {"here": 1}


def test_a_raising_logging_setup_changes_nothing(monkeypatch):
    def broken_filter(record):
        raise RuntimeError("filter")

    logger = logging.getLogger("groundfault")
    logger.addFilter(broken_filter)
    try:
        events.note_internal_error("here", RuntimeError("boom"))
        Sinks(sinks_module.log_changes).change(TRIPPED)
    finally:
        logger.removeFilter(broken_filter)
    assert events.internal_errors() == {"here": 1, "sink log_changes": 1}


# --- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [event for event, _, _ in NAMES if not isinstance(event, (CommandDone, RequestSeen))])
def test_a_change_is_one_line_with_its_fields_beside_it(event, caplog):
    caplog.set_level(logging.INFO, "groundfault")
    sinks_module.log_changes(event)
    (record,) = caplog.records
    assert record.getMessage().startswith(events.name_of(event) + " ")
    assert record.levelno == (logging.WARNING if events.is_warning(event) else logging.INFO)
    assert record.groundfault == {name: getattr(event, name) for name in type(event).__slots__}
    assert events.internal_errors() == {}


def test_the_line_of_a_trip(caplog):
    sinks_module.log_changes(TRIPPED)
    assert caplog.messages == [
        "circuit.open resource=saber command=get old=closed new=open failures=12 volume=20 sleep_window_s=5.0"
    ]


@pytest.mark.parametrize(
    ("trace", "shown"),
    [
        ("00-4bf9-00f0-01", "traceparent=00-4bf9-00f0-01"),
        ("x\nERROR forged", r"traceparent='x\nERROR forged'"),
        ("x level=info", "traceparent='x level=info'"),
        ("\x1b[31m", r"traceparent='\x1b[31m'"),
        ("\x85", r"traceparent='\x85'"),
        ("a" * 5000, f"traceparent='{'a' * 128}'"),
        ("\ud800", r"traceparent='\ud800'"),
    ],
)
def test_what_came_with_a_request_cannot_forge_a_line(trace, shown, caplog):
    sinks_module.log_changes(circuit(State.OPEN, traceparent=trace))
    (message,) = caplog.messages
    assert message.endswith(shown)
    assert "\n" not in message


class Guarded:
    """A callable setting whose object cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def criticality(self, request):
        return None


def test_settings_with_callables_are_logged(caplog):
    caplog.set_level(logging.INFO, "groundfault")
    guarded = Guarded().criticality
    Sinks(sinks_module.log_changes).change(SettingsChanged("saber", {"criticality": None}, {"criticality": guarded}))
    assert events.internal_errors() == {}
    assert caplog.records[0].groundfault["new"]["criticality"] is guarded


def test_reasons_are_shown_as_their_words(caplog):
    event = SheddingChanged("saber", shedding=True, queue_wait_s=0.25, shed=1, reason=Reason.QUEUE_WAIT)
    sinks_module.log_changes(event)
    assert caplog.messages == [
        "server.shedding_started service=saber shedding=True queue_wait_s=0.25 shed=1 reason=queue-wait enforced=True"
    ]


def test_times_are_shown_to_a_millisecond(caplog):
    sinks_module.log_changes(SheddingChanged("saber", shedding=True, queue_wait_s=0.1, shed=1, predicted_wait_s=5 / 3))
    assert "queue_wait_s=0.1 " in caplog.text
    assert "predicted_wait_s=1.667 " in caplog.text
