"""``gunicorn -k groundfault.integrations.uvicorn_worker.UvicornWorker app:app``: uvicorn under gunicorn, prepared."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker as _UvicornWorker

from groundfault.integrations.uvicorn import AutoProtocol

__all__ = ["UvicornWorker"]


class UvicornWorker(_UvicornWorker):  # type: ignore[misc]  # the package has no types of its own
    """The worker class of the package ``uvicorn-worker`` with :mod:`groundfault.integrations.uvicorn`'s protocols."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**_UvicornWorker.CONFIG_KWARGS, "http": AutoProtocol}
