"""Writes groundfault.json, the dashboard for Grafana: ``python contrib/grafana/build.py`` after a change of the panels.

A dashboard as Grafana exports it repeats everything for each panel.
The files beside this one say what differs: the question, the query, the unit; this one says the rest, once.
``--check`` writes nothing and ends with 1 if the dashboard is not what they say.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from client_panels import COMMANDS, THROTTLE
from fleet_panels import EDGES, INTERNALS, SETTINGS
from queries import JOB, NOT_CLOSED, Panel, Row
from server_panels import HEADLINE, SERVER

TARGET: Final = Path(__file__).with_name("groundfault.json")
ROWS: Final = (HEADLINE, SERVER, COMMANDS, EDGES, THROTTLE, SETTINGS, INTERNALS)
WIDTH: Final = 24
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

# By name, for Grafana has a shade of each color for the dark and for the light theme.
COLORS: Final = {
    "success": "green",
    "admitted": "green",
    "failure": "red",
    "timeout": "dark-red",
    "shed": "orange",
    "throttled": "yellow",
    "circuit-open": "purple",
    "bulkhead-full": "blue",
    "unhealthy": "dark-purple",
    "ignored": "light-blue",
}


def thresholds(steps: Any) -> dict[str, Any]:
    """Return colors by value, as Grafana wants them."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in steps]}


def color(name: str) -> dict[str, Any]:
    """Return the override that gives one series its color."""
    return override(name, {"color": {"mode": "fixed", "fixedColor": COLORS[name]}})


def override(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return what is different for one series or column."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def targets(panel: Panel) -> list[dict[str, Any]]:
    """Return the queries of a panel."""
    once = panel.kind == "table"
    return [
        {
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": expression,
            "format": {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series"),
            "instant": once,
            "range": not once,
            "legendFormat": legend,
            "refId": chr(ord("A") + number),
        }
        for number, (legend, expression) in enumerate(panel.queries.items())
    ]


def of_time_series(panel: Panel) -> dict[str, Any]:
    """Return what a panel of curves needs."""
    custom = {
        "drawStyle": "line",
        "fillOpacity": 60 if panel.stacked else 8,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
        "thresholdsStyle": {"mode": "off"},
    }
    return {
        "options": {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "fieldConfig": {
            "defaults": {"color": {"mode": "palette-classic"}, "custom": custom, "min": 0},
            "overrides": [color(name) for name in COLORS if panel.queries.keys() & {"{{result}}", "{{outcome}}"}],
        },
    }


def of_stat(panel: Panel) -> dict[str, Any]:
    """Return what a panel of one number needs."""
    calm = len(panel.steps) == 1
    return {
        "options": {
            "colorMode": "none" if calm else "background",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value",
        },
        "fieldConfig": {"defaults": {"color": {"mode": "thresholds"}, "min": 0}, "overrides": []},
    }


def of_state_timeline(_: Panel) -> dict[str, Any]:
    """Return what bands of states need."""
    return {
        "options": {
            "alignValue": "center",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        },
        "fieldConfig": {
            "defaults": {"color": {"mode": "thresholds"}, "custom": {"fillOpacity": 80, "lineWidth": 0}},
            "overrides": [],
        },
    }


def of_heatmap(panel: Panel) -> dict[str, Any]:
    """Return what a heatmap of histogram buckets needs."""
    return {
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {"exponent": 0.5, "mode": "scheme", "scale": "exponential", "scheme": "Oranges", "steps": 64},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"show": True, "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "unit": panel.unit},
        },
        "fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []},
    }


def of_table(panel: Panel) -> dict[str, Any]:
    """Return what a table needs: its queries side by side, in the order in which they are given, and named."""
    values = {f"Value #{target['refId']}": target["legendFormat"] for target in targets(panel)}
    hidden = {"Time": True, "__name__": True, "not_closed": True, "processes": True}
    if panel.kind == "table" and "circuits" in panel.labels:
        hidden["Value #A"] = True  # it is said in words, in a label
    if len(values) == 1:
        hidden["Value"] = True
    names = [*panel.labels, *values]
    return {
        "options": {"cellHeight": "sm", "showHeader": True, "footer": {"show": False}},
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": hidden,
                    "indexByName": {name: place for place, name in enumerate(names)},
                    "renameByName": panel.labels | values,
                },
            },
        ],
        "fieldConfig": {
            "defaults": {"color": {"mode": "thresholds"}, "custom": {"align": "auto", "filterable": True}},
            "overrides": [override(name, {"unit": unit, "decimals": 1}) for name, unit in panel.units.items()]
            + [
                override(name, {"thresholds": thresholds(steps), "custom.cellOptions": {"type": "color-text"}})
                for name, steps in panel.colored.items()
            ],
        },
    }


