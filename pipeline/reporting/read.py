"""What the report is drawn from: records, what each was made from, and the checkpoints that were measured."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.diffusion.schedule import SCHEDULES
from pipeline.diffusion.weighting import WEIGHTINGS
from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.methods.on_trajectories import OnTrajectories
from pipeline.records import DamagedRecordError, Record, read_records

MEASURING = ("features",)  # inputs that only measure: no ancestors of what is trained
GIVEN = (
    "i3d",
    "trajectories",
)  # inputs of no record: a person gives the first, stage init makes the other for itself
REGRESSION = {"clean": "teacher_forcing", "noisy": "diffusion_forcing"}  # on stored trajectories, by their context
TIMES = "\u00d7"
KINDS = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (*SCHEDULES.values(), *WEIGHTINGS.values())}
PROFILE_OF_RESULTS = "default"
PROFILES_OF_RESULTS = (PROFILE_OF_RESULTS, "blob")  # any other is there to be fast


@dataclass(frozen=True)
class Checkpoint:
    """A trained student or teacher, and what was measured of it."""

    trained: Record
    measured: Record
    chain: tuple[Record, ...]  # every unit that it was made from, the oldest first, itself last
    cell: Cell
    label: str  # short name for figures

    @property
    def name(self) -> str:
        """The name of the DVC stage that trained it, and how it was sampled where that is not its own way."""
        return " ".join([self.trained.name, *_words(self.measured.item.removeprefix(file_name(self.trained)))])

    @property
    def attention(self) -> str:
        """Of its backbone: causal or full."""
        return lookup(self.trained, "work.denoiser.backbone.attention")


@dataclass(frozen=True)
class Study:
    """All records of one run of the pipeline."""

    profile: str
    records: tuple[Record, ...]  # what is made before what is made from it
    checkpoints: tuple[Checkpoint, ...]

    @property
    def is_smoke(self) -> bool:
        """Whether the numbers mean nothing: they do only under the profiles of results."""
        return self.profile not in PROFILES_OF_RESULTS

    @property
    def warning(self) -> str | None:
        """What every table, figure and page of such a profile must say."""
        return f"profile {self.profile}: these numbers mean nothing" if self.is_smoke else None

    def stage(self, name: str) -> Record:
        """The one record of a stage without items. Raises DamagedRecordError when there is none."""
        for record in self.records:
            if record.name == name:
                return record
        raise DamagedRecordError(f"the record of stage {name} is missing; found: {', '.join(self.names)}")

    @property
    def names(self) -> list[str]:
        """Of all units."""
        return [record.name for record in self.records]

    def origin_of(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The checkpoint whose weights it started from, sampled alike if that was measured; None: from nothing."""
        wanted, sampler = checkpoint.trained.inputs.get("init"), lookup(checkpoint.measured, "work.sampler")
        origins = [other for other in self.checkpoints if artifact_digest(other.trained) == wanted]
        alike = (other for other in origins if lookup(other.measured, "work.sampler") == sampler)
        return next(alike, origins[0] if origins else None)


def read_study(reports: Path) -> Study:
    """Every record below `reports`, joined by the checksums of what each unit wrote and read.

    Raises:
        DamagedRecordError: a record is damaged, none was found, profiles are mixed, or a unit read what none of
            the others wrote, so that the records are not of one run.
    """
    found, damaged = read_records(reports)
    if damaged:
        raise DamagedRecordError("; ".join(damaged))
    profiles = {record.profile for record in found}
    if len(profiles) != 1:
        raise DamagedRecordError(
            f"{reports} must hold the records of one profile, found: {', '.join(sorted(profiles)) or 'no record'}"
        )
    made = [(artifact_digest(record), record) for record in found if record.products]
    # Of a copy and its original, the original made it.
    makers = {digest: record for digest, record in made if digest not in record.inputs.values()}
    chains = {record.name: _chain(record, makers) for record in found}
    records = sorted(found, key=lambda record: (_depth(record, makers), record.name))
    measured = [record for record in records if record.stage == "evaluate"]
    cells = [cell_of(_input(record, "student", makers)) for record in measured]
    checkpoints = []
    for record, cell in zip(measured, cells, strict=True):
        trained = _input(record, "student", makers)
        label = short_name(cell)
        if cells.count(cell) > 1:
            suffix = record.item.removeprefix(file_name(trained))
            label = " ".join([label, *(_words(suffix) or [trained.item])])
        checkpoints.append(Checkpoint(trained, record, chains[trained.name], cell, label))
    checkpoints.sort(key=lambda checkpoint: (len(checkpoint.chain), checkpoint.name))
    _require_all_measured(records, checkpoints, reports)
    return Study(profiles.pop(), tuple(records), tuple(checkpoints))


