"""The benchmarks are scripts with their packages beside them; here they are imported as they import each other."""

import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent.parent / "bench"

if str(BENCH) not in sys.path:
    sys.path.append(str(BENCH))
