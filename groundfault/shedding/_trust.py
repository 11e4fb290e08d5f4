"""Whose headers are believed. Trust belongs to the network path a request came by, never to a header."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from groundfault.events import note_internal_error

__all__ = ["Callers", "Trust"]

_REMEMBERED = 1024
_MAX_CALLERS = 256
_OTHER_CALLER = "other"


class Trust:
    """The ``trusted_callers`` of :class:`~groundfault.shedding.settings.ShedderSettings`, ready to be asked."""

    __slots__ = ("_callers", "_known", "_networks")

    def __init__(self, callers: tuple[str, ...] | Callable[[str], bool]) -> None:
        self._callers = callers if callable(callers) else None
        self._networks = () if callable(callers) else tuple(map(ip_network, callers))
        self._known: dict[str, bool] = {}

    def believes(self, peer: str | None) -> bool:
        """Return whether the peer is trusted. One without an address, as on a unix socket, is; "" is nobody."""
        if not peer:
            return peer is None
        if self._callers is not None:
            try:
                return bool(self._callers(peer))
            except Exception as error:  # noqa: BLE001  the user's callable; an error of it must not grant anything
                note_internal_error("trusted_callers", error)
                return False
        known = self._known.get(peer)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            known = self._known[peer] = self._is_inside(peer)
        return known

    def _is_inside(self, peer: str) -> bool:
        try:
            address: IPv4Address | IPv6Address = ip_address(peer)
        except ValueError:  # a name, such as a test client's
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(
            address in network
            for network in self._networks
            if isinstance(network, IPv6Network) == isinstance(address, IPv6Address)
        )


class Callers:
    """The labels of callers seen so far, few enough to keep counts for; the caller of this guards :meth:`fold`."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: set[str] = set()

    def fold(self, caller: str | None) -> str | None:
        """Return the caller's label, or ``other`` beyond the first 256 of them."""
        if caller is None or caller in self.known:
            return caller
        if len(self.known) >= _MAX_CALLERS:
            return _OTHER_CALLER
        self.known.add(caller)
        return caller
