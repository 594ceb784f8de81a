import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.data.moving_blob import BlobSystem, MovingBlob, described_blob
from pipeline.data.store import ClipStore, Prepare
from pipeline.evaluation.kinematics import centroids
from pipeline.streams import numpy_stream
from pipeline.unit import as_plain, digest_of

BLOB = MovingBlob()
LEFT = BLOB.systems[0]
RINGS = MovingBlob(  # unlike the default, whose means are all the middle
    systems=(
        BlobSystem("left", share=0.5, start=(-3.5, 0.0), start_std=0.6, turn=20.0, decay=1.0),
        BlobSystem("right", share=0.3, start=(-3.5, 0.0), start_std=0.6, turn=-20.0, decay=1.0),
        BlobSystem("down", share=0.2, start=(-3.5, 0.0), start_std=0.4, decay=0.85, drift=(0.5, 0.0)),
    )
)


def draw(source=BLOB, *, num_clips=2000, num_frames=8, seed=0):
    return source.clips("train", num_clips, num_frames, numpy_stream(seed, "test"))


def paths(clips):
    """Of the labels, as points of the law."""
    return torch.from_numpy(clips.labels["position"].astype(np.float64)).flatten(1)


def alone(**changes):
    """A source of one system."""
    return MovingBlob(systems=(dataclasses.replace(LEFT, share=1.0, **changes),))


def test_positions_have_the_mean_and_covariance_of_the_law():
    num_clips, law = 40_000, RINGS.law(6)
    points = paths(RINGS.clips("train", num_clips, 6, numpy_stream(0, "test")))
    apart = (points.mean(0) - law.mean) / (law.covariance.diagonal() / num_clips).sqrt()
    assert apart.abs().max() < 4
    spread = law.covariance.diagonal().sqrt()
    error = (points.T.cov() - law.covariance) / (spread[:, None] * spread)
    assert error.abs().max() < 4 * math.sqrt(2 / num_clips)


def test_the_law_is_the_recursion_of_each_system():
    """E[z_f], Cov[z_f, z_g] by the steps themselves: m <- A m + b, P <- A P A^T + Q, P_fg = A^(f-g) P_g."""
    law = RINGS.law(5)
    for k, system in enumerate(RINGS.systems):
        A, mean, P = system.matrix, np.array(system.start), np.eye(2) * system.start_std**2
        covariance = law.covariances[k].reshape(5, 2, 5, 2).numpy()
        for f in range(5):
            np.testing.assert_allclose(law.means[k, 2 * f : 2 * f + 2], mean + 7.5, atol=1e-12)
            for later in range(f, 5):
                expected = np.linalg.matrix_power(A, later - f) @ P
                np.testing.assert_allclose(covariance[later, :, f], expected, atol=1e-12)
            np.testing.assert_allclose(P, np.eye(2) * system.stds(5)[f] ** 2, atol=1e-12)
            mean, P = A @ mean + system.drift, A @ P @ A.T + np.eye(2) * system.noise**2


def test_the_density_of_a_path_is_that_of_its_steps():
    """ln q = ln sum_k share_k N(z_1; start, start_std^2) prod_f N(z_f; A z_{f-1} + b, noise^2)."""
    points = paths(draw(RINGS, num_clips=50))
    z = points.numpy().reshape(50, 8, 2) - 7.5
    joint = np.zeros((50, 3))
    for k, system in enumerate(RINGS.systems):
        ahead = z[:, :-1] @ system.matrix.T + system.drift
        for off, std in ((z[:, :1] - system.start, system.start_std), (z[:, 1:] - ahead, system.noise)):
            joint[:, k] += (-(off**2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))).sum((1, 2))
        joint[:, k] += math.log(system.share)
    log_density = RINGS.law(8).log_density(points)
    torch.testing.assert_close(log_density, torch.from_numpy(np.logaddexp.reduce(joint, axis=1)))
    torch.testing.assert_close(RINGS.law(8).posterior(points), torch.from_numpy(joint).softmax(1))


@pytest.mark.parametrize(("source", "accuracy"), [(RINGS, 0.9999), (BLOB, 0.95)])
def test_the_class_is_the_system_that_the_path_betrays(source, accuracy):
    clips = draw(source)
    found = source.law(8).posterior(paths(clips)).argmax(1).numpy()
    assert (found == clips.labels["class"][:, 0]).mean() > accuracy
    shares = np.bincount(clips.labels["class"][:, 0]) / 2000
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 4 * math.sqrt(0.25 / 2000)


