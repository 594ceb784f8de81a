"""What differs between two cells that are compared, and why it may: every difference, each with its kind.

A spec is what `run_unit` keeps in unit.json: parameters, checksums of inputs and sources, versions.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

KINDS = ("axis", "follows", "budget", "tuned", "confounds")
ABSENT = "absent"  # for the value of what only the other cell has
SEEDS = ("train.work.seed", "evaluate.work.seed")
MOVED = {  # what can differ between cells of the grid, and what else may then differ with it
    "method": "train.work.method.type",
    "loss": "train.work.loss.type",
    "attention": "train.work.denoiser.backbone.attention",
}
Spec = Mapping[str, Any]


class Rule(NamedTuple):
    """Why a difference may be. when: it does if one of these holds of the two cells; empty: always.

    `method`, `loss`, `attention`: they differ in it. `no_critics`: one of them trains none. `tuned`: both were.
    `unequal_updates`: the budget is counted in something else. is_one_sided: only for what one cell lacks.
    """

    kind: str
    reason: str
    when: tuple[str, ...] = ()
    is_one_sided: bool = False


RULES = {  # by the pattern of paths; the first that applies decides, and what none allows confounds
    "*.fingerprint": Rule("follows", "it sums up all that is listed here"),
    "*.revision*": Rule("follows", "the code that ran is compared file by file, under sources"),
    "train.work.training.critic_optimizer.*": Rule(
        "follows", "a cell without critics leaves it unused", ("no_critics",)
    ),
    "train.work.training.critic_optimizer.*learning_rate": Rule("tuned", "chosen by the tuning", ("tuned",)),
    "train.work.training.optimizer.*learning_rate": Rule("tuned", "chosen by the tuning", ("tuned",)),
    "train.work.loss.*critic_updates": Rule("tuned", "chosen by the tuning", ("tuned",)),
    "train.work.training.num_steps": Rule("budget", "as many as the budget pays", ("unequal_updates",)),
    "train.work.method.*": Rule("axis", "the method", ("method",)),
    "train.work.loss.*": Rule("axis", "the loss", ("loss",)),
    "train.work.denoiser.backbone.attention": Rule("follows", "the method says what a frame may see", ("method",)),
    "train.work.denoiser.backbone.end_level": Rule("follows", "the loss asks for steps to any level", ("loss",)),
    "train.inputs.init": Rule("follows", "each attention has a start of its own", ("attention",)),
    "train.inputs.teacher": Rule("follows", "method and loss say which teacher is asked", ("method", "loss")),
    "train.sources.*": Rule("follows", "modules of one method or loss", ("method", "loss"), is_one_sided=True),
    "evaluate.inputs.student": Rule("follows", "it is what is compared"),
    "evaluate.work.sampler.chunk_len": Rule("follows", "full attention makes frames together", ("attention",)),
    "evaluate.work.sampler.first_chunk_len": Rule(
        "follows", "full attention makes frames together", ("attention",)
    ),
    "evaluate.work.sampler.window": Rule("follows", "chunks fill the context of full attention", ("attention",)),
}


class CellSpecs(NamedTuple):
    """Of the two units of a trial."""

    train: Spec
    evaluate: Spec


class Difference(NamedTuple):
    """One value that differs. kind: one of KINDS; reason: why it may, empty where it confounds."""

    path: str
    value_a: Any
    value_b: Any
    kind: str
    reason: str


def differences(a: CellSpecs, b: CellSpecs, *, equal_updates: bool = True, tuned: bool = False) -> list[Difference]:
    """All that differs between two trials, by path. equal_updates: the budget is counted in them; tuned: both are.

    Parameters of a method or a loss that both cells share, a teacher that changes without cause, a module that was
    edited between the two trainings: whatever is allowed only for a reason confounds without it.

    Raises:
        ValueError: the trials have different seeds.
    """
    ours, theirs = dict(leaves(a._asdict())), dict(leaves(b._asdict()))
    for path in SEEDS:
        if ours[path] != theirs[path]:
            raise ValueError(f"{path} must agree between trials that are compared: {ours[path]}, {theirs[path]}")
    holds = {name for name, path in MOVED.items() if ours[path] != theirs[path]}
    both_train_critics = _trains_critics(ours) and _trains_critics(theirs)
    given = {"tuned": tuned, "unequal_updates": not equal_updates, "no_critics": not both_train_critics}
    holds |= {name for name, is_so in given.items() if is_so}
    found = []
    for path in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(path, ABSENT), theirs.get(path, ABSENT)
        if here != there:
            found.append(Difference(path, here, there, *_judged(path, holds, is_one_sided=ABSENT in (here, there))))
    return found


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested plain data, by its dotted path; an empty list or dict is a value."""
    items = (
        enumerate(node) if isinstance(node, list | tuple) else node.items() if isinstance(node, Mapping) else None
    )
    if items is None or not node:
        yield path, node
        return
    for key, item in items:
        yield from leaves(item, f"{path}.{key}" if path else str(key))


def _judged(path: str, holds: set[str], *, is_one_sided: bool) -> tuple[str, str]:
    for pattern, rule in RULES.items():
        is_due = not rule.when or holds & set(rule.when)
        if is_due and fnmatchcase(path, pattern) and (is_one_sided or not rule.is_one_sided):
            return rule.kind, rule.reason
    return "confounds", ""


def _trains_critics(spec: Mapping[str, Any]) -> bool:
    return any(fnmatchcase(path, "train.work.loss.*critic_updates") for path in spec)
