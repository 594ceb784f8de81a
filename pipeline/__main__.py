"""The front door: `python3 -m pipeline TASK` makes the environment where that is needed, then runs the task.

This file must be readable by any Python 3, so that an old one gets a sentence and not a traceback.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the environment that would ensure it does not exist yet
    sys.exit("forcing-grid needs Python 3.11 or newer, this is %d.%d: %s" % (*sys.version_info[:2], sys.executable))  # noqa: UP031

from pipeline.tasks import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
