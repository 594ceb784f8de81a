"""What every stage does around its work: parameters, progress bar, products, record."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.config import Params, load_params
from pipeline.machine import machine
from pipeline.unit import Work, digest_of, run_unit, write_json
from stages.progress import Line

ARTIFACTS, REPORTS = Path("artifacts"), Path("reports")
FAILED, USAGE_ERROR, INTERRUPTED = 1, 2, 130
GOES_ON = "interrupted: the same command goes on from here"


def stage(main: Callable[..., None]) -> None:
    """Run a stage with the items of the command line; one line and an exit code for what a person can mend."""
    try:
        main(load_params(Path("params.yaml")), *sys.argv[1:])
    except (ValueError, FileNotFoundError) as error:
        sys.exit(_one_line(error, USAGE_ERROR))
    except FloatingPointError as error:
        sys.exit(_one_line(error, FAILED))
    except KeyboardInterrupt:
        sys.exit(_one_line(GOES_ON, INTERRUPTED))


def publish(
    params: Params, stage: str, item: str, work: Work, inputs: Mapping[str, Path], *, kind: str | None = None
) -> None:
    """Run the unit; copy its products to artifacts/, and its record, curve and pictures to reports/.

    kind: of the unit, where others than this stage make the same ones; the stage itself if absent.
    """
    name = Path(stage, item)
    with Line(str(name)) as line:
        directory = run_unit(kind or stage, work, inputs, on_progress=line.follow)
    out, show = directory / "out", directory / "show"
    if out.exists():
        _replace(out, ARTIFACTS / name)
    report = REPORTS / name
    _replace(show if show.exists() else None, report)
    unit = json.loads((directory / "unit.json").read_text())
    has_curve = (directory / "curve.jsonl").exists()
    record = {
        "stage": stage,
        "item": item,
        "profile": params.profile,
        **{key: unit[key] for key in ("fingerprint", "work", "inputs", "versions", "revision")},
        "metrics": json.loads((directory / "metrics.json").read_text()),
        "timing": json.loads((directory / "timing.json").read_text()),
        "has_curve": has_curve,
        "products": {path.name: digest_of(path) for path in sorted(out.glob("*"))},
        "machine": machine(),
    }
    write_json(report / "record.json", record)
    if has_curve:
        write_curve(directory / "curve.jsonl", report / "curve.csv")


def write_curve(source: Path, target: Path) -> None:
    """The rows of a curve as CSV, one column a metric."""
    import pandas as pd

    rows = [json.loads(line) for line in source.read_text().splitlines()]
    pd.DataFrame(rows).to_csv(target, index=False)


def _replace(source: Path | None, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source is None:
        target.mkdir(parents=True)
    else:
        shutil.copytree(source, target)


def _one_line(error: Exception | str, code: int) -> int:
    sys.stderr.write(f"{error}\n")
    return code
