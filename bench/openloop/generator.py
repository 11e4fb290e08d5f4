"""Sends requests when they are due, whatever became of the ones before: one thread, raw sockets, epoll.

Latency counts from the moment a request was *due*, so a generator or a server that falls behind is not flattered.
Each request has a connection of its own, unless ``keep_alive``; after its deadline the client closes and is gone.
How late each was sent is recorded too: a run whose generator could not keep up is no measurement.
"""

import contextlib
import gc
import heapq
import os
import random
import select
import socket
from array import array
from collections import deque
from dataclasses import dataclass, field
from math import inf
from time import monotonic  # noqa: TID251  a generator of load has no clock to be given

LATE, BROKEN = -1, -2
"""Outcomes beside HTTP statuses: not answered within the deadline; connection refused, reset or cut short."""

_BATCH = 24  # launched before answers are looked at again
_LEAST_GAP_S = 0.00002


@dataclass
class Plan:
    """What is to be sent. ``due`` is in seconds from the start, ascending; ``lanes`` say what each is counted as.

    ``retry_share``: of the attempts that failed, how many are made again, up to ``retries`` times; who does is drawn
    for each request by itself, so that it is the same whatever became of the others. None is due after ``until_s``.
    ``begin``: the start, a reading of the monotonic clock; None: at once.
    """

    port: int
    deadline_s: float
    due: "array[float]"
    requests: list[bytes]
    lanes: "array[int]"
    retries: int = 0
    retry_share: float = 1.0
    backoff_s: float = 0.1
    until_s: float = inf
    keep_alive: bool = False
    cpu: int | None = None
    seed: int = 0
    begin: float | None = None


@dataclass
class Outcome:
    """What became of it: one entry an attempt; ``which`` is its place in the plan. Seconds from the start."""

    which: "array[int]" = field(default_factory=lambda: array("l"))
    due: "array[float]" = field(default_factory=lambda: array("d"))
    latency: "array[float]" = field(default_factory=lambda: array("d"))
    status: "array[int]" = field(default_factory=lambda: array("h"))
    lag: "array[float]" = field(default_factory=lambda: array("d"))
    final: "array[int]" = field(default_factory=lambda: array("b"))  # no attempt follows


class _Call:
    """One attempt on the wire."""

    __slots__ = ("attempt", "buffer", "due", "expires", "fd", "lag", "sock", "used", "which")

    def __init__(self, which: int, attempt: int, due: float, now: float, expires: float) -> None:
        self.which = which
        self.attempt = attempt
        self.due = due
        self.lag = now - due
        self.expires = expires
        self.buffer = b""
        self.fd = -1
        self.used = False
        self.sock: socket.socket


