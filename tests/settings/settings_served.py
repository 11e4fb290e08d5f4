"""What test_settings_servers.py has gunicorn serve: an application that writes down when its live settings changed."""

import json
import os
from pathlib import Path

from groundfault import Resource, WSGILoadShedder
from groundfault._clock import monotonic
from groundfault.events import SettingsStoreChanged
from groundfault.settings.live import install
from groundfault.sinks import default_sinks

_DIARY = Path(os.environ["DIARY"])


def _note(event):
    """Append a line to the diary of this process. Every process on one machine has the same monotonic clock."""
    if isinstance(event, SettingsStoreChanged):
        said = {
            "at": monotonic(),
            "status": event.status,
            "version": event.version,
            "error": event.error,
            "timeout_s": command.settings.timeout_s,
            "deadline_s": application.shedder.settings.deadline_s,
            "parent": os.getppid(),
        }
        with (_DIARY / str(os.getpid())).open("a") as diary:
            diary.write(json.dumps(said) + "\n")


_note.prompt = True
default_sinks().add(_note)
command = Resource("contest-db").command("entrants", timeout_s=2.0)


def _application(environ, start_response):
    body = json.dumps({"pid": os.getpid(), "timeout_s": command.settings.timeout_s}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [command.call(lambda: body)]


application = WSGILoadShedder(_application, service="topps")
install()
