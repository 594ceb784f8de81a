import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.store import ClipStore, to_video
from pipeline.diffusion.autoregress import Sampler
from pipeline.evaluation import evaluate
from pipeline.evaluation.bits import BitsPerDimension
from pipeline.evaluation.evaluate import Evaluate, through_codec
from pipeline.evaluation.sampling import load_student
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import load_codec, new_codec, save_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, save_denoiser
from pipeline.unit import canonical_json, digest_of

QUICK = Evaluate(
    sampler=Sampler(num_steps=1, window=7),
    num_clips=48,
    batch_size=20,
    num_bootstraps=8,
    num_timed=1,
    num_neighbours=3,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, clips_dir, untrained_dir):
    """Without a codec: latents are pixels; a tiny untrained student."""
    root = tmp_path_factory.mktemp("artifacts")
    (root / "codec").mkdir()
    save_codec(new_codec(None, (1, 16, 16)), root / "codec")
    backbone = BackboneSpec(channels=1, frame_size=16, patch=8, width=16, depth=1, num_heads=2)
    latents = digest_of(root / "codec" / "codec.json")
    save_denoiser(Denoiser(DenoiserSpec(backbone)), root / "student", latents=latents)
    return {"clips": clips_dir, "features": untrained_dir, "codec": root / "codec", "student": root / "student"}


@pytest.fixture(scope="module")
def evaluated(finish, tmp_path_factory, inputs):
    directory = tmp_path_factory.mktemp("unit")
    return directory, *finish(QUICK.run(directory, inputs))


def test_every_measure_is_there_with_its_scale(evaluated, untrained_dir):
    _, reports, metrics = evaluated
    assert [report.step for report in reports] == [1, 2, 3, 5, 7, 9, *range(10, 17)]
    assert {report.num_steps for report in reports} == {16}
    fvd = metrics["fvd"]
    assert fvd["excess"] == fvd["value"] - fvd["floor"]
    assert fvd["interval"][0] < fvd["excess"] < fvd["interval"][1]
    assert fvd["codec_excess"] == pytest.approx(0, abs=1e-9)  # pixels pass unchanged
    assert (fvd["num_clips"], fvd["network"]) == (48, "in_domain")
    assert fvd["checksum"] == digest_of(untrained_dir / "clip_encoder.safetensors")
    assert metrics["frames"]["index"] == tuple(range(1, 17))
    assert metrics["windows"]["start"] == (1, 5, 9)
    assert metrics["windows"]["floor"][0] == fvd["floor"]
    assert metrics["drift_slope"] == metrics["windows"]["slope"]
    assert metrics["identity"]["real"] == metrics["identity"]["codec"]
    assert (
        metrics["sampling"]["calls_per_frame"] == (8 + 7) / 8
    )  # one step a frame, and all but the last are cached
    assert "fvd_i3d" not in metrics
    assert json.loads(canonical_json(metrics))["coverage"]["num_neighbours"] == 3


