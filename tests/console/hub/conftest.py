"""What the tests of the hub share: made-up reports, importable by name, as :mod:`hub_reports`."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)
