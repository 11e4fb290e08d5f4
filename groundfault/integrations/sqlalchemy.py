"""The chokepoint for SQLAlchemy: every statement of an engine is a call of a command.

::

    contest_db = instrument(engine, "contest-db", timeout_s=2.0)
    contest_db.command("season_totals", max_concurrent=5)

    session.execute(select(...).execution_options(groundfault="season_totals"))

A call takes its place before a connection is taken from the pool, where its name is known by then,
and gives it back when the database has answered; where rows are streamed, when they have all been fetched.
A connection that was taken hands its call on to its first statement.
If that one belongs to another command, taking the connection was a call of its own.

What SQLAlchemy offers is used as far as it goes: the statement runs inside the event ``do_execute``,
so that one ``try`` sees every ending of it; a Session's statement is named by ``do_orm_execute``;
what a connection still has open ends with the pool's event ``checkin``.
No event comes before a connection is taken, so ``connect`` and ``raw_connection`` of the engine are wrapped.
"""

import re
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial
from itertools import dropwhile, islice
from typing import Any, Final, TypeVar
from weakref import WeakSet

try:
    from sqlalchemy import event
    from sqlalchemy.engine import Connection, Engine, ExceptionContext
    from sqlalchemy.engine.base import OptionEngine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.orm import ORMExecuteState, Session
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.sqlalchemy needs SQLAlchemy: pip install 'groundfault[sqlalchemy]'"
    ) from missing

from groundfault._clock import monotonic
from groundfault.breaker import Command, Resource
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.integrations._sqlalchemy_call import Call, WatchedCursor, drive
from groundfault.integrations._sqlalchemy_errors import (
    BulkheadFullError,
    CircuitOpenError,
    CommandTimeoutError,
    ThrottledError,
    UnhealthyError,
)
from groundfault.sinks import Sink
from groundfault.wire import valid_name

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "ThrottledError",
    "UnhealthyError",
    "instrument",
    "uninstrument",
]

T = TypeVar("T")

_OPTION: Final = "groundfault"
_GUARD: Final = "_groundfault_guard"  # on an engine: its guard
_RESERVED: Final = "_groundfault_reserved"  # on a Connection: the call it was taken for, until its first statement
_OPEN: Final = "groundfault.open"  # in a pooled connection's ``info``: its calls that have not ended

_NAME_LIMIT: Final = 200

# They end what has been let in. Refused, they would only keep its locks.
_CONTROLS_TRANSACTION: Final = re.compile(
    r"\s*(?:COMMIT|ROLLBACK|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
).match

_named: ContextVar[object] = ContextVar("groundfault_sqlalchemy_named", default=None)
"""What the statement that a Session is about to execute names as its command."""

_taking: ContextVar["_Taking | None"] = ContextVar("groundfault_sqlalchemy_taking", default=None)
"""The connection that is being taken here, with all that belongs to it: events, first statements of a dialect."""

_lock = threading.Lock()  # guards instrumenting
_guards: WeakSet["_Guard"] = WeakSet()


def instrument(
    engine: Engine | AsyncEngine,
    resource: str | Resource,
    *,
    command: str = "query",
    sinks: Iterable[Sink] | None = None,
    **settings: Any,
) -> Resource:
    """Guard every statement of ``engine`` and of the engines that its ``execution_options()`` makes.

    resource: name of the database, or a :class:`~groundfault.Resource` that carries settings and sinks.
    command: the command of statements that name none. Default: ``query``.
    sinks: where events go; default None: the process-wide sinks. Only with a resource given by name.
    All other keywords are :class:`~groundfault.BreakerSettings` of each command, again only with a resource by name.

    A statement names its command with the execution option ``groundfault``, a name or a :class:`~groundfault.Command`:
    given with the call, on the statement, the session, the connection or the engine; the first of these that has it.
    At most 200 names; whatever comes after them, or is no valid name, is counted under ``other``.
    A command that was made beforehand, with settings of its own, is used as it is; fallbacks are not served here.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense and for an engine that is instrumented.
    Returns the resource.
    """
    root = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if isinstance(resource, str):
        resource = Resource(resource, sinks=sinks, **settings)
    elif settings or sinks is not None:
        raise SettingsError("settings and sinks belong to the Resource that was passed; set them there")
    if isinstance(root, OptionEngine):
        raise SettingsError(f"{root!r} shares the pool of the engine that it was made from; instrument that one")
    guard = _Guard(root, resource, command)
    with _lock:
        if _GUARD in vars(root):
            raise SettingsError(f"{root!r} is instrumented as {vars(root)[_GUARD].resource.name!r} already")
        guard.attach()
        if not event.contains(Session, "do_orm_execute", _name_connection):
            event.listen(Session, "do_orm_execute", _name_connection)
        _guards.add(guard)
    return resource


