"""What a scenario promises is promised of GroundFault alone."""

from argparse import Namespace
from collections.abc import Callable, Sequence

from groundfault.lab.parts import Phase

__all__ = ["promised"]


def promised(*bounds: str) -> Callable[[Namespace], Sequence[str]]:
    """Return a scenario's bounds: judged for the variant groundfault, and shown without a judgement for the others.

    What the others are expected to do is in the scenario's description: they fail, which is what they are there for.
    """
    bare = tuple(dict.fromkeys(bound.replace(">=", "<=").partition("<=")[0] for bound in bounds))

    def bounds_for(options: Namespace) -> Sequence[str]:
        return bounds if options.variant == Phase.GROUNDFAULT else bare

    return bounds_for
