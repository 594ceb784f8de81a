"""Every wrong parameter is named with its rule and its value."""

import math

import pytest

from pipeline.config import parse_params
from pipeline.schema import ConfigError
from tests.parameters import changed


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