KINDS: Final = {
    "timeseries": of_time_series,
    "stat": of_stat,
    "state-timeline": of_state_timeline,
    "heatmap": of_heatmap,
    "table": of_table,
}


def drawn(panel: Panel, left: int, top: int) -> dict[str, Any]:
    """Return one panel at its place."""
    result = {
        "id": panel.id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "targets": targets(panel),
        **KINDS[panel.kind](panel),
    }
    defaults = result["fieldConfig"]["defaults"]
    defaults |= {"unit": panel.unit, "thresholds": thresholds(panel.steps)}
    for key, value in (("max", panel.highest), ("decimals", panel.decimals), ("noValue", panel.empty)):
        if value is not None:
            defaults[key] = value
    return result


def laid_out(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Return all panels: from left to right, and on a new line where there is no room."""
    result: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        result.append(
            {"id": row.id, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        )
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            result.append(drawn(panel, left, top))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return result


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """Return a choice among a label's values; all of them at first. One that nothing has does not narrow anything."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"choice-of-{name}"},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "regex": "",
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def annotation(name: str, color_name: str, expression: str, text: str) -> dict[str, Any]:
    """Return marks at the moments at which something changed."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color_name,
        "expr": expression,
        "step": "15s",
        "titleFormat": name,
        "textFormat": text,
    }


VARIABLES: Final = [
    {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "regex": "",
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
    },
    variable("namespace", "Namespace", "label_values(groundfault_processes, namespace)"),
    variable("job", "Job", 'label_values(groundfault_processes{namespace=~"$namespace"}, job)'),
    variable("service", "Service", f"label_values(groundfault_requests_active{{{JOB}}}, service)"),
    variable("resource", "Resource", f"label_values(groundfault_command_active{{{JOB}}}, resource)"),
    variable("command", "Command", f'label_values(groundfault_command_active{{{JOB},resource=~"$resource"}}, command)'),
]

ANNOTATIONS: Final = [
    annotation(
        "Circuit opens",
        "red",
        f"({NOT_CLOSED} > 0) unless ({NOT_CLOSED.removesuffix(')')} offset $__interval) > 0)",
        "{{job}}: {{resource}}/{{command}}",
    ),
    annotation(
        "Settings change",
        "blue",
        f"count by (job, store, version) (groundfault_settings_version{{{JOB}}}) "
        f"unless count by (job, store, version) (groundfault_settings_version{{{JOB}}} offset 1m)",
        "{{job}}: {{version}} of {{store}}",
    ),
]

DASHBOARD: Final = {
    "title": "GroundFault",
    "uid": "groundfault",
    "description": "Load shedding and circuit breakers, from the spike to the setting that ended it.",
    "tags": ["groundfault"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "refresh": "10s",
    "time": {"from": "now-30m", "to": "now"},
    "timepicker": {},
    "timezone": "",
    "links": [],
    "annotations": {"list": ANNOTATIONS},
    "templating": {"list": VARIABLES},
    "panels": laid_out(ROWS),
}


def main(arguments: list[str]) -> int:
    """Write the dashboard, or with ``--check`` compare it; return the exit code."""
    text = json.dumps(DASHBOARD, indent=2) + "\n"
    if arguments == ["--check"]:
        return int(not TARGET.exists() or TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
