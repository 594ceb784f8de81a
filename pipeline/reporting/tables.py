"""The comparison table, a row a checkpoint: what it reached and what it cost.

`python -m pipeline.reporting.tables [WORKSPACE]` prints it.
"""

import sys
from pathlib import Path
from typing import Any

from pipeline.records import DamagedRecordError, Record
from pipeline.reporting.columns import COLUMNS, MEASURED, NOTHING, SPENT
from pipeline.reporting.likelihood import absence, least_bound
from pipeline.reporting.read import Checkpoint, Study, lookup, read_study

Row = dict[str, Any]

BEST = "*"
HEADING = 6  # letters above which a title of several words takes two lines
QUALITY = (
    "fvd",
    "excess",
    "precision",
    "recall",
    "coverage",
    "agreement_second",
    "agreement_last",
    "kappa_last",
    "speed_w1",
    "bits",
)
COST = ("calls_per_frame", "frames_per_s", "latency_s", *SPENT)
REFERENCES = {  # rows of real clips, for scale: what of them an evaluation measures, and where it says so
    "real clips": {
        "fvd": "metrics.fvd.floor",
        "floor": "metrics.fvd.floor",
        **{name: f"metrics.coverage_real.{name}" for name in ("precision", "recall", "density", "coverage")},
        "agreement_second": "metrics.identity.real.first_to_second",
        "agreement_last": "metrics.identity.real.first_to_last",
        "kappa_last": "metrics.identity.real.kappa_last",
    },
    "real, through codec": {
        "excess": "metrics.fvd.codec_excess",
        "agreement_second": "metrics.identity.codec.first_to_second",
        "agreement_last": "metrics.identity.codec.first_to_last",
        "kappa_last": "metrics.identity.codec.kappa_last",
    },
    "training clips": {"excess": "metrics.fvd.training_excess"},
}


def grid_rows(study: Study) -> list[Row]:
    """The rows of grid.csv: raw values in the units of the records, None where nothing was measured.

    After the checkpoints come real clips, for scale. `best_in` names the columns in which no other row is better.

    Raises:
        DamagedRecordError: a record lacks a number; the message names the file.
    """
    rows = checkpoint_rows(study)
    return rows + [_reference(study, rows[0], title, paths) for title, paths in REFERENCES.items()]


def checkpoint_rows(study: Study) -> list[Row]:
    """Without real clips."""
    rows = [_row(checkpoint, study) for checkpoint in study.checkpoints]
    best: list[list[str]] = [[] for _ in rows]
    for name, column in COLUMNS.items():
        for index in best_rows([row[name] for row in rows], column.better):
            best[index].append(name)
    return [{**row, "best_in": " ".join(names)} for row, names in zip(rows, best, strict=True)]


def best_rows(values: list[Any], better: int) -> list[int]:
    """Where the best value stands; nowhere when neither end is better, or all are alike."""
    known = [value for value in values if value is not None]
    if not better or len(set(known)) < 2:
        return []
    best = max(known) if better > 0 else min(known)
    return [index for index, value in enumerate(values) if value == best]


def _row(checkpoint: Checkpoint, study: Study) -> Row:
    trained, measured, cell = checkpoint.trained, checkpoint.measured, checkpoint.cell
    low, high = lookup(measured, "metrics.fvd.interval")
    bits, no_bits = least_bound(checkpoint), absence(checkpoint)
    numbers = {name: lookup(measured, column.path) for name, column in MEASURED.items() if column.path}
    spent = {name: lookup(trained, column.path) for name, column in SPENT.items() if column.path}
    return {
        "checkpoint": checkpoint.name,
        "stage": trained.stage,
        "method": cell.method,
        "loss": cell.loss,
        "attention": checkpoint.attention,
        "divergence": cell.divergence,
        "paper": cell.paper,
        **numbers,
        "bits": bits.value if bits else None,
        "bits_error": bits.standard_error if bits else None,
        "bits_path": bits.path if bits else None,
        "bits_absence": ": ".join(no_bits) if no_bits else None,
        "excess_low": low,
        "excess_high": high,
        "num_clips": lookup(measured, "metrics.fvd.num_clips"),
        **spent,
        "flops_with_ancestors": flops_of(checkpoint.chain),
        "seconds": trained.seconds,
        "seconds_with_ancestors": sum(record.seconds for record in checkpoint.chain),
        "profile": study.profile,
        "warning": study.warning or "",
    }