def test_no_frame_of_the_default_says_which_system_moves_it():
    law = BLOB.law(1)
    torch.testing.assert_close(law.posterior(paths(draw(num_frames=1))), law.shares.expand(2000, -1))
    last = BLOB.law(32).covariances[:, -2:, -2:]
    torch.testing.assert_close(last, law.covariances, rtol=0.01, atol=1e-9)


def test_the_default_has_one_law_all_along_a_clip():
    """Long clips show nothing that short ones do not: any eight frames have nearly the covariance of the first."""
    law = BLOB.law(32)
    for start in range(0, 50, 2):
        of_window = law.covariances[:, start : start + 16, start : start + 16]
        torch.testing.assert_close(of_window, law.first(16).covariances, rtol=0.01, atol=1e-9)
    assert (law.means == BLOB.middle).all()


def test_a_left_turn_of_a_blob_above_the_middle_is_to_the_left():
    y, x = BlobSystem("turns", share=1.0, start=(-3.0, 0.0), turn=90.0, decay=1.0).means(2)[1]
    assert (y, x) == pytest.approx((0.0, -3.0), abs=1e-12)


def test_the_velocity_is_the_mean_step():
    labels = draw(alone(turn=35.0, decay=0.9, drift=(0.1, -0.2))).labels
    steps = np.diff(labels["position"], axis=1)
    left = steps - labels["velocity"][:, :-1]
    assert left.std() == pytest.approx(0.16, rel=0.02)
    assert abs(left.mean()) < 4 * 0.16 / math.sqrt(left.size)


def test_a_blob_keeps_its_light_and_shows_its_place():
    where = np.random.default_rng(0).uniform(5.5, 9.5, (200, 2))
    frames = BLOB.drawn(where)
    assert np.ptp(frames.sum((1, 2))) < 0.01 * frames.sum((1, 2)).mean()
    light = frames.transpose(0, 2, 1)
    middle = [
        (picture.sum(-1) @ np.arange(16)) / picture.sum()
        for pair in zip(frames, light, strict=True)
        for picture in pair
    ]
    np.testing.assert_allclose(np.reshape(middle, (-1, 2)), where, atol=1e-3)
    assert BLOB.drawn(np.array([8.0, 3.0]))[8, 3] == pytest.approx(255)


def test_what_leaves_the_frame_is_drawn_as_far_as_it_is_seen():
    wide = MovingBlob(frame_size=32)
    where = np.array([-1.0, 6.3])
    np.testing.assert_allclose(BLOB.drawn(where), wide.drawn(where + 8)[8:24, 8:24], atol=1e-9)


def test_the_read_out_finds_the_place_to_a_thousandth_of_a_pixel():
    clips = draw()
    found = BLOB.read_out(clips.frames)
    error = found.positions - clips.labels["position"][:, :, 0]
    assert error.std() < 0.0012  # the rounding of pixels alone: 0.29 / 255 / |slope of the blob| = 0.0009
    assert np.abs(error).max() < 0.01
    assert found.residuals.max() < 0.3 / 255
    exact, read = (
        BLOB.law(8).log_density(points) for points in (paths(clips), torch.from_numpy(found.positions).flatten(1))
    )
    assert abs((exact - read).mean()) < 0.01  # nats


@pytest.mark.parametrize(
    "source", [MovingBlob(frame_size=24, blob_std=2.5), MovingBlob(frame_size=16, blob_std=0.7)]
)
def test_the_read_out_finds_blobs_of_other_sizes(source):
    clips = draw(source, num_clips=200)
    assert np.abs(source.read_out(clips.frames).positions - clips.labels["position"][:, :, 0]).max() < 0.02


def test_noise_moves_the_read_out_by_the_error_that_its_residual_predicts():
    """Before it is cut at black, as that of frames is."""
    where = np.random.default_rng(0).uniform(5, 10, (2000, 2))
    noisy = BLOB.drawn(where) / 255 + np.random.default_rng(1).normal(0, 0.02, (2000, 16, 16))
    position, residual = BLOB.fit(noisy)
    assert (position - where).std() == pytest.approx(BLOB.read_out_error(residual.mean()), rel=0.05)


def test_the_read_out_is_not_misled_by_light_elsewhere():
    clips = draw(num_clips=200)
    frames = clips.frames.copy()
    frames[..., 0, 0] = 90
    where = clips.labels["position"][:, :, 0]
    assert np.abs(BLOB.read_out(frames).positions - where).max() < 0.02
    assert np.abs(centroids(frames) - where).max() > 0.2


def test_a_frame_that_shows_no_blob_has_a_large_residual():
    dark, bright = np.zeros((1, 1, 1, 16, 16), np.uint8), np.full((1, 1, 1, 16, 16), 255, np.uint8)
    two = np.round(BLOB.drawn(np.array([4.0, 4.0])) + BLOB.drawn(np.array([11.0, 11.0])))[None, None, None].astype(
        np.uint8
    )
    for frames in (dark, bright, two):
        assert BLOB.read_out(frames).residuals.min() > 0.05


