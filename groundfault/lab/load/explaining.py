"""``python -m groundfault.lab.load.explaining FILE``: what a scenario expects, and its options.

Locust prints its ``--help`` before it reads the file, so it cannot tell them.
Importing the file imports Locust, and with that gevent patches the process: it is for a process of its own.
"""

import argparse
import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from groundfault.lab.load.options import add_options
from groundfault.lab.load.scenario import Scenario

__all__ = ["help_of"]

_MORE = "Locust's own options count, too, such as --processes and --csv: locust --help lists them."


def help_of(file: Path) -> str:
    """Return the help of a scenario file. Raises what importing it raises, ValueError if it has no scenario."""
    module = _imported(file)
    found = [
        value.scenario for value in vars(module).values() if isinstance(getattr(value, "scenario", None), Scenario)
    ]
    if not found:
        raise ValueError(f"{file} has no scenario")
    parser = argparse.ArgumentParser(
        prog=f"groundfault load {file.stem}",
        usage="%(prog)s [options of the scenario and of Locust]",
        description=inspect.getdoc(module),
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument(
        "--host", metavar="URL", help="send the load there; by default to a target of the scenario's own, on loopback"
    )
    add_options(parser, found[0])
    return parser.format_help()


def _imported(file: Path) -> ModuleType:
    spec = spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no Python file")
    module = module_from_spec(spec)
    sys.modules[file.stem] = module
    sys.path.insert(0, str(file.parent))  # Locust does so, too
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.stdout.write(help_of(Path(sys.argv[1])))
