"""redis-py, for threads and for asyncio: ``REDIS_URL=redis://127.0.0.1:6379/0 python examples/redis_client.py``.

Every Redis command, and every pipeline as a whole, is one call of ``cache/lookup``: at most twenty at a time,
none while the circuit is open. A cache that does not answer is a cache that misses: the value is computed.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from groundfault import Outcome, RejectedError, Resource

TIMEOUT_S = 0.5
LOOKUP = Resource("cache").command("lookup", timeout_s=TIMEOUT_S, max_concurrent=20)

# Redis bounds each read, so there must be no retries below the circuit: by default redis-py makes several.
BOUNDS: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "max_connections": 30}

CACHE_ERRORS = (RejectedError, redis.RedisError, TimeoutError)
"""What a lookup may raise instead of answering: never called, answered badly, out of time."""


def outcome_of(error: BaseException) -> Outcome | None:
    """Say what an error means for the server; None for one that is not redis-py's."""
    if isinstance(error, redis.MaxConnectionsError):
        return Outcome.IGNORED  # the pool is ours: keep max_concurrent below max_connections
    if isinstance(error, redis.TimeoutError):
        return Outcome.TIMEOUT
    # It loads its data (a ConnectionError), is full, has lost its master or may only be read.
    if isinstance(error, redis.ConnectionError | redis.exceptions.OutOfMemoryError | redis.ReadOnlyError):
        return Outcome.FAILURE
    if isinstance(error, redis.exceptions.ClusterError):
        return Outcome.FAILURE
    if isinstance(error, redis.RedisError):
        return Outcome.SUCCESS  # it answered: the wrong type, a script that is unknown, a key that was being watched
    return None


def call(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call ``fn`` as one call of the command."""
    with LOOKUP.attempt() as attempt:
        try:
            return fn(*args, **options)
        except redis.RedisError as error:
            attempt.settle(outcome_of(error) or Outcome.FAILURE, carrier=error)
            raise


async def acall(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Do as :func:`call`, awaiting; the timeout covers everything, the wait for a connection too."""
    with LOOKUP.attempt() as attempt:
        try:
            async with asyncio.timeout(attempt.timeout_s):
                return await fn(*args, **options)
        except redis.RedisError as error:
            attempt.settle(outcome_of(error) or Outcome.FAILURE, carrier=error)
            raise


class GuardedPipeline(Pipeline):
    """A pipeline that is one call when it is executed, and one for each answer that it needs before."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002  redis-py's signature
        """Execute everything that was queued."""
        answers: list[Any] = call(super().execute, raise_on_error)
        return answers

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command that cannot wait, for instance WATCH."""
        return call(super().immediate_execute_command, *args, **options)


class GuardedRedis(redis.Redis):
    """A client whose commands are calls: ``GuardedRedis.from_url(url, **BOUNDS, retry=Retry(NoBackoff(), 0))``."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute one command."""
        return call(super().execute_command, *args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> GuardedPipeline:  # noqa: FBT001, FBT002  as above
        """Return a pipeline that is guarded too."""
        return GuardedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class AsyncGuardedPipeline(AsyncPipeline):
    """:class:`GuardedPipeline` for asyncio."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002  as above
        """Execute everything that was queued."""
        answers: list[Any] = await acall(super().execute, raise_on_error)
        return answers

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command that cannot wait, for instance WATCH."""
        return await acall(super().immediate_execute_command, *args, **options)


class AsyncGuardedRedis(redis.asyncio.Redis):
    """:class:`GuardedRedis` for asyncio."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute one command."""
        return await acall(super().execute_command, *args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> AsyncGuardedPipeline:  # noqa: FBT001, FBT002  as above
        """Return a pipeline that is guarded too."""
        return AsyncGuardedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def season_totals(cache: redis.Redis, season: str, compute: Callable[[str], str]) -> str:
    """Return the totals from the cache, or computed if it has none or does not answer."""
    key = f"totals:{season}"
    try:
        hit = cache.get(key)
        if hit is not None:
            return bytes(hit).decode()  # type: ignore[arg-type]  # redis-py's annotation is that of both clients
        totals = compute(season)
        cache.set(key, totals, ex=60)
    except CACHE_ERRORS:
        totals = compute(season)
    return totals


def client(url: str) -> GuardedRedis:
    """Return the client for threads."""
    return cast("GuardedRedis", GuardedRedis.from_url(url, retry=Retry(NoBackoff(), 0), **BOUNDS))


def async_client(url: str) -> AsyncGuardedRedis:
    """Return the client for asyncio."""
    return cast("AsyncGuardedRedis", AsyncGuardedRedis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **BOUNDS))


async def main(url: str) -> None:
    """Use both."""
    with client(url) as cache:
        print(season_totals(cache, "2026", lambda season: f"totals of {season}"))  # noqa: T201  a script that shows something
    async with async_client(url) as cache:
        try:
            print("hits:", await cache.incr("hits"))  # noqa: T201  as above
        except CACHE_ERRORS as error:
            print("no count:", type(error).__name__)  # noqa: T201  as above


if __name__ == "__main__":
    asyncio.run(main(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")))
