"""Bring MLflow up to date with reports/ and with running units: `python -m stages.track [--every SECONDS]`.

Works on the workspace in the current directory. MLFLOW_TRACKING_URI names another store than its mlflow.db.
"""

import os
import sys
import time
from pathlib import Path

from pipeline.command_line import parser_of
from pipeline.dashboard import MARK
from pipeline.tracking import RUNS, Tracked, is_server, track
from pipeline.unit import work_root, write_json


def main() -> int:
    options = parser_of("stages.track").parse_args()
    workspace, uri = Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI")
    tracked = track(workspace, work_root(), uri=uri)
    keep(tracked, workspace)
    tell(tracked, uri)
    while options.every and tracked.page:
        time.sleep(options.every)
        before, tracked = tracked, track(workspace, work_root(), uri=uri)
        if (tracked.reason, tracked.damaged) != (before.reason, before.damaged):
            tell(tracked, uri)
        if tracked.runs != before.runs:
            keep(tracked, workspace)
    return 1 if tracked.damaged or (options.every and tracked.reason) else 0


def keep(tracked: Tracked, workspace: Path) -> None:
    """By DVC stage or sweep: fingerprints of what was sent, for good; and beside the store, ids of runs."""
    (workspace / "reports").mkdir(exist_ok=True)
    sent = {"pending": tracked.pending, "sent": tracked.fingerprints}
    write_json(workspace / "reports" / "tracked.json", sent)
    write_json(workspace / RUNS, tracked.runs)


def tell(tracked: Tracked, uri: str | None) -> None:
    """What was done, for people; and on stdout the page to open."""
    lines = list(tracked.damaged)
    if tracked.reason:
        lines.append(f"{uri or 'mlflow.db'} has {len(tracked.sent)} runs, {len(tracked.pending)} are not yet sent:")
        lines.append(f"  {tracked.reason}\nTo send them: python3 -m pipeline track")
    else:
        lines.append(f"MLflow holds {len(tracked.sent)} finished runs, {tracked.num_new} of them new;")
        lines[-1] += f" {len(tracked.running)} units are running"
        lines.append(f"The run of each DVC stage: {RUNS}; from a run back to its stage: the tag dvc.stage")
    print("\n".join(lines), file=sys.stderr, flush=True)
    if tracked.page and not tracked.reason:
        print(f"{MARK}{uri.rstrip('/') if uri and is_server(uri) else ''}{tracked.page}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
