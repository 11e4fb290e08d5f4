"""What a case is, what it sees, and the bench on which it puts a library."""

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from conformance.fake_time import FakeTime
from conformance.subject import OPEN, Broken, Can, Guard, Subject, Wanted
from conformance.ways import PATIENCE_S, WAYS, Pending, Way

MADE, REFUSED, BLOCKED = "made", "refused", "blocked"

PASS, FAIL, HANGS, NOT_APPLICABLE = "pass", "fail", "hangs", "n/a"


class Seen(NamedTuple):
    """What a case saw: whether it was right, and the observation in a few words."""

    ok: bool
    text: str


class SetUpError(Exception):
    """The library could not be brought to where the case begins."""


class Bench:
    """One library, one way of calling, one case."""

    def __init__(self, subject: Subject, way: Way, time: FakeTime) -> None:
        self.subject = subject
        self.way = way
        self.time = time

    def make(self, **wanted: Any) -> Guard:
        """Make a guard; see ``Wanted``."""
        asked = Wanted(**wanted)
        guard = self.subject.make(asked)
        guard.wanted = asked
        return guard

    def good(self, guard: Guard) -> bool:
        """Make a call that succeeds; say whether it was made."""
        ran: list[None] = []
        try:
            self.way.call(guard, lambda: ran.append(None))
        except Exception as error:
            if ran or not isinstance(error, self.subject.refusals):
                raise
        return bool(ran)

    def bad(self, guard: Guard, error: BaseException | None = None) -> bool:
        """Make a call that raises (``Broken`` unless told otherwise); say whether it was made."""
        ran: list[None] = []

        def fail() -> None:
            ran.append(None)
            raise error if error is not None else Broken

        try:
            self.way.call(guard, fail)
        except BaseException as raised:
            if not ran and not isinstance(raised, self.subject.refusals):
                raise
        return bool(ran)

    def ask(self, guard: Guard) -> str:
        """Make a call that succeeds, without waiting for ever: made, refused or blocked."""
        if self.way.kind == "async":
            return MADE if self.good(guard) else REFUSED
        answer: list[bool] = []
        thread = threading.Thread(target=lambda: answer.append(self.good(guard)), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        if not answer:
            return BLOCKED
        return MADE if answer[0] else REFUSED

    def start(self, guard: Guard) -> Pending:
        """Make a call that stays inside; see ``ways``."""
        return self.way.start(guard)

    def trip(self, guard: Guard) -> None:
        """Fail it until it is open."""
        for _ in range(guard.wanted.failures):
            self.bad(guard)
        if guard.state() != OPEN:
            raise SetUpError(f"{guard.state()} after as many failures as it was told")

    def wake(self, guard: Guard) -> None:
        """Let its sleep go by."""
        self.time.elapse(guard.wanted.sleep_s + 1.0)

    def until_half_open(self, guard: Guard) -> None:
        """Trip it and let its sleep go by: the next call is the probe."""
        self.trip(guard)
        self.wake(guard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question. ``ways``: which ways of calling it is put in; ``limit_s``: after which it counts as hanging."""

    id: str
    title: str
    group: str
    origin: str
    needs: frozenset[Can]
    ways: tuple[str, ...]
    once: bool
    real_time: bool
    apart: bool
    limit_s: float
    judge: Callable[[Bench], Seen]

    def missing(self, subject: type[Subject]) -> list[Can]:
        """Return what the subject lacks for this case to be put to it."""
        missing = sorted(self.needs - subject.can)
        if not self.ways_of(subject):
            missing += [Can.SYNC if way == "sync" else Can.ASYNC for way in self.ways]
        return missing

    def ways_of(self, subject: type[Subject]) -> list[str]:
        """Return the ways in which the case is put to the subject."""
        has = {"sync": Can.SYNC in subject.can, "async": Can.ASYNC in subject.can}
        ways = [way for way in self.ways if has[way]]
        return ways[:1] if self.once else ways


def put(case: Case, subject: type[Subject]) -> tuple[str, str]:
    """Put the case to the subject, in this process; return the verdict and what was seen."""
    missing = case.missing(subject)
    if missing:
        return NOT_APPLICABLE, f"needs {missing[0].value}"
    seen: dict[str, Seen] = {}
    ways = case.ways_of(subject)
    for kind in ways:
        seen[kind] = _put(case, subject, kind)
    wrong = {kind: one for kind, one in seen.items() if not one.ok}
    if not wrong:
        return PASS, seen[ways[0]].text
    texts = {one.text for one in wrong.values()}
    if len(wrong) == len(ways) and len(texts) == 1:
        return FAIL, texts.pop()
    return FAIL, "; ".join(f"{kind}: {one.text}" for kind, one in wrong.items())


def _put(case: Case, subject: type[Subject], kind: str) -> Seen:
    time = FakeTime()
    with ExitStack() as stack:
        if not case.real_time:
            stack.enter_context(time.inside(subject.package))
        way = WAYS[kind]()
        stack.callback(way.close)
        try:
            return case.judge(Bench(subject(None if case.real_time else time), way, time))
        except SetUpError as error:
            return Seen(ok=False, text=str(error))
        except Exception as error:  # noqa: BLE001  a library may raise anything anywhere; that is what was seen
            return Seen(ok=False, text=f"raised {type(error).__name__}: {error}"[:120])


class Group:
    """The cases of one heading; calling it registers one."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.cases: list[Case] = []

    def __call__(
        self,
        identity: str,
        title: str,
        *,
        origin: str = "",
        needs: Iterable[Can] = (),
        ways: tuple[str, ...] = ("sync", "async"),
        once: bool = False,
        real_time: bool = False,
        apart: bool = False,
        limit_s: float = 30.0,
    ) -> Callable[[Callable[[Bench], Seen]], Callable[[Bench], Seen]]:
        """Register a case.

        ``origin``: the invariant and the public threads that it comes from. ``once``: one way of calling is enough.
        ``real_time``: the library keeps its own clocks. ``apart``: in a process of its own, also for GroundFault.
        """

        def register(judge: Callable[[Bench], Seen]) -> Callable[[Bench], Seen]:
            self.cases.append(
                Case(
                    id=identity,
                    title=title,
                    group=self.title,
                    origin=origin,
                    needs=frozenset(needs),
                    ways=ways,
                    once=once,
                    real_time=real_time,
                    apart=apart,
                    limit_s=limit_s,
                    judge=judge,
                )
            )
            return judge

        return register
