"""What an error needs to be both GroundFault's and httpx's: their constructors do not agree."""

from typing import Any

__all__ = ["Answered", "NeverSent", "TimedOut"]


class NeverSent:
    """For a rejection, built as ``CircuitOpenError(resource, command, detail, request=request)``.

    GroundFault's rejections have no constructor, httpx's errors want a message.
    """

    args: tuple[Any, ...]

    def __init__(self, *_args: Any, request: Any = None) -> None:  # `args` is set by then, as for every exception
        self._request = request

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class Answered:
    """For a shed: between the constructor that gives a message on and httpx's, which wants request and response."""

    args: tuple[Any, ...]

    def __init__(self, message: str) -> None:
        self.args = (message,)
        self._request: Any = None


class TimedOut:
    """For a timeout: ``TimeoutError`` is a C type, whose constructor calls no other."""

    _request: Any = None
