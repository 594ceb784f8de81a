"""Entry points that train many units side by side, beyond the chain of the default run.

What must be so before torch is there, a stage's own package says: it is imported first.
"""

import stages  # noqa: F401
