"""One simulation: a scenario, a seed and a variant, from the first arrival to the last answer."""

from collections.abc import Callable
from importlib.metadata import version
from random import Random
from typing import Final

from groundfault._context import RequestContext
from groundfault.events import internal_errors
from groundfault.lab.runs.measures import judged
from groundfault.lab.runs.record import Mark, Run
from groundfault.lab.simulator.arriving import Source, seconds_of
from groundfault.lab.simulator.calendar import Calendar, Timers
from groundfault.lab.simulator.calling import Calling
from groundfault.lab.simulator.cores import Cores, serving_alone
from groundfault.lab.simulator.fleet import CircuitWatch, Edge, Instance, Link, Process, Request, ServiceState
from groundfault.lab.simulator.happenings import Happenings
from groundfault.lab.simulator.model import Protection, Scenario
from groundfault.lab.simulator.serving import Serving

__all__ = ["DETAILED_S", "LINGER_S", "Simulation", "simulate"]

LINGER_S: Final = 300.0
"""How long after the last arrival a simulation goes on at most, for what is still on its way."""

DETAILED_S: Final = 7200.0
"""Of a longer run, services and edges are not kept second by second: of a fleet and a day that would be gigabytes."""

_GUARDED: Final = frozenset({Protection.GROUNDFAULT, Protection.PLAIN, Protection.BREAKERS})
_SHEDS: Final = frozenset({Protection.GROUNDFAULT, Protection.PLAIN})

Progress = Callable[[float], None]
"""Told the virtual time, in seconds, once in each second of it."""


def simulate(
    scenario: Scenario, *, seed: str = "1", variant: Protection | None = None, progress: Progress | None = None
) -> Run:
    """Return what becomes of a scenario: the same scenario, seed and variant give the same run, wherever it is made.

    ``variant``: what protects each service that does not say so itself; None: what the scenario says.
    Raises SwitchedOffError while GROUNDFAULT_DISABLED is set, MeasureError for bounds that make no sense.
    """
    return Simulation(scenario, seed=seed, variant=variant, progress=progress).run()


