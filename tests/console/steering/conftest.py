"""Steering over each kind of store, at a time that stands still until it is moved."""

import pytest

from groundfault.console.answering import RefusedError
from groundfault.console.steering import Steering
from groundfault.settings.memory import MemoryStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import Change

SETTINGS = {
    "*": {"failure_threshold": 0.4, "server.deadline_s": 0.8},
    "topps": {"failure_threshold": 0.6},
    "topps/contest-db": {"timeout_s": 0.5},
}
FIRST = [Change(scope, name, value) for scope, names in SETTINGS.items() for name, value in names.items()]


class Steered:
    """A store, what steers it, and the few things that tests do with both."""

    def __init__(self, store, clock, **options):
        self.store = store
        self.clock = clock
        self.steering = Steering(store, clock=clock, reports=options.pop("reports", list), **options)

    @property
    def version(self):
        return self.steering.shown("")["version"]

    @property
    def held(self):
        return {f"{each.scope}:{each.name}": each.value for each in self.store.load(None).entries}

    def body(self, *changes, **more):
        said = {"reason": "db is slow", "based_on": self.version}
        if changes:
            said["changes"] = [dict(zip(("scope", "name", "value", "for_s"), each, strict=False)) for each in changes]
        return {**said, **more}

    def change(self, *changes, **more):
        return self.steering.change(self.body(*changes, **more))

    def preview(self, *changes, **more):
        return self.steering.preview(self.body(*changes, **more))

    def refused(self, body, *, of="change"):
        """Return the refusal that a body meets, and see that nothing was written."""
        before = self.store.load(None)
        with pytest.raises(RefusedError) as caught:
            getattr(self.steering, of)(body)
        assert self.store.load(None) == before
        return caught.value


@pytest.fixture(params=["memory", "file", "sqlite"])
def steered(request, tmp_path, clock):
    """Return steering over a store that holds SETTINGS, of each kind."""
    if request.param == "memory":
        yield Steered(MemoryStore(SETTINGS, clock=clock), clock)
        return
    url = {"file": f"file:{tmp_path}/settings.json", "sqlite": f"sqlite:///{tmp_path}/settings.db"}[request.param]
    store = open_store(url)
    store.write(FIRST, reason="the first", actor="ops", based_on="0")
    made = Steered(store, clock)
    yield made
    store.close()


@pytest.fixture
def steer(clock):
    """Return a function that makes steering over a store; None: one in memory that holds SETTINGS."""

    def make(store=None, **options):
        return Steered(MemoryStore(SETTINGS, clock=clock) if store is None else store, clock, **options)

    return make


@pytest.fixture
def in_memory(steer):
    """Return steering over a store in memory that holds SETTINGS."""
    return steer()
