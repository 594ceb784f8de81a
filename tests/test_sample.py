"""`python -m pipeline.sample`: files, the sampler that it takes, and what it refuses."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import clip_files
from pipeline import sample as entry
from pipeline.clip_files import BACKGROUND, GAP, Layout, replacing, tiled, writer_of
from pipeline.config import load_params
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.schedule import FlowMatching
from pipeline.diffusion.trajectory import DDIM, Renoise
from pipeline.evaluation.sampling import load_student
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import load_codec, new_codec, save_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, save_denoiser
from pipeline.sampling_stream import sample_stream
from pipeline.tasks import TASKS, Call
from pipeline.unit import PROJECT, digest_of

SIZE = 4
BACKBONE = BackboneSpec(channels=1, frame_size=SIZE, patch=SIZE, width=8, depth=1, num_heads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of the default parameters whose networks are tiny: rollout-gan and both teachers, untrained."""
    run = tmp_path_factory.mktemp("run")
    shutil.copy(PROJECT / "params.yaml", run)
    artifacts = run / "artifacts"
    save_codec(new_codec(None, (1, SIZE, SIZE)), artifacts / "codec")
    latents = digest_of(artifacts / "codec" / "codec.json")
    for name, attention in {
        "rollout/gan": "causal",
        "teacher/causal": "causal",
        "teacher/bidirectional": "full",
    }.items():
        torch.manual_seed(0)
        student = Denoiser(DenoiserSpec(replace(BACKBONE, attention=attention)))
        save_denoiser(student, artifacts / name, latents=latents)
    save_denoiser(Denoiser(DenoiserSpec(BACKBONE)), run / "other", latents="of another codec")
    return run


@pytest.fixture(scope="module")
def params(run):
    return load_params(run / "params.yaml")