def test_the_law_of_the_first_frames_does_not_depend_on_clip_length():
    long, short = BLOB.law(12).first(8), BLOB.law(4)
    torch.testing.assert_close(long.means, short.means)
    torch.testing.assert_close(long.covariances, short.covariances)


def test_equal_streams_give_equal_bytes_and_others_do_not():
    first, again, other = (draw(num_clips=20, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames)
    assert all(np.array_equal(first.labels[name], again.labels[name]) for name in first.labels)
    assert not np.array_equal(first.frames, other.frames)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    prepare = Prepare(source=BLOB, num_frames=4, num_train=30, num_metric=10, num_test=12)
    directories = [tmp_path_factory.mktemp("prepare") for _ in range(2)]
    for directory in directories:
        for _ in prepare.run(directory, {}):
            pass
    return directories


def test_a_store_holds_the_source_whose_law_it_draws_from(prepared):
    store = ClipStore(prepared[0] / "out")
    assert described_blob(store.manifest["source"]) == BLOB
    assert described_blob({"type": "pipeline.data.moving_digits.MovingDigits", "frame_size": 16}) is None
    assert store.manifest["num_classes"] == 3
    assert store.classes("test").tolist() == store.labels("test")["class"][:, 0].tolist()
    assert digest_of(prepared[0]) == digest_of(prepared[1])


def test_splits_of_a_store_share_no_path(prepared):
    store = ClipStore(prepared[0] / "out")
    starts = [set(store.labels(split)["position"][:, 0, 0, 0].tolist()) for split in ("train", "metric", "test")]
    assert sum(len(some) for some in starts) == len(set.union(*starts)) == 52


def test_any_parameters_come_back_from_their_description():
    source = MovingBlob(
        frame_size=24, systems=(BlobSystem("one", 1.0, (1.0, 2.0), 0.3, -5.0, 0.5, (0.1, 0.0), 0.2),)
    )
    assert described_blob(as_plain(source)) == source


def test_the_share_that_leaves_is_bounded_by_the_tails_of_both_coordinates():
    """In one frame about the middle: 4 Q(8 / std) = 1e-4 at std = 8 / 4.0556 = 1.9726."""
    system = dataclasses.replace(LEFT, share=1.0, start_std=1.97)
    MovingBlob(systems=(system,), max_frames=1)
    with pytest.raises(ValueError, match=r"up to 0\.0001\d* leave it"):
        MovingBlob(systems=(dataclasses.replace(system, start_std=1.98),), max_frames=1)


def test_few_clips_leave_the_frame():
    positions = draw(num_clips=4000, num_frames=32).labels["position"]
    assert ((positions < -0.5) | (positions > 15.5)).any((1, 2, 3)).sum() <= 3  # at most 0.4 are expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MovingBlob(frame_size=7), "frame_size must be at least 8, got 7"),
        (lambda: MovingBlob(blob_std=0.5), r"blob_std must be in \[0.6, 2.66\d+\], got 0.5"),
        (lambda: MovingBlob(systems=()), "num_systems must be at least 1, got 0"),
        (lambda: MovingBlob(systems=(LEFT, LEFT)), "systems must have names of their own, got left, left"),
        (lambda: MovingBlob(systems=(LEFT,)), "share must sum to 1 over the systems, got 0.5"),
        (lambda: alone(noise=0.0), "noise must be above 0, got 0.0"),
        (lambda: alone(start_std=-1.0), "start_std must be above 0, got -1.0"),
        (lambda: alone(decay=1.1), r"decay must be in \[0, 1\], got 1.1"),
        (lambda: alone(turn=200.0), r"turn must be in \[-180, 180\], got 200.0"),
        (lambda: BlobSystem("none", share=0.0, start=(0.0, 0.0)), r"share must be in \(0, 1\], got 0.0"),
        (
            lambda: alone(drift=(0.0, 0.4), turn=0.0),
            "systems must keep the blob's centre in the frame in all but 0.0001 of the clips of max_frames frames: "
            "up to 1 leave it, most of them by system left, with frame_size=16, max_frames=32",
        ),
        (lambda: MovingBlob(max_frames=4000), r"systems must keep the blob's centre .* max_frames=4000"),
        (lambda: BLOB.law(33), r"num_frames must be in \[1, 32\], got 33"),
        (lambda: draw(num_frames=33), r"num_frames must be in \[1, 32\], got 33"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_rule_and_value(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()