class Generator:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._address = ("127.0.0.1", plan.port)
        self._epoll = select.epoll()
        self._calls: dict[int, _Call] = {}
        self._idle: list[socket.socket] = []
        self._expiring: deque[_Call] = deque()
        self._again: list[tuple[float, int, int, int]] = []
        self._dice = random.Random(plan.seed)
        self._number = 0
        self.outcome = Outcome()
        self._start = 0.0

    def run(self) -> Outcome:
        """Send everything and wait for the last answer or deadline."""
        due, count = self._plan.due, len(self._plan.due)
        position = 0
        start = self._start = monotonic() + 0.05 if self._plan.begin is None else self._plan.begin
        while position < count or self._calls or self._again:
            now = monotonic()
            launched = 0
            while position < count and start + due[position] <= now and launched < _BATCH:
                self._launch(position, 0, start + due[position], now)
                position += 1
                launched += 1
            while self._again and self._again[0][0] <= now and launched < _BATCH:
                again_due, _, which, attempt = heapq.heappop(self._again)
                self._launch(which, attempt, again_due, now)
                launched += 1
            self._expire(now)
            gap = self._gap(start + due[position] if position < count else None, now)
            if gap > _LEAST_GAP_S:
                select.select((self._epoll,), (), (), gap)  # to the microsecond, which epoll itself is not
            for fd, events in self._epoll.poll(0, 256):
                call = self._calls.get(fd)
                if call is not None:
                    self._on_event(call, events)
        self._epoll.close()
        for sock in self._idle:
            sock.close()
        return self.outcome

    def _gap(self, next_due: float | None, now: float) -> float:
        until = now + 0.1
        if next_due is not None:
            until = min(until, next_due)
        if self._again:
            until = min(until, self._again[0][0])
        if self._expiring:
            until = min(until, self._expiring[0].expires)
        return until - now

    def _launch(self, which: int, attempt: int, due: float, now: float) -> None:
        call = _Call(which, attempt, due, now, due + self._plan.deadline_s)
        self._expiring.append(call)
        self._connect(call, fresh=False)

    def _connect(self, call: _Call, *, fresh: bool) -> None:
        if self._idle and not fresh:
            call.sock = self._idle.pop()
            call.used = True
        else:
            call.sock = socket.socket()
            call.sock.setblocking(False)  # noqa: FBT003  socket's own signature
            call.used = False
            with contextlib.suppress(BlockingIOError):
                call.sock.connect(self._address)
        call.fd = call.sock.fileno()
        self._calls[call.fd] = call
        events = select.EPOLLIN
        try:
            call.sock.send(self._plan.requests[call.which])
        except (BlockingIOError, BrokenPipeError, ConnectionError, OSError) as error:
            if not isinstance(error, BlockingIOError) and call.used:
                self._again_on_fresh(call)
                return
            events |= select.EPOLLOUT
        try:
            self._epoll.register(call.fd, events)
        except FileExistsError:
            self._epoll.modify(call.fd, events)

    def _again_on_fresh(self, call: _Call) -> None:
        """Do what every pool does when the server has closed an idle connection meanwhile."""
        self._forget(call)
        call.buffer = b""
        self._connect(call, fresh=True)

    def _on_event(self, call: _Call, events: int) -> None:
        if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
            try:
                call.sock.send(self._plan.requests[call.which])
            except BlockingIOError:
                return
            except OSError:
                self._end(call, BROKEN)
                return
            self._epoll.modify(call.fd, select.EPOLLIN)
            return
        try:
            data = call.sock.recv(16384)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if call.used and not call.buffer:
                self._again_on_fresh(call)
            else:
                self._end(call, _status_of(call.buffer) if b"\r\n\r\n" in call.buffer else BROKEN)
            return
        call.buffer = call.buffer + data if call.buffer else data
        if _is_whole(call.buffer):
            self._end(call, _status_of(call.buffer))

    def _expire(self, now: float) -> None:
        expiring = self._expiring
        while expiring and (expiring[0].fd < 0 or expiring[0].expires <= now):
            call = expiring.popleft()
            if call.fd >= 0:
                self._end(call, LATE)

    def _insists(self, call: _Call) -> bool:
        share = self._plan.retry_share
        return share >= 1 or random.Random(f"{self._plan.seed} {call.which} {call.attempt}").random() < share

    def _forget(self, call: _Call) -> None:
        del self._calls[call.fd]
        call.sock.close()  # takes it out of the epoll set as well

    def _end(self, call: _Call, status: int) -> None:
        now = monotonic()
        plan, outcome = self._plan, self.outcome
        if plan.keep_alive and status > 0 and b"onnection: close" not in call.buffer[:1024]:
            del self._calls[call.fd]
            self._epoll.unregister(call.fd)
            self._idle.append(call.sock)
        else:
            self._forget(call)
        call.fd = -1
        final = status == 200 or call.attempt >= plan.retries or not self._insists(call)
        again = 0.0
        if not final:
            again = now + plan.backoff_s * 2**call.attempt * self._dice.uniform(0.5, 1.5)
            final = again - self._start >= plan.until_s
        outcome.which.append(call.which)
        outcome.due.append(call.due - self._start)
        outcome.latency.append(now - call.due)
        outcome.status.append(status)
        outcome.lag.append(call.lag)
        outcome.final.append(final)
        if not final:
            self._number += 1
            heapq.heappush(self._again, (again, self._number, call.which, call.attempt + 1))


def _status_of(answer: bytes) -> int:
    try:
        return int(answer[9:12])
    except ValueError:
        return BROKEN


def _is_whole(answer: bytes) -> bool:
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    lower = answer[:head].lower()
    at = lower.find(b"content-length:")
    if at < 0:
        return False  # until the server closes
    return len(answer) - head - 4 >= int(lower[at + 15 :].split(b"\r\n", 1)[0])


def drive(plan: Plan) -> Outcome:
    """Run a plan in this process, on the plan's CPU."""
    if plan.cpu is not None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {plan.cpu})
    gc.collect()
    gc.freeze()
    gc.disable()
    return Generator(plan).run()


def saturate(
    port: int, request: bytes, *, connections: int, seconds: float, cpu: int | None, status: int = 200
) -> tuple[float, float]:
    """Return answers of ``status`` per second where so many clients each send the next when the last is answered.

    Over the whole time but its first quarter, and in the best tenth of that.
    """
    if cpu is not None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpu})
    epoll = select.epoll()
    calls: dict[int, socket.socket] = {}
    moments: list[float] = []

    def begin() -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=2)
        sock.send(request)
        calls[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)

    for _ in range(connections):
        begin()
    started = monotonic()
    counted_from = started + seconds / 4
    until = started + seconds
    while monotonic() < until:
        for fd, _ in epoll.poll(0.1):
            sock = calls.pop(fd)
            answer = sock.recv(16384)
            sock.close()
            if _status_of(answer) == status:
                moments.append(monotonic())
            begin()
    for sock in calls.values():
        sock.close()
    epoll.close()
    counted = [each for each in moments if counted_from <= each < until]
    slice_s = (until - counted_from) / 10
    slices = [0] * 10
    for each in counted:
        slices[min(int((each - counted_from) / slice_s), 9)] += 1
    return len(counted) / (until - counted_from), max(slices) / slice_s