@pytest.fixture
def in_run(run, params, monkeypatch):
    """`sample` with these arguments; params.yaml is read once for all tests."""
    monkeypatch.setattr(
        "pipeline.config.load_params", lambda path: params if path.parent == run else load_params(path)
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    return lambda *arguments: entry.main(["--run", str(run), *map(str, arguments)])


def test_a_file_of_arrays_holds_the_frames_of_the_evaluated_sampler(run, params, in_run, tmp_path, capsys):
    out = tmp_path / "clip.npy"
    assert in_run("--checkpoint", "rollout-gan", "--frames", 10, "--clips", 2, "--out", out) == 0
    codec = load_codec(run / "artifacts" / "codec")
    latents = digest_of(run / "artifacts" / "codec" / "codec.json")
    student = load_student(run / "artifacts" / "rollout" / "gan", latents=latents)
    parts = list(sample_stream(student, codec, 2, 10, sampler=params.sampler, seed=params.seed))
    clips = np.load(out)
    assert clips.dtype == np.uint8
    assert np.array_equal(clips, torch.cat(parts, 1).permute(0, 1, 3, 4, 2).numpy())
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 10 frames of 2 clips, the first after ")
    assert said.out.endswith(" frames a second\n")
    assert said.out.count("\n") == 1
    assert said.err == ""
    assert list(tmp_path.iterdir()) == [out]


def test_animations_play_every_frame_and_sheets_show_a_row_a_clip(in_run, tmp_path):
    gif, png, npy = (tmp_path / f"clip.{suffix}" for suffix in ("gif", "png", "npy"))
    for out in (gif, png, npy):
        options = ("--checkpoint", "rollout-gan", "--frames", 3, "--clips", 2, "--scale", 2, "--seed", 5)
        assert in_run(*options, "--out", out) == 0
    clips, step = np.load(npy), 2 * SIZE + GAP
    with Image.open(gif) as movie:
        assert movie.n_frames == 3
        assert movie.info["duration"] == 120  # 1000 / 8, in the tens of this format
        for index in range(3):
            movie.seek(index)
            assert np.array_equal(np.asarray(movie.convert("L")), tiled(clips[:, index], 2, 2)[:, :, 0])
    with Image.open(png) as sheet:
        assert sheet.size == (GAP + 3 * step, GAP + 2 * step)
        second_clip_last_frame = np.asarray(sheet)[GAP + step :: 2, GAP + 2 * step :: 2][:SIZE, :SIZE]
    assert np.array_equal(second_clip_last_frame, clips[1, 2, :, :, 0])


def test_a_movie_holds_every_frame_in_even_sides(in_run, tmp_path):
    av = pytest.importorskip("av")
    out = tmp_path / "clip.mp4"
    assert in_run("--checkpoint", "rollout-gan", "--frames", 5, "--scale", 5, "--out", out) == 0
    with av.open(out) as movie:
        frames = [frame.to_ndarray(format="gray") for frame in movie.decode(video=0)]
        assert movie.streams.video[0].average_rate == 8
    assert [frame.shape for frame in frames] == [(24, 24)] * 5  # 5 * 4 + 2 GAP


def test_tiles_stand_row_by_row_and_missing_ones_are_background():
    pictures = np.arange(3, dtype=np.uint8).repeat(4).reshape(3, 2, 2, 1)
    sheet = tiled(pictures, 2, 1)
    assert sheet.shape == (2 * 2 + 3 * GAP, 2 * 2 + 3 * GAP, 1)
    inner = sheet[GAP :: 2 + GAP, GAP :: 2 + GAP, 0]
    assert inner[:2, :2].tolist() == [[0, 1], [2, BACKGROUND]]


def test_every_checkpoint_is_found_by_name_and_by_directory(run, params):
    artifacts = run / "artifacts"
    for wanted, name in (
        ("teacher-causal-few_steps", "teacher-causal-few_steps"),
        (str(artifacts / "teacher" / "causal"), "teacher-causal"),
        (str(artifacts / "rollout" / ".." / "rollout" / "gan"), "rollout-gan"),
    ):
        directory, checkpoint = entry.find_checkpoint(params, artifacts, wanted)
        assert (directory / "student.json").exists()
        assert checkpoint == params.checkpoints[name]
    assert entry.find_checkpoint(params, artifacts, str(run / "other")) == (run / "other", None)


def test_a_teacher_of_whole_clips_is_sampled_as_evaluated_and_its_sampler_refuses_other_lengths(
    run, in_run, tmp_path, capsys
):
    out = tmp_path / "clip.npy"
    teacher = run / "artifacts" / "teacher" / "bidirectional"
    assert in_run("--checkpoint", teacher, "--sampler", "num_steps=1", "--frames", 12, "--out", out) == 0
    assert np.load(out).shape == (1, 12, SIZE, SIZE, 1)
    capsys.readouterr()
    assert in_run("--checkpoint", teacher, "--frames", 10, "--out", tmp_path / "other.npy") == 2
    assert "T=10, chunk_len=4, first_chunk_len=8" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out]


