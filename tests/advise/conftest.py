"""Distributions and logs with known answers."""

import json
from collections import Counter
from math import log

import pytest

from groundfault.advise.distribution import FINEST_S, PER_E, ZEROTH, Distribution
from groundfault.advise.log_fields import fields_of
from groundfault.advise.logs import read_logs
from groundfault.advise.observed import Observed, Rates, Seen
from groundfault.logfiles.progress import Progress


def _fine(values_s):
    return Distribution.of_fine(Counter(int(log(max(value_s, FINEST_S)) * PER_E + ZEROTH) for value_s in values_s))


@pytest.fixture(scope="session")
def fine():
    """Return a function that counts durations as a log's are."""
    return _fine


@pytest.fixture(scope="session")
def observe():
    """Return a function that makes a command: durations of successes, and what else is said of it."""

    def make(
        successes,
        *,
        timeouts=(),
        failures=(),
        calls=None,
        rate=None,
        peak=None,
        processes=None,
        segments=None,
        **settings,
    ):
        durations = {"success": successes if isinstance(successes, Distribution) else _fine(successes)}
        for outcome, values in (("timeout", timeouts), ("failure", failures)):
            if values:
                durations[outcome] = _fine(values)
        counted = {outcome: held.count for outcome, held in durations.items()}
        return Observed(
            durations,
            "contest-db",
            "entrants",
            {**counted, **(calls or {})},
            {name: Seen({"success": _fine(values)}) for name, values in (segments or {}).items()},
            None if rate is None else Rates(rate, peak or rate, 10.0),
            processes,
            settings,
        )

    return make


@pytest.fixture(scope="session")
def line():
    """Return a function that writes one line of the call log, as bytes without its end."""

    def write(**fields):
        usual = {"event": "command.done", "resource": "contest-db", "command": "entrants", "outcome": "success"}
        return json.dumps({**usual, "duration_s": 0.1, "ts": 1_795_436_400.0, **fields}).encode()

    return write


@pytest.fixture
def read(tmp_path):
    """Return a function that reads lines as a file and returns the reading."""

    def from_lines(lines, fields=None, segment=None, *, over_s=None, jobs=1, name="calls.log", pack=bytes):
        path = tmp_path / name
        path.write_bytes(pack(b"\n".join(lines) + b"\n"))
        progress = Progress(quiet=True)
        return read_logs([str(path)], fields_of(fields, segment), over_s=over_s, jobs=jobs, progress=progress)

    return from_lines
