"""One suite over threads and coroutines: ``way`` makes every call through ``call`` and through ``acall``."""

import asyncio

import pytest

from groundfault.breaker import Registry, Resource


class Sync:
    """Calls made with ``call``."""

    kind = "call"

    def __call__(self, command, fn=lambda: "done", /, *args, **kwargs):
        return command.call(fn, *args, **kwargs)

    def decorated(self, command, fn):
        return command(fn)


class Async:
    """Calls made with ``acall``, each on an event loop of its own."""

    kind = "acall"

    def __call__(self, command, fn=lambda: "done", /, *args, **kwargs):
        return asyncio.run(command.acall(self._coroutine_function(fn), *args, **kwargs))

    def decorated(self, command, fn):
        guarded = command(self._coroutine_function(fn))
        return lambda *args, **kwargs: asyncio.run(guarded(*args, **kwargs))

    @staticmethod
    def _coroutine_function(fn):
        async def coroutine_function(*args, **kwargs):
            return fn(*args, **kwargs)

        return coroutine_function


@pytest.fixture(params=[Sync(), Async()], ids=lambda way: way.kind)
def way(request):
    return request.param


@pytest.fixture
def registry(clock):
    return Registry(clock=clock, draw=lambda: 0.5)


@pytest.fixture
def resource(registry, sink):
    return Resource("saber", registry=registry, sinks=[sink])


@pytest.fixture
def command(resource):
    return resource.command("entrants")


def _fail():
    raise ConnectionError


@pytest.fixture
def trip():
    """Return a function that fails a command as often as the defaults ask for."""

    def trip(command, times=20):
        for _ in range(times):
            with pytest.raises(ConnectionError):
                command.call(_fail)

    return trip
