"""A service with a command and a shedder, and live settings whose threads are never started: a test does their work."""

import pytest

from groundfault import Shedder
from groundfault.breaker import Registry, Resource
from groundfault.events import SettingsChanged, SettingsStoreChanged
from groundfault.settings.live import LiveSettings
from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Change
from groundfault.testing import ManualClock


class Driven:
    """Live settings by hand: each :meth:`look` is one look at the store, each :meth:`tick` what time demands."""

    def __init__(self, sink, **options):
        self.clock = ManualClock(50.0)
        self.wall = ManualClock(1_000_000.0)
        self.sink = sink
        self.registry = options.pop("registry", Registry(clock=self.clock))
        self.resource = Resource("contest-db", registry=self.registry, sinks=[sink])
        self.store = options.pop("store", MemoryStore(clock=self.wall))
        self.live = LiveSettings(
            self.store,
            service=options.pop("service", "topps"),
            registry=self.registry,
            shedders=options.pop("shedders", ()),
            sinks=[sink],
            cache=options.pop("cache", False),
            clock=self.clock,
            wall_clock=self.wall,
            draw=lambda: 0.5,
            **options,
        )
        self.live._overlays.begin()

    def look(self, known=...):
        from groundfault.settings._reading import Reading  # noqa: PLC0415  what the reader's thread does

        try:
            reading = Reading(document=self.store.load(self.live._standing.seen if known is ... else known))
        except Exception as error:  # noqa: BLE001  as the reader does
            reading = Reading(error=error)
        self.live._take(reading)
        return reading

    def tick(self):
        if self.live._overlays.is_due():
            self.live._overlays.renew()

    def set(self, scope, name, value, expires_at=None):
        base = self.store.load(None)
        change = Change(scope, name, value, expires_at)
        return self.store.write([change], reason="test", actor="tester", based_on=base.version)

    @property
    def said(self):
        return [(event.status, event.version) for event in self.sink.of(SettingsStoreChanged)]

    @property
    def changes(self):
        return [(event.component, event.new) for event in self.sink.of(SettingsChanged)]


@pytest.fixture
def driven(sink):
    """Return live settings by hand over a store in memory."""
    made = Driven(sink)
    yield made
    made.live._overlays.end()


@pytest.fixture
def drive(sink):
    """Return a function that makes live settings by hand, with options."""
    made = []

    def make(**options):
        made.append(Driven(sink, **options))
        return made[-1]

    yield make
    for each in made:
        each.live._overlays.end()


@pytest.fixture
def shedder(sink, clock):
    """Return the shedder of a service."""
    return Shedder(service="topps", sinks=[sink], clock=clock)
