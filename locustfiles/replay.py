"""Replays traffic that was: a plan made from access logs, at any scale.

    groundfault replay read access.log --out plan.json
    locust -f locustfiles/replay.py --headless --host http://127.0.0.1:8000 --plan plan.json --scale 8

Requests arrive as they did, by the second, ``--scale`` times as many, and of the same kinds as in that minute.
Where they varied, in numbers, ids and values of queries, they vary again, with values that are made up.
Only GET and HEAD are sent unless ``--methods`` says more. ``--since 18:00 --for-s 600`` takes a part,
``--scale-time 0.1`` plays it in a tenth of the time at the same rates. The span ``spike`` is the busiest minute.

What to expect with C as what the scarcest service can do, in good answers per second: where the curve lies below C, as
many good answers as requests; where it lies above, C with shedding, and near 0 without any after a second or so.
Say so with a gate: ``--gate "goodput@spike>=0.85" --capacity C``.

``groundfault replay`` runs this file, and looks first whether the host is one that may be loaded.
"""

from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.replay.replaying import SCENARIO


class Visitors(ArrivalUser):
    """Whoever came that day."""

    scenario = SCENARIO
