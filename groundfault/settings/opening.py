"""From an address to a store. What a store needs is imported only when its address is opened."""

from importlib import import_module
from typing import Final
from urllib.parse import unquote, urlsplit

from groundfault.errors import SettingsError
from groundfault.settings.store import SettingsStore

__all__ = ["open_store"]

_STORES: Final = {
    **dict.fromkeys(("redis", "rediss", "unix"), ("redis", "RedisStore")),
    **dict.fromkeys(("http", "https"), ("hub", "HubStore")),
}


def open_store(url: str) -> SettingsStore:
    """Return the store at an address; nothing is opened or connected to yet.

    ``/etc/groundfault.toml``, ``file:settings.json``, ``file:///etc/groundfault.toml``: a file;
    ``redis://host:6379/0``, also ``rediss`` and ``unix``: Redis; ``http://hub:9733`` and ``https``: a hub;
    any other scheme: a database, as SQLAlchemy writes it, such as ``sqlite:////var/lib/settings.db`` or
    ``postgresql+psycopg://host/settings``.
    All of them are :class:`~groundfault.settings.store.WritableStore`. Raises SettingsError for what is no address,
    ImportError, with the extra's name, where a library is missing.
    """
    if not url.strip():
        raise SettingsError("the address of a settings store must be a path or an URL, not empty")
    scheme, found, rest = url.partition(":")
    if not found or not scheme.replace("+", "").isalnum() or "/" in scheme:
        return _file(url)
    if scheme == "file":
        return _file(unquote(urlsplit(url).path) if rest.startswith("//") else rest)
    module, kind = _STORES.get(scheme, ("sql", "SQLStore"))
    if not rest.startswith("//"):
        raise SettingsError(f"the address of a settings store must be a path or begin with {scheme}://")
    # By name, for the walls between the rooms: what brings in other libraries lies above this one.
    store: SettingsStore = getattr(import_module(f"groundfault.integrations.{module}"), kind).from_url(url)
    return store


def _file(path: str) -> SettingsStore:
    store: SettingsStore = import_module("groundfault.settings.file").FileStore(path)
    return store
