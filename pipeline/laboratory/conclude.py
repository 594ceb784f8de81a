"""What the measurements say of every cell on every process, and of every claim on all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.processes import PROCESSES
from pipeline.grid import Cell
from pipeline.laboratory.derived import NONE, claimed, derived
from pipeline.laboratory.run import STUDENT_OF, Key, LaboratoryCell, LaboratoryRun
from pipeline.laboratory.verdicts import (
    Identified,
    Judgement,
    Optima,
    Parameters,
    Point,
    Rules,
    Verdict,
    identify,
    judge,
    judge_none,
    over_processes,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Conclusion:
    """One cell on one process with one kind of critics: where it settled, and the verdicts."""

    cell: str
    process: str
    critics: str
    row_of_claims: str  # method and loss
    point: Point
    kept: tuple[float, ...]
    identified: Identified
    claimed: str | None
    claim: Judgement | None
    derived: str | None
    derivation: Judgement | None

    def row(self) -> Row:
        """Of verdicts.csv."""
        found, claim, derivation = self.identified, self.claim, self.derivation
        return {
            "cell": self.cell,
            "process": self.process,
            "critics": self.critics,
            "claimed": self.claimed,
            "verdict": claim.verdict.value if claim else None,
            "reason": claim.reason if claim else None,
            "derived": self.derived,
            "derived_verdict": derivation.verdict.value if derivation else None,
            "derived_reason": derivation.reason if derivation else None,
            "nearest": found.nearest,
            "distance": found.distance,
            "runner_up": found.runner_up,
            "runner_up_distance": found.runner_up_distance,
            "inseparable": ";".join(found.inseparable),
            "kept": ";".join(f"{share:.6g}" for share in self.kept),
            **self.point.mean,
            **{f"{name}_half_width": width for name, width in self.point.half_width.items()},
        }


def optima_of(predicted: Mapping[str, Any]) -> Optima:
    """The parameters of every optimum that is fixed, of the predictions of one process."""
    return {
        name: [optimum["parameters"] for optimum in (prediction["best"], *prediction["others"])]
        for name, prediction in predicted.items()
        if not prediction["flat"]
    }


def conclude(
    run: LaboratoryRun, measured: Mapping[Key, Mapping[str, Any]], optima: Mapping[str, Optima]
) -> list[Conclusion]:
    """Of every cell, process and kind of critics that was measured, where the process has predictions."""
    seeds: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for key, metrics in measured.items():
        seeds.setdefault((key.cell, key.process, key.critics), []).append(metrics)
    return [
        _conclude(run.rules, run.cells[cell], cell, process, critics, found, optima[process])
        for (cell, process, critics), found in seeds.items()
        if process in optima
    ]


def _conclude(
    rules: Rules,
    entry: LaboratoryCell,
    cell: str,
    process: str,
    critics: str,
    found: Sequence[Mapping[str, Any]],
    optima: Optima,
) -> Conclusion:
    parameters: list[Parameters] = [metrics["parameters"] for metrics in found]
    point, tolerance, margin = Point.of(parameters), rules.within(critics), rules.margin
    num_frames, student = PROCESSES[process].num_frames, STUDENT_OF[process]
    claim = claimed(entry.method, entry.loss) if num_frames > 1 or entry.method.attention == "full" else None
    derivation = derived(entry.method, entry.loss, num_frames, tied=student == "tied")
    rule = {"tolerance": tolerance, "margin": margin}
    return Conclusion(
        cell,
        process,
        critics,
        "-".join(Cell.of(entry.method, entry.loss)),
        point,
        tuple(sum(shares) / len(found) for shares in zip(*(metrics["kept"] for metrics in found), strict=True)),
        identify(point.mean, optima, tolerance),
        claim,
        None if claim is None else _judge(claim, point, optima, **rule),
        derivation,
        None if derivation is None else judge(point, derivation, optima, **rule),
    )


def _judge(claim: str, point: Point, optima: Optima, **rule: float) -> Judgement:
    return judge_none(point, optima, **rule) if claim == NONE else judge(point, claim, optima, **rule)


def over_cells(conclusions: Sequence[Conclusion]) -> list[Row]:
    """What all processes and parameters say of each claim of the sources, with exact critics."""
    judged: dict[tuple[str, str], dict[str, Judgement]] = {}
    for one in conclusions:
        if one.claim is not None and one.claimed is not None and one.critics == "exact":
            judged.setdefault((one.row_of_claims, one.claimed), {})[f"{one.cell} on {one.process}"] = one.claim
    rows = []
    for (cell, claim), judgements in judged.items():
        total = over_processes(judgements)
        count = {v: sum(one.verdict is v for one in judgements.values()) for v in Verdict}
        numbers = {f"num_{verdict.value}": number for verdict, number in count.items()}
        said = {"verdict": total.verdict.value, "reason": total.reason}
        rows.append({"claim": f"{cell}: {claim}", **said, **numbers})
    return rows
