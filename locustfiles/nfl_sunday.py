"""An NFL Sunday: a day's curve with its kickoffs and touchdowns, larger and faster.

    locust -f locustfiles/nfl_sunday.py --headless [--scale 3] [--speed 900] [--curve DAY.csv] [--variant unprotected]

``locustfiles/curves/nfl_sunday.csv`` is a day made up for this purpose, from 10:00 to 24:00: lineups lock at 1 pm, the
late games at 4:05 and 4:25, the night game at 8:20, and thirteen touchdowns, each five to eight times the rate within
fifteen seconds. ``--curve`` takes any other: a CSV file with the head ``t_seconds,rps``. ``--scale`` from 1 to 10
multiplies the rates, ``--speed`` the time: at 900 the day takes 56 seconds, at 60 a quarter of an hour.

The local target can do 20 a second. At scale 1 the plain rate leaves room and only touchdowns exceed it; at 3, the
default, the games themselves are more than it can do. What to expect of the fans (answers in time per second):

    in the morning                 what is due: everybody is served
    from the first touchdown on, groundfault     20, or what is due if less; all innocents, who need nothing scarce
    from the first touchdown on, unprotected     20 for a second, then near 0 until the night

With ``--host`` the load goes there, to ``--path`` and ``--innocent-path``; ``--capacity`` says what it can do.
"""

from argparse import ArgumentTypeError, Namespace
from itertools import pairwise
from pathlib import Path

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.rates import RatesError, read_rates
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

DAY = Path(__file__).resolve().parent / "curves" / "nfl_sunday.csv"

BUSY_SHARE = 0.2
"""The busy part of a day is from the first moment to the last with so much of its highest rate."""

SURGE, SURGE_S = 3.0, 60.0
"""A surge is a rise by this factor within this time of the day."""


def scale(text: str) -> float:
    """Read ``--scale``."""
    value = float(text)
    if not 1 <= value <= 10:  # noqa: PLR2004  as the message says
        raise ArgumentTypeError(f"scale must be from 1 to 10, not {text}")
    return value


def speed(text: str) -> float:
    """Read ``--speed``."""
    value = float(text)
    if not 0 < value <= 100_000:  # noqa: PLR2004  as the message says
        raise ArgumentTypeError(f"speed must be above 0 and at most 100000, not {text}")
    return value


def add_options(group: Options) -> None:
    """Add which day is played, and how."""
    group.add_argument("--curve", default=str(DAY), metavar="CSV", help="the day: t_seconds,rps")
    group.add_argument("--scale", type=scale, default=3.0, help="multiplies all rates, 1 to 10")
    group.add_argument("--speed", type=speed, default=900.0, help="how many times as fast as the day itself")
    group.add_argument("--path", default="/lineup/{n}", help="path that needs the scarce service")
    group.add_argument("--innocent-path", default="/lobby", help="path that does not")
    group.add_argument("--innocent-share", type=float, default=1 / 3, help="innocents for each fan")


def day(options: Namespace) -> Points:
    """Return the day as it is played. Raises ValueError if the file holds none."""
    try:
        return read_rates(Path(options.curve)).scaled(options.scale, time=1 / options.speed)
    except (OSError, RatesError) as error:
        raise ValueError(f"curve: {error}") from error


def spans(options: Namespace) -> dict[str, tuple[float, float]]:
    """Return the busy part, and the quiet one before it if it lasts for three seconds."""
    curve = day(options)
    busy = [t for t, rps in curve.points if rps >= BUSY_SHARE * curve.peak_rps]
    start, end = busy[0], max(busy[-1], busy[0] + 1.0)
    quiet = {"morning": (0.0, start - 1.0)} if start >= 4 else {}  # noqa: PLR2004  as the docstring says
    return {"spike": (start, end), **quiet}


def surges(options: Namespace) -> list[tuple[float, str, str]]:
    """Return a mark for each moment at which everybody came at once."""
    points = day(options).points
    return [
        (t0, "", f"surge to {r1:.0f} a second")
        for (t0, r0), (t1, r1) in pairwise(points)
        if r1 >= SURGE * r0 > 0 and t1 - t0 <= SURGE_S / options.speed
    ]


SCENARIO = Scenario(
    name="nfl-sunday",
    title="An NFL Sunday",
    options=add_options,
    lanes=lambda options: (
        Lane("fan", options.path),
        Lane("lobby", options.innocent_path, share=options.innocent_share, innocent=True),
    ),
    curve=day,
    spans=spans,
    timeline=surges,
    bounds=promised("goodput@spike>=0.75", "success.innocent@spike>=0.95", "failed@spike<=0.03"),
    target=lambda _options: catalogue.sunday(),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
