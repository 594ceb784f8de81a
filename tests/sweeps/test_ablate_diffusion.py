"""A tiny ablation from its parameters to its tables; what fails is named, and the rest goes on."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.ablation import Objective
from pipeline.config import parse_params
from pipeline.models.codec import CodecSpec, new_codec, save_codec
from pipeline.schema import ConfigError
from pipeline.unit import PROJECT, digest_of
from stages.entry import stage
from sweeps import ablate_diffusion
from tests.tiny_run import TRAINING, raw

AXES = ("prediction", "weighting", "schedule")


def table(name):
    with Path("reports", "ablation", name).open(newline="") as file:
        return list(csv.DictReader(file))


def make_but_one(teacher, on_share):
    """In the place of `make`: the first objective fails."""
    if teacher.objective == Objective("v", "exponential", "cosine"):
        raise FloatingPointError("student_loss is nan at step 3")
    return ablate_diffusion.make(teacher, on_share)


def end_at_once(teacher, on_share):
    """In the place of `make`: the process is gone, as where memory runs out."""
    sys.exit(7)


@pytest.mark.slow
def test_an_ablation_has_a_line_a_teacher_and_a_second_call_makes_nothing(
    workspace, work_root, artifacts, capsys, request
):
    params = parse_params(raw())
    ablate_diffusion.main(params)
    rows, objectives = table("diffusion.csv"), params.ablation.objectives()
    assert [tuple(row[axis] for axis in AXES) for row in rows] == objectives
    assert all(row["updates"] == "4" for row in rows)
    for row in rows:
        assert float(row["excess_low"]) < float(row["excess"]) < float(row["excess_high"])
        assert float(row["bits_per_dim"]) > 0
        assert float(row["bits_standard_error"]) > 0
    assert len({row["bits_per_dim"] for row in rows}) == len(rows)  # none is another's
    spread = table("spread.csv")
    assert len(spread) == 4 * 2 * 3
    own = [row for row in spread if row["law"] == "training" and row["drawn_under"] == row["schedule"]]
    assert [row["mean"] for row in own] == [row["loss"] for row in rows]
    about = json.loads(Path("reports/ablation/run.json").read_text())
    assert about["codec"] == digest_of(artifacts / "codec")
    assert (about["num_clips"], about["profile"], about["failed"]) == (24, "default", {})
    said = capsys.readouterr().out
    assert len(re.findall(r"^v +exponential +cosine ", said, re.MULTILINE)) == 1
    assert "w = exp(-log_snr / 2), clean context" in said

    units = {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")}
    assert len(units) == 3 * 4
    before = digest_of(Path("reports/ablation"))
    request.getfixturevalue("one_process")
    ablate_diffusion.main(params)
    assert {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")} == units
    assert digest_of(Path("reports/ablation")) == before


@pytest.mark.slow
def test_a_teacher_that_fails_is_named_and_the_others_go_on(workspace, monkeypatch, capsys):
    params = parse_params(raw())
    monkeypatch.setattr(ablate_diffusion, "make", make_but_one)
    with pytest.raises(SystemExit) as ended:
        ablate_diffusion.main(params)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "v + exponential + cosine: student_loss is nan at step 3\n" in said
    assert "1 of 4 teachers failed" in said
    rows = table("diffusion.csv")
    assert [tuple(row[axis] for axis in AXES) for row in rows] == params.ablation.objectives()[1:]
    failed = json.loads(Path("reports/ablation/run.json").read_text())["failed"]
    assert failed == {"v + exponential + cosine": "student_loss is nan at step 3"}


@pytest.mark.slow
def test_a_process_that_is_gone_is_named_and_leaves_no_table(workspace, monkeypatch, capsys):
    monkeypatch.setattr(ablate_diffusion, "make", end_at_once)
    with pytest.raises(SystemExit) as ended:
        ablate_diffusion.main(parse_params(raw()))
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("its process ended with exit code 7\n") == 4
    assert not Path("reports/ablation").exists()


def test_without_the_default_run_one_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((PROJECT / "params.yaml").read_text())
    monkeypatch.setattr(sys, "argv", ["ablate_diffusion"])
    with pytest.raises(SystemExit) as ended:
        stage(ablate_diffusion.main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"{Path('artifacts/prepare')} must be there: run python3 -m pipeline repro first\n"


def test_artifacts_of_older_code_are_refused_before_any_work(tmp_path, artifacts):
    for name in ("prepare", "features"):
        (tmp_path / name).symlink_to(artifacts / name)
    other = new_codec(CodecSpec(), (1, 16, 16))
    (tmp_path / "codec").mkdir()
    save_codec(other, tmp_path / "codec")
    ablate_diffusion.check_inputs(tmp_path)
    old = new_codec(CodecSpec(width=8), (1, 16, 16))
    shutil.copyfile(tmp_path / "codec" / "codec.json", tmp_path / "codec.json")
    save_codec(old, tmp_path / "codec")
    shutil.copyfile(tmp_path / "codec.json", tmp_path / "codec" / "codec.json")
    with pytest.raises(ValueError, match=r"codec must be made by the code of today: run python3 -m pipeline repro"):
        ablate_diffusion.check_inputs(tmp_path)


def test_a_teacher_of_other_latents_is_refused_before_any_work(tmp_path, artifacts):
    for name in ("prepare", "features", "teacher"):
        (tmp_path / name).symlink_to(artifacts / name)
    (tmp_path / "codec").mkdir()
    save_codec(new_codec(CodecSpec(), (1, 16, 16)), tmp_path / "codec")
    ablate_diffusion.check_inputs(tmp_path)
    with pytest.raises(ValueError, match=r"must speak the latents of the codec: .*causal was trained on"):
        ablate_diffusion.check_inputs(tmp_path, teachers=("causal", "bidirectional"))


def test_teachers_differ_in_the_objective_alone():
    params = parse_params(raw())
    causal = params.teacher_unit("causal")
    seen = set()
    for objective in params.ablation.objectives():
        train, evaluate, spread = params.ablation_units(objective)
        assert (train.method, train.denoiser.backbone, train.seed) == (
            causal.method,
            causal.denoiser.backbone,
            causal.seed,
        )
        assert (train.training, train.num_threads) == (params.ablation.training, 1)
        assert train.loss.first_weight == causal.loss.first_weight == 2.0
        assert evaluate.sampler == params.teacher["causal"].sampler
        assert (evaluate.num_clips, evaluate.bits) == (24, params.evaluate.bits)
        assert spread.loss == train.loss
        seen.add((train.denoiser.prediction, repr(train.loss.weighting), repr(train.denoiser.schedule)))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weightings": {"snr": {}}}, r"^ablation\.weightings\.snr\.name must be one of elbo, .*, got 'snr'$"),
        ({"predictions": []}, r"^ablation: predictions must name at least one, got none$"),
        ({"schedules": {}}, r"^ablation: schedules must name at least one, got none$"),
        ({"predictions": ["v", "v"]}, r"^ablation: predictions must be all different, got v, v$"),
        ({"predictions": ["w"]}, r"^ablation\.predictions: prediction must be one of x0, .*, got 'w'$"),
        ({"predictions": ["eps"]}, r"^ablation\.predictions: prediction must .* eps divides by alpha\(1\)"),
        ({"num_clips": 65}, r"^ablation\.num_clips must be at most half of prepare\.num_test, .*: 65 and 64$"),
        ({"num_clips": 3}, r"^ablation: num_clips must be at least 4, got 3$"),
        ({"training": {**TRAINING, "adaptive": {}}}, r"^ablation: training\.adaptive must be null"),
        ({"schedules": {"ddpm": {}}}, r"^ablation\.schedules\.ddpm must reach .* got -10\.1177 to 9\.2102$"),
    ],
)
def test_parameters_that_do_not_fit_are_one_line(changes, says):
    params = raw()
    params["ablation"] |= changes
    with pytest.raises(ConfigError, match=says) as error:
        parse_params(params)
    assert "\n" not in str(error.value)
