"""What a picture of ``groundfault top`` costs: at one a second, milliseconds are thousandths of a core.

python bench/top_cost.py
"""

import importlib.util
import io
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from groundfault.console._top_checked import checked
from groundfault.console._top_lines import Lines
from groundfault.console._top_state import Looking
from groundfault.console._top_words import UNICODE
from groundfault.console.top import Situation, picture

_SAMPLES = Path(__file__).parent.parent / "tests" / "console" / "sample_views.py"
_TIMES = 60


def least(work) -> float:
    """Return the least CPU time of many, in milliseconds: what else the machine does is not ours."""
    taken = []
    for _ in range(_TIMES):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return min(taken) * 1e3


def main() -> None:
    spec = importlib.util.spec_from_file_location("sample_views", _SAMPLES)
    samples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(samples)
    print(f"{'commands':>8} {'terminal':>9} {'picture':>9} {'on screen':>9} {'checked':>9}   ms of CPU each")
    for commands in (40, 400):
        view = samples.sample_view(commands, spike=True)
        for width, height in ((80, 24), (120, 40), (200, 60)):
            console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="256")

            def draw(view=view, width=width, height=height):
                return picture(view, Looking(), Situation(), width=width, height=height, signs=UNICODE)

            with Live(console=console, screen=True, auto_refresh=False) as live:
                shown = least(lambda live=live, draw=draw: live.update(Lines(draw()), refresh=True))
            made, whole = least(draw), least(lambda view=view: checked(view))
            print(f"{commands:>8} {width:>5}x{height} {made:>9.2f} {shown:>9.2f} {whole:>9.2f}")


if __name__ == "__main__":
    main()
