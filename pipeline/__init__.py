"""The library. `python -m pipeline.NAME`, and stages and sweeps by way of it, imports this first."""

import sys

if sys.argv[:1] == ["-m"] and hasattr(sys, "orig_argv"):  # an old Python is told so by __main__
    from pipeline.command_line import answer_before_imports

    answer_before_imports()
