"""Specs of real cells, diffed: what may differ says why, and everything else confounds."""

import copy
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from pipeline.config import parse_params
from pipeline.grid import Cell
from pipeline.sweep.audit import ABSENT, KINDS, RULES, CellSpecs, differences, leaves
from pipeline.unit import describe
from tests.parameters import raw

CRITICS = {
    f"train.work.training.critic_optimizer.{name}" for name in ("name", "learning_rate", "matrix_learning_rate")
}


@cache
def params():
    return parse_params(raw())


@cache
def made(method, loss):
    """What unit.json of a cell's two units says, but for the checksums of its inputs, which are words here."""
    cell = Cell(method, loss)
    units = params().cell_units(cell)
    train, evaluate = describe("cell", units.train, {}), describe("evaluate", units.evaluate, {})
    train["inputs"] = {"codec": "latents", "init": f"{cell.attention} teacher"}
    if units.teacher is not None:
        train["inputs"]["teacher"] = units.teacher
    evaluate["inputs"] = {"clips": "digits", "features": "networks", "codec": "latents", "student": str(cell)}
    for name, unit in (("train", train), ("evaluate", evaluate)):
        unit |= {"fingerprint": f"{cell} {name}", "revision": {"commit": loss, "dirty": False}}
    return CellSpecs(train, evaluate)


def specs(method, loss, **changes):
    """The same with some values changed, by their path with __ for dots."""
    found = copy.deepcopy(made(method, loss))
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = found._asdict()
        for name in parents:
            node = node[name]
        node[last] = value
    return found


def paths(found, kind):
    return {one.path for one in found if one.kind == kind}


def kind_of(path, found):
    (one,) = [one for one in found if one.path == path]
    return one.kind


def test_two_losses_under_one_method_are_confounded_by_the_optimizer_of_their_critics():
    found = differences(specs("self_forcing", "dmd"), specs("self_forcing", "gan"))
    assert paths(found, "confounds") == CRITICS
    assert {"train.work.loss.type", "train.work.loss.critic_updates"} <= paths(found, "axis")
    assert all(path.startswith("train.work.loss.") for path in paths(found, "axis"))
    assert "train.sources.pipeline.models.discriminator" in paths(found, "follows")


def test_one_loss_under_two_causal_methods_is_clean():
    found = differences(specs("teacher_forcing", "l2"), specs("diffusion_forcing", "l2"))
    assert all(path.startswith("train.work.method.") for path in paths(found, "axis"))
    assert {one.kind for one in found} == {"axis", "follows"}


def test_attention_takes_its_start_and_its_sampler_along():
    found = differences(specs("bidirectional", "dmd"), specs("self_forcing", "dmd"))
    assert paths(found, "confounds") == set()
    assert {
        "train.work.denoiser.backbone.attention",
        "train.inputs.init",
        "evaluate.work.sampler.chunk_len",
        "evaluate.work.sampler.first_chunk_len",
        "evaluate.work.sampler.window",
        "evaluate.inputs.student",
    } <= paths(found, "follows")
    assert "train.inputs.teacher" not in {one.path for one in found}  # the same is asked


def test_loss_says_which_teacher_is_asked_and_whether_steps_end_anywhere():
    found = differences(specs("self_forcing", "kd"), specs("self_forcing", "dmd"))
    assert kind_of("train.inputs.teacher", found) == "follows"
    found = differences(specs("teacher_forcing", "l2"), specs("teacher_forcing", "mean_flow"))
    assert kind_of("train.work.denoiser.backbone.end_level", found) == "follows"


def test_optimizer_of_critics_is_unused_where_a_cell_has_none():
    found = differences(specs("bidirectional", "l2"), specs("bidirectional", "gan"))
    assert paths(found, "confounds") == set()
    assert paths(found, "follows") >= CRITICS


def test_critics_of_a_loss_within_a_loss_count():
    assert "train.work.loss.gan.critic_updates" in dict(leaves(specs("bidirectional", "add")._asdict()))
    assert paths(differences(specs("bidirectional", "add"), specs("bidirectional", "dmd")), "confounds") == CRITICS


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train__inputs__codec", "others"),
        ("evaluate__inputs__codec", "others"),
        ("evaluate__inputs__clips", "other digits"),
        ("evaluate__inputs__features", "others"),
        ("evaluate__work__num_clips", 512),
        ("evaluate__work__sampler__num_steps", 50),
        ("evaluate__work__sampler__window", 3),
        ("train__inputs__init", "another start"),
        ("train__work__training__batch_size", 32),
        ("train__work__training__ema_decay", 0.9),
        ("train__work__training__num_steps", 400),
        ("train__work__training__optimizer__learning_rate", 1.0e-3),
        ("train__work__denoiser__backbone__width", 96),
        ("train__work__denoiser__backbone__end_level", True),
        ("train__work__loss__weighting__prediction", "eps"),
        ("train__work__num_threads", 2),
        ("train__sources__pipeline.training.loop", "edited"),
        ("train__versions__torch", "2.12.0"),
        ("evaluate__sources__pipeline.evaluation.fvd", "edited"),
        ("evaluate__versions__torch", "2.12.0"),
        ("train__work__device", "cuda"),  # that the other does not have at all
    ],
)
def test_whatever_differs_without_a_reason_confounds(path, value):
    clean, other = specs("teacher_forcing", "l2"), specs("diffusion_forcing", "l2", **{path: value})
    before, found = differences(clean, specs("diffusion_forcing", "l2")), differences(clean, other)
    assert paths(found, "confounds") == {path.replace("__", ".")}
    assert [one for one in found if one.kind != "confounds"] == before


