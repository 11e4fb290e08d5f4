"""Events as structlog lines.

::

    groundfault.default_sinks().use(groundfault.integrations.structlog.log_changes)

It replaces the sink for the standard library's logging, which is in use otherwise,
and never configures structlog: that is the application's to do.
"""

from dataclasses import fields

try:
    import structlog
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.structlog needs structlog: pip install 'groundfault[structlog]'"
    ) from missing

from groundfault.events import Event, is_warning, name_of

__all__ = ["log_changes"]


def log_changes(event: Event) -> None:
    """Log a change, the event's fields as structlog's; warnings for what an operator should be told of."""
    logger = structlog.get_logger("groundfault")
    # Not asdict(): it copies deeply, and settings hold callables whose objects may hold locks.
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    said = {name: value for name, value in values.items() if value is not None}
    (logger.warning if is_warning(event) else logger.info)(name_of(event), **said)


log_changes.changes_only = True  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
