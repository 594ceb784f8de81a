"""Parameters: what is wrong is said in one line, before anything runs."""

import hashlib
import json
import math
import subprocess
import sys

import pytest

from pipeline.config import load_params, parse_params
from pipeline.data.moving_blob import MovingBlob
from pipeline.params import Checkpoint
from pipeline.schema import ConfigError
from pipeline.unit import PROJECT
from pipeline.workspace import merged_params
from tests.parameters import changed, raw


def test_the_default_parameters_are_whole_and_the_units_follow_from_them():
    params = load_params(PROJECT / "params.yaml")
    student = params.student_unit("rollout", "dmd")
    assert student.method.sampler == params.student_unit("distill", "dmd").method.sampler == params.sampler
    assert params.teacher_unit("causal").method.sampler is None
    assert student.denoiser.backbone.attention == "causal"
    assert params.teacher_unit("bidirectional").denoiser.backbone.attention == "full"
    assert params.evaluate_unit(Checkpoint("teacher", "causal")).sampler == params.teacher["causal"].sampler
    assert params.evaluate_unit(Checkpoint("rollout", "gan")).sampler == params.sampler
    few_steps = params.evaluate_unit(Checkpoint("teacher", "causal", few_steps=True))
    assert (few_steps.sampler, few_steps.bits) == (params.sampler, None)


def test_bits_are_measured_of_the_checkpoints_that_bound_a_likelihood():
    params = changed("distill.losses.l2", {})
    params["distill"]["training"]["l2"] = {"num_steps": 1}
    params["checkpoints"]["distill-l2"] = {"stage": "distill", "item": "l2"}
    params = parse_params(params)
    for name, checkpoint in params.checkpoints.items():
        bits = params.evaluate_unit(checkpoint).bits
        measured = name in ("teacher-causal", "teacher-bidirectional", "distill-l2")
        assert bits == (params.evaluate.bits if measured else None), name
    assert parse_params(changed("evaluate.bits", None)).evaluate_unit(Checkpoint("teacher", "causal")).bits is None


