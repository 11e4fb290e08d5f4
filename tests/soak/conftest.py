"""The soaks are scripts with their packages beside them; here they are imported as they import each other."""

import sys
from pathlib import Path

SOAK = Path(__file__).parent.parent.parent / "soak"

if str(SOAK) not in sys.path:
    sys.path.append(str(SOAK))
