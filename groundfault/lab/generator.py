"""The load generator: Locust, as a program of its own, driving locustfiles/gronk_spike.py."""

from collections.abc import Sequence
from pathlib import Path

from groundfault.lab.curves import Spike
from groundfault.lab.processes import DemoError

__all__ = ["command", "locustfile"]

_NAME = "gronk_spike.py"


def locustfile(name: str = _NAME) -> Path:
    """Return a scenario file: in an installed package beside this module, in a checkout at its root.

    Raises :class:`DemoError` if it is in neither place.
    """
    here = Path(__file__).resolve().parent
    for path in (here / "locustfiles" / name, here.parent.parent / "locustfiles" / name):
        if path.is_file():
            return path
    raise DemoError(f"{name} is missing from this installation; reinstall: pip install 'groundfault[demo]'")


def command(
    host: str,
    curve: Spike,
    *,
    result_file: Path,
    deadline_s: float,
    innocent_share: float,
    path: str = "/lineup/{n}",
) -> Sequence[str]:
    """Return the arguments of ``python -m`` that send ``curve`` to ``host`` and write a row per request."""
    options = {
        "--locustfile": locustfile(),
        "--host": host,
        "--users": 1,
        "--spawn-rate": 1,
        "--loglevel": "WARNING",
        "--exit-code-on-error": 0,
        "--base-rps": curve.base_rps,
        "--spike": curve.factor,
        "--before": curve.before_s,
        "--hold": curve.spike_s,
        "--after": curve.after_s,
        "--rise": curve.rise_s,
        "--deadline": deadline_s,
        "--innocent-share": innocent_share,
        "--path": path,
        "--result-file": result_file,
    }
    return ["locust", "--headless", "--only-summary", *(f"{name}={value}" for name, value in options.items())]
