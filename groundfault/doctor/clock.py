"""Whether this machine's clock can be believed: the kernel's word on NTP, read only.

A wait is measured by the monotonic clock, and deadlines travel as what is left of them. So one thing alone depends on
clocks that agree: ``X-Request-Start``, written by a proxy on another machine.
"""

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from groundfault.doctor.finding import Finding, ok, warning

__all__ = ["SKEW", "KernelClock", "judge_clock", "look_at_clock", "read_kernel_clock"]

SKEW: Final = "X-Request-Start of another host is off by as much; deadlines are relative and do not care"
_CHECK: Final = "clock"
_UNSYNCHRONIZED: Final = 0x40  # STA_UNSYNC, include/uapi/linux/timex.h
_NANOSECONDS: Final = 0x2000  # STA_NANO
_LARGE_S: Final = 0.05
"""An error from which on ``header_age`` takes times that lie in the future for nonsense."""


@dataclass(frozen=True, slots=True)
class KernelClock:
    """What ``adjtimex`` says: whether somebody keeps the clock, what is left to correct, and its estimated error."""

    synchronized: bool
    offset_s: float
    error_s: float


class _Timex(ctypes.Structure):
    """The head of ``struct timex``, and room for the rest, which nothing here reads."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def read_kernel_clock() -> KernelClock | None:
    """Ask the kernel without changing anything; None where it does not say, as outside of Linux."""
    if sys.platform != "linux":
        return None
    said = _Timex()  # modes 0: nothing is set
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(said)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    unit = 1e9 if said.status & _NANOSECONDS else 1e6
    return KernelClock(not said.status & _UNSYNCHRONIZED, said.offset / unit, said.esterror / 1e6)


def look_at_clock() -> Iterator[Finding]:
    """Judge this machine's clock."""
    yield judge_clock(read_kernel_clock())


def judge_clock(clock: KernelClock | None) -> Finding:
    """Judge what the kernel says of its clock."""
    if clock is None:
        return ok(
            _CHECK, "", "the kernel does not say whether its clock is synchronized; --url compares it with others"
        )
    if not clock.synchronized:
        seen = "the kernel's clock is not synchronized"
        return warning(_CHECK, "", seen, SKEW, "chrony or systemd-timesyncd, on the host if this is a container")
    error_s = abs(clock.offset_s) + clock.error_s
    seen = f"the kernel's clock is synchronized, within {error_s * 1e3:.1f} ms"
    if error_s > _LARGE_S:
        return warning(_CHECK, "", seen, SKEW, "look at the source: chronyc tracking, timedatectl timesync-status")
    return ok(_CHECK, "", seen)
