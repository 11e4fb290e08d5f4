"""What services tell by second, and what is worth a row in a plot. Pure."""

from collections.abc import Sequence

from groundfault.lab.runs.record import Service

__all__ = ["busy", "shed_shares", "waits"]


def waits(services: Sequence[Service]) -> dict[str, list[float | None]]:
    """Return the queue wait of each service that measured one, in ms."""
    return {each.name: each.wait_p95_ms for each in services if any(v is not None for v in each.wait_p95_ms)}


def shed_shares(services: Sequence[Service]) -> dict[str, list[float | None]]:
    """Return the share that each service shed in each second, of those that shed anything."""
    return {
        each.name: [part / whole if whole else None for part, whole in zip(each.shed, each.arrived, strict=True)]
        for each in services
        if any(each.shed) and each.arrived
    }


def busy(services: Sequence[Service]) -> dict[str, list[float | None]]:
    """Return how busy each service was, of those that say it."""
    return {each.name: each.busy for each in services if any(v is not None for v in each.busy)}
