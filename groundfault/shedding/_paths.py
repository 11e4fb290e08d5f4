"""The ways from what a server hands an ASGI application to the object it keeps for the connection.

A server hands over no socket, but ``receive`` or ``send`` belong to an object of its own that knows the connection.
A middleware in front may have put functions of its own in their place: those hold the server's in a closure,
a partial or an attribute, so a bounded search finds it, and how it was found is remembered for each kind of wrapper.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

__all__ = ["Way", "way_to_connection"]


class Way(NamedTuple):
    """What was found: the server's object for the connection, and what can be learned from it.

    ``holder`` lives as long as the connection and may carry an attribute of ours.
    ``transport`` is an asyncio transport, or an object whose attribute ``socket`` is the socket.
    ``streams`` are the requests open on it, None where there is but one at a time.
    """

    holder: Any
    transport: Any
    streams: Sized | None = None
    drains_bodies: bool = False


_Follow = Callable[[Any], Way | None]


def _of_uvicorn(cycle: Any) -> Way | None:
    """``RequestResponseCycle``, made anew for each request; its ``on_response`` is the protocol's."""
    holder = getattr(getattr(cycle, "on_response", None), "__self__", cycle)
    return Way(holder, getattr(cycle, "transport", None), drains_bodies=True)


def _of_gunicorn(owner: Any) -> Way | None:
    """``BodyReceiver``, or under HTTP/2 the ``ASGIProtocol`` itself."""
    protocol = getattr(owner, "protocol", owner)
    if not hasattr(protocol, "transport"):
        return None
    return Way(protocol, protocol.transport, getattr(getattr(protocol, "_h2_conn", None), "streams", None))


def _of_hypercorn(stream: Any) -> Way | None:
    """``HTTPStream``, whose ``send`` is the H11 or H2 protocol's, whose ``send`` is the ``TCPServer``'s."""
    protocol = stream.send.__self__
    server = protocol.send.__self__
    return Way(server, server.writer.transport, getattr(protocol, "streams", None))


def _of_daphne(request: Any) -> Way | None:
    """``WebRequest``, a request of Twisted's; its transport holds the socket."""
    transport = request.transport
    return Way(transport, transport)


def _of_anything(owner: Any) -> Way | None:
    """Whatever looks like an asyncio protocol."""
    return Way(owner, owner.transport) if hasattr(getattr(owner, "transport", None), "get_extra_info") else None


_SERVERS: Final[tuple[tuple[str, frozenset[str] | None, _Follow], ...]] = (
    ("uvicorn.protocols.http.", None, _of_uvicorn),
    ("gunicorn.asgi.", frozenset({"BodyReceiver", "ASGIProtocol"}), _of_gunicorn),
    ("hypercorn.protocol.", frozenset({"HTTPStream"}), _of_hypercorn),
    ("daphne.", frozenset({"WebRequest"}), _of_daphne),
)
"""By module: the classes that lead to the connection, None for all of them, and how."""

_followers: dict[type, _Follow | None] = {}


def _follower(owner: object) -> _Follow | None:
    """Return how to get from an object of a server's to its connection, None for any other object."""
    kind = type(owner)
    try:
        return _followers[kind]
    except KeyError:
        follow = next(filter(None, map(_follower_of, kind.__mro__)), None)  # its subclasses may live anywhere
        if len(_followers) < _REMEMBERED:
            _followers[kind] = follow
        return follow


def _follower_of(kind: type) -> _Follow | None:
    for module, names, follow in _SERVERS:
        if kind.__module__.startswith(module) and (names is None or kind.__name__ in names):
            return follow
    return None


def way_to_connection(receive: object, send: object) -> Way | None:
    """Return the way to the connection of a request, or None. Raises whatever the strangers on the way do."""
    owner = getattr(receive, "__self__", None)
    follow = _follower(owner)
    if follow is not None:
        return follow(owner)
    found = _search(receive, send)
    if found is not None:
        follow = _follower(found)
        return None if follow is None else follow(found)
    return _of_anything(owner)


# --- wrappers ---------------------------------------------------------------------------------------------------------

_REMEMBERED: Final = 256
"""Kinds of wrappers and owners at most; functions compiled at run time must not fill the memory."""
_TRIES: Final = 8
"""How often a kind of wrapper is searched without success before it is left alone: each costs tens of microseconds."""
_VISITS: Final = 96
"""Objects looked at in one search: five wrappers of a dozen variables each."""
_DEPTH: Final = 12

_Step = tuple[str, Any]
_Steps = tuple[_Step, ...]

_routes: dict[tuple[Any, Any], _Steps | int] = {}


def _search(receive: object, send: object) -> object | None:
    """Return the server's object behind wrappers of ``receive`` or ``send``, by the way remembered or a new one."""
    pair = (receive, send)
    kind = (_kind(receive), _kind(send))
    known = _routes.get(kind, 0)
    if isinstance(known, tuple):
        try:
            found: object = pair
            for step in known:
                found = _take(found, step)
        except (AttributeError, LookupError, TypeError, ValueError):  # the same wrapper round something else
            found = None
        if _follower(found) is not None:
            return found
        known = 0
    if known >= _TRIES:
        return None
    steps, found = _walk(pair)
    if kind in _routes or len(_routes) < _REMEMBERED:
        _routes[kind] = known + 1 if found is None else steps
    return found


def _kind(function: Any) -> object:
    """Return what all wrappers made by the same line of code have in common."""
    if isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, partial):
        return _kind(function.func)
    code: CodeType | None = getattr(function, "__code__", None) if isinstance(function, FunctionType) else None
    return code or type(function)


def _walk(pair: tuple[object, object]) -> tuple[_Steps, object | None]:
    """Search breadth first, so that what is nearest is found: what a wrapper wraps, not what else it knows."""
    queue: deque[tuple[_Steps, object]] = deque((((("item", index),), each) for index, each in enumerate(pair)))
    seen: set[int] = set()
    while queue and len(seen) < _VISITS:
        steps, node = queue.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if _follower(node) is not None:
            return steps, node
        if len(steps) < _DEPTH:
            queue.extend(((*steps, step), each) for step, each in _neighbors(node) if not isinstance(each, _LEAVES))
    return (), None


_LEAVES: Final = (str, bytes, int, float, type, dict, list, set, tuple, frozenset, type(None))


def _neighbors(node: Any) -> Iterator[tuple[_Step, object]]:
    """Yield what a callable is bound to: its own object, its closure, its arguments, its object's callables.

    Attributes are read from the instance's dictionary only: no code of a stranger's runs.
    """
    if isinstance(node, MethodType):
        yield ("attribute", "__self__"), node.__self__
    elif isinstance(node, FunctionType):
        for index, cell in enumerate(node.__closure__ or ()):
            with suppress(ValueError):  # a cell that is still empty
                yield ("cell", index), cell.cell_contents
    elif isinstance(node, partial):
        yield ("attribute", "func"), node.func
        for index, each in enumerate(node.args):
            yield ("argument", index), each
    else:
        for name, each in _attributes(node).items():
            if callable(each):
                yield ("value", name), each


def _attributes(node: object) -> dict[str, object]:
    try:
        return dict(object.__getattribute__(node, "__dict__"))
    except AttributeError:
        return {}


def _take(node: Any, step: _Step) -> object:
    kind, key = step
    if kind == "item":
        return node[key]
    if kind == "cell":
        return node.__closure__[key].cell_contents
    if kind == "argument":
        return node.args[key]
    if kind == "value":
        return object.__getattribute__(node, "__dict__")[key]
    return getattr(node, key)
