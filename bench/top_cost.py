"""What a picture of ``groundfault top`` costs: at one a second, milliseconds are thousandths of a core.

python bench/top_cost.py
"""

import io
import runpy
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from groundfault.console._top_checked import checked
from groundfault.console._top_lines import Lines
from groundfault.console._top_state import Looking
from groundfault.console._top_words import UNICODE
from groundfault.console.top import Situation, picture
from groundfault.console.view import View

_SAMPLES = Path(__file__).parent.parent / "tests" / "console" / "sample_views.py"
_TIMES = 60


def least(work: Callable[[], object]) -> float:
    """Return the least CPU time of many, in milliseconds: what else the machine does is not ours."""
    taken = []
    for _ in range(_TIMES):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return min(taken) * 1e3


def measure(view: View, width: int, height: int) -> tuple[float, float, float]:
    """Return what it costs to make the picture, to make it and show it, and to look over a view that was fetched."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="256")

    def draw() -> list[Text]:
        return picture(view, Looking(), Situation(), width=width, height=height, signs=UNICODE)

    with Live(console=console, screen=True, auto_refresh=False) as live:
        shown = least(lambda: live.update(Lines(draw()), refresh=True))
    return least(draw), shown, least(lambda: checked(view))


def main() -> None:
    sample_view = runpy.run_path(str(_SAMPLES))["sample_view"]
    print(f"{'commands':>8} {'terminal':>9} {'picture':>9} {'on screen':>9} {'checked':>9}   ms of CPU each")
    for commands in (40, 400):
        view = sample_view(commands, spike=True)
        for width, height in ((80, 24), (120, 40), (200, 60)):
            made, shown, whole = measure(view, width, height)
            print(f"{commands:>8} {width:>6}x{height} {made:>9.2f} {shown:>9.2f} {whole:>9.2f}")


if __name__ == "__main__":
    main()
