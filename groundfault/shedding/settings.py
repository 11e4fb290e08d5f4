"""What can be set on the server half. Nothing has to be."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_network
from typing import Any, Literal, TypedDict

from groundfault.errors import SettingsError
from groundfault.shedding.criticality import Classifier, CriticalityRule, RequestInfo, rules_of
from groundfault.vocabulary import Mode
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["HEALTH_PATHS", "CriticalityRule", "RequestInfo", "ShedderOptions", "ShedderSettings"]

HEALTH_PATHS = ("/health", "/healthz", "/livez", "/readyz", "/live", "/ready", "/ping", "/metrics")
"""Where load balancers, kubelets and Prometheus ask by convention."""

_MODES = (Mode.ENFORCE, Mode.SHADOW, Mode.OFF)
_MAX_S = 3600.0
_MIN_DEADLINE_S = 0.01  # the kernel's clock ticks every 4 ms: below this no wait can be told from noise


class ShedderOptions(TypedDict, total=False):
    """The fields of :class:`ShedderSettings` as keywords, for type checkers."""

    service: str
    mode: Mode | Literal["enforce", "shadow", "off"]
    deadline_s: float
    max_concurrency: int | None
    health_paths: Sequence[str]
    health_rate_per_s: float
    trusted_callers: Sequence[str] | Callable[[str], bool]
    max_deadline_s: float
    criticality: Classifier | Sequence[CriticalityRule | Mapping[str, Any] | Classifier] | None
    identity: Callable[[RequestInfo], str | None] | None
    serve_half_closed: bool
    key_salt: str | None
    retry_after_s: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedderSettings:
    """The settings of one :class:`~groundfault.shedding.shedder.Shedder`, validated as a whole.

    Raises :class:`~groundfault.errors.SettingsError`, naming field, value and bound.

    ``service``: this service's name in events and in ``X-GroundFault-Origin``.
    ``mode``: ``enforce``; ``shadow`` decides and reports alike but changes nothing that a client can see; ``off``.
    ``deadline_s``: how long callers wait that do not say so, 1 s, between 10 ms and an hour.
    ``max_concurrency``: requests in flight beyond which any more are refused. None, the default: no such limit.
    ``health_paths``: exact paths that are never refused, up to ``health_rate_per_s`` (20) of them in all a second.
    ``trusted_callers``: networks, or a callable given the peer's address; loopback by default. A peer without an
    address, as on a unix socket, is trusted. Of trusted peers alone these are believed: a criticality above the
    default, the key, the caller's name, ``X-Request-Start``, and a budget longer than ``deadline_s``.
    ``max_deadline_s``: the longest budget believed of a trusted caller, 30 s, or ``deadline_s`` if that is longer;
    of any other caller it is ``deadline_s``.
    ``criticality``: rules, the first of which that matches decides, before the request's own header does:
    :class:`~groundfault.shedding.criticality.CriticalityRule`, mappings of its fields, and callables given a
    :class:`~groundfault.shedding.criticality.RequestInfo`, of which None leaves it to the next; or one such callable.
    ``identity``: a callable given a ``RequestInfo``; returns the user or session, or None.
    Of it a key is made, under a salt that changes every hour, for requests that bring no trusted key.
    ``serve_half_closed``: work for a client that has left is not started. One that has closed its sending half has
    nearly always left, so it is refused if it has waited, too; true serves it, for clients such as ``nc`` that read on.
    ``key_salt``: shared by the replicas of an edge service, so that all make the same keys. None: random at start.
    ``retry_after_s``: range of seconds of which ``Retry-After`` is drawn. None, the default: no such header,
    because urllib3's default policy turns each shed GET into four.
    """

    service: str = "service"
    mode: Mode = Mode.ENFORCE
    deadline_s: float = 1.0
    max_concurrency: int | None = None
    health_paths: tuple[str, ...] = HEALTH_PATHS
    health_rate_per_s: float = 20.0
    trusted_callers: tuple[str, ...] | Callable[[str], bool] = ("127.0.0.0/8", "::1/128")
    max_deadline_s: float = 30.0
    criticality: Classifier | tuple[CriticalityRule | Classifier, ...] | None = None
    identity: Callable[[RequestInfo], str | None] | None = None
    serve_half_closed: bool = False
    key_salt: str | None = field(default=None, repr=False)
    retry_after_s: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_service(self.service)
        _check_number("deadline_s", self.deadline_s, _MIN_DEADLINE_S, _MAX_S)
        _check_number("max_deadline_s", self.max_deadline_s, _MIN_DEADLINE_S, _MAX_S)
        _check_number("health_rate_per_s", self.health_rate_per_s, 0, 1e6)
        _check_limit("max_concurrency", self.max_concurrency)
        _check_callable("identity", self.identity)
        _check_flag("serve_half_closed", self.serve_half_closed)
        _check_salt("key_salt", self.key_salt)
        checked = {
            "criticality": rules_of(self.criticality),
            "mode": _checked_mode(self.mode),
            "health_paths": _checked_paths("health_paths", self.health_paths),
            "trusted_callers": _checked_callers("trusted_callers", self.trusted_callers),
            "retry_after_s": _checked_range("retry_after_s", self.retry_after_s),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def changed(self, changes: Mapping[str, Any]) -> "ShedderSettings":
        """Return these settings with some replaced. Raises SettingsError, also for a name that does not exist."""
        known = {each.name for each in fields(self)}
        for name in changes:
            if name not in known:
                raise SettingsError(f"{name} is not a setting of the shedder; there are {', '.join(sorted(known))}")
        return replace(self, **changes)

    def differences(self, other: "ShedderSettings") -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what differs between the two, first as it is here, then as it is there; nothing of the secret salt."""
        names = [each.name for each in fields(self) if each.name != "key_salt"]
        names = [name for name in names if getattr(self, name) != getattr(other, name)]
        return {name: getattr(self, name) for name in names}, {name: getattr(other, name) for name in names}


