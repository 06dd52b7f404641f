"""``python -m alignmamba``, the same as ``alignmamba``."""

import sys

from alignmamba.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
