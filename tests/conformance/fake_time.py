"""Time that moves when it is told to, put in the place of a library's own time source."""

import datetime as dt
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_WALL_S = 1_800_000_000.0


class FakeTime:
    """A monotonic clock and a wall clock. Called, it is the monotonic one, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_s = _WALL_S

    def __call__(self) -> float:
        """Return the monotonic time."""
        return self.now_s

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return self.wall_s

    def elapse(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.now_s += seconds
        self.wall_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        self.wall_s += seconds

    @contextmanager
    def inside(self, package: str) -> Iterator[None]:
        """Replace each name in the package's modules that means a clock of the standard library.

        The functions, the module ``time`` and the class ``datetime.datetime``: wherever the library asks for
        the time, by whatever import, it asks this object. Other packages keep the real clocks.
        """
        stand_ins = self._stand_ins()
        before: list[tuple[ModuleType, str, Any]] = []
        for name, module in list(sys.modules.items()):
            if name != package and not name.startswith(f"{package}."):
                continue
            for attribute, value in list(vars(module).items()):
                for real, fake in stand_ins:
                    if value is real:
                        before.append((module, attribute, value))
                        setattr(module, attribute, fake)
        try:
            yield
        finally:
            for module, attribute, value in before:
                setattr(module, attribute, value)

    def _stand_ins(self) -> list[tuple[Any, Any]]:
        fake_time = ModuleType("time")
        fake_time.__dict__.update(vars(time), monotonic=self, perf_counter=self, time=self.wall)
        moment = self._datetime()
        fake_datetime = ModuleType("datetime")
        fake_datetime.__dict__.update(vars(dt), datetime=moment)
        return [
            (time.monotonic, self),  # noqa: TID251  compared, never called
            (time.perf_counter, self),  # noqa: TID251  as above
            (time.time, self.wall),  # noqa: TID251  as above
            (time, fake_time),
            (dt.datetime, moment),
            (dt, fake_datetime),
        ]

    def _datetime(self) -> type[dt.datetime]:
        wall = self.wall

        class Moment(dt.datetime):
            """``datetime`` on the fake wall clock."""

            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> "Moment":
                """Return the fake present."""
                return cls.fromtimestamp(wall(), tz)

            @classmethod
            def utcnow(cls) -> "Moment":
                """Return the fake present in UTC, without a time zone."""
                return cls.fromtimestamp(wall(), dt.UTC).replace(tzinfo=None)

        return Moment