class Simulation:
    """Everything one simulation is made of. Use it once.

    ``calls``: hops that have come in at a service so far, which is what its speed is counted in.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: str = "1",
        variant: Protection | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.variant = scenario.variant if variant is None else variant
        self.seconds = seconds_of(scenario.total_s)
        self.calendar = calendar = Calendar()
        self._progress = progress
        self._context = RequestContext("simulated")
        self._cores = Cores(lambda: calendar.now, Random(f"{seed}/cores").random)
        self.serving = Serving(calendar, self._cores, Random(f"{seed}/servers"))
        self._calling = self.serving.calling = Calling(
            calendar,
            self._context,
            Random(f"{seed}/callers"),
            self.serving,
            self._ended,
        )
        self.services: dict[str, ServiceState] = {}
        self._instances: list[Instance] = []  # all there ever were, those that are gone too
        self._build()
        self.sources = [
            Source(stream, self.services[stream.to], calendar, self._calling, seed=seed, seconds=self.seconds)
            for stream in scenario.streams
        ]

    @property
    def calls(self) -> int:
        """Hops that have come in at a service so far."""
        return self.serving.served

    def run(self) -> Run:
        """Run it to the end. Raises KeyboardInterrupt when somebody stops it; nothing is left behind then."""
        errors = sum(internal_errors().values())
        with serving_alone(self._context):
            calendar = self.calendar
            for second in range(1, self.seconds + 1):
                calendar.run(float(second))
                calendar.now = float(second)
                self._tick(float(second))
            calendar.run(self.seconds + LINGER_S)
        return self._told(sum(internal_errors().values()) - errors)

    def leaks(self) -> list[str]:
        """Return what did not end where it began, a sentence each: permits, threads, requests. Call it after a run."""
        found = [f"{each.open} requests of {each.stream.name} have no end" for each in self.sources if each.open]
        for instance in self._instances:
            service = instance.service
            threads = service.said.threads
            if instance.inside or instance.queue or instance.load:
                found.append(f"{service.name}: {instance.inside} inside, {len(instance.queue)} queued")
            if threads is not None and len(instance.free) != threads * len(instance.processes):
                found.append(f"{service.name}: {len(instance.free)} threads are free")
            for process in instance.processes:
                if process.shedder is not None and process.shedder.snapshot().in_flight:
                    found.append(f"{service.name}: a shedder counts requests in flight")
                found += [
                    f"{service.name}: {link.command} holds permits"
                    for link in process.links
                    if link.command is not None and link.command.snapshot().in_flight
                ]
        return found

    def _build(self) -> None:
        for name, said in self.scenario.services.items():
            protection = said.protection or self.variant
            self.services[name] = ServiceState(said, protection, Random(f"{self.seed}/service/{name}"))
        for service in self.services.values():
            for call in service.said.calls:
                edge = Edge(service, self.services[call.to], call, call.protection or service.protection)
                edge.timers = Timers(self.calendar, self._calling.timed_out)
                guarded = edge.protection in _GUARDED  # the client half writes the header, and the server half reads it
                heard = edge.callee.protection in _SHEDS and edge.callee.said.shedder
                edge.tells = self.scenario.propagates and guarded and heard
                service.edges.append(edge)
        for service in self.services.values():
            service.instances = [self._born(service, warm=True) for _ in range(service.said.instances)]
        happenings = Happenings(self.calendar, self.services, self._born)
        for each in self.scenario.happenings:
            happenings.plan(each)

    def _born(self, service: ServiceState, *, warm: bool = False) -> Instance:
        said = service.said
        instance = Instance(service, None if warm else self.calendar.now)
        sheds = said.shedder and service.protection in _SHEDS
        for _ in range(said.workers):
            shedder = self._cores.shedder(said.name, said.deadline_s, said.max_concurrency) if sheds else None
            instance.processes.append(Process(instance, shedder, [self._link(edge) for edge in service.edges]))
        if said.threads is not None:
            instance.free.extend(instance.processes * said.threads)
        self._instances.append(instance)
        return instance

    def _link(self, edge: Edge) -> Link:
        said = edge.said
        watch = CircuitWatch(self.calendar, edge.counts)
        command = None
        if edge.protection in _GUARDED:
            settings = {**said.breaker, "timeout_s": said.timeout_s}
            command = self._cores.command(edge.callee.name, said.name, settings, watch.changed)
        ratio = None if said.retries is None else said.retries.budget
        return Link(command, None if ratio is None else self._cores.budget(ratio), watch)

    def _ended(self, request: Request) -> None:
        request.edge.ended(request)

    def _tick(self, now: float) -> None:
        for service in self.services.values():
            if self.seconds > DETAILED_S:
                service.counts.waits.clear()
                continue
            size = len(service.instances)
            places = size * service.said.workers * (service.said.threads or 1)
            service.counts.tick(now, places, size)
            for edge in service.edges:
                edge.counts.tick()
        if self._progress is not None:
            self._progress(now)

    def _told(self, errors: int) -> Run:
        scenario = self.scenario
        streams = []
        for source in self.sources:
            said = source.stream
            streams.append(source.counts.as_stream(said.name, self.seconds, innocent=said.innocent))
            if source.again is not None:
                name = f"{said.name}-again"
                streams.append(source.again.as_stream(name, self.seconds, innocent=said.innocent))
        detailed = self.seconds <= DETAILED_S
        notes = [] if detailed else ["The run is long: services and edges are not told second by second, only trips."]
        run = Run(
            name=scenario.name,
            title=scenario.title,
            source="simulator",
            seconds=self.seconds,
            deadline_s=max(each.deadline_s for each in scenario.streams),
            streams=streams,
            variant=self.variant.value,
            target=f"{len(self.services)} simulated services",
            seed=self.seed,
            capacity_rps=scenario.capacity_rps,
            spans=dict(scenario.spans),
            marks=[Mark(t=each.at, text=each.text) for each in scenario.happenings],
            services=[each.counts.as_service() for each in self.services.values()] if detailed else [],
            edges=[edge.counts.as_edge(float(self.seconds)) for each in self.services.values() for edge in each.edges],
            notes=notes,
            void=[f"the cores survived {errors} errors of their own"] if errors else [],
            settings={"scenario": scenario.document},
            versions={"groundfault": version("groundfault")},
        )
        run.checks.extend(judged(run, scenario.bounds))
        return run
