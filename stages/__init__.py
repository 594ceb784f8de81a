"""DVC entry points: each reads the parameters, calls the library, and writes its outs.

`python -m stages.NAME` imports this first: here is what must be so before torch is there, or dvc gone.
"""

import os
import sys

from pipeline.environment import UNHURRIED, end_with_parent

for name, value in UNHURRIED.items():
    os.environ.setdefault(name, value)

if sys.argv[0] == "-m":  # Python is still looking for the module that it was told to run
    end_with_parent()
