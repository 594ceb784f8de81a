import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.data.moving_blob import BlobSystem, MovingBlob
from pipeline.data.store import ClipStore, Prepare
from pipeline.diffusion.autoregress import Sampler
from pipeline.evaluation.comparison import ClipSets
from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.features import standardise
from pipeline.evaluation.known_density import (
    by_frame,
    compare_known_density,
    largest_residual,
    measure,
    read,
    step_log_densities,
)
from pipeline.evaluation.metric_networks import clip_encoder_spec, metric_clips, train_clip_encoder
from pipeline.models.backbone import BackboneSpec
from pipeline.models.clip_encoder import ClipEncoder, ClipEncoderSpec, save_clip_encoder
from pipeline.models.codec import new_codec, save_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, save_denoiser
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec, save_digit_reader
from pipeline.streams import numpy_stream
from pipeline.unit import canonical_json, digest_of

BLOB = MovingBlob()
ONE = MovingBlob(systems=(BlobSystem("turns", 1.0, (-3.0, 0.0), start_std=0.6, turn=20.0, decay=1.0, noise=0.15),))


def drawn(source, num_clips=1500, num_frames=8, seed=0):
    """As generated clips are: uint8 tensors."""
    return torch.from_numpy(source.clips("test", num_clips, num_frames, numpy_stream(seed, "test")).frames)


def changed(source, **changes):
    """Every system changed."""
    return dataclasses.replace(
        source, systems=tuple(dataclasses.replace(system, **changes) for system in source.systems)
    )


def test_the_mean_log_density_of_the_data_is_less_its_entropy():
    """Of one Gaussian: d/2 ln 2 pi e + ln det / 2."""
    law = ONE.law(8)
    entropy = 8 * math.log(2 * math.pi * math.e) + law.factors[0].diagonal().log().sum().item()
    found = measure(ONE, read(ONE, drawn(ONE)))
    assert found["read_share"] == 1
    assert found["standard_error"] == pytest.approx(math.sqrt(8 / 1500), rel=0.1)  # of half a chi^2 of 16
    assert abs(found["log_density"] + entropy) < 4 * found["standard_error"]


@pytest.mark.parametrize("noise", [0.12, 0.2])
def test_the_gap_of_another_process_is_its_divergence_and_the_change_of_entropy(noise):
    """E_p[-ln q] of a noise s' where the data's is s: each of 2 (T - 1) draws adds (s'^2 / s^2 - 1) / 2 nats."""
    other = changed(ONE, noise=noise)
    ours, theirs = (measure(ONE, read(ONE, drawn(source))) for source in (other, ONE))
    expected = -14 * ((noise / 0.15) ** 2 - 1) / 2
    error = math.hypot(ours["standard_error"], theirs["standard_error"])
    assert abs(ours["log_density"] - theirs["log_density"] - expected) < 4 * error


def test_systems_are_counted_by_their_posterior():
    shares = zip(BLOB.systems, (0.9, 0.05, 0.05), strict=True)
    lost = dataclasses.replace(
        BLOB, systems=tuple(dataclasses.replace(system, share=share) for system, share in shares)
    )
    clips = lost.clips("test", 1500, 8, numpy_stream(0, "test"))
    found = measure(BLOB, read(BLOB, torch.from_numpy(clips.frames)))["system_shares"]
    drawn_shares = np.bincount(clips.labels["class"][:, 0]) / 1500
    assert list(found) == ["left", "right", "wander"]
    assert list(found.values()) == pytest.approx(drawn_shares, abs=0.01)


def test_steps_add_up_to_the_path():
    paths = read(BLOB, drawn(BLOB, num_clips=40)).paths
    steps = step_log_densities(BLOB.law(8), paths)
    torch.testing.assert_close(steps.sum(1), BLOB.law(8).log_density(paths.flatten(1)))


def test_a_step_of_one_system_is_a_gaussian_about_where_the_last_position_leads():
    paths = read(ONE, drawn(ONE, num_clips=40)).paths
    z = paths - 7.5
    ahead = z[:, :-1] @ torch.from_numpy(ONE.systems[0].matrix).T
    expected = torch.distributions.Normal(ahead, 0.15).log_prob(z[:, 1:]).sum(-1)
    torch.testing.assert_close(step_log_densities(ONE.law(8), paths)[:, 1:], expected)


def test_the_step_at_which_clips_leave_the_process_is_seen():
    clips = drawn(ONE)
    clips[:, 5] = drawn(ONE, seed=1)[:, 5]  # of other clips
    ours, theirs = read(ONE, clips), read(ONE, drawn(ONE, seed=2))
    frames = by_frame(ONE, ours, theirs)
    gap = np.subtract(frames["log_density"], frames["log_density_real"])
    assert np.abs(gap[:5]).max() < 0.2
    assert gap[5] < -3
    assert max(frames["distance"]) < 0.01  # and no frame by itself shows it


