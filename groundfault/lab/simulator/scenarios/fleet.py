"""The fleet of a fantasy sports company, made up by us: more than seventy services in layers, and who calls whom.

No company's numbers are in it. Times, cache hits and graph are what such services ordinarily have; the sizes follow
from them and from how much of itself each service uses at the usual load of a game.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["CALLED_BY_EDGES", "EDGES", "FLEET", "Kind", "Link"]


@dataclass(frozen=True, slots=True)
class Link:
    """A call: ``share`` of the requests make it, and a cache in front of it saves the share ``hit`` of these.

    ``soft``: without its answer something else is shown.
    """

    to: str
    share: float = 1.0
    hit: float = 0.0
    soft: bool = False

    @property
    def made(self) -> float:
        """How many calls a request makes on average."""
        return self.share * (1 - self.hit)


@dataclass(frozen=True, slots=True)
class Kind:
    """A service: what a request costs it by itself, and its calls.

    ``shared``: fans and innocents both need it, so it was built for the spike, as the edges are; everything else was
    built for the usual load of a game, about twice over. ``loop``: an event loop, whose ``ms`` are CPU; else threads.
    """

    ms: float
    links: tuple[Link, ...] = ()
    shared: bool = False
    loop: bool = False


def _kind(ms: float, *links: Link, shared: bool = False, loop: bool = False) -> Kind:
    return Kind(ms, links, shared, loop)


EDGES: Final = ("edge-mobile", "edge-web", "edge-partner")
"""Where users' requests come in."""

CALLED_BY_EDGES: Final = (
    Link("session", hit=0.9),
    Link("geolocation", hit=0.95),
    Link("feature-flags", 0.3, 0.9, soft=True),
)
"""What an edge asks before it lets a request through, whatever the request is for."""