def test_pictures_and_tables_are_for_people(evaluated):
    directory, _, metrics = evaluated
    show = directory / "show"
    with (show / "windows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["fvd"]) for row in rows] == list(metrics["windows"]["fvd"])
    with (show / "frame_curve.csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(1, 17))
    for name in ("samples.gif", "real.gif"):
        with Image.open(show / name) as animation:
            assert animation.n_frames == 16
            assert animation.info["duration"] == 120  # 8 frames a second, in GIF's hundredths
    with Image.open(show / "samples.png") as sheet:
        assert sheet.width > 2 * 16 * 64
    with np.load(show / "samples.npz") as samples:
        assert samples["real"].shape == samples["generated"].shape == (16, 16, 1, 16, 16)


def test_equal_parameters_give_equal_numbers_whatever_the_time(finish, evaluated, inputs, tmp_path):
    directory, _, metrics = evaluated
    again = finish(QUICK.run(tmp_path, inputs))[1]
    assert {**again, "sampling": 0} == {**metrics, "sampling": 0}
    assert digest_of(tmp_path / "show") == digest_of(directory / "show")


def test_real_clips_in_place_of_generated_ones_have_no_excess(finish, monkeypatch, inputs, store, tmp_path):
    def held_out_latents(student, num_clips, num_frames, *, sampler, batch_size, seed):
        del student, sampler, seed
        codec, clips = load_codec(inputs["codec"]), store.clips("test")[256 : 256 + num_clips, :num_frames]
        for at in range(0, num_clips, batch_size):
            yield codec.encode(to_video(clips[at : at + batch_size]))

    monkeypatch.setattr(evaluate, "generate_latents", held_out_latents)
    metrics = finish(QUICK.run(tmp_path, inputs))[1]
    assert metrics["fvd"]["excess"] == 0
    assert metrics["windows"]["fvd"] == metrics["windows"]["floor"]
    assert metrics["frames"]["distance"] == metrics["frames"]["floor"]
    assert metrics["drift_slope"] == 0
    assert metrics["kinematics"]["speed_w1"] == 0
    assert metrics["identity"]["class_kl"] == 0
    assert {name: metrics["coverage"][name] for name in metrics["coverage_real"]} == metrics["coverage_real"]


def test_a_given_i3d_measures_the_longer_clips(finish, inputs, i3d_path, tmp_path):
    work = replace(QUICK, i3d_path=str(i3d_path), i3d_sha256=digest_of(i3d_path), i3d_num_clips=20)
    metrics = finish(work.run(tmp_path / "unit", {**inputs, "i3d": i3d_path}))[1]
    assert metrics["fvd_i3d"]["network"] == "i3d"
    assert metrics["fvd_i3d"]["checksum"] == digest_of(i3d_path)
    assert metrics["fvd_i3d"]["num_clips"] == 20
    refused = replace(work, i3d_sha256="1234")
    with pytest.raises(ValueError, match="must have the given sha256"):
        finish(refused.run(tmp_path / "refused", {**inputs, "i3d": i3d_path}))


def test_bits_per_dimension_are_of_the_first_held_out_clips(finish, evaluated, inputs, store, tmp_path):
    bits = BitsPerDimension(num_clips=16, num_levels=64)
    reports, metrics = finish(replace(QUICK, bits=bits).run(tmp_path, inputs))
    assert (reports[-1].step, reports[-1].num_steps) == (17, 17)
    measured = metrics["bits_per_dim"]
    codec = load_codec(inputs["codec"])
    student = load_student(inputs["student"], latents=digest_of(inputs["codec"] / "codec.json"))
    assert measured == bits.measure(student, codec, to_video(store.clips("test")[256:272, :8]), seed=0)
    assert measured["num_dims"] == 8 * 16 * 16
    others = evaluated[2]
    assert "bits_per_dim" not in others
    assert {**metrics, "sampling": 0, "bits_per_dim": 0} == {**others, "sampling": 0, "bits_per_dim": 0}


def test_pixels_pass_the_absent_codec_unchanged(inputs, store):
    clips = torch.from_numpy(np.array(store.clips("test")[:300, :8]))
    assert torch.equal(through_codec(load_codec(inputs["codec"]), clips), clips)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clips": 257}, "half of the test clips: num_clips=257, test clips=512"),
        ({"num_frames": 9}, "at least 2 times as long as num_frames: T=16, num_frames=9"),
        ({"num_clips": 65}, "at most the training clips: num_clips=65, training clips=64"),
    ],
)
def test_what_the_store_cannot_give_is_refused(finish, inputs, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        finish(replace(QUICK, **changes).run(tmp_path, inputs))


def test_settings_are_judged_on_other_clips_than_results(finish, inputs, tmp_path, evaluated):
    _, metrics = finish(replace(QUICK, split="metric").run(tmp_path, inputs))
    _, _, result = evaluated
    assert metrics["fvd"]["floor"] != result["fvd"]["floor"]  # of two sets of real clips
    assert metrics["sampling"]["calls_per_frame"] == result["sampling"]["calls_per_frame"]
    clips = ClipStore(inputs["clips"]).clips("metric")
    with np.load(tmp_path / "show" / "samples.npz") as shown:
        assert np.array_equal(shown["real"], clips[len(clips) // 2 :][: len(shown["real"])])


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="split must be one of test, metric, got 'train'"):
        Evaluate(split="train")
    with pytest.raises(ValueError, match="num_bootstraps must be at least 2, got 1"):
        Evaluate(num_bootstraps=1)
    with pytest.raises(ValueError, match=r"num_clips of bits must be .* bits.num_clips=512, num_clips=64"):
        Evaluate(num_clips=64, bits=BitsPerDimension())
    for path, digest in ((None, "1234"), ("i3d.pt", None)):
        with pytest.raises(ValueError, match=r"i3d_path and i3d_sha256.* must be given together"):
            Evaluate(i3d_path=path, i3d_sha256=digest)
