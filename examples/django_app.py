"""Django: ``gunicorn --chdir examples django_app:application``.

Under ASGI ``uvicorn --app-dir examples django_app:asgi_application``. Both are wrapped by hand;
``plain_application`` and ``plain_asgi_application`` are Django's own, which have it as ``MIDDLEWARE`` alone.
``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os

import django.core.asgi
import django.core.wsgi
import requests
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from groundfault.integrations.django import get_asgi_application, get_wsgi_application, shedder
from groundfault.integrations.requests import GroundFaultAdapter

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

if not settings.configured:  # what stands in a settings.py
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY="an example's",  # noqa: S106  no secret is kept
        ALLOWED_HOSTS=["127.0.0.1"],
        MIDDLEWARE=["groundfault.integrations.django.LoadShedderMiddleware"],
        GROUNDFAULT={"service": "grouper"},
    )

session = requests.Session()
session.mount(SABER, GroundFaultAdapter("saber", timeout_s=0.5))


def index(request: HttpRequest) -> HttpResponse:
    """Answer without anybody's help."""
    return HttpResponse("grouper is up\n")


def entrants(request: HttpRequest) -> HttpResponse:
    """Answer with what saber says."""
    answer = session.get(f"{SABER}/entrants")
    answer.raise_for_status()
    return HttpResponse(answer.text)


def signal(request: HttpRequest) -> HttpResponse:
    """Say where the queue wait was read."""
    return HttpResponse(shedder().snapshot().signal)


urlpatterns = [path("", index), path("entrants", entrants), path("signal", signal)]

application = get_wsgi_application()
asgi_application = get_asgi_application()
plain_application = django.core.wsgi.get_wsgi_application()
plain_asgi_application = django.core.asgi.get_asgi_application()
