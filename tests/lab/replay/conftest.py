"""Logs as servers write them."""

import json

import pytest

from groundfault.lab.replay.reading import read_logs
from groundfault.logfiles.progress import Progress


def combined(second=0, request="GET /lobby HTTP/1.1", status=200, *, zone="+0000", ident="10.1.2.3 - alice", day=22):
    """Return a line of the combined format, so many seconds after 18:00."""
    at = f"{day}/Nov/2026:{18 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} {zone}"
    return f'{ident} [{at}] "{request}" {status} 512 "https://a.example/?q=secret" "Mozilla/5.0"'


@pytest.fixture(scope="session")
def line():
    return combined


@pytest.fixture
def read(tmp_path):
    """Return a function that reads lines, by way of a file."""

    def reading(lines, *, name="access.log", pack=bytes, jobs=1, within=None):
        path = tmp_path / name
        texts = [text if isinstance(text, bytes) else text.encode() for text in lines]
        path.write_bytes(pack(b"\n".join(texts) + b"\n"))
        return read_logs([str(path)], jobs=jobs, within=within, progress=Progress(quiet=True))

    return reading


@pytest.fixture
def routes(read):
    """Return a function that reads lines and returns the kinds of requests in them, with their numbers."""

    def kinds(lines, **settings):
        plan = read(lines, **settings).plan
        weights = plan.weights()
        return {f"{kind.method} {kind.path}": weights[at] for at, kind in enumerate(plan.templates)}

    return kinds


@pytest.fixture
def plan_file(tmp_path):
    """Return a function that writes a plan of so many requests a second."""

    def write(rps, *, templates=(("GET", "/lobby"),), mix=None, start="2026-11-22T18:00:00+00:00"):
        path = tmp_path / "plan.json"
        said = {
            "format": "groundfault-traffic-plan",
            "version": 1,
            "start": start,
            "rps": rps,
            "templates": [{"method": method, "path": kind} for method, kind in templates],
            "mix": mix or [[[at, 1] for at in range(len(templates))]] * -(-len(rps) // 60),
        }
        path.write_text(json.dumps(said))
        return path

    return write
