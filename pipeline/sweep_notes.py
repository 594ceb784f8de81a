"""What MLflow says in words of a sweep and of a trial that failed: notes, in Markdown."""

from collections.abc import Iterable, Mapping

from pipeline.sweep_records import COMPARED, Sweep

LISTED = 10  # entries of a list; the others are counted
OF_SWEEPS = {  # by the name of the sweep
    "grid": """
## Runs and tags

A child a trial. Tags: `cell` (method-loss; `short`, by initials), `method`, `loss`, `seed`; `phase` (*start*: what
the cells of a method start from; *default*: by the settings of the grid; *tuning*: a trial of the search, judged on
the split `metric`; *tuned*: the chosen setting with the seeds of the results); `split` of the clips that judged;
`status` and `reason` of those that failed; `budget` that every training had; `animation`, the trial's own clips
(the artifact samples.gif); `model`, where it is logged. Units: work/cell/`train_fingerprint` and
work/evaluate/`evaluate_fingerprint`.

Metrics of a child: `excess` (FVD minus that of real clips; lower is better) ranks the cells; the losses are its
curve. Steps are updates of the student, everywhere; final numbers stand at the last one. Metrics of this run: means
over seeds as `phase.cell.metric`, with `.low` and `.high`, the ends of their intervals. Artifacts: the tables, and
below `figures/` what the report draws of them, each with its numbers.
""",
    "laboratory": """
## Runs and tags

A child a cell, process and kind of critics. Tags: the verdicts on what the cell is claimed to minimise, with their
reasons. Metrics: the optimum it settled on, and how far that is from the nearest of the known ones.
""",
}
LINKS = """
## From a run to where it comes from, and back

`dvc.stage` is the stage that makes it (`dvc repro STAGE`), `dvc.lock` the
sha256 of its entry in that file, `git.revision` the code. And back: search for
``tags.`dvc.stage` = "STAGE" and tags.current = "true"``; `mlartifacts/runs.json` has the id of each stage's run.
"""
MODELS = """
## Models

{count} of {all} cells have a model here: the seed with the least excess, of the tuned phase where there is one. It
carries the code of `pipeline` that it runs, and needs the packages of its requirements.txt. Where mlflow.db is, or
with the server in MLFLOW_TRACKING_URI:

    import mlflow, pandas
    model = mlflow.pyfunc.load_model("{uri}")
    clips = model.predict(pandas.DataFrame({{"num_clips": [4], "num_frames": [{num_frames}], "seed": [0]}}))

uint8 (N, T, H, W, C): what `python -m pipeline.sample` makes of the same checkpoint, sampler and seed. {best}
"""
NO_MODELS = """
## Models

None: the units of the cells, below work/, or the codec are not on this machine.
"""


def note_of_sweep(sweep: Sweep, run_id: str, models: str) -> str:
    """models: what there is to be said of them, see `MODELS` and `NO_MODELS`."""
    parts = [f"# The sweep {sweep.name}\n", matrix_of(sweep.means)]
    pictures = [
        path.name for path in sweep.figures if path.name == "matrix.svg"
    ]  # as wide as the note; .png: wider
    parts += [f"\n![{name}](get-artifact?path=figures/{name}&run_uuid={run_id})\n" for name in pictures]
    parts += [_listed("Still to be made", sweep.missing)]
    parts += [_listed("Failed", (f"{name}: {reason}" for name, reason in sweep.failed.items()))]
    return "".join([*parts, OF_SWEEPS.get(sweep.name, ""), models, LINKS])


def note_of_failure(name: str, reason: str) -> str:
    return f"# {name} failed\n\n{reason}\n"


def matrix_of(means: Mapping[str, float]) -> str:
    """Method x loss of the last phase as a table: the mean excess and its interval."""
    for phase in reversed(COMPARED):
        ends = f"{phase}.", ".excess"
        cells = [name[len(ends[0]) : -len(ends[1])] for name in means if name.startswith(ends[0])
                 and name.endswith(ends[1])]  # fmt: skip
        if not cells:
            continue
        pairs = [cell.split("-", 1) for cell in cells]
        methods, losses = (list(dict.fromkeys(pair[axis] for pair in pairs)) for axis in (0, 1))
        head = [f"| excess, {phase} | {' | '.join(losses)} |", "|---" * (len(losses) + 1) + "|"]
        rows = [
            f"| {method} | {' | '.join(_entry(means, f'{phase}.{method}-{loss}.excess') for loss in losses)} |"
            for method in methods
        ]
        return "\n" + "\n".join([*head, *rows]) + "\n"
    return ""


def _entry(means: Mapping[str, float], name: str) -> str:
    if name not in means:
        return "-"
    low, high = (means.get(f"{name}{end}") for end in (".low", ".high"))
    interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
    return f"{means[name]:.1f}{interval}"


def _listed(head: str, entries: Iterable[str]) -> str:
    """A section with the first of them; nothing where there are none."""
    lines = [" ".join(entry.split())[:160] for entry in entries]
    if not lines:
        return ""
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join([f"\n## {head}: {len(lines)}\n", *(f"- {line}" for line in [*lines[:LISTED], *more]), ""])
