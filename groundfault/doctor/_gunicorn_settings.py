"""Run as ``python -m groundfault.doctor._gunicorn_settings``: reads gunicorn's settings as gunicorn does.

A configuration file is code. It is run only if it is one of those that were asked for.
"""

import os
import sys
from typing import Any, Final

from gunicorn.app.base import Application

from groundfault.doctor.child import answer, request

_ASKED: Final = (
    *("backlog", "bind", "graceful_timeout", "max_requests", "max_requests_jitter", "preload_app", "reuse_port"),
    *("threads", "timeout"),
)


class _Settings(Application):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's own way from the command line, the environment and a file to settings; it loads no application."""

    def __init__(self, allowed: list[str]) -> None:
        self.allowed = allowed
        self.app = ""
        self.file = ""
        self.loaded = False
        self.given: set[str] = set()
        super().__init__()

    def init(self, parser: Any, opts: Any, args: list[str]) -> None:  # noqa: ARG002  gunicorn's signature
        self.app = args[0] if args else ""

    def load_config(self) -> None:
        super().load_config()
        parser = self.cfg.parser()
        for said in (parser.parse_args(), parser.parse_args(self.cfg.get_cmd_args_from_env())):
            self.given |= {name for name, value in vars(said).items() if value is not None}

    def load_config_from_file(self, filename: str) -> Any:
        self.file = filename
        path = os.path.realpath(filename.removeprefix("file:"))
        if path not in self.allowed:
            return {}
        self.loaded = True
        return super().load_config_from_file(filename)


def main(arguments: list[str], given: str, cwd: str, allowed: list[str]) -> dict[str, Any]:
    """Return the settings, the application named, the file named, whether that was run, and what goes before it."""
    os.environ["GUNICORN_CMD_ARGS"] = given
    os.chdir(cwd)
    sys.argv = ["gunicorn", *arguments]
    loaded = _Settings(allowed)
    config = loaded.cfg
    worker = config.settings["worker_class"].get()
    settings = {name: getattr(config, name, None) for name in _ASKED}
    # Of its own hooks gunicorn takes the default ones from its module of settings.
    hook = config.settings["child_exit"].get().__module__ != "gunicorn.config"
    return {
        "settings": {
            **settings,
            "worker_class": worker if isinstance(worker, str) else f"{worker.__module__}.{worker.__qualname__}",
            "child_exit": hook if loaded.loaded or not loaded.file else None,
        },
        "app": loaded.app,
        "file": loaded.file,
        "loaded": loaded.loaded,
        "given": sorted(loaded.given),
    }


if __name__ == "__main__":
    where_to = sys.argv[:]
    facts = main(**request())
    sys.argv = where_to
    answer(facts)
