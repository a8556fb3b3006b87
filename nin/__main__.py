"""`python -m nin`."""

import sys

from nin.companion.command import main

if __name__ == "__main__":
    sys.exit(main())
