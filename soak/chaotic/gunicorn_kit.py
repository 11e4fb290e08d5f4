"""gunicorn's configuration for grouper: the kit, as an application would have it."""

from groundfault.integrations.gunicorn import install

install(globals())
