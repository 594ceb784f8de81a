import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.data.moving_digits import MovingDigits
from pipeline.data.store import ClipStore, Prepare, to_uint8, to_video
from pipeline.models.codec import Codec, CodecSpec, load_codec
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec, save_digit_reader
from pipeline.streams import stream
from pipeline.training import codec as codec_training
from pipeline.training.codec import (
    CodecTraining,
    TrainCodec,
    batch_standardised,
    draw_examples,
    exchanged,
    reconstruction_loss,
)
from pipeline.training.optimizer import OptimizerSpec
from pipeline.unit import digest_of, run_unit

SPEC = CodecSpec(width=8, global_width=32)
QUICK = TrainCodec(
    codec=SPEC,
    training=CodecTraining(
        num_steps=40,
        batch_size=16,
        optimizer=OptimizerSpec(name="muon", learning_rate=1e-2, matrix_learning_rate=5e-2),
        report_every=5,
        checkpoint_every=10,
    ),
)


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    prepare = Prepare(source=MovingDigits(), num_frames=4, num_train=200, num_metric=20, num_test=20)
    for _ in prepare.run(root / "prepare", {}):
        pass
    torch.manual_seed(0)
    (root / "features").mkdir()
    save_digit_reader(DigitReader(DigitReaderSpec()), root / "features", {})
    return {"clips": root / "prepare" / "out", "features": root / "features"}


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """One uninterrupted run: its directory, its reports and its metrics."""
    directory = tmp_path_factory.mktemp("codec")
    reports, steps = [], QUICK.run(directory, inputs)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return directory, reports, end.value


def test_training_lowers_the_loss_and_raises_held_out_psnr(finished):
    rows = [report.metrics for report in finished[1] if report.metrics]
    assert [report.step for report in finished[1] if report.metrics] == list(range(5, 41, 5))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3
    assert finished[2]["psnr"] > 14


def test_training_latents_are_standardised_by_channel(finished):
    latents = np.load(finished[0] / "out" / "train.npy").astype(np.float64)
    assert latents.shape == (200, 4, 4, 4, 4)
    assert np.abs(latents.mean((0, 1, 3, 4))).max() < 1e-5
    assert np.abs(latents.std((0, 1, 3, 4)) - 1).max() < 1e-5


def test_training_latents_are_those_of_the_saved_codec(finished, inputs):
    codec, video = load_codec(finished[0] / "out"), to_video(ClipStore(inputs["clips"]).clips("train"))
    latents = torch.from_numpy(np.load(finished[0] / "out" / "train.npy"))
    assert latents.dtype == torch.float32
    assert torch.allclose(codec.encode(video), latents, atol=1e-5)


def test_latents_keep_the_classes_of_their_clips(finished, inputs):
    classes = np.load(finished[0] / "out" / "train_classes.npy")
    assert np.array_equal(classes, ClipStore(inputs["clips"]).labels("train")["class"][:, 0])
    assert len(np.unique(classes)) == 10


@pytest.mark.parametrize("killed_at", [5, 15, 40])
def test_a_killed_run_ends_as_if_it_had_not_been(finished, inputs, tmp_path, monkeypatch, killed_at):
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "killed"))

    def kill(progress):
        if progress.step == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        run_unit("codec", QUICK, inputs, on_progress=kill)
    started_at = []
    resumed = run_unit("codec", QUICK, inputs, on_progress=lambda progress: started_at.append(progress.step))
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "whole"))
    whole = run_unit("codec", QUICK, inputs)
    assert started_at[0] == {5: 0, 15: 10, 40: 30}[killed_at]
    for name in ("out", "show", "metrics.json", "curve.jsonl"):
        assert digest_of(resumed / name) == digest_of(whole / name)
    assert digest_of(whole / "out") == digest_of(finished[0] / "out")
    assert not (resumed / "checkpoints").exists()


def test_another_seed_gives_other_weights(finished, inputs, tmp_path):
    other = dataclasses.replace(QUICK, seed=1)
    for _ in other.run(tmp_path, inputs):
        pass
    weights = "out/codec.safetensors"
    assert digest_of(tmp_path / weights) != digest_of(finished[0] / weights)


def test_no_codec_writes_the_standardised_pixels(inputs, tmp_path):
    steps = TrainCodec(codec=None).run(tmp_path, inputs)
    with pytest.raises(StopIteration) as end:
        next(steps)
    metrics = end.value.value
    assert (metrics["codec"], metrics["psnr"], metrics["read_agreement"]) == ("none", None, 1.0)
    assert metrics["read_accuracy"] == metrics["read_accuracy_originals"]
    pixels, latents = ClipStore(inputs["clips"]).clips("train"), np.load(tmp_path / "out" / "train.npy")
    assert latents.shape == pixels.shape
    assert abs(latents.mean(dtype=np.float64)) < 1e-5
    assert abs(latents.std(dtype=np.float64) - 1) < 1e-5
    decoded = load_codec(tmp_path / "out").decode(torch.from_numpy(latents))
    assert np.array_equal(to_uint8(decoded), pixels)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(inputs, tmp_path, monkeypatch):
    usual, calls = codec_training.reconstruction_loss, iter(range(1000))

    def breaks(*arguments):
        return usual(*arguments) * (math.nan if next(calls) == 12 else 1.0)

    monkeypatch.setattr(codec_training, "reconstruction_loss", breaks)
    with pytest.raises(
        FloatingPointError, match=r"loss is nan at step 12; last good: checkpoint of step 10 in .*rate"
    ):
        for _ in QUICK.run(tmp_path, inputs):
            pass