@pytest.mark.parametrize(
    "path", ["train__work__method__noise_levels__clean_probability", "train__work__loss__first_weight"]
)
def test_parameters_of_an_axis_confound_where_the_axis_has_not_moved(path):
    found = differences(specs("diffusion_forcing", "l2"), specs("diffusion_forcing", "l2", **{path: 0.75}))
    assert paths(found, "confounds") == {path.replace("__", ".")}


def test_a_module_that_only_one_uses_confounds_where_no_axis_has_moved():
    extra = "train__sources__pipeline.diffusion.extra"
    found = differences(specs("teacher_forcing", "l2"), specs("teacher_forcing", "l2", **{extra: "digest"}))
    assert found[0][:4] == ("train.sources.pipeline.diffusion.extra", ABSENT, "digest", "confounds")


def test_num_steps_may_differ_where_the_budget_is_not_counted_in_updates():
    a, b = specs("teacher_forcing", "l2"), specs("diffusion_forcing", "l2", train__work__training__num_steps=3)
    assert kind_of("train.work.training.num_steps", differences(a, b)) == "confounds"
    assert kind_of("train.work.training.num_steps", differences(a, b, equal_updates=False)) == "budget"


def test_tuning_may_choose_rates_and_critic_updates_and_nothing_else():
    a, b = specs("teacher_forcing", "dmd"), specs("teacher_forcing", "gan", train__work__training__batch_size=8)
    b.train["work"]["training"]["optimizer"]["learning_rate"] = 1.0e-3
    found = differences(a, b, tuned=True)
    rates = {f"train.work.training.{name}.learning_rate" for name in ("optimizer", "critic_optimizer")}
    rates.add("train.work.training.critic_optimizer.matrix_learning_rate")
    assert paths(found, "tuned") == rates | {"train.work.loss.critic_updates"}
    assert paths(found, "confounds") == {
        "train.work.training.batch_size",
        "train.work.training.critic_optimizer.name",
    }


def test_nothing_that_differs_is_dropped_and_the_other_way_round_is_the_same():
    cells = [(method, loss) for method in ("bidirectional", "self_forcing") for loss in ("dmd", "gan", "pagoda")]
    for one, other in combinations(cells, 2):
        a, b = specs(*one), specs(*other)
        found = differences(a, b)
        flat = [Counter((path, str(value)) for path, value in leaves(cell._asdict())) for cell in (a, b)]
        told = [
            Counter((d.path, str(v)) for d, v in zip(found, v, strict=True) if v != ABSENT)
            for v in ([d.value_a for d in found], [d.value_b for d in found])
        ]
        assert [flat[0] - flat[1], flat[1] - flat[0]] == told
        turned = [(d.path, d.value_b, d.value_a, d.kind, d.reason) for d in differences(b, a)]
        assert turned == found
        assert {d.kind for d in found} <= set(KINDS)
        assert all(bool(d.reason) == (d.kind != "confounds") for d in found)


def test_same_trial_has_no_differences():
    assert differences(specs("self_forcing", "gan"), specs("self_forcing", "gan")) == []


@pytest.mark.parametrize("unit", ["train", "evaluate"])
def test_trials_of_other_seeds_are_not_compared(unit):
    other = specs("self_forcing", "gan", **{f"{unit}__work__seed": 7})
    with pytest.raises(ValueError, match=rf"^{unit}.work.seed must agree between trials .* 0, 7$"):
        differences(specs("self_forcing", "dmd"), other)


def test_every_rule_but_none_for_what_confounds():
    assert {rule.kind for rule in RULES.values()} == set(KINDS) - {"confounds"}


def test_leaves_keep_empty_and_missing_values_apart():
    nested = {"a": {"b": [1, {"c": None}]}, "d": [], "e": {}}
    assert dict(leaves(nested)) == {"a.b.0": 1, "a.b.1.c": None, "d": [], "e": {}}
