"""What happens to the chain, and when who asks it for what. Pure: no clock, no I/O."""

from array import array
from dataclasses import dataclass, replace
from typing import Literal

from openloop.generator import Plan

from cascading.parts import FREE, NEED, USER_S, Last, Variant
from groundfault.lab.curves import Spike, arrivals

__all__ = ["FREE_LANE", "NEED_LANE", "SCENARIOS", "Scenario"]

NEED_LANE, FREE_LANE = 0, 1

LOAD = 0.6
"""Base traffic that needs the last service, as a share of what that one can do: healthy, with room to spare."""

RETRY_SHARE = 0.7
RETRIES = 3
RETRY_AFTER_S = 1.0
"""Users who insist: of those who failed, so many ask again, up to three times.

The first time after 0.5 to 1.5 s, then each time after twice as long.
"""

_PATHS = {NEED_LANE: NEED, FREE_LANE: FREE}


_TWO_SLOTS = Last()
_FOUR_INSTANCES = Last(instances=4, slots=1, work_s=0.05)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of trouble. Seconds.

    ``factor``: how many times the base traffic there is during the event. ``innocents``: for each request that needs
    the last service. ``kind``: what is wrong with the last service meanwhile. ``left``: the share of what it can do
    that it can still do then. ``variants``: those that say something about it.
    """

    name: str
    title: str
    factor: float = 1.0
    innocents: float = 1.0
    kind: Literal["load", "slow", "down", "sick"] = "load"
    left: float = 1.0
    retries: int = 0
    last: Last = _TWO_SLOTS
    calm_s: float = 6.0
    event_s: float = 20.0
    after_s: float = 20.0
    variants: tuple[Variant, ...] = (Variant.GROUNDFAULT, Variant.PLAIN, Variant.INTERLOCK)

    @property
    def curve(self) -> Spike:
        """The rate of requests that need the last service. A step up and a step down: nothing warns the chain."""
        return Spike(
            base_rps=LOAD * self.nominal_rps,
            factor=self.factor,
            before_s=self.calm_s,
            spike_s=self.event_s,
            after_s=self.after_s,
            rise_s=0.0,
        )

    @property
    def nominal_rps(self) -> float:
        """Requests a second that the load is a multiple of: what one instance with two slots of 0.1 s can do."""
        return _TWO_SLOTS.capacity_rps

    def quick(self) -> "Scenario":
        """Return the same, short enough to be looked at while working on something; its figures are noisier."""
        return replace(self, calm_s=2.0, event_s=5.0, after_s=4.0)

    def plan(self, port: int, seed: int, begin: float) -> Plan:
        """Draw all arrivals, by chance along the curve. The same seed gives the same ones to every variant."""
        due = [(at, NEED_LANE) for at in arrivals(self.curve, seed=f"{self.name} {seed} need")]
        due += [(at, FREE_LANE) for at in arrivals(self.curve, scale=self.innocents, seed=f"{self.name} {seed} free")]
        due.sort()
        request = {
            lane: f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
            for lane, path in _PATHS.items()
        }
        return Plan(
            port,
            USER_S,
            array("d", [at for at, _ in due]),
            [request[lane] for _, lane in due],
            array("l", [lane for _, lane in due]),
            retries=self.retries,
            retry_share=RETRY_SHARE,
            backoff_s=RETRY_AFTER_S,
            until_s=self.curve.total_s,
            seed=seed,
            begin=begin,
        )


_WITH_NONE = (*Scenario.variants, Variant.NONE)

_ALL = (
    Scenario(name="spike", title="8x for 20 s", factor=8, innocents=1 / 3, variants=_WITH_NONE),
    Scenario(
        name="retries",
        title="8x for 20 s, users retry",
        factor=8,
        innocents=1 / 3,
        retries=RETRIES,
        variants=_WITH_NONE,
    ),
    Scenario(name="brownout", title="last service at a quarter of its speed", kind="slow", left=0.25),
    Scenario(name="down", title="last service down", kind="down", left=0.0),
    Scenario(name="sick", title="last service refuses everything", kind="sick", left=0.0),
    Scenario(
        name="sick-one",
        title="one of four instances refuses everything",
        kind="sick",
        left=0.75,
        last=_FOUR_INSTANCES,
    ),
    Scenario(
        name="minute",
        title="8x for a minute, users retry",
        factor=8,
        innocents=1 / 3,
        retries=RETRIES,
        event_s=60.0,
        after_s=60.0,
        variants=_WITH_NONE,
    ),
)

SCENARIOS = {each.name: each for each in _ALL}
"""By name; the order is that of the report."""
