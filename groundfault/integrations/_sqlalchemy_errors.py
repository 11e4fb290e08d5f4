"""Errors of the SQLAlchemy adapter, and what a driver's error means for the database."""

from typing import Any, Final

from sqlalchemy import exc

from groundfault import errors
from groundfault.vocabulary import Outcome

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "ThrottledError",
    "UnhealthyError",
    "outcome_of",
    "rejected",
]


class _NeverSent(exc.OperationalError):
    """A rejection that ``except sqlalchemy.exc.OperationalError`` catches too.

    Being a ``StatementError`` also keeps SQLAlchemy from wrapping it in one.
    """

    def __init__(self, resource: str, command: str, detail: object = None, *, orig: Exception | None = None) -> None:
        exc.StatementError.__init__(self, "", None, None, orig)
        self.args = (resource, command, detail)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class CircuitOpenError(errors.CircuitOpenError, _NeverSent):
    """The circuit is open; also a ``sqlalchemy.exc.OperationalError``."""


class BulkheadFullError(errors.BulkheadFullError, _NeverSent):
    """As many calls are in flight as allowed; also a ``sqlalchemy.exc.OperationalError``."""


class ThrottledError(errors.ThrottledError, _NeverSent):
    """Only a share of the calls is sent; also a ``sqlalchemy.exc.OperationalError``."""


class UnhealthyError(errors.UnhealthyError, _NeverSent):
    """The health check says no; also a ``sqlalchemy.exc.OperationalError``."""


class CommandTimeoutError(errors.CommandTimeoutError, exc.OperationalError):
    """The call took longer than allowed, or its caller's budget was used up; also an ``OperationalError``."""

    def __init__(self, resource: str, command: str, timeout_s: float) -> None:
        errors.CommandTimeoutError.__init__(self, resource, command, timeout_s)
        text = self.args
        exc.StatementError.__init__(self, "", None, None, None)
        self.args = text


_REJECTIONS: Final[dict[type[errors.RejectedError], type[_NeverSent]]] = {
    errors.CircuitOpenError: CircuitOpenError,
    errors.BulkheadFullError: BulkheadFullError,
    errors.ThrottledError: ThrottledError,
    errors.UnhealthyError: UnhealthyError,
}


def rejected(rejection: errors.RejectedError) -> Exception:
    """Return the rejection as an error of SQLAlchemy too."""
    return _REJECTIONS[type(rejection)](*rejection.args, orig=rejection)


# SQLSTATEs, the longest prefix decides. What is not here was answered by a database that works:
# a constraint, a syntax error, a deadlock or a conflict between transactions that are to be tried again.
_BY_SQLSTATE: Final = {
    "08": Outcome.FAILURE,  # connection exception
    "28": Outcome.FAILURE,  # may not log in
    "53": Outcome.FAILURE,  # insufficient resources: too many connections (53300), disk full, out of memory
    "57": Outcome.FAILURE,  # operator intervention: being shut down (57P01), starting up (57P03)
    "57014": Outcome.TIMEOUT,  # query canceled: by statement_timeout, or by an operator who had waited long enough
    "58": Outcome.FAILURE,  # system error
    "XX": Outcome.FAILURE,  # internal error
    "25P03": Outcome.IGNORED,  # idle_in_transaction_session_timeout: it was the application that idled
    "25P04": Outcome.TIMEOUT,  # transaction_timeout
}
_LONGEST_FIRST: Final = sorted(_BY_SQLSTATE, key=len, reverse=True)

# Errors that MySQL and MariaDB answer with. Their drivers sort many a caller's mistake under OperationalError.
_MYSQL_TIMEOUTS: Final = frozenset({1317, 1969, 3024})  # interrupted, max_statement_time, max_execution_time
_MYSQL_FAILURES: Final = frozenset(
    {
        *(1021, 1037, 1038, 1041, 1114),  # disk full, out of memory, table full
        *(1040, 1203, 1226),  # too many connections
        *(1042, 1043, 1044, 1045, 1129, 1130),  # may not log in
        *(1053, 1077, 1079, 1152, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1927),  # shut down, connection lost
    }
)
_MYSQL_CLIENT: Final = range(2000, 3000)  # not the server's answer but the client library's complaint
_MYSQL: Final = frozenset({"mysql", "mariadb"})

# Primary result codes of SQLite.
_SQLITE_ANSWERED: Final = frozenset({1, 4, 18, 19, 20, 21, 23, 25, 26})  # a mistake in the statement, a constraint
_SQLITE_TIMEOUTS: Final = frozenset({5, 9})  # busy for as long as the driver's timeout, interrupted

# PEP 249's words for a statement that a working database has refused.
_ANSWERED: Final = frozenset({"IntegrityError", "DataError", "ProgrammingError", "NotSupportedError"})

_CALLERS_FAULT: Final = (TypeError, ValueError, LookupError, ArithmeticError)


def outcome_of(error: BaseException, dialect: Any) -> Outcome | None:
    """Return what an error out of the driver means for the database, None for one that is not the driver's.

    ``SUCCESS`` means that the database works and answered: the statement was at fault.
    A pool that had no connection to give for its whole timeout is a ``TIMEOUT``:
    either the database holds them all, or nobody in this process gets an answer anyway.
    """
    if isinstance(error, errors.GroundFaultError):
        return None
    if isinstance(error, exc.TimeoutError):
        return Outcome.TIMEOUT
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, dialect.loaded_dbapi.Error):
        return _of_driver(error, dialect.name)
    # A value that the driver cannot send, or a misuse of SQLAlchemy: nobody was asked.
    return Outcome.IGNORED if isinstance(error, (*_CALLERS_FAULT, exc.SQLAlchemyError)) else None


def _of_driver(error: BaseException, database: str) -> Outcome:
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(sqlstate, str):
        prefix = next((prefix for prefix in _LONGEST_FIRST if sqlstate.startswith(prefix)), None)
        return Outcome.SUCCESS if prefix is None else _BY_SQLSTATE[prefix]
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _of_sqlite(code & 0xFF)
    number = error.args[0] if error.args and database in _MYSQL else None
    if isinstance(number, int):
        return _of_mysql(number)
    named = _ANSWERED.intersection(kind.__name__ for kind in type(error).__mro__)
    return Outcome.SUCCESS if named else Outcome.FAILURE


def _of_sqlite(code: int) -> Outcome:
    if code in _SQLITE_TIMEOUTS:
        return Outcome.TIMEOUT
    return Outcome.SUCCESS if code in _SQLITE_ANSWERED else Outcome.FAILURE


def _of_mysql(number: int) -> Outcome:
    if number in _MYSQL_TIMEOUTS:
        return Outcome.TIMEOUT
    return Outcome.FAILURE if number in _MYSQL_FAILURES or number in _MYSQL_CLIENT else Outcome.SUCCESS
