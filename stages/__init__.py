"""DVC entry points: each reads the parameters, calls the library, and writes its outs.

`python -m stages.NAME` imports this first: here is what must be so before torch is there, or dvc gone.
"""

import os
import sys

from pipeline.environment import end_with_parent

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads are 10x slower beside another process

if sys.argv[0] == "-m":  # Python is still looking for the module that it was told to run
    end_with_parent()
