"""Views for the tests of what shows them: quiet, or in the middle of a spike, with any number of commands."""

import math
from random import Random
from typing import Any, cast

from groundfault.console.view import FORMAT, POINT_S, POINTS, WINDOW_S, View

SERVICES = ("topps", "grouper", "saber", "checkout")


def sample_view(commands: int = 40, *, spike: bool = False, seed: int = 7, now: float = 1_763_930_000.0) -> View:
    """Return a view with that many commands. ``spike``: traffic eightfold for the last 30 s, one circuit tripped."""
    random = Random(seed)
    rows = [_command(number, random, spike=spike) for number in range(commands)]
    rows.sort(key=lambda row: (-row["trouble"], row["id"]))
    servers = [_server(name, random, spike=spike) for name in SERVICES[:3]]
    level = "bad" if spike else "ok"
    view: dict[str, Any] = {
        "format": FORMAT,
        "release": "0.1.0",
        "kind": "host",
        "title": "topps",
        "host": "web-1",
        "made_at": now,
        "sequence": 4711,
        "interval_s": 1.0,
        "window_s": WINDOW_S,
        "point_s": POINT_S,
        "headline": {
            "level": level,
            "words": "grouper sheds 62 % of its requests; 1 circuit is open" if spike else "nothing is wrong",
            "rate_per_s": sum(row["rate_per_s"] for row in servers),
            "goodput_per_s": sum(row["goodput_per_s"] for row in servers),
            "shed_share": 0.62 if spike else 0.0,
            "wait_p99_s": 0.31 if spike else 0.004,
            "threshold_s": 0.02 if spike else 0.25,
            "open_circuits": sum("open" in row["states"] for row in rows),
            "saturated": sum(row["limit"] == row["in_flight"] for row in rows),
            "commands": commands,
            "processes": 8,
            "stale": 0,
            "hosts": 1,
            "behind": 2 if spike else 0,
            "lag_s": 1.4 if spike else 0.0,
            "version": "17-3f2a",
            **_curve(900.0, random, spike=spike),
        },
        "servers": servers,
        "commands": rows,
        "hidden": 0,
        "map": _map(spike=spike),
        "timeline": _timeline(now, spike=spike),
        "stores": [
            {
                "store": "sqlite:///var/lib/shop/settings.db",
                "versions": {"17-3f2a": 6, "16-77b0": 2} if spike else {"17-3f2a": 8},
                "newest": "17-3f2a",
                "behind": 2 if spike else 0,
                "lag_s": 1.4 if spike else 0.0,
                "age_s": 0.6,
                "unreachable": 0,
                "rejected": 0,
            }
        ],
        "processes": [
            {
                "pid": 4000 + number,
                "host": "web-1",
                "service": SERVICES[number % 3],
                "age_s": 0.2 + 0.1 * number,
                "stale": False,
                "versions": {"sqlite:///var/lib/shop/settings.db": "17-3f2a"},
            }
            for number in range(8)
        ],
        "hosts": [],
        "internal_errors": {},
        "unknown": ["4711-00ff00ff00ff00ff.json says nothing: it is damaged: its checksum is another"] if spike else [],
    }
    return cast("View", view)


def _curve(rate: float, random: Random, *, spike: bool) -> dict[str, list[float | None]]:
    spark: list[float | None] = []
    bad: list[float | None] = []
    for point in range(POINTS):
        peak = 8.0 if spike and point >= POINTS - 15 else 1.0
        value = rate * peak * (1 + 0.1 * math.sin(point / 4) + random.uniform(-0.05, 0.05))
        spark.append(round(value, 1))
        bad.append(round(value * (0.62 if peak > 1 else 0.0), 1))
    return {"spark": spark, "bad": bad}


def _command(number: int, random: Random, *, spike: bool) -> dict[str, Any]:
    service = SERVICES[number % len(SERVICES)]
    resource, command = f"{('contest-db', 'saber', 'wallet', 'players')[number // 4 % 4]}", f"get_{number:03}"
    rate = 10 ** random.uniform(-0.5, 2.5)
    p50 = 10 ** random.uniform(-3, -1)
    limit = random.choice((None, 5, 20, 40))
    counts = {"success": round(rate * WINDOW_S)}
    states, why, level, trouble, share, saturated, modes = {"closed": 8}, [], "ok", 0.0, 0.0, 0, {}
    in_flight = min(round(rate * p50), (limit or 99) - 1)
    if spike and number == 3:
        states, level, trouble, share = {"open": 3, "half-open": 1, "closed": 4}, "bad", 900.0, 0.71
        counts |= {"failure": 420, "timeout": 88, "circuit-open": 2100}
        why = ["circuit open in 3 of 8 processes", "71 % of the calls failed"]
    elif spike and number % 5 == 1:
        level, trouble = "warn", 300.0 - number % 100
        counts |= {"shed": round(rate * 40), "throttled": round(rate * 4)}
        why = ["80 % of the calls are shed by the callee", "sends 22 % of the calls"]
    elif limit and number % 7 == 2:
        in_flight, level, trouble, counts["bulkhead-full"] = limit, "warn", 200.0 - number % 100, 31
        why = [f"concurrency {limit} of {limit}: 31 calls refused"]
    elif number % 11 == 4:
        modes, why = {"shadow": 8}, ["shadow mode"]
    return {
        "id": f"{service}|{resource}|{command}",
        "service": service,
        "resource": resource,
        "command": command,
        "level": level,
        "why": why,
        "trouble": trouble,
        "rate_per_s": sum(counts.values()) / WINDOW_S,
        "counts": counts,
        "error_share": share,
        "fallbacks": counts.get("shed", 0) // 2,
        "p50_s": p50,
        "p90_s": p50 * 2.2,
        "p99_s": p50 * 6.1,
        "in_flight": in_flight,
        "limit": limit,
        "state": "open" if "open" in states else "closed",
        "states": states,
        "modes": modes,
        "admitted_share": 0.22 if "throttled" in counts else 1.0,
        "saturated": saturated,
        "unhealthy": 0,
        "processes": 8,
        "settings": {"timeout_s": 0.5, "minimum_volume_per_s": 2.0, "failure_threshold": 0.5, "sleep_window_s": 5.0},
        **_curve(rate, random, spike=spike and level != "ok"),
    }


