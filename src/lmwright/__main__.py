"""`python -m lmwright`: the command line where the script is not on the PATH."""

import sys

from lmwright.cli import main

sys.exit(main())
