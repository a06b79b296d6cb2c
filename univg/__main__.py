"""``python -m univg`` is the command line."""

import sys

from univg.cli import main

if __name__ == "__main__":
    sys.exit(main())
