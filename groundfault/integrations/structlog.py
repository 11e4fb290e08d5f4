"""Events as structlog lines.

::

    groundfault.default_sinks().use(
        groundfault.integrations.structlog.log_changes, groundfault.integrations.structlog.log_calls()
    )

The first replaces the sink for the standard library's logging, which is in use otherwise.

structlog is never configured here: that is the application's to do. Where it has not done so, or not yet,
lines go to the standard library's logger of the same name, for structlog would print them to stdout.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

try:
    import structlog
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.structlog needs structlog: pip install 'groundfault[structlog]'"
    ) from missing

from groundfault import sinks
from groundfault.call_log import CallLog, Line, Segment, write_line
from groundfault.events import CommandDone, Event, RequestSeen, is_warning, name_of

__all__ = ["log_calls", "log_changes"]

_CHANGES: Final = "groundfault"
_CALLS: Final = "groundfault.calls"
_METHODS: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


def log_changes(event: Event) -> None:
    """Log a change, the event's fields as structlog's; warnings for what an operator should be told of."""
    if not structlog.is_configured():
        sinks.log_changes(event)
        return
    said = {name: value for name, value in sinks.said_of(event).items() if value is not None}
    _say(_CHANGES, "warning" if is_warning(event) else "info", name_of(event), sinks.tamed(said))


log_changes.changes_only = True  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
log_changes.prompt = True  # type: ignore[attr-defined]  # so that its line has the request's context variables


def log_calls(
    *,
    sample: float = 1.0,
    segment: Segment | Sequence[str] | None = None,
    requests: bool = False,
    level: int = logging.INFO,
) -> CallLog:
    """Return a sink that writes a structlog line for each finished call, of the logger ``groundfault.calls``.

    ``segment``: names of structlog's context variables to add to the fields; or as for
    :func:`groundfault.call_log.log_calls`, as are ``sample`` and ``requests``.
    With ``merge_contextvars`` among the processors all of them are in the line anyway.
    ``level``: ``logging.DEBUG``, ``INFO``, which is the default, or ``WARNING``.
    Raises ValueError and TypeError for what cannot be.
    """
    if level not in _METHODS:
        raise ValueError(f"level must be one of {', '.join(map(str, _METHODS))}, not {level}")
    if isinstance(segment, str):
        raise TypeError(f"segment must be a sequence of names or callable, not the text {segment!r}")
    return CallLog(
        _write,
        sample=sample,
        segment=segment if segment is None or callable(segment) else _of_context(tuple(segment)),
        requests=requests,
        level=level,
    )


def _of_context(names: tuple[str, ...]) -> Segment:
    def segment(_: CommandDone | RequestSeen) -> Mapping[str, object]:
        bound = structlog.contextvars.get_contextvars()
        return {name: bound[name] for name in names if name in bound}

    return segment


def _write(line: Line) -> None:
    if not structlog.is_configured():
        write_line(logging.getLogger(_CALLS), line)
        return
    fields = dict(line.fields)
    line.context.run(_say, _CALLS, _METHODS[line.level], fields.pop("event"), fields)


def _say(name: str, method: str, event: str, fields: dict[str, Any]) -> None:
    configured = structlog.get_config()
    if issubclass(
        configured["wrapper_class"], structlog.stdlib.AsyncBoundLogger
    ):  # its methods would have to be awaited
        sync = structlog.stdlib.BoundLogger
        logger = structlog.wrap_logger(configured["logger_factory"](name), wrapper_class=sync)
    else:
        logger = structlog.get_logger(name)
    getattr(logger, method)(event, **fields)
