"""docs/reference/events.md says of each event what the code says."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from groundfault import events
from groundfault.call_log import CallLog
from groundfault.events import (
    CircuitChanged,
    CommandDone,
    ConcurrencyChanged,
    HealthChanged,
    RequestSeen,
    SaturationChanged,
    SettingsStoreChanged,
    SheddingChanged,
    ThrottleChanged,
)
from groundfault.integrations._webhook_text import FAMILIES
from groundfault.integrations.dogstatsd import DogStatsD
from groundfault.integrations.opentelemetry import Meters
from groundfault.integrations.webhook import Webhook
from groundfault.sinks import log_changes
from groundfault.vocabulary import State

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "events.md").read_text()
ROW = re.compile(r"^\| `([\w.]+)` \| `(\w+)` \| (info|warning) \| (.+?) \| ([\w, ]+) \|$", re.MULTILINE)

# What a kind of event may hold that gives it another name.
VARIANTS = {
    CircuitChanged: [{"new": state} for state in State],
    ConcurrencyChanged: [{"level": level} for level in ("high", "full", "normal")],
    HealthChanged: [{"healthy": True}, {"healthy": False}],
    SaturationChanged: [{"saturated": True}, {"saturated": False}],
    SettingsStoreChanged: [{"status": status} for status in ("applied", "rejected", "unreachable", "reached")],
    SheddingChanged: [{"shedding": True}, {"shedding": False}],
    ThrottleChanged: [{"admitted_share": 0.5}, {"admitted_share": 1.0}],
}


def every_event():
    for kind in events.Event.__args__:
        for held in VARIANTS.get(kind, [{}]):
            yield kind(**({field.name: None for field in fields(kind)} | held))


def sinks_of(event):
    if isinstance(event, (CommandDone, RequestSeen)):
        return "calls, metrics"
    return "log, stream, chat" if events.name_of(event) in FAMILIES else "log, stream"


def documented():
    said, last = {}, {}
    for name, kind, level, told, sinks in ROW.findall(PAGE):
        if told != "as above":
            last[kind] = tuple(re.findall(r"`(\w+)`", told))
        said[name] = kind, level, last[kind], sinks
    return said


def test_the_table_of_events_is_that_of_the_code():
    assert documented() == {
        events.name_of(event): (
            type(event).__name__,
            "warning" if events.is_warning(event) else "info",
            tuple(field.name for field in fields(event)),
            sinks_of(event),
        )
        for event in every_event()
    }


@pytest.mark.parametrize(
    ("sink", "takes_calls"),
    [(log_changes, False), (DogStatsD, False), (Webhook, False), (CallLog, True), (Meters, True)],
)
def test_what_the_table_says_of_the_sinks_is_what_they_take(sink, takes_calls):
    assert getattr(sink, "changes_only", False) is not takes_calls


def test_every_family_of_alerts_is_of_an_event():
    assert set(FAMILIES) <= {events.name_of(event) for event in every_event()}


@pytest.mark.parametrize("name", sorted({events.name_of(event) for event in every_event()}))
def test_each_name_has_a_time_when_it_is_said(name):
    told = PAGE.partition("\nWhen:\n")[2].partition("\n## ")[0]
    assert f"`{name}`" in told or f"`{name.rpartition('_')[0]}_*`" in told or f"`{name.split('.')[0]}.*`" in told
