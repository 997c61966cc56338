"""`python -m reconverge.launch`."""

import sys

from reconverge.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
