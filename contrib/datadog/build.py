"""Writes groundfault.json, a dashboard for Datadog, and monitors.json: ``python contrib/datadog/build.py``.

``--check`` writes nothing and ends with 1 if the files are not what the sources say.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from graphs import GROUPS, Graph
from watched import MONITORS, Monitor

HERE: Final = Path(__file__).parent
COLUMNS: Final = 12
SPAN: Final = 4
HEIGHT: Final = 3
HIGH: Final = 2
TAGS: Final = ("env", "service", "resource", "command")


def asked(graph: Graph, kind: str) -> dict[str, Any]:
    """Return the queries of a graph, and the formulas that make one figure of several."""
    queries = [
        {"data_source": "metrics", "name": f"query{number}", "query": query}
        for number, query in enumerate(graph.queries, start=1)
    ]
    if kind == "query_value":
        for query in queries:
            query["aggregator"] = "avg"
    shown = graph.formulas or {f"query{number}": "" for number in range(1, len(queries) + 1)}
    formulas = [{"formula": formula, **({"alias": alias} if alias else {})} for formula, alias in shown.items()]
    return {
        "response_format": "scalar" if kind == "query_value" else "timeseries",
        "queries": queries,
        "formulas": formulas,
    }


def widget(graph: Graph) -> dict[str, Any]:
    """Return what a graph is, without its place."""
    definition: dict[str, Any] = {"type": graph.kind, "title": graph.title, "requests": [asked(graph, graph.kind)]}
    if graph.kind == "query_value":
        definition |= {"autoscale": True, "precision": 2}
        definition["requests"][0]["conditional_formats"] = [
            {"comparator": ">=", "value": value, "palette": f"white_on_{color}"}
            for value, color in sorted(graph.bad_from, reverse=True)
        ]
        return definition
    definition["requests"][0] |= {
        "display_type": graph.drawn,
        "style": {"palette": "semantic" if graph.drawn == "area" else "dog_classic", "line_type": "solid"},
    }
    definition |= {
        "show_legend": True,
        "legend_layout": "auto",
        "legend_columns": ["avg", "max", "value"],
        "yaxis": {"include_zero": True, "min": "0", "scale": "linear"},
    }
    if graph.bad_from:
        definition["markers"] = [
            {"value": f"y = {value:g}", "display_type": f"{'error' if color == 'red' else 'warning'} dashed"}
            for value, color in graph.bad_from
        ]
    return definition


def laid_out(graphs: tuple[Graph, ...]) -> list[dict[str, Any]]:
    """Return the widgets of a group: three in a line, figures four."""
    result, left, top, tallest = [], 0, 0, 0
    for graph in graphs:
        width, height = (SPAN - 1, HIGH) if graph.kind == "query_value" else (SPAN, HEIGHT)
        if left + width > COLUMNS:
            left, top, tallest = 0, top + tallest, 0
        place = {"x": left, "y": top, "width": width, "height": height}
        result.append({"definition": widget(graph), "layout": place})
        left, tallest = left + width, max(tallest, height)
    return result


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Datadog's API takes it."""
    widgets, top = [], 0
    for title, graphs in GROUPS.items():
        inside = laid_out(graphs)
        height = 1 + max(each["layout"]["y"] + each["layout"]["height"] for each in inside)
        group = {"type": "group", "layout_type": "ordered", "title": title, "show_title": True, "widgets": inside}
        widgets.append({"definition": group, "layout": {"x": 0, "y": top, "width": COLUMNS, "height": height}})
        top += height
    return {
        "title": "GroundFault",
        "description": "Load shedding and circuit breakers, from the spike to the setting that ended it.",
        "layout_type": "ordered",
        "reflow_type": "fixed",
        "notify_list": [],
        "template_variables": [{"name": tag, "prefix": tag, "available_values": [], "defaults": ["*"]} for tag in TAGS],
        "widgets": widgets,
    }


def monitor(each: Monitor) -> dict[str, Any]:
    """Return a monitor as Datadog's API takes it."""
    critical = each.severity == "critical"
    return {
        "name": each.name,
        "type": "query alert",
        "query": each.query,
        "message": f"{each.says}\n\nRunbook: docs/runbook.md#{each.name.lower()}",
        "tags": ["component:groundfault", f"severity:{each.severity}"],
        "priority": 1 if critical else 3,
        "options": {
            "thresholds": {"critical": each.threshold},
            "notify_no_data": False,
            "require_full_window": False,
            "include_tags": True,
            "new_group_delay": 60,
            "evaluation_delay": 0,
        },
    }


def written() -> dict[Path, str]:
    """Return each file's text."""
    made = {"groundfault.json": dashboard(), "monitors.json": [monitor(each) for each in MONITORS]}
    return {HERE / name: json.dumps(content, indent=2) + "\n" for name, content in made.items()}


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` compare them; return the exit code."""
    files = written()
    if arguments == ["--check"]:
        return int(any(not path.exists() or path.read_text() != text for path, text in files.items()))
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
