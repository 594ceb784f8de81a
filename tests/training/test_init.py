"""How a causal student begins: which units, reading what, and what weights come out."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from pipeline.diffusion.autoregress import Sampler
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.methods.on_trajectories import OnTrajectories
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.denoiser import Denoiser, load_denoiser, save_denoiser
from pipeline.training.cell import TrainCell
from pipeline.training.init import (
    INITS,
    ConsistencyInit,
    Init,
    NoInit,
    OdeRegression,
    Setting,
    TeacherInit,
    make_all,
)
from pipeline.training.trajectories import MakeTrajectories
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents

FEW = Sampler(num_steps=2)
SETTING = Setting(make_cell().denoiser, FEW, seed=0, num_threads=1)
TRAINING = make_cell(num_steps=4, muon=False, batch_size=4).training
INITS_TO_MAKE = [
    NoInit(),
    TeacherInit(),
    OdeRegression("bidirectional", TRAINING, num_clips=8, num_steps=4),
    OdeRegression("causal", TRAINING, num_clips=8, num_steps=4),
    ConsistencyInit(TRAINING),
]


@pytest.fixture
def given(tmp_path):
    """Latents, and both teachers with other weights than those of a new network."""
    codec = make_latents(tmp_path / "codec")
    latents = digest_of(codec / "codec.json")
    for name, attention in (("causal", "causal"), ("bidirectional", "full")):
        torch.manual_seed(1)
        teacher = Denoiser(make_cell(attention=attention).denoiser)
        for parameter in teacher.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        save_denoiser(teacher, tmp_path / name, latents=latents)
    return {"codec": codec, "causal": tmp_path / "causal", "bidirectional": tmp_path / "bidirectional"}


def make(unit, inputs):
    return run_unit(unit.kind, unit.work, inputs)


def weights(directory):
    return load_file(directory / "student.safetensors")


def same(these, those):
    return all(torch.equal(these[name], those[name]) for name in those)


@pytest.mark.parametrize("init", INITS_TO_MAKE, ids=lambda init: type(init).__name__)
def test_every_init_makes_a_causal_student_of_the_setting_and_only_once(init, given, work_root):
    assert isinstance(init, Init)
    units = init.units(SETTING)
    products = make_all(units, given, make)
    student = load_denoiser(products["student"], latents=digest_of(given["codec"] / "codec.json"))
    assert student.spec == SETTING.denoiser
    changed = {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")}
    assert len(changed) == len(units)
    assert make_all(units, given, make) == products
    assert {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")} == changed


def test_none_has_the_weights_of_a_cell_that_starts_from_nothing(given, work_root):
    """Such a cell at a rate at which nothing moves."""
    products = make_all(NoInit().units(SETTING), given, make)
    still = make_cell(num_steps=1, muon=False).training
    still = dataclasses.replace(still, optimizer=dataclasses.replace(still.optimizer, learning_rate=1e-30))
    cell = dataclasses.replace(make_cell(), training=still)
    trained = weights(run_unit("cell", cell, {"codec": given["codec"]}) / "out")
    assert all(torch.allclose(w, trained[name], atol=1e-20) for name, w in weights(products["student"]).items())
    other = make_all(NoInit().units(SETTING._replace(seed=1)), given, make)
    assert not same(weights(products["student"]), weights(other["student"]))


@pytest.mark.parametrize("origin", ["causal", "bidirectional"])
def test_teacher_has_the_weights_of_the_teacher_under_causal_attention(origin, given, work_root):
    (unit,) = TeacherInit().units(SETTING)
    made = make(unit, {"codec": given["codec"], "teacher": given[origin]}) / "out"
    assert same(weights(made), weights(given[origin]))
    if origin == "causal":  # what starts from the one is what starts from the other
        assert digest_of(made) == digest_of(given["causal"])


def test_regression_reads_the_teacher_of_its_trajectories_and_starts_from_the_causal_one():
    for attention, context in (("bidirectional", "noisy"), ("causal", "clean")):
        stored, train = OdeRegression(attention, TRAINING, num_clips=8, num_steps=4).units(SETTING)
        assert stored.work == MakeTrajectories(FEW, num_steps=4, num_clips=8)
        assert stored.reads == {"codec": "codec", "teacher": attention}
        assert isinstance(train.work, TrainCell)
        assert train.work.method == OnTrajectories(context, FEW)
        assert train.reads == {"codec": "codec", "init": "causal", "trajectories": stored.name}


def test_consistency_is_the_cell_of_teacher_forcing_from_the_causal_teacher():
    loss = ConsistencyDistillation(solver="euler")
    (unit,) = ConsistencyInit(TRAINING, loss).units(SETTING)
    assert unit.work == SETTING.cell(TeacherForcing(1, FEW), loss, TRAINING)
    assert unit.reads == {"codec": "codec", "init": "causal", "teacher": "causal"}


@pytest.mark.parametrize("init", INITS_TO_MAKE[2:], ids=lambda init: type(init).__name__)
def test_training_starts_from_the_causal_teacher(init, given, work_root):
    *before, last = init.units(SETTING)
    work = last.work
    products = make_all(before, given, make)
    start = work.start(last.inputs(products), digest_of(given["codec"] / "codec.json"), 4)
    assert same(start.student.state_dict(), weights(given["causal"]))


def test_the_regressions_on_two_teachers_differ(given, work_root):
    made = [weights(make_all(init.units(SETTING), given, make)["student"]) for init in INITS_TO_MAKE[2:]]
    for index, these in enumerate(made):
        assert not same(these, weights(given["causal"]))
        assert not any(same(these, those) for those in made[index + 1 :])


def test_the_registry_names_every_init():
    assert list(INITS) == ["none", "teacher", "ode_regression", "consistency"]
    assert {type(init) for init in INITS_TO_MAKE} == set(INITS.values())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"teacher_attention": "full"}, "teacher_attention must be one of causal, bidirectional, got 'full'"),
        ({"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
    ],
)
def test_impossible_regressions_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        OdeRegression(**{"teacher_attention": "causal", "training": TRAINING, **fields})


def test_steps_that_miss_the_levels_of_the_sampler_are_refused_before_any_work():
    with pytest.raises(ValueError, match=r"num_steps must be a multiple of sampler.num_steps, .*: 5 and 2"):
        OdeRegression("causal", TRAINING, num_steps=5).units(SETTING)


def test_a_teacher_of_other_latents_is_refused(given, work_root):
    (given["codec"] / "codec.json").write_text('{"another": 1}')
    with pytest.raises(ValueError, match="must speak the latents of the codec"):
        make_all(TeacherInit().units(SETTING), given, make)
