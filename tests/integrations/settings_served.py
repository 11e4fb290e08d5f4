"""The application of test_settings_fleet.py: each process tells when a change came into force in it."""

import json
import os

from groundfault import Resource
from groundfault._clock import monotonic
from groundfault.events import SettingsStoreChanged
from groundfault.settings import live
from groundfault.sinks import default_sinks

command = Resource("contest-db").command("entrants", timeout_s=9.0)


def tell(event):
    """Say which version is in force since when, on a clock that all processes of a machine share."""
    if isinstance(event, SettingsStoreChanged) and event.status == "applied":
        line = {"pid": os.getpid(), "at": monotonic(), "timeout_s": command.settings.timeout_s}
        told = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_APPEND)
        os.write(told, json.dumps(line).encode() + b"\n")
        os.close(told)


tell.changes_only = tell.prompt = True
default_sinks().add(tell)
live.install(service="topps")  # in the master where the application is preloaded


def served(environ, start_response):
    body = json.dumps({"pid": os.getpid(), "timeout_s": command.settings.timeout_s}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