def _server(name: str, random: Random, *, spike: bool) -> dict[str, Any]:
    sheds = spike and name == "grouper"
    rate = 2400.0 if sheds else 300.0
    counts = {"admitted": 9120, "queue-wait": 13_400, "deadline": 1480} if sheds else {"admitted": 3000}
    return {
        "service": name,
        "level": "bad" if sheds else "ok",
        "why": ["62 % of the requests are shed: queue-wait, deadline"] if sheds else [],
        "rate_per_s": rate,
        "goodput_per_s": counts["admitted"] / WINDOW_S,
        "counts": counts,
        "criticalities": {
            "critical": {"admitted": counts["admitted"], "shed": sum(counts.values()) - counts["admitted"]}
        },
        "shed_share": 0.62 if sheds else 0.0,
        "abandoned": 12 if sheds else 0,
        "wait_p50_s": 0.12 if sheds else 0.001,
        "wait_p99_s": 0.31 if sheds else 0.004,
        "threshold_s": 0.02 if sheds else 0.25,
        "deadline_s": 1.0,
        "in_flight": 32 if sheds else 3,
        "shedding": 2 if sheds else 0,
        "stepped_aside": 0,
        "modes": {},
        "signals": {"tcp-info": 2},
        "backlog": 61 if sheds else 0,
        "backlog_limit": 128,
        "processes": 2,
        **_curve(rate / (8 if sheds else 1), random, spike=sheds),
    }


def _map(*, spike: bool) -> dict[str, Any]:
    def node(name: str, kind: str, layer: int, row: int, **more: Any) -> dict[str, Any]:
        usual = {"level": "ok", "suffers": False, "sheds": False, "notes": []}
        return {"name": name, "kind": kind, "layer": layer, "row": row, **usual, **more}

    def edge(caller: str, callee: str, rate: float, **more: Any) -> dict[str, Any]:
        usual = {"failed_share": 0.0, "shed_share": 0.0, "not_sent_share": 0.0, "wait_s": 0.002}
        rest = {"level": "ok", "back": False, "notes": []}
        return {"caller": caller, "callee": callee, "resource": callee, "rate_per_s": rate, **usual, **rest, **more}

    hot = {"level": "bad", "shed_share": 0.62, "wait_s": 0.12} if spike else {}
    return {
        "nodes": [
            node("(no name)", "outside", 0, 0),
            node("topps", "service", 1, 0, **({"suffers": True, "level": "warn"} if spike else {})),
            node("checkout", "service", 1, 1),
            node("grouper", "service", 2, 0, **({"sheds": True, "level": "bad"} if spike else {})),
            node("saber", "service", 3, 0),
            node("wallet", "resource", 3, 1, notes=["does not report: a database, or somebody else's service"]),
            node("contest-db", "resource", 4, 0, notes=["does not report: a database"]),
        ],
        "edges": [
            edge("(no name)", "topps", 2400.0 if spike else 300.0),
            edge("(no name)", "checkout", 12.0),
            edge("topps", "grouper", 2400.0 if spike else 300.0, **hot),
            edge("checkout", "grouper", 11.0),
            edge("checkout", "wallet", 9.0, wait_s=None, failed_share=0.01),
            edge("grouper", "saber", 240.0),
            edge("saber", "contest-db", 240.0, wait_s=None),
            edge("saber", "topps", 0.4, back=True),
        ],
        "notes": [],
    }


def _timeline(now: float, *, spike: bool) -> list[dict[str, Any]]:
    def episode(
        number: int, kind: str, level: str, subject: str, what: str, ago: float, lasted: float | None, **more: Any
    ):
        ended = None if lasted is None else now - ago + lasted
        fixed = {"id": f"e{number}", "kind": kind, "level": level, "service": "grouper", "subject": subject}
        return {**fixed, "what": what, "began_at": now - ago, "ended_at": ended, "numbers": {}, **more}

    quiet: list[dict[str, Any]] = [
        episode(1, "settings", "ok", "sqlite:///var/lib/shop/settings.db", "version 17-3f2a in force", 5400, 0.0,
                by="ada@bastion", reason="database slow, INC-311"),
        episode(2, "circuit", "bad", "contest-db/get_003", "circuit open", 7200, 31.0, numbers={"trips": 2}),
        episode(3, "process", "ok", "4003", "a process ended; its totals stay", 9000, 0.0),
    ]  # fmt: skip
    if not spike:
        return quiet
    return [
        episode(
            9, "circuit", "bad", "contest-db/get_003", "circuit open", 19, None, numbers={"processes": 3, "trips": 4}
        ),
        episode(8, "shedding", "bad", "grouper", "shedding", 28, None, numbers={"refused": 14_880, "wait_p99_s": 0.31}),
        episode(7, "throttle", "warn", "saber/get_001", "sends 22 % of the calls", 25, None),
        *quiet,
    ]
