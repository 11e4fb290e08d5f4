"""Maps of any size for the tests, in layers that a simple rule makes."""

from random import Random
from typing import Any, cast

from groundfault.console.view import MapView


def node(name: str, layer: int = 0, row: int = 0, kind: str = "service", **more: Any) -> dict[str, Any]:
    usual = {"level": "ok", "suffers": False, "sheds": False, "notes": []}
    return {"name": name, "kind": kind, "layer": layer, "row": row, **usual, **more}


def edge(caller: str, callee: str, rate: float = 10.0, **more: Any) -> dict[str, Any]:
    usual = {"resource": callee, "failed_share": 0.0, "shed_share": 0.0, "not_sent_share": 0.0, "wait_s": 0.002}
    return {
        "caller": caller,
        "callee": callee,
        "rate_per_s": rate,
        **usual,
        "level": "ok",
        "back": False,
        "notes": [],
        **more,
    }


def sample_map(nodes: int, edges: int, *, layers: int = 6, spike: bool = False, seed: int = 3) -> MapView:
    """Return a map whose edges lead on by a layer or two, a few of them back. ``spike``: some nodes shed."""
    random = Random(seed)
    layer_of = sorted(min(int(random.triangular(0, layers, layers * 0.6)), layers - 1) for _ in range(nodes))
    made, rows = [], [0] * layers
    for number, layer in enumerate(layer_of):
        silent = layer >= layers - 2 and random.random() < 0.4
        sheds = spike and number % 17 == 9
        made.append(
            node(
                f"{'db' if silent else 'service'}-{number:03}",
                layer,
                rows[layer],
                "resource" if silent else "service",
                sheds=sheds,
                level="bad" if sheds else "ok",
                notes=["does not report: a database, or somebody else's service"] if silent else [],
            )
        )
        rows[layer] += 1
    joined: dict[tuple[str, str], dict[str, Any]] = {}
    callers = [each for each in made if each["kind"] == "service"]
    while len(joined) < edges:
        caller = random.choice(callers)
        further = [each for each in made if 1 <= each["layer"] - caller["layer"] <= 2]
        back = not further or random.random() < 0.02
        callee = random.choice([each for each in callers if each["layer"] <= caller["layer"]] if back else further)
        shed = {"shed_share": 0.62, "level": "bad", "wait_s": 0.12} if callee["sheds"] else {}
        joined[caller["name"], callee["name"]] = edge(
            caller["name"],
            callee["name"],
            round(10 ** random.uniform(-1, 3.5), 2),
            back=back,
            **{"wait_s": None if callee["kind"] == "resource" else 0.002, **shed},
        )
        if callee["sheds"]:
            caller.update(suffers=True, level="bad" if caller["sheds"] else "warn")
    return cast("MapView", {"nodes": made, "edges": list(joined.values()), "notes": []})