def test_settings_change_what_they_name_and_a_new_step_begins_from_its_defaults():
    sampler = Sampler(step=DDIM(0.5), schedule=FlowMatching(2.0), window=3)
    assert entry.with_settings(sampler, "") == sampler
    assert entry.with_settings(sampler, "num_steps=8, lag=2") == replace(sampler, num_steps=8, lag=2)
    assert entry.with_settings(replace(sampler, lag=0), "lag=null") == sampler
    assert entry.with_settings(sampler, "step.eta=1,schedule.shift=5.0") == replace(
        sampler, step=DDIM(1.0), schedule=FlowMatching(5.0)
    )
    assert entry.with_settings(sampler, "step=ddim").step == DDIM()
    assert entry.with_settings(sampler, "step=renoise").step == Renoise()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--checkpoint", "rollout-wgan"], "one of teacher-causal, "),
        (["--checkpoint", "distill-dmd"], "once trained: distill-dmd"),
        (["--checkpoint", "{run}/other"], "must speak the latents of the codec"),
        (["--codec", "{run}/nowhere"], "{run}/nowhere/codec.json"),
        (["--run", "{run}/nowhere"], "{run}/nowhere/params.yaml"),
        (["--out", "{out}/clip.webm"], "the suffix of a clip must be one of .gif, .png, .npy, .mp4, got "),
        (["--out", "{out}/nowhere/clip.gif"], "No such file or directory"),
        (["--out", "{run}/artifacts.gif"], "this is a directory"),
        (["--frames", "0"], "frames must be at least 1, got 0"),
        (["--frames", "many"], "invalid int value: 'many'"),
        (["--clips", "0"], "clips must be at least 1, got 0"),
        (["--scale", "0"], "scale must be at least 1, got 0"),
        (["--class", "1"], "class must be one of the 0 that the student knows, got 1"),
        (["--sampler", "num_steps"], "sampler must be KEY=VALUE"),
        (["--sampler", "num_steps=0"], "sampler: num_steps must be at least 1, got 0"),
        (["--sampler", "num_steps=four"], "sampler.num_steps: "),
        (["--sampler", "lag=5"], "sampler: lag must be in [0, num_steps]: lag=5, num_steps=4"),
        (["--sampler", "step=leap"], "sampler.step.name must be one of renoise, "),
        (["--sampler", "step.eta=1"], "sampler.step.eta is not a parameter"),
        (["--sampler", "steps=8"], "sampler.steps is not a parameter; known here: num_steps, "),
        (["--sampler", "chunk_len=2", "--frames", "3"], "T=3, chunk_len=2"),
    ],
)
def test_what_cannot_be_is_one_line_exit_code_2_and_no_file(options, said, run, in_run, tmp_path, capsys):
    (run / "artifacts.gif").mkdir(exist_ok=True)
    names = {"run": str(run), "out": str(tmp_path)}
    given = ["--checkpoint", "rollout-gan", "--frames", "2", "--out", tmp_path / "clip.npy"]
    try:
        code = in_run(*given, *(option.format(**names) for option in options))
    except SystemExit as end:  # of argparse
        code = end.code
    answer = capsys.readouterr()
    assert code == 2
    assert said.format(**names) in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_without_pyav_says_what_to_install(monkeypatch):
    monkeypatch.setattr(clip_files.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install av"):
        writer_of(Path("clip.MP4"))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".npy"])
def test_an_interrupted_run_leaves_the_file_that_was_there(suffix, in_run, tmp_path, monkeypatch, capsys):
    out = tmp_path / f"clip{suffix}"
    out.write_text("before")
    frame_by_frame = entry._timed

    def interrupted(*arguments):
        frames = frame_by_frame(*arguments)
        yield next(frames)
        yield next(frames)
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_timed", interrupted)
    assert in_run("--checkpoint", "rollout-gan", "--frames", 4, "--out", out) == 130
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]
    assert capsys.readouterr().out == ""


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    out = tmp_path / "clip.npy"
    with replacing(out) as path:
        path.write_text("half")
        assert not out.exists()
    assert out.read_text() == "half"
    assert list(tmp_path.iterdir()) == [out]


def test_a_layout_keeps_its_rules():
    with pytest.raises(ValueError, match="frames_per_s must be above 0"):
        Layout(1, frames_per_s=0.0)


def test_the_front_door_passes_on_what_it_does_not_know_in_the_order_given(monkeypatch, tmp_path):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Call, "run", lambda _, *command, cwd: started.append((command, cwd)) or 0)
    call = Call({}, ["--checkpoint", "init", "--out", "clip.gif"], "default", 0)
    assert TASKS["sample"].run(call) == 0
    command = (
        "python",
        "-m",
        "pipeline.sample",
        "--run",
        str(PROJECT),
        "--checkpoint",
        "init",
        "--out",
        "clip.gif",
    )
    assert started == [(command, tmp_path)]
