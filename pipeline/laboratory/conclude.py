"""What the measurements say of every cell on every process, and of every claim on all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.laboratory.derived import NONE, READINGS, claimed, derived, row_of_claims
from pipeline.laboratory.objectives import DIVERGENCES
from pipeline.laboratory.run import Key, LaboratoryRun
from pipeline.laboratory.verdicts import (
    Identified,
    Judgement,
    Optima,
    Parameters,
    Point,
    Verdict,
    family,
    identify,
    judge,
    judge_none,
    over_processes,
)

OF_CLIPS = (*DIVERGENCES, "fisher", "wasserstein", "l2_")  # begin the names of divergences of whole clips
Row = dict[str, Any]


class Opinion(NamedTuple):
    """Of an objective, that a cell minimises it: what the measurement says."""

    objective: str
    judgement: Judgement


@dataclass(frozen=True)
class Conclusion:
    """One cell on one process with one kind of critics: where it settled, and the verdicts."""

    cell: str
    process: str
    critics: str
    row_of_claims: str
    point: Point
    kept: tuple[float, ...]
    identified: Identified
    claims: dict[str, Opinion]  # by reading, those that say something
    derivation: Opinion | None

    def row(self) -> Row:
        """Of verdicts.csv."""
        found = self.identified
        return {
            "cell": self.cell,
            "process": self.process,
            "critics": self.critics,
            "row_of_claims": self.row_of_claims,
            **_columns(self.claims.get("table"), "claimed", "verdict", "reason"),
            **_columns(self.claims.get("text"), "text_claimed", "text_verdict", "text_reason"),
            **_columns(self.derivation, "derived", "derived_verdict", "derived_reason"),
            "nearest": found.nearest,
            "distance": found.distance,
            "runner_up": found.runner_up,
            "runner_up_distance": found.runner_up_distance,
            "inseparable": ";".join(found.inseparable),
            "kept": ";".join(f"{share:.6g}" for share in self.kept),
            **self.point.mean,
            **{f"{name}_half_width": width for name, width in self.point.half_width.items()},
        }


def _columns(opinion: Opinion | None, objective: str, verdict: str, reason: str) -> Row:
    said = (
        (opinion.objective, opinion.judgement.verdict.value, opinion.judgement.reason) if opinion else (None,) * 3
    )
    return dict(zip((objective, verdict, reason), said, strict=True))


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
        _conclude(run, cell, process, critics, found, optima[process])
        for (cell, process, critics), found in seeds.items()
        if process in optima
    ]


def _conclude(
    run: LaboratoryRun,
    cell: str,
    process: str,
    critics: str,
    found: Sequence[Mapping[str, Any]],
    optima: Optima,
) -> Conclusion:
    entry, setting, rules = run.cells[cell], run.settings[process], run.rules
    parameters: list[Parameters] = [metrics["parameters"] for metrics in found]
    point, rule = Point.of(parameters), {"tolerance": rules.within(critics), "margin": rules.margin}
    num_frames = setting.process.num_frames
    is_said = num_frames > 1 or entry.method.attention == "full"  # of several frames, but for bidirectional cells
    claims = {}
    for reading in READINGS if is_said else ():
        claim = claimed(entry.method, entry.loss, reading)
        if claim is not None:
            claims[reading] = Opinion(claim, _judge(claim, point, optima, **rule))
    # frames after the second have the parameters of the second
    derivation = derived(entry.method, entry.loss, num_frames, tied=setting.student == "tied" or num_frames > 2)
    return Conclusion(
        cell,
        process,
        critics,
        row_of_claims(entry.method, entry.loss),
        point,
        tuple(sum(shares) / len(found) for shares in zip(*(metrics["kept"] for metrics in found), strict=True)),
        identify(point.mean, optima, rule["tolerance"]),
        claims,
        None if derivation is None else Opinion(derivation, judge(point, derivation, optima, **rule)),
    )


def _judge(claim: str, point: Point, optima: Optima, **rule: float) -> Judgement:
    """Where none is claimed: no divergence between the student's own clips and data."""
    if claim != NONE:
        return judge(point, claim, optima, **rule)
    return judge_none(point, {name: at for name, at in optima.items() if name.startswith(OF_CLIPS)}, **rule)


def over_cells(conclusions: Sequence[Conclusion]) -> list[Row]:
    """What all processes and parameters say of each claim, in both of its readings, with exact critics."""
    judged: dict[tuple[str, str, str], dict[str, Judgement]] = {}
    for one in conclusions:
        for reading, (claim, judgement) in one.claims.items() if one.critics == "exact" else ():
            said_of = "none" if claim == NONE else family(claim)
            place = f"{one.cell} on {one.process}"
            judged.setdefault((one.row_of_claims, said_of, reading), {})[place] = judgement
    rows = []
    for (cell, claim, reading), judgements in judged.items():
        total = over_processes(judgements)
        count = {v: sum(one.verdict is v for one in judgements.values()) for v in Verdict}
        numbers = {f"num_{verdict.value}": number for verdict, number in count.items()}
        said = {"verdict": total.verdict.value, "reason": total.reason}
        rows.append({"claim": f"{cell}: {claim}", "reading": reading, **said, **numbers})
    return rows