def artifact_digest(record: Record) -> str:
    """The digest by which later units know the directory of this one's products (`pipeline.unit.digest_of`)."""
    lines = [f"{name} {digest}" for name, digest in sorted(record.products.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cell_of(trained: Record) -> Cell:
    """The point of the grid that a unit trained. Raises DamagedRecordError when the grid has none of that name."""
    if is_on_trajectories(trained):
        return Cell(REGRESSION[lookup(trained, "work.method.context")], "kd")
    axes = {"method": METHODS, "loss": LOSSES}
    names = {}
    for axis, registry in axes.items():
        kind = lookup(trained, f"metrics.cell.{axis}")
        names[axis] = next((name for name, entry in registry.items() if entry.__name__ == kind), None)
        if names[axis] is None:
            raise DamagedRecordError(f"{_path(trained)}: no {axis} is called {kind}; known: {', '.join(registry)}")
    return Cell(**names)


def is_on_trajectories(trained: Record) -> bool:
    """Whether it regressed on the stored trajectories of a teacher."""
    return lookup(trained, "metrics.cell.method") == OnTrajectories.__name__


def short_name(cell: Cell) -> str:
    """For figures: initials of the method, and of a loss of several words, like SF×DMD or TF×CD."""
    loss = _initials(cell.loss) if "_" in cell.loss else cell.loss
    return f"{_initials(cell.method)}{TIMES}{loss}".upper()


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("_"))


def lookup(record: Record, path: str) -> Any:
    """An entry of a record by its dotted path, like metrics.fvd.excess; may be None where it was not measured.

    Raises:
        DamagedRecordError: there is no such entry.
    """
    first, *rest = path.split(".")
    value = {"metrics": record.metrics, "work": record.work}[first]
    for name in rest:
        if not isinstance(value, dict) or name not in value:
            raise DamagedRecordError(f"{_path(record)} is damaged: it lacks {path}")
        value = value[name]
    return value


def rebuild(record: Record, path: str) -> Any:
    """The schedule or the weighting that a record's parameters describe, as `pipeline.unit.as_plain` wrote them.

    Raises:
        DamagedRecordError: there is none, or none of the library is like it.
    """
    return _built(lookup(record, path), f"{_path(record)} is damaged: {path}")


def _built(value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        return value
    parts = {name: _built(part, f"{place}.{name}") for name, part in value.items()}
    kind = parts.pop("type", None)
    if kind not in KINDS:
        raise DamagedRecordError(f"{place} is no schedule or weighting: {kind}")
    try:
        return KINDS[kind](**parts)
    except (TypeError, ValueError) as error:
        raise DamagedRecordError(f"{place}: {error}") from error


def _chain(record: Record, makers: dict[str, Record]) -> tuple[Record, ...]:
    """The unit's ancestors, each once, then itself."""
    chain: dict[str, Record] = {}
    for name in sorted(set(record.inputs) - set(GIVEN)):
        maker = _input(record, name, makers)
        if name not in MEASURING:
            chain |= {ancestor.name: ancestor for ancestor in _chain(maker, makers)}
    return (*chain.values(), record)


def _depth(record: Record, makers: dict[str, Record]) -> int:
    """How many units, one after the other, had to run before it."""
    names = set(record.inputs) - set(GIVEN)
    return max((1 + _depth(_input(record, name, makers), makers) for name in names), default=0)


def _input(record: Record, name: str, makers: dict[str, Record]) -> Record:
    if name not in record.inputs:
        raise DamagedRecordError(f"{_path(record)} is damaged: it lacks inputs.{name}")
    if record.inputs[name] not in makers:
        raise DamagedRecordError(
            f"{_path(record)}: no other record made its input {name!r}; the records are not of one run: dvc repro"
        )
    return makers[record.inputs[name]]


def file_name(record: Record) -> str:
    """Of a stage and its item, where it has one, as measurements are named after them."""
    return "-".join(filter(None, (record.stage, record.item)))


def _words(suffix: str) -> list[str]:
    """Of what follows the stage and the item in the name of a measurement."""
    return suffix.strip("-").replace("_", " ").split()


def _require_all_measured(records: list[Record], checkpoints: list[Checkpoint], reports: Path) -> None:
    measured = {checkpoint.trained.name for checkpoint in checkpoints}
    for record in records:
        if "cell" in record.metrics and record.name not in measured:
            path = reports / "evaluate" / file_name(record) / "record.json"
            raise DamagedRecordError(f"{path} cannot be read: {record.name} is trained, and not measured")
    if not checkpoints:
        raise DamagedRecordError(f"{reports / 'evaluate'} must hold the record of a checkpoint, and has none")


def _path(record: Record) -> Path:
    return record.directory / "record.json"
