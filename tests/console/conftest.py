"""What the tests of the console share: sample views, and a server for a browser (beside this file)."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.append(_HERE)
