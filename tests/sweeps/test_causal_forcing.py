"""A tiny comparison of ways to begin, from its units to its tables; and what these units have in common."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.causal_forcing import CausalForcing
from pipeline.config import parse_params
from pipeline.data.store import ClipStore, to_video
from pipeline.evaluation.features import standardise
from pipeline.losses.dmd import Dmd
from pipeline.methods.self_forcing import SelfForcing
from pipeline.models.clip_encoder import ClipEncoder, ClipEncoderSpec, save_clip_encoder
from pipeline.models.codec import new_codec, save_codec
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec, save_digit_reader
from pipeline.training.init import CONTEXTS, Setting
from pipeline.training.loop import TrainingSpec
from pipeline.unit import digest_of
from sweeps import causal_forcing
from tests.parameters import raw

INITS = ["teacher", "ode_regression_causal", "ode_regression_bidirectional", "consistency"]
GIVEN = ("prepare", "features", "codec", "causal", "bidirectional")
TRAINING = TrainingSpec(4, batch_size=4, report_every=2, checkpoint_every=4)
ROLLOUT = TrainingSpec(2, batch_size=4, report_every=1, checkpoint_every=2)
EXPERIMENT = CausalForcing(
    TRAINING, ROLLOUT, Dmd(critic_updates=1), num_trajectories=8, num_steps=4, num_heldout=6, num_clips=24
)


def tiny():
    """The default parameters, of the smallest networks that work, in pixels."""
    params = raw()
    params["codec"] = None
    params["prepare"] |= {"num_train": 64, "num_metric": 64, "num_test": 128}
    params["features"] |= {"num_gate_clips": 16}
    params["denoiser"]["backbone"] = {"patch": 8, "width": 16, "depth": 1, "num_heads": 2}
    bits = {"num_clips": 8, "num_levels": 32, "num_draws": 2}
    params["evaluate"] = {"num_clips": 32, "num_bootstraps": 8, "num_timed": 1, "num_neighbours": 3, "bits": bits}
    for section in ("ablation", "grid"):
        params[section]["num_clips"] = 24
    return parse_params(params)


@pytest.fixture
def workspace(tmp_path, work_root, monkeypatch):
    """What the default run would have made: clips, metric networks that are hardly trained, latents, teachers."""
    params, artifacts = tiny(), tmp_path / "artifacts"
    for _ in params.prepare.run(tmp_path / "unit", {}):
        pass
    artifacts.mkdir()
    (tmp_path / "unit" / "out").rename(artifacts / "prepare")
    store, codec = ClipStore(artifacts / "prepare"), new_codec(None, (1, 16, 16))
    torch.manual_seed(0)
    encoder = ClipEncoder(ClipEncoderSpec(width=4, feature_dim=12)).eval().requires_grad_(False)
    standardise(encoder, store.clips("test")[:64, :8])
    for name in ("features", "codec"):
        (artifacts / name).mkdir()
    save_clip_encoder(encoder, artifacts / "features", {})
    save_digit_reader(DigitReader(DigitReaderSpec(width=4, feature_dim=8)), artifacts / "features", {})
    save_codec(codec, artifacts / "codec")
    np.save(artifacts / "codec" / "train.npy", codec.encode(to_video(store.clips("train"))).numpy())
    latents = digest_of(artifacts / "codec" / "codec.json")
    for name in ("causal", "bidirectional"):
        teacher = Denoiser(params.teacher_unit(name).denoiser)
        torch.nn.init.normal_(teacher.backbone.head.weight, std=0.1)
        save_denoiser(teacher, artifacts / "teacher" / name, latents=latents)
    monkeypatch.chdir(tmp_path)
    return params


def table(name):
    with Path("reports", "causal_forcing", name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_init_has_its_line_and_a_second_call_makes_nothing(workspace, work_root, capsys):
    causal_forcing.compare(EXPERIMENT, workspace)
    rows = table("inits.csv")
    assert [row["init"] for row in rows] == INITS
    assert [row["updates"] for row in rows] == ["0", "4", "4", "4"]
    assert {row["rollout_updates"] for row in rows} == {"2"}
    for column in ("residual_causal", "residual_bidirectional", "excess", "rollout_excess"):
        assert len({row[column] for row in rows}) == 4, column  # none is another's
    residuals = table("residuals.csv")
    assert len(residuals) == 4 * 2 * (4 + 8)
    for row in rows:
        assert float(row["excess_low"]) < float(row["excess"]) < float(row["excess_high"])
        own = [r for r in residuals if r["init"] == row["init"] and r["teacher"] == "causal" and not r["frame"]]
        mean = np.mean([float(r["residual"]) for r in own])
        assert mean == pytest.approx(float(row["residual_causal"]))
    about = json.loads(Path("reports/causal_forcing/run.json").read_text())
    assert about["params"]["num_heldout"] == 6
    assert about["failed"] == {}
    assert capsys.readouterr().out.count("ode_regression_bidirectional") == 1

    units = {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")}
    # 4 stores; and of each init: itself, 2 measures of clips, 2 residuals and a rollout
    assert len(units) == 4 + 4 * 6
    before = digest_of(Path("reports/causal_forcing"))
    causal_forcing.compare(EXPERIMENT, workspace)
    assert {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")} == units
    assert digest_of(Path("reports/causal_forcing")) == before


def only_regressions(experiment):
    """In the place of `inits`."""
    return {f"ode_regression_{attention}": experiment.regression(attention) for attention in CONTEXTS}


def make_but_one(task, on_share):
    """In the place of `make`: one regression fails."""
    if any(unit.reads.get("trajectories") == "bidirectional_train" for unit in task.units):
        raise FloatingPointError("student_loss is nan at step 3")
    return causal_forcing.make(task, on_share)


@pytest.mark.slow
def test_an_init_that_fails_is_named_and_the_others_go_on(workspace, monkeypatch, capsys):
    monkeypatch.setattr(CausalForcing, "inits", only_regressions)
    monkeypatch.setattr(causal_forcing, "make", make_but_one)
    with pytest.raises(SystemExit) as ended:
        causal_forcing.compare(EXPERIMENT, workspace)
    assert ended.value.code == 1
    assert "1 of 2 inits failed: ode_regression_bidirectional" in capsys.readouterr().err
    assert [row["init"] for row in table("inits.csv")] == ["ode_regression_causal"]


def test_without_the_teachers_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("prepare", "features", "codec"):
        Path("artifacts", name).mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match="teacher/causal must be there: run python3 -m pipeline repro first"
    ):
        causal_forcing.compare(EXPERIMENT, tiny())


def test_inits_differ_in_how_they_begin_alone():
    params = tiny()
    setting = Setting(params.denoiser, params.sampler, params.seed, 1)
    after = []
    for name, init in EXPERIMENT.inits().items():
        units = EXPERIMENT.units(name, setting, SelfForcing(params.sampler), params.evaluate)
        begin = init.units(setting)
        assert units[: len(begin)] == begin
        after.append(units[len(begin) :])
        measured = [unit.work for unit in units if unit.kind == "evaluate"]
        assert [work.sampler for work in measured] == [params.sampler] * 2
        assert {(work.num_clips, work.bits, work.num_threads) for work in measured} == {(24, None, 1)}
        assert all(source in {*GIVEN, *(u.name for u in units)} for unit in units for source in unit.reads.values())
    assert all(rest == after[0] for rest in after)
    assert [init.training for name, init in EXPERIMENT.inits().items() if name != "teacher"] == [TRAINING] * 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_heldout": 1}, "num_heldout must be at least 2, got 1"),
        ({"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
        ({"num_trajectories": 0}, "num_clips must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    ],
)
def test_impossible_experiments_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(EXPERIMENT, **changes)
