"""Parameters: what is wrong is said in one line, before anything runs."""

import copy
import hashlib
import math
import subprocess
import sys
from functools import cache

import pytest
from ruamel.yaml import YAML

from pipeline.config import load_params, parse_params
from pipeline.params import Checkpoint
from pipeline.schema import ConfigError
from pipeline.unit import PROJECT
from pipeline.workspace import merged_params


@cache
def parsed():
    return YAML(typ="safe", pure=True).load((PROJECT / "params.yaml").read_text())


def raw():
    return copy.deepcopy(parsed())


def refusal(params):
    """What is said against these parameters, or nothing."""
    try:
        parse_params(params)
    except ConfigError as error:
        return str(error)
    return ""


def changed(path, value):
    params = raw()
    *parents, last = path.split(".")
    node = params
    for name in parents:
        node = node[name]
    node[last] = value
    return params


def leaves(node, path=""):
    if not isinstance(node, dict):
        return [path.removeprefix(".")]
    return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}")]


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


def test_without_a_codec_the_backbone_takes_pixels():
    params = parse_params(changed("codec", None))
    assert (params.denoiser.backbone.channels, params.denoiser.backbone.frame_size) == (1, 16)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("seed", "0", r"seed: input should be a valid integer, got '0'"),
        ("seed", True, r"seed: input should be a valid integer, got True"),
        ("num_threads", 0, r"num_threads must be at least 1, got 0"),
        ("teacher.causal.training.batch_size", 1.5, r"teacher.causal.training.batch_size: .*integer.*, got 1.5"),
        ("teacher.causal.training.momentum", 1, r"teacher.causal.training.momentum is not a parameter; known here"),
        (
            "teacher.causal.method.name",
            "forced",
            r"teacher.causal.method.name must be one of bidirectional, .*, got",
        ),
        (
            "teacher.causal.method.noise_levels.clean_probability",
            1.0,
            r"teacher.causal.method.noise_levels: clean_probability must be in \[0, 1\), got 1.0",
        ),
        ("distill.losses.dmd.critic_updates", 0, r"distill.losses.dmd: critic_updates must be at least 1, got 0"),
        ("distill.losses.wgan", {}, r"distill.losses.wgan.name must be one of l2, dmd, gan, .*, got 'wgan'"),
        ("distill.losses.l2", {}, r"distill.training must be exactly those of distill.losses: missing l2"),
        ("distill.losses", {}, r"distill.losses must name at least one loss"),
        (
            "distill.losses.dmd.name",
            "gan",
            r"distill.losses.dmd.name is not a parameter; known here",
        ),
        ("sampler.first_chunk_len", 0, r"sampler: first_chunk_len must be at least 1, got 0"),
        ("sampler.first_chunk_len", 2, r"sampler.first_chunk_len must be absent: under causal attention"),
        ("sampler.chunk_len", 2, r"teacher.causal.sampler.chunk_len must be sampler.chunk_len.*: 1 and 2"),
        (
            "teacher.causal.sampler.first_chunk_len",
            1,
            r"teacher.causal.sampler.first_chunk_len must be absent: .*, got 1",
        ),
        (
            "teacher.causal.method",
            {"name": "self_forcing"},
            r"teacher.causal.loss: l2 needs a target, and a frame that self_forcing",
        ),
        (
            "teacher.bidirectional.loss",
            {"name": "dmd"},
            r"teacher.bidirectional.loss must be one that needs no teacher itself, got dmd",
        ),
        ("prepare.num_train", 2_047, r"evaluate.num_clips must be at most prepare.num_train: 2048 and 2047"),
        (
            "features.num_gate_clips",
            2_049,
            r"features.num_gate_clips must be at most half of prepare.num_test: 2049 and 2048",
        ),
        ("features.encoder_width", 0, r"features: encoder_width must be even and at least 2, got 0"),
        ("features.encoder_width", 3, r"features: encoder_width must be even and at least 2, got 3"),
        ("features.num_threads", 1, r"features.num_threads is not a parameter"),
        (
            "denoiser.prediction",
            "eps",
            r"denoiser: prediction must .* alpha\(1\).*prediction=eps, alpha\(1\)=0 of FlowMatching\(.*shift=2.0\)",
        ),
        ("denoiser.backbone.patch", 0, r"denoiser.backbone: patch must be at least 1, got 0"),
        ("denoiser.backbone.num_heads", 0, r"denoiser.backbone: num_heads must be at least 1, got 0"),
        ("denoiser.backbone.width", 0, r"denoiser.backbone: width must be at least 1, got 0"),
        (
            "distill.training.dmd.optimizer.beta1",
            1.0,
            r"distill.training.dmd.optimizer: beta1 must be in \[0, 1\), got 1.0",
        ),
        (
            "teacher.causal.training.ema_decay",
            math.nan,
            r"teacher.causal.training.ema_decay must be finite, got nan",
        ),
        ("features.learning_rate", math.inf, r"features.learning_rate must be finite, got inf"),
        (
            "checkpoints.distill-wgan",
            {"stage": "distill", "item": "wgan"},
            r"checkpoints must be exactly both teachers, .* every loss .*: too much distill-wgan",
        ),
        (
            "checkpoints.distill-gan",
            {"stage": "rollout", "item": "gan"},
            r"checkpoints.distill-gan must be the stage, the item and the few_steps of its name, got rollout, gan",
        ),
        ("evaluate.i3d_path", "absent.pt", r"evaluate: i3d_path and i3d_sha256.* must be given together"),
        ("distill.method.sampler", {}, r"distill.method.sampler is not a parameter"),
        ("sampler.schedule.shift", 0.0, r"sampler.schedule: shift must be above 0, got 0.0"),
        (
            "sampler.step.name",
            "leap",
            r"sampler.step.name must be one of renoise, .*, got 'leap'",
        ),
        (
            "denoiser.schedule.name",
            "linear",
            r"denoiser.schedule.name must be one of flow_matching, .*, got",
        ),
        (
            "teacher.causal.loss.weighting.name",
            "plain",
            r"teacher.causal.loss.weighting.name must be one of elbo, prediction_l2, .*, got 'plain'",
        ),
        (
            "teacher.causal.method.noise_levels.name",
            "steep",
            r"teacher.causal.method.noise_levels.name must be one of shared, independent, .*, got 'steep'",
        ),
        (
            "teacher.causal.method.noise_levels",
            {"name": "path_uniform"},
            r"teacher.causal.method.noise_levels.num_levels must be given",
        ),
        (
            "distill.method.noise_levels",
            {"name": "shared"},
            r"distill.method: noise_levels must be independent, without num_levels, where a sampler lists",
        ),
        (
            "teacher.causal.training.adaptive",
            {"low": 5.0, "high": 1.0},
            r"teacher.causal.training.adaptive: high must be above 5.0, got 1.0",
        ),
        ("rollout.method.sampler", {}, r"rollout.method.sampler is not a parameter"),
        (
            "sampler.chunk_len",
            3,
            r"sampler.chunk_len: clip length must be a multiple of chunk_len: T=8, chunk_len=3",
        ),
        ("prepare.num_frames", 7, r"teacher.bidirectional.sampler: .*T=7|.* must be prepare.num_frames"),
        ("prepare.source.speed_min", -1.0, r"prepare.source: speed_min must be above 0"),
        ("prepare.heldout_len_factor", 1, r"prepare.heldout_len_factor must be at least 2"),
        ("codec.network.downsample", 6, r"codec.network: frame size must be a multiple of downsample: 16x16"),
        (
            "denoiser.backbone.patch",
            3,
            r"denoiser.backbone: patch must divide the latent frame: patch=3, frame_size=4",
        ),
        (
            "denoiser.prediction",
            "noise",
            r"denoiser: prediction must be one of x0, eps, v, score, edm, flow_velocity, got 'noise'",
        ),
        ("denoiser.schedule.shift", 0.0, r"denoiser.schedule: shift must be above 0, got 0.0"),
        (
            "evaluate.num_clips",
            4_096,
            r"evaluate.num_clips must be at most half of prepare.num_test: 4096 and 2048",
        ),
        ("evaluate", 3, r"evaluate must be a mapping of parameters, got 3"),
        ("evaluate.bits.num_draws", 1, r"evaluate.bits: num_draws must be at least 2, got 1"),
        (
            "evaluate.bits.num_clips",
            4_096,
            r"evaluate: num_clips of bits must be at most num_clips: bits.num_clips=4096, num_clips=2048",
        ),
        (
            "evaluate.bits.log_snr_min",
            -60.0,
            r"evaluate.bits: log_snr must be finite and fall .* under FlowMatching\(.*shift=2.0\)",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_its_rule_and_value(path, value, says):
    with pytest.raises(ConfigError, match=says) as error:
        parse_params(changed(path, value))
    assert "\n" not in str(error.value)


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
    for path in leaves(raw()):
        said = refusal(changed(path, value))
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