FLEET: Final[dict[str, Kind]] = {
    # Who is it, where are they, and may they play there?
    "session": _kind(8, Link("session-store"), Link("account", 0.05), shared=True),
    "session-store": _kind(4, shared=True),
    "geolocation": _kind(24, Link("geo-fence"), Link("geo-vendor", 0.1, soft=True), shared=True),
    "geo-fence": _kind(6, shared=True),
    "geo-vendor": _kind(120, shared=True),
    "account": _kind(12, Link("account-db"), Link("responsible-gaming", 0.2, 0.5), Link("kyc", 0.02), shared=True),
    "account-db": _kind(10, shared=True),
    "responsible-gaming": _kind(12, Link("limits-store"), shared=True),
    "limits-store": _kind(8, shared=True),
    "kyc": _kind(30, Link("kyc-vendor", 0.3, soft=True), shared=True),
    "kyc-vendor": _kind(240, shared=True),
    "login": _kind(
        40, Link("account"), Link("token-issuer"), Link("fraud-score", soft=True), Link("mfa", 0.1), shared=True
    ),
    "token-issuer": _kind(6, shared=True),
    "mfa": _kind(30, shared=True),
    "fraud-score": _kind(50, Link("device-fingerprint"), shared=True),
    "device-fingerprint": _kind(16, shared=True),
    "feature-flags": _kind(4, Link("experiments", 0.5, 0.9, soft=True), shared=True),
    "experiments": _kind(10, Link("config", 0.1, 0.9), shared=True),
    # The lobby: what can be played?
    "lobby": _kind(
        3,
        Link("contest-list", hit=0.6),
        Link("promo", 0.5, 0.8, soft=True),
        Link("recommendations", 0.3, 0.5, soft=True),
        Link("search", 0.1),
        Link("news", 0.2, 0.8, soft=True),
        loop=True,
    ),
    "contest-list": _kind(16, Link("contest-cache")),
    "contest-cache": _kind(4),
    "promo": _kind(20, Link("promo-db", hit=0.5), Link("banners", soft=True)),
    "promo-db": _kind(12),
    "banners": _kind(8, Link("localization", hit=0.9)),
    "localization": _kind(6),
    "recommendations": _kind(60, Link("personalization", hit=0.4, soft=True)),
    "personalization": _kind(30, Link("profile-store")),
    "profile-store": _kind(10),
    "search": _kind(24, Link("search-index")),
    "search-index": _kind(36),
    "news": _kind(20, Link("news-feed", hit=0.7)),
    "news-feed": _kind(40),
    # Lineups: whom did I pick, and how are they doing?
    "lineup": _kind(
        4,
        Link("lineup-db"),
        Link("roster", hit=0.5),
        Link("player", hit=0.7),
        Link("projections", 0.3, 0.6, soft=True),
        Link("late-swap", 0.05),
        loop=True,
    ),
    "lineup-db": _kind(24),
    "roster": _kind(16, Link("roster-db"), Link("salary-cap", 0.1)),
    "roster-db": _kind(14),
    "salary-cap": _kind(8, Link("lineup-rules", hit=0.8)),
    "lineup-rules": _kind(10),
    "player": _kind(12, Link("player-db", hit=0.6), Link("injuries", 0.3, 0.8, soft=True)),
    "player-db": _kind(16),
    "injuries": _kind(18, Link("player-news", 0.3, 0.7, soft=True)),
    "player-news": _kind(28),
    "projections": _kind(40, Link("projections-db")),
    "projections-db": _kind(20),
    "late-swap": _kind(30, Link("lineup-rules"), Link("audit", 0.5, soft=True)),
    # Scores: who is ahead?
    "scores": _kind(
        3,
        Link("leaderboard", hit=0.3),
        Link("live-points", hit=0.5),
        Link("game-clock", hit=0.9, soft=True),
        Link("standings", 0.3, 0.5),
        loop=True,
    ),
    "leaderboard": _kind(20, Link("leaderboard-store")),
    "leaderboard-store": _kind(18),
    "live-points": _kind(14, Link("scoring", hit=0.8)),
    "scoring": _kind(50, Link("stats-feed", 0.5, 0.5), Link("stats-db")),
    "stats-feed": _kind(30),
    "stats-db": _kind(24),
    "game-clock": _kind(6),
    "standings": _kind(18, Link("prize-table", 0.3, 0.8, soft=True)),
    "prize-table": _kind(16),
    # Contests: I want to play.
    "contest": _kind(3, Link("contest-detail"), Link("entry", 0.4), Link("leagues", 0.2, soft=True), loop=True),
    "contest-detail": _kind(18, Link("contest-db", hit=0.5), Link("prize-pool", hit=0.7)),
    "contest-db": _kind(20),
    "prize-pool": _kind(16),
    "entry": _kind(36, Link("entry-db"), Link("contest-fill"), Link("wallet-hold"), Link("audit", soft=True)),
    "entry-db": _kind(22),
    "contest-fill": _kind(12),
    "leagues": _kind(24, Link("leagues-db"), Link("invites", 0.1, soft=True)),
    "leagues-db": _kind(16),
    "invites": _kind(30, Link("notifications", soft=True)),
    # Money.
    "wallet": _kind(
        3,
        Link("balance"),
        Link("deposit", 0.1),
        Link("withdrawal", 0.05),
        Link("bonus", 0.3, 0.5, soft=True),
        loop=True,
    ),
    "balance": _kind(12, Link("ledger-db")),
    "wallet-hold": _kind(20, Link("ledger")),
    "ledger": _kind(18, Link("ledger-db"), Link("audit", soft=True)),
    "ledger-db": _kind(16),
    "deposit": _kind(50, Link("payment-gateway"), Link("ledger"), Link("receipts", soft=True)),
    "payment-gateway": _kind(300),
    "withdrawal": _kind(60, Link("ledger"), Link("tax", 0.3), Link("fraud-score", soft=True)),
    "tax": _kind(24),
    "bonus": _kind(18, Link("promo-rules", hit=0.7)),
    "promo-rules": _kind(12),
    "receipts": _kind(24, Link("notifications", soft=True)),
    # What everybody uses a little.
    "profile": _kind(
        3, Link("account", hit=0.3), Link("login", 0.3), Link("preferences", 0.5, 0.5, soft=True), loop=True
    ),
    "preferences": _kind(14, Link("profile-store")),
    "audit": _kind(8, Link("audit-log")),
    "audit-log": _kind(12),
    "notifications": _kind(20, Link("push-tokens")),
    "push-tokens": _kind(10),
    "config": _kind(6),
}
"""By name. An edge sends each request on to the service of its route."""
