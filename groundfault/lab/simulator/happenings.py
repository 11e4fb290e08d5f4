"""What happens to services in the midst of it: sickness, slowness, deploys, scaling, cleared caches."""

from collections.abc import Callable
from typing import Final

from groundfault.lab.simulator.calendar import Calendar
from groundfault.lab.simulator.fleet import Instance, ServiceState
from groundfault.lab.simulator.model import Action, Happening, Protection

__all__ = ["Happenings"]


class Happenings:
    """Puts each of them into the calendar. ``born``: makes a new instance of a service."""

    def __init__(
        self, calendar: Calendar, services: dict[str, ServiceState], born: Callable[[ServiceState], Instance]
    ) -> None:
        self._calendar = calendar
        self._services = services
        self._born = born

    def plan(self, each: Happening) -> None:
        """Let it happen when its time comes."""
        self._calendar.at(each.at, self._begin, each)

    def _begin(self, each: Happening) -> None:
        service = self._services[each.service]
        if each.action is Action.CLEAR_CACHES:
            self._clear(each)
        elif each.action is Action.DEPLOY:
            self._deploy((each, list(service.instances)))
        elif each.action is Action.SCALE:
            self._scale(service, each)
        else:
            affected = service.instances[: each.instances]
            for instance in affected:
                _CHANGES[each.action](instance, each)
                instance.renew()
            if each.for_s is not None:
                self._calendar.at(each.at + each.for_s, self._end, (each, affected))

    def _end(self, what: tuple[Happening, list[Instance]]) -> None:
        each, affected = what
        for instance in affected:
            _BACK[each.action](instance, each)
            instance.renew()

    def _clear(self, each: Happening) -> None:
        """Clear the caches in front of the service: of one of its callers, or of all."""
        for caller in self._services.values():
            if each.caller not in {None, caller.name}:
                continue
            for edge in caller.edges:
                if edge.callee.name == each.service and edge.said.cache is not None:
                    edge.warm, edge.warmed_at = 0.0, self._calendar.now

    def _scale(self, service: ServiceState, each: Happening) -> None:
        wanted = each.instances or 1
        for _ in range(wanted - len(service.instances)):
            service.instances.append(self._born(service))
        for instance in service.instances[wanted:]:
            self._stop(instance)
        self._calendar.at(self._calendar.now + each.notice_s, self._notice, (service, service.instances[wanted:]))

    # A deploy, some instances at a time.

    def _deploy(self, what: tuple[Happening, list[Instance]]) -> None:
        each, left = what
        batch, rest = left[: each.batch], left[each.batch :]
        for instance in batch:
            self._stop(instance)
        now = self._calendar.now
        service = self._services[each.service]
        self._calendar.at(now + each.notice_s, self._notice, (service, batch))
        self._calendar.at(now + each.notice_s + each.start_s, self._start, (service, len(batch)))
        if rest:
            self._calendar.at(now + each.notice_s + each.start_s, self._deploy, (each, rest))

    def _stop(self, instance: Instance) -> None:
        """Stop taking work: a protected instance says so, any other closes its port."""
        if instance.service.protection is Protection.GROUNDFAULT and instance.service.said.shedder:
            for process in instance.processes:
                assert process.shedder is not None  # noqa: S101  protected
                process.shedder.drain()
        else:
            instance.refuses = True
            instance.renew()

    def _notice(self, what: tuple[ServiceState, list[Instance]]) -> None:
        """Take them out of rotation, for the balancer has noticed."""
        service, gone = what
        for instance in gone:
            for process in instance.processes:
                for link in process.links:
                    link.watch.retire()
        service.instances = [each for each in service.instances if each not in gone]

    def _start(self, what: tuple[ServiceState, int]) -> None:
        service, number = what
        for _ in range(number):
            service.instances.append(self._born(service))


def _slower(instance: Instance, each: Happening) -> None:
    instance.slow *= each.factor


def _as_fast(instance: Instance, each: Happening) -> None:
    instance.slow /= each.factor
    if abs(instance.slow - 1.0) < 1e-9:  # noqa: PLR2004  what a division leaves
        instance.slow = 1.0


def _fail(instance: Instance, each: Happening) -> None:
    instance.fails = each.share


def _well(instance: Instance, _: Happening) -> None:
    instance.fails = 0.0


def _sham(instance: Instance, each: Happening) -> None:
    instance.shams = each.share


def _honest(instance: Instance, _: Happening) -> None:
    instance.shams = 0.0


def _refuse(instance: Instance, _: Happening) -> None:
    instance.refuses = True


def _accept(instance: Instance, _: Happening) -> None:
    instance.refuses = False


def _hang(instance: Instance, _: Happening) -> None:
    instance.hangs = True


def _answer(instance: Instance, _: Happening) -> None:
    instance.hangs = False


_CHANGES: Final = {
    Action.SLOW: _slower,
    Action.FAIL: _fail,
    Action.HANDLED: _sham,
    Action.DOWN: _refuse,
    Action.HANG: _hang,
}
_BACK: Final = {
    Action.SLOW: _as_fast,
    Action.FAIL: _well,
    Action.HANDLED: _honest,
    Action.DOWN: _accept,
    Action.HANG: _answer,
}