@pytest.mark.parametrize("overlay", sorted((PROJECT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_is_whole(overlay, tmp_path):
    text = merged_params((PROJECT / "params.yaml").read_text(), overlay.read_text(), overlay.stem)
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").profile == overlay.stem


def blob(systems):
    """The default parameters with another source."""
    params = raw()
    params["prepare"]["source"] = {"name": "moving_blob", "systems": systems}
    return params


def test_a_source_of_named_systems_is_built_and_refused_with_its_path():
    system = {"name": "left", "share": 1.0, "start": [-3, 0], "start_std": 0.5, "turn": 20.0}
    assert parse_params(blob([system])).prepare.source.systems[0].start == (-3.0, 0.0)
    with pytest.raises(ConfigError, match=r"^prepare.source.systems\[0\]: noise must be above 0, got 0.0$"):
        parse_params(blob([system | {"noise": 0.0}]))
    with pytest.raises(ConfigError, match=r"^prepare.source.systems\[0\].speed is not a parameter"):
        parse_params(blob([system | {"speed": 1.0}]))


def test_clips_that_are_longer_than_blobs_stay_in_the_frame_are_refused():
    params = blob([{"name": "only", "share": 1.0, "start_std": 1.0}])
    params["prepare"]["source"]["max_frames"] = 15
    with pytest.raises(
        ConfigError, match=r"max_frames must be at least num_frames \* heldout_len_factor, 16: got 15"
    ):
        parse_params(params)


def test_the_profile_of_blobs_writes_out_the_default_systems(tmp_path):
    text = merged_params(
        (PROJECT / "params.yaml").read_text(), (PROJECT / "profiles/blob.yaml").read_text(), "blob"
    )
    (tmp_path / "params.yaml").write_text(text)
    params = load_params(tmp_path / "params.yaml")
    assert params.prepare.source == MovingBlob()
    assert params.prepare.num_frames * params.prepare.heldout_len_factor <= MovingBlob().max_frames


def test_more_classes_than_metric_networks_have_are_refused():
    systems = [{"name": str(k), "share": 1 / 11} for k in range(11)]
    with pytest.raises(ConfigError, match=r"prepare.source must have at most 10 classes, .*: got 11$"):
        parse_params(blob(systems))


def test_without_a_codec_the_backbone_takes_pixels():
    params = parse_params(changed("codec", None))
    assert (params.denoiser.backbone.channels, params.denoiser.backbone.frame_size) == (1, 16)


def test_more_exit_steps_than_sampling_steps_cannot_be_said():
    with pytest.raises(ConfigError, match=r"rollout.method.num_steps is not a parameter"):
        parse_params(changed("rollout.method.num_steps", 9))


def test_self_forcing_with_l2_is_refused_with_its_reason():
    params = changed("rollout.losses", {"l2": {}})
    params["rollout"]["training"]["l2"] = {"num_steps": 1}
    with pytest.raises(ConfigError, match=r"rollout.losses.l2: l2 needs a target, and a frame that self_forcing"):
        parse_params(params)


def test_a_missing_and_an_unknown_section_are_named():
    params = raw()
    del params["codec"]
    params["codek"] = {}
    with pytest.raises(ConfigError, match="missing or unknown: codec, codek"):
        parse_params(params)


def test_a_number_may_be_written_as_yaml_1_2_writes_it(tmp_path):
    text = (PROJECT / "params.yaml").read_text().replace("learning_rate: 4.0e-3", "learning_rate: 4e-3")
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").features.learning_rate == 4e-3


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "x", None], ids=repr)
def test_whatever_stands_in_a_leaf_is_accepted_or_refused_in_one_line(value):
    """Without the hook that checks types at every call, which makes this ten times slower."""
    tried = [sys.executable, "-m", "tests.every_leaf", json.dumps(value)]
    found = json.loads(subprocess.run(tried, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)
    assert len(found) > 600
    for path, said in found.items():
        assert "\n" not in said, path
        assert said or not isinstance(value, float) or math.isfinite(value), path


def test_frames_that_the_clip_encoder_cannot_take_are_refused():
    params = changed("prepare.source.frame_size", 20)
    params["denoiser"]["backbone"]["patch"] = 5
    with pytest.raises(ConfigError, match=r"prepare.source: frame_size must be a multiple of 8, got 20"):
        parse_params(params)


def test_a_loss_that_is_taken_away_must_go_from_every_stage():
    params = raw()
    del params["distill"]["losses"]["gan"], params["distill"]["training"]["gan"]
    with pytest.raises(ConfigError, match=r"rollout.losses must be among distill.losses, .*: gan is not"):
        parse_params(params)
    del params["rollout"]["losses"]["gan"], params["rollout"]["training"]["gan"]
    with pytest.raises(ConfigError, match=r"checkpoints must .*: too much distill-gan, rollout-gan"):
        parse_params(params)
    del params["checkpoints"]["distill-gan"], params["checkpoints"]["rollout-gan"]
    assert list(parse_params(params).rollout.losses) == ["dmd"]


def test_a_loss_that_is_added_must_be_evaluated():
    params = changed("distill.losses.l2", {})
    params["distill"]["training"]["l2"] = {"num_steps": 1}
    with pytest.raises(ConfigError, match=r"checkpoints must .*: missing distill-l2"):
        parse_params(params)
    params["checkpoints"]["distill-l2"] = {"stage": "distill", "item": "l2"}
    assert parse_params(params).student_unit("distill", "l2").training.num_steps == 1


def test_a_given_i3d_is_found_from_the_project_and_compared_with_its_checksum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256((PROJECT / "pyproject.toml").read_bytes()).hexdigest()
    given = {"num_clips": 2048, "i3d_path": "pyproject.toml", "i3d_sha256": digest}
    assert parse_params(changed("evaluate", given)).evaluate.i3d_sha256 == digest
    with pytest.raises(ConfigError, match=rf"evaluate.i3d_sha256 must be that of .*, {digest}, got 1234"):
        parse_params(changed("evaluate", given | {"i3d_sha256": "1234"}))
    with pytest.raises(ConfigError, match=r"evaluate.i3d_path must be a file, got .*absent.pt"):
        parse_params(changed("evaluate", given | {"i3d_path": "absent.pt"}))


def test_the_metric_networks_are_trained_with_the_threads_of_all_others():
    assert parse_params(changed("num_threads", 7)).features.num_threads == 7


@pytest.mark.slow
def test_check_says_one_line_ends_with_2_and_writes_nothing(tmp_path):
    (tmp_path / "params.yaml").write_text(
        (PROJECT / "params.yaml").read_text().replace("num_frames: 8", "num_frames: 9", 1)
    )
    command = [sys.executable, "-m", "pipeline.config", "check", str(tmp_path / "params.yaml")]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("params.yaml: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml"]
