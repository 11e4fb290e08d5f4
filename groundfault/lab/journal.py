"""What the services of the chain report: events as JSON lines, one file for each process.

A service writes, the runner reads along while the run goes on. Times are readings of the monotonic clock,
which all processes of a machine share, so they compare with the load generator's.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groundfault._clock import Clock, monotonic
from groundfault.events import Event, is_warning, name_of

__all__ = ["Journal", "Reader"]


class Journal:
    """A sink that appends every event to ``directory/<service>-<pid>.jsonl``.

    The file is opened at the first event, so a worker that was forked after this object was made has one of its own.
    """

    prompt = True

    def __init__(self, directory: Path, service: str, clock: Clock = monotonic) -> None:
        self._directory = directory
        self._service = service
        self._clock = clock
        self._pid = 0
        self._fd = -1

    def __call__(self, event: Event) -> None:
        """Write one event. A single write to a file opened for appending: threads do not tear each other's lines."""
        if self._pid != os.getpid():
            pid = os.getpid()
            path = self._directory / f"{self._service}-{pid}.jsonl"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._pid = pid
        row = {
            "t": self._clock(),
            "event": name_of(event),
            "warning": is_warning(event),
            "by": self._service,
            "pid": self._pid,
            **asdict(event),
        }
        os.write(self._fd, json.dumps(row, default=str).encode() + b"\n")


class Reader:
    """Reads the JSON lines that appeared since the last look in the files that match a pattern."""

    def __init__(self, directory: Path, pattern: str) -> None:
        self._directory = directory
        self._pattern = pattern
        self._offsets: dict[Path, int] = {}

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the rows written since the last call. A line still being written is left for the next one."""
        for path in sorted(self._directory.glob(self._pattern)):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + end
            for line in data[:end].splitlines():
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row
