"""``python -m groundfault`` is the command ``groundfault``."""

import sys

from groundfault.cli import main

if __name__ == "__main__":
    sys.exit(main())
