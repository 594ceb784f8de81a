"""Classes in the parameters: networks are told those of the source or none, and guidance needs them."""

import pytest

from pipeline.config import parse_params
from tests.parameters import raw, refusal

TRAININGS = ("teacher.causal.training", "teacher.bidirectional.training", "ablation.training")


def with_values(**changes):
    """The default parameters with some of them set; `__` stands between the names of a path."""
    params = raw()
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = params
        for name in parents:
            node = node[name]
        node[last] = value
    return params


def told(**changes):
    """Networks that are told the ten classes of the digits."""
    dropout = {f"{path.replace('.', '__')}__label_dropout": 0.1 for path in TRAININGS}
    return with_values(**{"denoiser__backbone__num_classes": 10, **dropout, **changes})


def test_networks_are_told_nothing_by_default():
    params = parse_params(raw())
    assert params.denoiser.backbone.num_classes == 0
    assert params.prepare.source.num_classes == 10


def test_guidance_runs_where_networks_are_told_classes():
    params = parse_params(told(distill__losses__dmd={"guidance": 4.0}))
    assert params.student_unit("distill", "dmd").loss.guidance == 4
    units = [params.teacher_unit("causal"), params.student_unit("distill", "dmd")]
    assert [unit.denoiser.backbone.num_classes for unit in units] == [10, 10]


@pytest.mark.parametrize("stage", ["distill", "rollout", "grid"])
def test_guidance_without_classes_is_refused(stage):
    guided = {f"{stage}__losses__dmd__guidance": 3.0}
    said = refusal(with_values(**guided))
    assert said == f"{stage}.losses.dmd.guidance must be 1 where denoiser.backbone.num_classes is 0, got 3.0"
    said = refusal(with_values(**guided, prepare__source__num_digits=2))
    assert said == f"{stage}.losses.dmd.guidance must be 1 where prepare.source has no classes, got 3.0"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"denoiser__backbone__num_classes": 5},
            "denoiser.backbone.num_classes must be 0 or that of prepare.source: 5 and 10",
        ),
        (
            {"prepare__source__num_digits": 2},
            "denoiser.backbone.num_classes must be 0 or that of prepare.source: 10 and 0",
        ),
        (
            {"teacher__bidirectional__training__label_dropout": 0.0},
            "teacher.bidirectional.training.label_dropout must be in (0, 1) where denoiser.backbone.num_classes is "
            "10, got 0.0",
        ),
        (
            {"ablation__training__label_dropout": 1.0},
            "ablation.training.label_dropout must be in (0, 1) where denoiser.backbone.num_classes is 10, got 1.0",
        ),
    ],
)
def test_classes_that_the_source_has_not_or_no_teacher_learns_without_are_refused(changes, says):
    assert refusal(told(**changes)) == says


@pytest.mark.parametrize("path", [*TRAININGS, "distill.training.dmd", "rollout.training.gan", "grid.training"])
def test_hidden_classes_without_classes_are_refused(path):
    said = refusal(with_values(**{f"{path.replace('.', '__')}__label_dropout": 0.1}))
    assert said == f"{path}.label_dropout must be 0 where denoiser.backbone.num_classes is 0, got 0.1"
