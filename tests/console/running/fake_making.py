"""Observers and views for the tests of what runs them: they count, remember and show the reports they have seen."""

import os

from groundfault.console._post import Making
from groundfault.console.view import FORMAT


class CountingObserver:
    def __init__(self, service=None, seen=0):
        self.seen = seen
        self.calls = None

    def see(self, report, now):
        self.seen += 1
        self.calls = sum(sum(each.calls.values()) for each in report.commands.values())

    def remembered(self):
        return {"seen": self.seen}

    @classmethod
    def recalled(cls, said, service=None):
        return cls(seen=said["seen"])


def counting_view(observers, *, now, kind, title, host, release, sequence, interval_s, hosts=(), unknown=()):
    return {
        "title": title,
        "format": FORMAT,
        "release": release,
        "kind": kind,
        "host": host,
        "made_at": now,
        "sequence": sequence,
        "interval_s": interval_s,
        "commands": [{"seen": each.seen, "calls": each.calls} for each in observers],
        "unknown": list(unknown),
        "made_by": os.getpid(),
    }


MAKING = Making(CountingObserver, CountingObserver.recalled, counting_view)


def install():
    """Have every recorder of this process use them."""
    Making.usual = classmethod(lambda cls: MAKING)
