"""Ten minutes of chaos at eight times capacity, and whether everything ends where it began.

    python soak/chaos.py [--seconds 600] [--factor 8] [--seed 0] [--out soak-report] [--plant permits,handles]

A chain of real servers with fault proxies between them; workers are killed, frozen and replaced, clients break off,
settings change and are spoiled, the network fails in every way the proxy knows. Then a calm.
Writes run.json (`groundfault report` shows it), soak.json (every figure) and the logs into --out.
docs/reference/soak.md says what is checked.

Exits with 0 if all checks are met, 1 if one is not, 3 if the run says nothing (the generator could not keep up).
Linux only: it looks into /proc.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from bisect import insort
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import sleep  # real processes, real time

from chaotic import judging
from chaotic.chain import WORKERS, Chain
from chaotic.looking import Seen, living
from chaotic.services import QUERY_S
from chaotic.trouble import Hand, planned

from groundfault._clock import monotonic, wall
from groundfault.lab.demo import StoppedError, stopped_by_signals
from groundfault.lab.processes import DemoError
from groundfault.lab.runs.record import Check, Mark, Run, Stream, Verdict
from groundfault.lab.runs.tally import Tally
from groundfault.metrics.report import Report
from groundfault.metrics.rundir import read

CAPACITY_RPS = WORKERS / QUERY_S
CALM_SHARE = 0.3
"""What the fans ask for before and after, as a share of capacity: two workers share it by chance, not evenly."""

_CODES = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.VOID: 3}
_LEAD_S = 1.5
_TICK_S = 0.05
_LOOK_S = 5.0
_GRACE_S = 60.0
_STILL_S = 5.0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of chaos (600); before and after come on top")
    parser.add_argument("--factor", type=float, default=8.0, help="load in the chaos, times capacity (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the plan of troubles (0)")
    parser.add_argument("--out", type=Path, default=Path("soak-report"), help="directory of the results (soak-report)")
    parser.add_argument("--plant", default="", help="what saber shall lose, to prove that it is found: permits,handles")
    options = parser.parse_args(arguments)
    if not 2 <= options.seconds <= 86_400:
        parser.error(f"--seconds must be between 2 and 86400, not {options.seconds:g}")
    if not 0 < options.factor <= 100:
        parser.error(f"--factor must be above 0 and at most 100, not {options.factor:g}")
    return options


def spans_of(seconds: float) -> judging.Spans:
    """Return the spans of a run, with whole seconds between them."""
    before = float(round(min(30.0, max(2.0, seconds / 20))))
    calm = float(round(min(60.0, max(8.0, seconds / 10))))
    chaos_end = before + float(round(seconds))
    return judging.Spans(
        before=(0.0, before),
        chaos=(before, chaos_end),
        calm=(chaos_end, chaos_end + calm),
        quiet_s=min(15.0, calm // 3),
        window_s=min(10.0, calm // 3),
    )


@dataclass(frozen=True)
class Left:
    """What there is at the end, while all still runs."""

    at: float
    reports: dict[str, Report]
    alive: set[int]
    ended: list[str]
    proxy: dict
    logs: dict[str, str]


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._spans = spans_of(options.seconds)
        self._seen = Seen()
        self._marks: list[Mark] = []
        self._begin = 0.0
        self._still_s = 0.0

    def run(self) -> tuple[Run, dict]:
        """Run it all; return the document of the run, and every figure there is."""
        settings = self._directory / "settings.json"
        settings.write_text("{}", encoding="utf-8")
        with Chain(self._directory, settings, self._options.plant) as chain:
            hand = Hand(chain, settings, self._options.seed)
            hand.settle()
            started_at = wall()
            generator, result_file = self._send(chain)
            try:
                self._until(chain, hand, self._spans.chaos[0])
                first = self._t()
                self._seen.see(first, chain, closely=True)
                self._chaos(chain, hand)
            finally:
                hand.finish()
            self._note("calm")
            self._until(chain, hand, self._spans.calm[1])
            lanes = self._result(generator, result_file)
            self._rest(chain)
            last = self._t()
            self._seen.see(last, chain, closely=True)
            left = Left(
                at=wall(),
                reports={name: read(chain.run_dir(name), wall()) for name in chain.servers},
                alive=living(chain),
                ended=[name for name, process in chain.servers.items() if process.ended() is not None],
                proxy=chain.proxy.look(),
                logs=chain.logs(),
            )
        checks, died = self._checks(hand, lanes, left, at_rest=((0, first), (last, last)))
        run = self._document(lanes, checks, died, started_at)
        return run, self._figures(run, hand, lanes, left)

    def _t(self) -> float:
        return monotonic() - self._begin

    def _note(self, text: str) -> None:
        self._marks.append(Mark(t=round(max(0.0, self._t()), 2), text=text))
        sys.stderr.write(f"{self._t():7.1f} s  {text}\n")
        sys.stderr.flush()

    def _send(self, chain: Chain):
        spans, calm = self._spans, CAPACITY_RPS * CALM_SHARE
        start, end, last = spans.chaos[0], spans.chaos[1], spans.calm[1]

        def lane(low: float, high: float) -> list:
            return [(0, low), (start, low), (start, high), (end, high), (end, low), (last, low)]

        lanes = {"fan": (calm, CAPACITY_RPS * self._options.factor), "innocent": (4.0, 16.0), "feed": (1.0, 5.0)}
        self._rate = sum(high for _, high in lanes.values())
        self._begin = monotonic() + _LEAD_S
        plan = {
            "port": chain.port,
            "begin": self._begin,
            "most": 2000,
            "lanes": {name: lane(*rates) for name, rates in lanes.items()},
        }
        plan_file, result_file = self._directory / "plan.json", self._directory / "load.json"
        plan_file.write_text(json.dumps(plan), encoding="utf-8")
        return chain.start("load", ["chaotic.load", str(plan_file), str(result_file)]), result_file

    def _until(self, chain: Chain, hand: Hand, end: float, acts: list | None = None) -> None:
        """Look on, and do what is due, until that second."""
        seen_at = looked_at = float("-inf")
        before = self._t()
        while (t := self._t()) < end:
            self._still_s, before = max(self._still_s, t - before), t
            while acts and acts[0].t + self._spans.chaos[0] <= t:
                act = acts.pop(0)
                text = hand.act(act)
                if text:
                    self._note(text)
                else:  # not now: too few workers live
                    insort(acts, replace(act, t=act.t + 0.3), key=lambda each: each.t)
            for text in hand.undo(monotonic()):
                self._note(text)
            if t >= seen_at + 0.5:
                closely = t >= looked_at + min(_LOOK_S, self._options.seconds / 4)
                self._seen.see(t, chain, closely=closely)
                seen_at, looked_at = t, t if closely else looked_at
            sleep(_TICK_S)

    def _chaos(self, chain: Chain, hand: Hand) -> None:
        self._note(f"chaos: {self._options.factor:g} times capacity")
        self._until(chain, hand, self._spans.chaos[1], planned(self._options.seconds, self._options.seed))

    def _result(self, generator, result_file: Path) -> dict:
        give_up = monotonic() + _GRACE_S
        while generator.ended() is None and monotonic() < give_up:
            sleep(_TICK_S)
        if generator.ended() != 0:
            raise DemoError(f"the generator did not end well: {generator.last_words() or 'it said nothing'}")
        return json.loads(result_file.read_text(encoding="utf-8"))

    def _rest(self, chain: Chain) -> None:
        """Wait until the last reports are written and connections that nobody needs are closed."""
        end = self._t() + min(5.0, max(2.5, self._options.seconds / 20))
        while self._t() < end:
            sleep(_TICK_S)
            self._seen.see(self._t(), chain, closely=False)

    def _streams(self, lanes: dict) -> list[Stream]:
        seconds = int(self._spans.calm[1])
        return [
            Stream.of(name, Tally.from_dict(lane["tally"]), seconds, innocent=name == "innocent")
            for name, lane in lanes.items()
        ]

    def _checks(self, hand: Hand, lanes: dict, left: Left, *, at_rest) -> tuple[list[Check], list[str]]:
        """Return all figures with their bounds, and the names of those that died."""
        streams = self._streams(lanes)
        sent, answered = sum(sum(each.sent) for each in streams), sum(lane["answered"] for lane in lanes.values())
        lives, died = judging.of_lives(self._seen, left.alive, hand.killed, hand.leaving, left.ended)
        done = {**hand.done, "abort": lanes["feed"]["aborted"]}
        checks = [
            *judging.of_reports(left.reports, left.at, WORKERS, hand.done["spoil"]),
            *judging.of_traffic(streams, self._spans),
            *judging.of_counts(left.reports["topps"], sent, answered, hand.done["kill topps"], self._rate),
            *lives,
            *judging.of_logs(left.logs),
            *judging.of_troubles(done, ("fault", "kill", "freeze", "settings", "spoil", "reload", "abort")),
            *judging.of_processes(self._seen, self._spans, at_rest),
        ]
        return checks, died

    def _document(self, lanes: dict, checks: list[Check], died: list[str], started_at: float) -> Run:
        spans, options = self._spans, self._options
        streams = self._streams(lanes)
        together = Tally()
        for lane in lanes.values():
            together.merge(Tally.from_dict(lane["tally"]))
        lag_ms = (together.lags.quantile(0.99) or 0.0) * 1000
        unsent, due = (sum(sum(getattr(each, what)) for each in streams) for what in ("unsent", "due"))
        void = []
        if lag_ms > judging.LAG_LIMIT_MS:
            void.append(f"the generator was {lag_ms:.0f} ms late (p99), more than {judging.LAG_LIMIT_MS:.0f} ms")
        if self._still_s > _STILL_S:
            void.append(f"the machine stood still for {self._still_s:.0f} s, more than {_STILL_S:g} s")
        if unsent > due * 0.01:
            void.append(f"the generator left {unsent} requests unsent")
        return Run(
            name="soak",
            title=f"{options.seconds:g} seconds of chaos at {options.factor:g} times capacity",
            source="soak",
            seconds=int(spans.calm[1]),
            deadline_s=1.0,
            streams=streams,
            variant="groundfault",
            target="topps (uvicorn), grouper and saber (gunicorn), fault proxies between them",
            seed=str(options.seed),
            started_at=started_at,
            capacity_rps=CAPACITY_RPS,
            lag_p99_ms=round(lag_ms, 2),
            spans={"before": spans.before, "spike": spans.chaos, "calm": spans.calm},
            marks=self._marks,
            checks=checks,
            void=void,
            notes=[f"died: {name}" for name in died],
            settings={"seconds": options.seconds, "factor": options.factor, "plant": options.plant},
            versions={name: version(name) for name in ("groundfault", "gunicorn", "uvicorn", "starlette", "requests")},
        )

    def _figures(self, run: Run, hand: Hand, lanes: dict, left: Left) -> dict:
        commands = {
            f"{name}: {resource}/{command}": {"states": each.states, "active": each.active, "moves": each.moves}
            for name, report in left.reports.items()
            for (resource, command), each in report.commands.items()
        }
        slopes = self._seen.slopes(*self._spans.chaos, warm_s=judging.WARM_S, least_s=judging.LEAST_S)
        return {
            "verdict": run.verdict.value,
            "void": run.void,
            "checks": [{**asdict(check), "met": check.met} for check in run.checks],
            "done": dict(sorted(hand.done.items())),
            "died": run.notes,
            "load": {
                name: {key: lane[key] for key in ("connected", "answered", "aborted")} for name, lane in lanes.items()
            },
            "commands": commands,
            "internal_errors": {name: report.internal_errors for name, report in left.reports.items()},
            "proxy": left.proxy,
            "slopes_mb_per_minute": slopes,
            "looks": [asdict(look) for look in self._seen.looks],
        }


def shown(run: Run, figures: dict) -> str:
    """Return the table for people: every check, those that are not met last."""
    lines = []
    for check in sorted(run.checks, key=lambda check: check.met is False):
        mark = {True: "met   ", False: "MISSED", None: "      "}[check.met]
        value = "none" if check.value is None else f"{check.value:g}"
        bound = f"≤ {check.at_most:g}" if check.at_most is not None else ""
        bound = f"≥ {check.at_least:g}" if check.at_least is not None else bound
        lines.append(f"{mark} {check.title:78} {value:>9} {check.unit:6} {bound}")
    done = ", ".join(f"{name} {times}" for name, times in figures["done"].items())
    return "\n".join([*lines, f"done: {done}", *run.notes, *run.void, f"verdict: {run.verdict.value}"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112  a question, no path to work with
        sys.stderr.write("the soak looks into /proc, which this system does not have\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "soak.json"):
        (options.out / name).unlink(missing_ok=True)  # an old one must not pass for this run's
    with tempfile.TemporaryDirectory(prefix="groundfault-soak-") as place:
        directory = Path(place)
        try:
            with stopped_by_signals():
                run, figures = Soak(options, directory).run()
        except DemoError as error:
            sys.stderr.write(f"{error}\n")
            return 3
        except ConnectionError as error:
            sys.stderr.write(f"the fault proxy has gone: {error}; its log: {options.out / 'logs' / 'proxy.log'}\n")
            return 1
        except StoppedError:
            sys.stderr.write("stopped; nothing is left running\n")
            return 130
        finally:
            logs = options.out / "logs"
            logs.mkdir(exist_ok=True)
            for log in directory.glob("*.log"):
                shutil.copy(log, logs)
    run.write(options.out / "run.json")
    (options.out / "soak.json").write_text(json.dumps(figures, indent=1, default=str) + "\n", encoding="utf-8")
    sys.stdout.write(shown(run, figures))
    return _CODES[run.verdict]


if __name__ == "__main__":
    sys.exit(main())