def flops_of(chain: tuple[Record, ...]) -> int:
    """Of every denoiser in it; codec and data, which have no counter, are left out."""
    return sum(lookup(record, "metrics.flops") for record in chain if "cell" in record.metrics)


def _reference(study: Study, like: Row, title: str, paths: dict[str, str]) -> Row:
    """Real clips as a row; every evaluation measures them anew, and the first speaks for all."""
    measured = study.checkpoints[0].measured
    numbers = {column: lookup(measured, path) for column, path in paths.items()}
    same = {name: like[name] for name in ("profile", "warning")}
    return {**dict.fromkeys(like), "best_in": "", "checkpoint": title, **numbers, **same}


def write_grid(study: Study, path: Path) -> None:
    """grid.csv."""
    import pandas as pd

    pd.DataFrame(grid_rows(study)).to_csv(path, index=False, lineterminator="\n")


def excess_shown(row: Row) -> str:
    """Excess FVD, with its interval where it has one."""
    column = COLUMNS["excess"]
    if row["excess_low"] is None:
        return column.shown(row["excess"])
    bounds = [column.shown(row[bound]) for bound in ("excess_low", "excess_high")]
    return f"{column.shown(row['excess'])} [{', '.join(bounds)}]"


def shown(row: Row, name: str) -> str:
    """One cell of the table for people."""
    value = row[name]
    if value is None:
        return NOTHING
    return excess_shown(row) if name == "excess" else COLUMNS[name].shown(float(value))


def as_text(study: Study) -> str:
    """The table for a terminal of 120 columns: what was reached, then what it cost; the best values starred."""
    blocks = [_block(grid_rows(study), QUALITY), _block(checkpoint_rows(study), COST)]
    first = study.checkpoints[0].measured
    number, network = lookup(first, "metrics.fvd.num_clips"), lookup(first, "metrics.fvd.network")
    notes = [
        f"{BEST} best of its column. FVD at n = {number:,} ({network}); excess = FVD - that of real clips [95 %];",
        "1→2, 1→last: the digit read there is that of frame 1; kappa: beyond chance. In all: with its ancestors.",
        f"bits: per dimension of the latents, a bound; {NOTHING} where none is defined, and grid.csv says why.",
    ]
    warning = [f"!! {study.warning}"] if study.warning else []
    return "\n".join([*warning, *blocks[0], "", *blocks[1], "", *notes, *warning])


def _block(rows: list[Row], names: tuple[str, ...]) -> list[str]:
    """Aligned lines: two of heading, then a row each."""
    titles = [COLUMNS[name].title for name in names]
    heads = [(title.rpartition(" ")[0] if len(title) > HEADING else "", title) for title in titles]
    lines = [["", *(head for head, _ in heads)], ["", *(title.removeprefix(head).strip() for head, title in heads)]]
    for row in rows:
        best = row["best_in"].split()
        lines.append([row["checkpoint"], *(shown(row, name) + (BEST if name in best else " ") for name in names)])
    lines[:2] = [["", *(f"{cell} " for cell in line[1:])] for line in lines[:2]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        " ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    ]


def main(arguments: list[str]) -> int:
    """Print the table of a workspace; exit code 2 and one line when its records cannot be read."""
    workspace = Path(arguments[0]) if arguments else Path()
    try:
        print(as_text(read_study(workspace / "reports")))
    except DamagedRecordError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
