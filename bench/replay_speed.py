"""How fast `groundfault replay read` reads access logs, and how much memory that takes.

    python bench/replay_speed.py [--megabytes 1000] [--kind combined|json] [--gz] [--jobs N] [--dir DIR]

The log is written to DIR, the system's place for temporary files by default, and deleted again.
First one core alone, the least CPU time of some passes over a few megabytes; then the whole command line.
"""

import argparse
import gzip
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE, Popen

from groundfault.lab.replay.lines import LineReader

BEGAN = datetime(2026, 11, 22, 18, tzinfo=UTC)
AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
    "okhttp/4.12.0",
)


def lines(kind: str) -> Iterator[str]:
    """Yield lines for ever, two thousand a second; of ten, seven have a number or an id that is hardly seen again."""
    chance, number = random.Random(11), 0
    while True:
        drawn, at = chance.random(), BEGAN + timedelta(seconds=number // 2000)
        number += 1
        if drawn < 0.45:
            path = f"/lineup/{chance.randrange(10**6)}"
        elif drawn < 0.6:
            path = f"/players/{chance.randrange(3000)}?week={chance.randrange(18)}"
        elif drawn < 0.7:
            path = f"/contests/{chance.randrange(16**8):08x}-0000-4000-8000-000000000000/entries"
        else:
            path = chance.choice(("/lobby", "/static/app.js", "/", "/api/v2/scores"))
        status, client = 200 if chance.random() < 0.97 else 503, f"10.{chance.randrange(256)}.{chance.randrange(256)}.7"
        if kind == "json":
            told = {"timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{number % 10**6:06}Z", "event": "request_finished"}
            yield json.dumps({**told, "method": "GET", "path": path, "status": status, "ip": client}) + "\n"
        else:
            agent = chance.choice(AGENTS)
            yield (
                f"{client} - u{number % 9973} [{at:%d/%b/%Y:%H:%M:%S} +0000] "
                f'"GET {path} HTTP/1.1" {status} {drawn * 9999:.0f} "https://app.example/" "{agent}"\n'
            )


def write_log(path: Path, megabytes: int, kind: str, *, packed: bool) -> int:
    written = count = 0
    endless = lines(kind)
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        while written < megabytes * 10**6:
            block = "".join(next(endless) for _ in range(20_000)).encode()
            file.write(block)
            written += len(block)
            count += 20_000
    return count


def measure_core(kind: str) -> None:
    endless = lines(kind)
    block = "".join(next(endless) for _ in range(20_000)).rstrip("\n").encode()
    blocks = [block, *("".join(next(endless) for _ in range(20_000)).rstrip("\n").encode() for _ in range(9))]
    best_s = float("inf")
    for _ in range(5):
        reader, began_s = LineReader(), time.process_time()
        for each in blocks:
            reader.count(each)
        best_s = min(best_s, time.process_time() - began_s)
        assert reader.seen.parsed == 200_000, reader.seen.refused
    print(f"one core, {kind}: {200_000 / best_s:,.0f} lines/s")


def measure_command(path: Path, count: int, jobs: int | None) -> None:
    """Time the whole command; the memory is that of the largest of its processes."""
    arguments = [sys.executable, "-m", "groundfault", "replay", "read", str(path), "--out", f"{path}.plan.json"]
    began_s = time.perf_counter()  # noqa: TID251  a benchmark's own watch
    with Popen([*arguments, *(["--jobs", str(jobs)] if jobs else [])], stdout=PIPE) as reading:  # noqa: S603  our own command line
        assert reading.stdout is not None
        said = reading.stdout.read().decode()
        _, status, usage = os.wait4(reading.pid, 0)
        reading.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - began_s  # noqa: TID251  as above
    assert reading.returncode == 0, said
    plan = Path(f"{path}.plan.json")
    print(
        f"{count:,} lines, {path.stat().st_size / 1e6:,.0f} MB, {jobs or 'default'} jobs: {took_s:.1f} s, "
        f"{count / took_s:,.0f} lines/s, largest process {usage.ru_maxrss / 1024:.0f} MB, "
        f"plan {plan.stat().st_size / 1e3:.0f} kB"
    )
    plan.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--kind", choices=("combined", "json"), default="combined")
    parser.add_argument("--gz", action="store_true", help="gzipped")
    parser.add_argument("--jobs", type=int, action="append", help="processes that read; may be given several times")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    measure_core(options.kind)
    path = options.dir / f"replay-speed-{os.getpid()}.log"
    try:
        count = write_log(path, options.megabytes, options.kind, packed=options.gz)
        for jobs in options.jobs or [1, None]:
            measure_command(path, count, jobs)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
