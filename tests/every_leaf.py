"""What is said of a value in the place of every parameter, one after another: python -m tests.every_leaf JSON"""

import json
import sys

from tests.parameters import changed, leaves, raw, refusal


def once_a_loss(paths: list[str]) -> list[str]:
    """Without the parameters of the laboratory's cells that another cell of the same loss has, too."""
    cells, seen, kept = raw()["laboratory"]["cells"], set(), []
    for path in paths:
        parts = path.split(".")
        in_cells = parts[:2] == ["laboratory", "cells"]
        kind = (cells[parts[2]]["loss"]["name"], *parts[3:]) if in_cells else path
        if kind not in seen:
            kept.append(path)
        seen.add(kind)
    return kept


if __name__ == "__main__":
    value = json.loads(sys.argv[1])
    print(json.dumps({path: refusal(changed(path, value)) for path in once_a_loss(leaves(raw()))}))