def _outside(name: str, value: object, bound: str) -> SettingsError:
    return SettingsError(f"{name} must be {bound}, not {value!r}")


def _check_service(service: object) -> None:
    if not isinstance(service, str) or not valid_name(service):
        raise _outside("service", service, f"a name that matches {NAME_GRAMMAR}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # nor is a NaN
        raise _outside(name, value, f"a number between {low:g} and {high:g}")


def _check_limit(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _outside(name, value, "None or an integer of at least 1")


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise _outside(name, value, "None or a callable")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _outside(name, value, "true or false")


def _check_salt(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value):
        raise SettingsError(f"{name} must be None or a string that is not empty")  # without the value: it is a secret


def _checked_mode(value: object) -> Mode:
    try:
        mode = Mode(str(value))
    except ValueError:
        mode = None
    if mode not in _MODES:
        raise _outside("mode", value, "enforce, shadow or off")
    return mode


def _checked_paths(name: str, value: object) -> tuple[str, ...]:
    paths = _checked_strings(name, value)
    for path in paths:
        if not path.startswith("/"):
            raise _outside(name, path, "a sequence of paths that begin with /")
    return paths


def _checked_callers(name: str, value: object) -> object:
    if callable(value):
        return value
    networks = _checked_strings(name, value)
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            raise _outside(name, network, "a callable or a sequence of networks such as 10.0.0.0/8") from None
    return networks


def _checked_strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise _outside(name, value, "a sequence of strings")
    strings = tuple(value)
    for string in strings:
        if not isinstance(string, str):
            raise _outside(name, string, "a sequence of strings")
    return strings


def _checked_range(name: str, value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2:  # noqa: PLR2004  a range has two ends
        raise _outside(name, value, "None or two numbers of seconds")
    low, high = value
    _check_number(name, low, 0, _MAX_S)
    _check_number(name, high, low, _MAX_S)
    return float(low), float(high)