def uninstrument(engine: Engine | AsyncEngine) -> None:
    """Undo :func:`instrument`; calls in flight end as they would have.

    Not safe while other threads are using the engine, for SQLAlchemy's own removal of events is not.
    Raises :class:`~groundfault.SettingsError` for an engine that is not instrumented.
    """
    root = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    with _lock:
        guard = vars(root).get(_GUARD)
        if guard is None:
            raise SettingsError(f"{root!r} is not instrumented")
        guard.detach()
        _guards.discard(guard)
        if not _guards:
            event.remove(Session, "do_orm_execute", _name_connection)


def _name_connection(state: ORMExecuteState) -> Any:
    """Let the session's statement say for which command a connection will be taken, if one will be.

    It is carried out in here, and the name forgotten with its end: what comes between may take connections as well,
    and listeners that come later may answer without the database.
    """
    name = state.execution_options.get(_OPTION)
    if name is None:
        return None
    token = _named.set(name)
    try:
        return state.invoke_statement()
    finally:
        _named.reset(token)


class _Taking:
    __slots__ = ("connecting_since", "guard")

    def __init__(self, guard: "_Guard") -> None:
        self.guard = guard
        self.connecting_since: float | None = None


class _Guard:
    """What all statements of one engine have in common."""

    def __init__(self, engine: Engine, resource: Resource, command: str) -> None:
        self.resource = resource
        self._engine = engine
        self._dialect = engine.dialect
        self._enforce = engine.dialect.is_async  # nothing can interrupt a plain call safely
        self._default = self.resource.command(command)
        self._commands: dict[str, Command] = {command: self._default}
        self._wrapped: WeakSet[Engine] = WeakSet()
        self._listeners: dict[str, Callable[..., Any]] = {
            "do_execute": self._do_execute,
            "do_executemany": self._do_executemany,
            "do_execute_no_params": self._do_execute_no_params,
            "do_connect": self._do_connect,
            "handle_error": self._handle_error,
            "checkin": self._checkin,
        }

    def attach(self) -> None:
        for name, listener in self._listeners.items():
            event.listen(self._engine, name, listener)
        self._wrap(self._engine)
        setattr(self._engine, _GUARD, self)

    def detach(self) -> None:
        for name, listener in self._listeners.items():
            event.remove(self._engine, name, listener)
        for engine in self._wrapped:
            for name in ("connect", "raw_connection", "execution_options"):
                ours = vars(engine).get(name)
                if isinstance(ours, partial) and ours.func in {self._take, self._derive}:  # not what was put around it
                    delattr(engine, name)
        delattr(self._engine, _GUARD)

    # --- connections --------------------------------------------------------------------------------------------------

    def _wrap(self, engine: Engine) -> None:
        if engine not in self._wrapped:
            self._wrapped.add(engine)
            for name, keep in (("connect", True), ("raw_connection", False)):
                setattr(engine, name, partial(self._take, engine, getattr(engine, name), keep=keep))
            # The event for this would cost every statement the dispatch of all events of connections.
            setattr(engine, "execution_options", partial(self._derive, engine.execution_options))  # noqa: B010  mypy knows it as a method

    def _derive(self, derive: Callable[..., OptionEngine], **options: Any) -> OptionEngine:
        engine = derive(**options)
        self._wrap(engine)
        return engine

    def _take(self, engine: Engine, take: Callable[[], T], *, keep: bool) -> T:
        """Take a connection, as a call. ``keep``: it is a Connection, whose first statement goes on with the call."""
        if self._is_taking():  # connect() takes a raw connection; that is one and the same
            return take()
        command = self._command(_named.get() or engine.get_execution_options().get(_OPTION))
        if command.disabled:
            return take()
        call = Call(command, self._dialect)
        taking = _Taking(self)
        token = _taking.set(taking)
        started = monotonic()
        try:
            taken = call.step(take, enforce=self._enforce)
        finally:
            _taking.reset(token)
        # Waiting for the pool is not the database's doing.
        call.excuse((taking.connecting_since or monotonic()) - started)
        if keep and isinstance(taken, Connection):
            vars(taken)[_RESERVED] = call
            self._keep_open(taken, call)
        else:
            call.succeed()
        return taken

    def _is_taking(self) -> bool:
        taking = _taking.get()
        return taking is not None and taking.guard is self

    def _do_connect(self, *_: Any) -> None:
        taking = _taking.get()
        if taking is not None and taking.guard is self and taking.connecting_since is None:
            taking.connecting_since = monotonic()

    def _keep_open(self, connection: Connection, call: Call) -> None:
        """See to it that the call ends when the connection goes back to the pool, if nothing else has ended it."""
        try:
            connection.info.setdefault(_OPEN, WeakSet()).add(call)
        except Exception as error:  # noqa: BLE001  the connection is there, whatever became of its bookkeeping
            note_internal_error("connection of SQLAlchemy", error)
            call.succeed()

    def _checkin(self, _connection: Any, record: Any) -> None:
        for call in list(record.info.pop(_OPEN, ())):
            call.succeed()

    # --- statements ---------------------------------------------------------------------------------------------------

    def _do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        return self._guarded("do_execute", self._do_execute, cursor, context, statement, parameters)

    def _do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        return self._guarded("do_executemany", self._do_executemany, cursor, context, statement, parameters)

    def _do_execute_no_params(self, cursor: Any, statement: str, context: Any) -> bool:
        return self._guarded("do_execute_no_params", self._do_execute_no_params, cursor, context, statement)

    def _guarded(
        self, kind: str, listener: Callable[..., Any], cursor: Any, context: Any, statement: str, *parameters: Any
    ) -> bool:
        """Execute the statement as a call; return whether that was done."""
        if context is None or self._is_taking() or _CONTROLS_TRANSACTION(statement):
            return False
        connection = context.root_connection
        command = self._command(_name_of(connection, context))
        if command.disabled:
            return False
        call = self._call(connection, command)
        call.step(
            partial(self._execute, kind, listener, cursor, context, statement, *parameters), enforce=self._enforce
        )
        if _streams(context, cursor):
            context.cursor = WatchedCursor(cursor, call)
            self._keep_open(connection, call)
        else:
            call.succeed()
        return True

    def _execute(
        self, kind: str, listener: Callable[..., Any], cursor: Any, context: Any, statement: str, *parameters: Any
    ) -> None:
        listeners = getattr(self._dialect.dispatch, kind)
        if len(listeners) > 1:
            # Those that come after this one get their turn too.
            for other in islice(dropwhile(lambda other: other != listener, listeners), 1, None):
                if other(cursor, statement, *parameters, context):
                    return
        getattr(self._dialect, kind)(cursor, statement, *parameters, context)

    def _call(self, connection: Connection, command: Command) -> Call:
        reserved = vars(connection).pop(_RESERVED, None)
        if reserved is not None and not reserved.ended:
            if reserved.command is command:
                return reserved  # type: ignore[no-any-return]  # nobody else puts anything there
            reserved.succeed()  # taking the connection was a call of its own
        elif connection.engine is not self._engine:
            self._wrap(connection.engine)  # execution_options() may have made it before its root was instrumented
        return Call(command, self._dialect)

    def _handle_error(self, failed: ExceptionContext) -> None:
        """Have the connection of a statement that was cut short thrown away, and that of one never sent kept.

        SQLAlchemy alone throws it away for any TimeoutError.
        """
        error = failed.original_exception
        if not isinstance(error, CommandTimeoutError):
            return
        failed.is_disconnect = error.timeout_s > 0.0
        failed.invalidate_pool_on_disconnect = False
        if failed.is_disconnect and self._dialect.name == "sqlite" and failed.connection is not None:
            # It runs on a thread, and its connection would be closed only when it is done.
            drive(failed.connection.connection.driver_connection.interrupt())  # type: ignore[union-attr]  # it has one

    # --- names --------------------------------------------------------------------------------------------------------

    def _command(self, name: object) -> Command:
        if name is None:
            return self._default
        if isinstance(name, Command):
            return name
        key = name.lower() if isinstance(name, str) else ""
        command = self._commands.get(key)
        if command is None:
            if not valid_name(key) or len(self._commands) >= _NAME_LIMIT:
                key = "other"
            command = self._commands[key] = self.resource.command(key)
        return command


def _name_of(connection: Connection, context: Any) -> object:
    """Return what names the command: the option of the call, else the statement's, else the connection's.

    SQLAlchemy lets the connection's options win over the statement's, which is for settings and not for names.
    """
    name = context.execution_options.get(_OPTION)
    if name is not None and name == connection.get_execution_options().get(_OPTION):
        statement = context.invoked_statement
        if statement is not None:
            return statement.get_execution_options().get(_OPTION) or name
    return name


def _streams(context: Any, cursor: Any) -> bool:
    if not (context.execution_options.get("stream_results") or getattr(context, "_is_server_side", False)):
        return False
    return cursor.description is not None
