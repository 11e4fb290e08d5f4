"""Run the conformance suite.

    python tests/conformance [--subject NAME]... [--case ID]... [--write]

Without options every case is put to every library that is installed, and the table is printed.
``--write`` replaces the generated part of docs/reference/conformance.md.
"""

import argparse
import json
import sys
from pathlib import Path

# Run as a directory, Python puts the directory itself on the path; the package is found from its parent.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from conformance import page, runner  # noqa: E402  after the line above
from conformance.case import PASS  # noqa: E402  as above
from conformance.cases import CASES  # noqa: E402  as above
from conformance.subjects import NAMES, load  # noqa: E402  as above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", action="append", choices=NAMES, help="only this library")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case")
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    parser.add_argument("--workers", type=int, help="how many processes at a time; default one per processor")
    parser.add_argument("--one", nargs=2, metavar=("SUBJECT", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write("\n" + json.dumps(runner.run_here(*options.one)) + "\n")
        sys.stdout.flush()
        return 0
    subjects, missing = [], []
    for name in options.subject or NAMES:
        try:
            load(name)
        except ImportError:
            missing.append(name)
        else:
            subjects.append(name)
    if options.write and (missing or options.subject or options.case):
        parser.error(f"--write needs every library and every case; not installed: {', '.join(missing) or 'none'}")
    results = runner.run_all(subjects, options.case or list(CASES), workers=options.workers)
    sys.stdout.write(page.as_text(results))
    for name in missing:
        sys.stdout.write(f"{name} is not installed\n")
    if options.write:
        page.write(results)
    ours = [result for result in results if result.subject == "groundfault" and result.verdict != PASS]
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
