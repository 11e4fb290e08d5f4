"""How long `groundfault advise` takes: over log lines by the million, and over the histograms of running processes.

    python bench/advise_speed.py [--lines N] [--segment] [--gz] [--dir DIR]

Ten million lines take about 1.6 GB in DIR, the system's place for temporary files by default; they are deleted again.
What is timed is the whole command line, from its start to its end.
"""

import argparse
import gzip
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE, Popen

from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.advise.processes import observed_of
from groundfault.advise.proposal import Wishes
from groundfault.advise.rules import propose
from groundfault.metrics.report import CommandReport, Report

COMMANDS = [
    (f"{kind}-{number}", f"command_{number}", 0.002 * 1.4**number)
    for number in range(12)
    for kind in ("contest-db", "lineups", "mail")
]
OUTCOMES = ("success",) * 97 + ("failure", "timeout", "circuit-open")
BYTES_EACH = 165


def write_log(path: Path, lines: int, *, packed: bool) -> None:
    """Write lines as the call log does, two thousand a second, with a few heavy users among them."""
    chance = random.Random(11)
    durations = [chance.lognormvariate(0, 0.6) for _ in range(65_536)]
    began_at, batch = 1_795_436_400.0, []
    opened = gzip.open(path, "wt", compresslevel=1) if packed else path.open("w", buffering=2**20)  # noqa: SIM115  closed two lines below
    with opened as file:
        for at in range(lines):
            resource, command, usual_s = COMMANDS[at * 7 % len(COMMANDS)]
            plan = "heavy" if at % 331 == 0 else "pro" if at % 7 == 0 else "free"
            duration_s = usual_s * durations[at * 31 & 65_535] * (6 if plan == "heavy" else 1)
            batch.append(
                f'{{"event":"command.done","resource":"{resource}","command":"{command}",'
                f'"outcome":"{OUTCOMES[at % 100]}","duration_s":{duration_s:.6f},'
                f'"ts":{began_at + at / 2000:.3f},"plan":"{plan}","caller":"topps"}}\n'
            )
            if len(batch) == 10_000:
                file.write("".join(batch))
                batch.clear()
        file.write("".join(batch))


def run_advise(*arguments: str) -> tuple[float, float]:
    """Run the command line; return its seconds, and the MB of its largest process."""
    began_at = time.perf_counter()  # noqa: TID251  a benchmark's own watch
    process = Popen([sys.executable, "-m", "groundfault", "advise", *arguments], stdout=PIPE)  # noqa: S603  our own
    assert process.stdout is not None
    process.stdout.read()
    process.stdout.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - began_at  # noqa: TID251  as above
    assert process.returncode == 0
    return took_s, used.ru_maxrss / 1024


def measure_log(place: Path, lines: int, *, segment: bool, packed: bool) -> None:
    free = shutil.disk_usage(place).free
    assert free > 2 * lines * BYTES_EACH, f"{place} has only {free >> 20} MiB left"
    path = place / f"advise-speed-{os.getpid()}.log"
    try:
        write_log(path, lines, packed=packed)
        took_s, largest = run_advise("--log", str(path), *(("--segment", "plan") if segment else ()))
        print(
            f"{lines:,} lines, {path.stat().st_size / 1e6:,.0f} MB{' gz' if packed else ''}"
            f"{', by segment' if segment else ''}: {took_s:.1f} s, {lines / took_s:,.0f} lines/s, "
            f"largest process {largest:.0f} MB"
        )
    finally:
        path.unlink(missing_ok=True)


def measure_histograms(commands: int, processes: int) -> None:
    """Time what comes after the reports of processes have been read: merging them, and the rules."""
    reports = []
    for _ in range(processes):
        one = CommandReport("contest-db", "", limit=None, states={"closed": 1})
        for outcome in ("success", "failure", "timeout"):
            one.durations[outcome] = Histogram({at: 1000 + at for at in range(len(BOUNDS_S) + 1)}, 1.0)
            one.calls[outcome] = one.durations[outcome].count
        reports.append(Report(commands={("contest-db", f"command-{at}"): one for at in range(commands)}))
    began_at = time.perf_counter()  # noqa: TID251  a benchmark's own watch
    whole = Report()
    for report in reports:
        whole.add(report)
    proposals = [propose(seen, {}, Wishes()) for seen in observed_of(whole)]
    took_s = time.perf_counter() - began_at  # noqa: TID251  as above
    print(f"histograms of {len(proposals)} commands in {processes} processes: {took_s * 1e3:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--segment", action="store_true", help="by plan as well")
    parser.add_argument("--gz", action="store_true", help="gzipped")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    measure_histograms(40, 33)
    measure_log(options.dir, options.lines, segment=options.segment, packed=options.gz)


if __name__ == "__main__":
    main()