def test_moments_by_frame_are_those_of_the_law_and_their_distance_the_shift():
    clips = read(BLOB, drawn(BLOB))
    shifted = dataclasses.replace(clips, paths=clips.paths + torch.tensor([0.0, 0.5]))
    frames = by_frame(BLOB, shifted, clips)
    law = BLOB.law(8)
    assert frames["mean_x_law"] == pytest.approx(law.mean[1::2].tolist())
    assert frames["cov_yx_law"] == pytest.approx(law.covariance.diagonal(1)[::2].tolist())
    assert np.subtract(frames["mean_x"], frames["mean_x_law"]) == pytest.approx(0.5, abs=0.3)
    for axis, name in enumerate("yx"):
        assert frames[f"mean_{name}"] == pytest.approx(shifted.paths[:, :, axis].mean(0).tolist())
        assert frames[f"cov_{name}{name}"] == pytest.approx(shifted.paths[:, :, axis].var(0).tolist())
    apart = (torch.tensor(frames["mean_x"]) - torch.tensor(frames["mean_x_law"])).square()
    assert (torch.tensor(frames["distance"]) > 0.9 * apart).all()
    assert max(frames["distance_real"]) < 0.05


def test_what_shows_no_blob_is_not_read_and_only_counted():
    clips = drawn(BLOB, num_clips=100)
    clips[:30, 4] = 0
    clips[30:40, 2] = clips[30:40, 2] // 2
    reading = read(BLOB, clips)
    assert reading.share == 0.6
    assert measure(BLOB, reading) == measure(BLOB, read(BLOB, clips[40:])) | {"read_share": 0.6}


@pytest.mark.parametrize("num_clips", [0, 1])
def test_too_few_clips_have_no_numbers(num_clips):
    clips = drawn(BLOB, num_clips=8)
    clips[num_clips:] = 0
    real, start = drawn(BLOB, num_clips=8, seed=1), clips[:, :4]
    sets = ClipSets(
        generated=start, longer=clips, reference=real, held_out=real, reconstructed=start, training=start
    )
    compared = compare_known_density(BLOB, sets)
    assert compared["generated"]["read_share"] == num_clips / 8
    assert (compared["generated"]["log_density"] is None) == (num_clips == 0)
    assert compared["generated"]["standard_error"] is None
    assert compared["frames"]["log_density"] == compared["frames"]["distance"] == [None] * 8
    assert None not in compared["frames"]["log_density_real"]
    canonical_json(compared)


def test_the_residual_that_is_allowed_moves_the_density_little():
    """An error of a tenth of the noise at both ends of a step adds 2 0.1^2 to its variance, in each coordinate."""
    rng = np.random.default_rng(0)
    found = read(ONE, drawn(ONE))
    error = ONE.read_out_error(largest_residual(ONE))
    assert error == pytest.approx(0.015)
    noisy = found.paths + torch.from_numpy(rng.normal(0, error, found.paths.shape))
    gap = (ONE.law(8).log_density(found.paths.flatten(1)) - ONE.law(8).log_density(noisy.flatten(1))).mean()
    assert gap == pytest.approx(7 * 2 * (2 * 0.1**2) / 2, abs=0.06)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Blob clips in pixels, networks that are hardly trained."""
    root = tmp_path_factory.mktemp("blob")
    for _ in Prepare(source=BLOB, num_frames=4, num_train=40, num_metric=20, num_test=80).run(root / "unit", {}):
        pass
    for name in ("features", "codec"):
        (root / name).mkdir()
    store = ClipStore(root / "unit" / "out")
    torch.manual_seed(0)
    encoder = ClipEncoder(ClipEncoderSpec(num_frames=4, width=4, feature_dim=12)).eval().requires_grad_(False)
    standardise(encoder, store.clips("test")[:40, :4])
    save_clip_encoder(encoder, root / "features", {})
    save_digit_reader(DigitReader(DigitReaderSpec(width=4, feature_dim=8)), root / "features", {})
    save_codec(new_codec(None, BLOB.frame_shape), root / "codec")
    spec = DenoiserSpec(BackboneSpec(channels=1, frame_size=16, patch=8, width=16, depth=1, num_heads=2))
    save_denoiser(Denoiser(spec), root / "student", latents=digest_of(root / "codec" / "codec.json"))
    names = {"clips": "unit/out", "features": "features", "codec": "codec", "student": "student"}
    return {name: root / path for name, path in names.items()}


def test_evaluation_of_blobs_says_how_likely_they_are(finish, inputs, tmp_path):
    evaluate = Evaluate(
        num_frames=4,
        sampler=Sampler(num_steps=1, window=3),
        num_clips=32,
        num_bootstraps=4,
        num_timed=1,
        num_neighbours=3,
    )
    _, metrics = finish(evaluate.run(tmp_path, inputs))
    found = metrics["known_density"]
    real = torch.from_numpy(np.array(ClipStore(inputs["clips"]).clips("test")[40:72]))
    assert found["real"] == found["codec"] == measure(BLOB, read(BLOB, real[:, :4]))
    assert found["real_longer"] == measure(BLOB, read(BLOB, real))
    assert found["generated"]["read_share"] == 0  # of an untrained student
    assert found["data_shares"] == {"left": 0.5, "right": 0.3, "wander": 0.2}


def test_metric_networks_learn_from_the_labels_of_blobs(inputs):
    store = ClipStore(inputs["clips"])
    data = metric_clips(np.asarray(store.clips("metric")), store.labels("metric"))
    spec = clip_encoder_spec(data.frames, num_frames=4, width=4)
    steps = train_clip_encoder(spec, data, num_steps=60, batch_size=16, learning_rate=4e-3, seed=0)
    losses = [loss["position_loss"] for _, loss in steps]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
