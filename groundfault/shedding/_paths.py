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

__all__ = ["Server", "Way", "find_owner", "known_server"]


class Way(NamedTuple):
    """What leads on from the server's object: to an asyncio transport, or to an object whose ``socket`` is the socket.

    ``streams``: the requests open on the connection; None where there is but one at a time.
    ``drains_bodies``: the server reads what is left of a request's body by itself and keeps the connection.
    """

    transport: Any
    streams: Sized | None = None
    drains_bodies: bool = False


class Server(NamedTuple):
    """How to go on from an object of one server's.

    ``holder`` returns the object that lives as long as the connection, which may carry an attribute of ours;
    ``way`` is asked once per connection.
    """

    holder: Callable[[Any], Any]
    way: Callable[[Any], Way]


def _holder_of_uvicorn(cycle: Any) -> Any:
    """``RequestResponseCycle`` is made anew for each request; its ``flow`` and ``on_response`` are the connection's.

    The former has few attributes: one more of them costs a microsecond less than it does in a large object.
    """
    flow = getattr(cycle, "flow", None)
    if flow is not None:
        return flow
    try:
        return cycle.on_response.__self__
    except AttributeError:
        return cycle


def _way_of_uvicorn(cycle: Any) -> Way:
    return Way(getattr(cycle, "transport", None), drains_bodies=True)


def _holder_of_gunicorn(owner: Any) -> Any:
    """``BodyReceiver`` belongs to one request; under HTTP/2 closures hold the ``ASGIProtocol`` itself."""
    return getattr(owner, "protocol", owner)


def _way_of_gunicorn(owner: Any) -> Way:
    protocol = _holder_of_gunicorn(owner)
    return Way(protocol.transport, getattr(getattr(protocol, "_h2_conn", None), "streams", None))


def _holder_of_hypercorn(stream: Any) -> Any:
    """``HTTPStream``, whose ``send`` is the H11 or H2 protocol's, whose ``send`` is the ``TCPServer``'s."""
    return stream.send.__self__.send.__self__


def _way_of_hypercorn(stream: Any) -> Way:
    protocol = stream.send.__self__
    server = protocol.send.__self__
    writer = getattr(server, "writer", None)  # on trio a stream, which holds the socket
    return Way(server.stream if writer is None else writer.transport, getattr(protocol, "streams", None))


def _holder_of_daphne(request: Any) -> Any:
    """``WebRequest`` is a request of Twisted's; its transport holds the socket."""
    return request.transport


def _way_of_daphne(request: Any) -> Way:
    return Way(request.transport)


_UVICORN: Final = Server(_holder_of_uvicorn, _way_of_uvicorn)
_GUNICORN: Final = Server(_holder_of_gunicorn, _way_of_gunicorn)
_HYPERCORN: Final = Server(_holder_of_hypercorn, _way_of_hypercorn)
_DAPHNE: Final = Server(_holder_of_daphne, _way_of_daphne)
_ANY: Final = Server(lambda owner: owner, lambda owner: Way(owner.transport))

_SERVERS: Final[tuple[tuple[str, frozenset[str] | None, Server], ...]] = (
    ("uvicorn.protocols.http.", None, _UVICORN),
    ("gunicorn.asgi.", frozenset({"BodyReceiver", "ASGIProtocol"}), _GUNICORN),
    ("hypercorn.protocol.", frozenset({"HTTPStream"}), _HYPERCORN),
    ("daphne.", frozenset({"WebRequest"}), _DAPHNE),
)
"""By module: the classes that lead to the connection, None for all of them, and how."""

_known: dict[type, Server | None] = {}
known_server: Final = _known.get
"""Returns how to go on from an object of this type if that has been found before and leads anywhere, else None."""


def _server_of(owner: object) -> Server | None:
    """Return how to get from an object of a server's to its connection, None for any other object."""
    kind = type(owner)
    try:
        return _known[kind]
    except KeyError:
        server = next(filter(None, map(_server_of_class, kind.__mro__)), None)  # its subclasses may live anywhere
        if len(_known) < _REMEMBERED:
            _known[kind] = server
        return server


def _server_of_class(kind: type) -> Server | None:
    for module, names, server in _SERVERS:
        if kind.__module__.startswith(module) and (names is None or kind.__name__ in names):
            return server
    return None


def find_owner(receive: object, send: object) -> tuple[object, Server] | None:
    """Return the server's object that a request's callables belong to, and how to go on from there; None: unknown.

    Below wrappers too. What looks like an asyncio protocol is good enough if nothing better is found.
    """
    owner: Any = getattr(receive, "__self__", None)
    server = _server_of(owner)
    if server is not None:
        return owner, server
    found = _search(receive, send)
    if found is not None:
        server = _server_of(found)
        return None if server is None else (found, server)
    return (owner, _ANY) if hasattr(getattr(owner, "transport", None), "get_extra_info") else None


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
        if _server_of(found) is not None:
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
        if _server_of(node) is not None:
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