def examples():
    return 2 * torch.rand(6, 3, 1, 16, 16, generator=stream(0, "examples")) - 1


def new_codec():
    torch.manual_seed(0)
    return Codec(SPEC, (1, 16, 16))


def loss_of(*, ramp=1.0, latent_noise=0.0, constancy=0.0, swap_share=0.0):
    config = CodecTraining(latent_noise=latent_noise, constancy=constancy, swap_share=swap_share)
    return reconstruction_loss(new_codec(), examples(), config, ramp, stream(0, "noise"))


def test_the_loss_is_error_plus_the_variance_of_what_should_stay():
    codec, frames = new_codec(), examples().flatten(0, 1)
    z = batch_standardised(codec.encoder(frames))
    error = (codec.decoder(z) - frames).square().mean()
    variance = z.unflatten(0, (6, 3))[:, :, :3].var(dim=1, correction=0).mean()
    assert torch.allclose(loss_of(), error)
    assert torch.allclose(loss_of(constancy=5.0), error + 5 * variance)
    assert torch.allclose(loss_of(constancy=5.0, ramp=0.5), error + 2.5 * variance)


def test_content_is_exchanged_within_examples_in_a_share_of_them():
    content = torch.arange(3000.0).view(1000, 3, 1, 1, 1)
    swapped = exchanged(content, 0.5, stream(0, "swap"))
    changed = (swapped != content).any(dim=1).flatten().float().mean().item()
    assert torch.equal(swapped // 3, content // 3)
    assert changed == pytest.approx(0.5 * (1 - 1 / 27), abs=0.05)
    assert torch.equal(exchanged(content, 0.0, stream(0, "swap")), content)


def test_exchange_leaves_the_other_channels_alone():
    codec, frames = new_codec(), examples().flatten(0, 1)
    z = batch_standardised(codec.encoder(frames))
    source = exchanged(torch.arange(18.0).view(6, 3, 1, 1, 1), 1.0, stream(0, "noise")).flatten().long()
    seen = torch.cat([z[source, :3], z[:, 3:]], dim=1)
    error = (codec.decoder(seen) - frames).square().mean()
    assert torch.allclose(loss_of(swap_share=1.0), error)


def test_the_decoder_sees_noise_of_the_given_size():
    at = [loss_of(latent_noise=scale).item() for scale in (0.0, 1.0, 100.0)]
    assert at[0] != at[1]
    assert at[2] > 10 * at[1]


def test_batch_standardisation_forgets_scale_and_offset_of_a_channel():
    latents = torch.randn(30, 4, 4, 4, generator=stream(0, "latents"))
    moved = latents * torch.tensor([1.0, 3.0, 0.1, 7.0]).view(4, 1, 1) + torch.arange(4.0).view(4, 1, 1)
    standard = batch_standardised(moved)
    assert torch.allclose(standard.mean((0, 2, 3)), torch.zeros(4), atol=1e-6)
    assert torch.allclose(standard.square().mean((0, 2, 3)), torch.ones(4), atol=1e-5)
    assert torch.allclose(standard, batch_standardised(latents), atol=1e-5)


def test_examples_are_three_different_frames_of_one_clip():
    clips = torch.arange(20 * 8, dtype=torch.uint8).view(20, 8, 1, 1, 1).expand(20, 8, 1, 2, 2)
    drawn = to_uint8(draw_examples(clips, 600, stream(0, "draw")))[:, :, 0, 0, 0].astype(int)
    clip, frame = np.divmod(drawn, 8)
    assert (clip == clip[:, :1]).all()
    assert all(len(set(row)) == 3 for row in frame.tolist())
    assert set(clip.ravel().tolist()) == set(range(20))
    assert all(set(frame[:, k].tolist()) == set(range(8)) for k in range(3))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"report_every": 0}, "report_every must be at least 1, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"latent_noise": -0.1}, "latent_noise must be at least 0, got -0.1"),
        ({"constancy": -1.0}, "constancy must be at least 0, got -1.0"),
        ({"swap_share": 1.5}, r"swap_share must be in \[0, 1\], got 1.5"),
        ({"ramp_share": 0.0}, r"ramp_share must be in \(0, 1\], got 0.0"),
        (
            {"report_every": 20, "checkpoint_every": 30},
            "checkpoint_every must be a multiple of report_every: checkpoint_every=30, report_every=20",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_its_rule_and_value(parameters, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        CodecTraining(**parameters)


def test_frames_that_the_codec_cannot_divide_are_refused(inputs, tmp_path):
    steps = TrainCodec(codec=CodecSpec(downsample=6)).run(tmp_path, inputs)
    with pytest.raises(ValueError, match="frame size must be a multiple of downsample: 16x16, downsample=6"):
        next(steps)
