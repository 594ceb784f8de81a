"""Training of a student that is told the classes of its clips, from the codec's products to its weights."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.losses.dmd import Dmd
from pipeline.models.denoiser import Denoiser, load_denoiser, save_denoiser
from pipeline.models.discriminator import Discriminator
from pipeline.training.loop import Batch, TrainState, draw_batch, split, train
from pipeline.training.optimizer import OptimizerSpec
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents

NUM_CLASSES = 2


def told(cell, num_classes=NUM_CLASSES, *, label_dropout=0.0):
    """The same cell with a student that is told classes."""
    backbone = dataclasses.replace(cell.denoiser.backbone, num_classes=num_classes)
    training = dataclasses.replace(cell.training, label_dropout=label_dropout)
    denoiser = dataclasses.replace(cell.denoiser, backbone=backbone)
    return dataclasses.replace(cell, denoiser=denoiser, training=training)


@pytest.fixture
def codec(tmp_path):
    """Latents around -1 and 1, which are the two classes."""
    directory = make_latents(tmp_path / "codec")
    classes = np.arange(64) % NUM_CLASSES
    noise = 0.1 * np.random.default_rng(0).normal(size=(64, 4, 2, 2, 2))
    np.save(directory / "train.npy", (2.0 * classes[:, None, None, None, None] - 1 + noise).astype(np.float32))
    np.save(directory / "train_classes.npy", classes)
    return directory


@pytest.fixture
def teacher(tmp_path, codec):
    torch.manual_seed(1)
    denoiser = Denoiser(told(make_cell(attention="full")).denoiser)
    with torch.no_grad():  # untrained it says 0 of every class
        for parameter in denoiser.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    save_denoiser(denoiser, tmp_path / "teacher", latents=digest_of(codec / "codec.json"))
    return tmp_path / "teacher"


def test_a_student_learns_what_its_classes_look_like(codec, work_root):
    """From pure noise the best answer is the mean of what it is told of: -1, 1, and 0 where it is told nothing."""
    rate = OptimizerSpec(name="adamw", learning_rate=3e-2, max_grad_norm=10.0)
    cell = make_cell(
        num_steps=80, report_every=40, checkpoint_every=80, batch_size=16, optimizer=rate, ema_decay=0.9
    )
    cell = told(cell, label_dropout=0.3)
    path = run_unit("cell", cell, {"codec": codec}) / "out"
    student = load_denoiser(path, latents=digest_of(codec / "codec.json"))
    noise, t = torch.randn(64, 1, 2, 2, 2, generator=torch.Generator().manual_seed(5)), torch.ones(64, 1)
    with torch.no_grad():
        answers = [student.given(torch.full((64,), label))(noise, t).mean().item() for label in range(3)]
        answers.append(student(noise, t).mean().item())
    assert answers == pytest.approx([-1, 1, 0, 0], abs=0.25)
    assert answers[2] == answers[3]


def test_labels_stay_with_their_clips_in_every_micro_batch(codec):
    clips = torch.from_numpy(np.load(codec / "train.npy"))
    labels = torch.from_numpy(np.load(codec / "train_classes.npy"))
    cell = told(make_cell(batch_size=32))
    state = TrainState(Denoiser(cell.denoiser), torch.nn.Module(), cell.training)
    batch = draw_batch(Batch(clips, labels), state, torch.Generator().manual_seed(0))
    parts = split(batch, 8)
    assert [len(part.clips) for part in parts] == [8] * 4
    for part in parts:
        assert part.labels is not None
        assert part.labels.tolist() == (part.clips.mean(dim=(1, 2, 3, 4)) > 0).long().tolist()
    plain = draw_batch(Batch(clips, None), state, torch.Generator().manual_seed(0))
    assert torch.equal(plain.clips, batch.clips)  # labels move no draw of clips
    assert plain.labels is None


@pytest.mark.parametrize(("dropout", "low", "high"), [(0.0, 0, 0), (0.25, 0.2, 0.3), (1.0, 1, 1)])
def test_labels_are_hidden_as_often_as_asked(dropout, low, high):
    cell = told(make_cell(batch_size=2000), label_dropout=dropout)
    state = TrainState(Denoiser(cell.denoiser), torch.nn.Module(), cell.training)
    data = Batch(torch.zeros(2, 1, 1, 1, 1), torch.tensor([0, 1]))
    labels = draw_batch(data, state, torch.Generator().manual_seed(0)).labels
    assert labels is not None
    assert low <= (labels == NUM_CLASSES).float().mean() <= high
    assert dropout == 1 or set(labels.tolist()) >= {0, 1}


@pytest.mark.parametrize("method", ["diffusion_forcing", "self_forcing"])
@pytest.mark.parametrize("loss", ["dmd", "gan", "kd"])
def test_student_and_critics_are_told_the_same_classes(method, loss, codec, monkeypatch):
    cell = told(make_cell(method, loss, num_steps=1, batch_size=4))
    torch.manual_seed(0)
    teacher = Denoiser(told(make_cell(attention="full")).denoiser)
    state = TrainState(Denoiser(cell.denoiser), cell.loss.critics(teacher), cell.training)
    asked, wanted = [], []

    def note(kind):
        original = kind.given

        def given(self, labels):
            asked.append(labels)
            return original(self, labels)

        monkeypatch.setattr(kind, "given", given)

    student_loss = type(cell.loss).student_loss

    def spy(self, rollout, batch, *args, **options):
        asked.clear()  # from here on the loss asks its networks
        wanted.append((batch.mean(dim=(1, 2, 3, 4)) > 0).long())
        return student_loss(self, rollout, batch, *args, **options)

    note(Denoiser)
    note(Discriminator)
    monkeypatch.setattr(type(cell.loss), "student_loss", spy)
    clips = torch.from_numpy(np.load(codec / "train.npy"))
    labels = torch.from_numpy(np.load(codec / "train_classes.npy"))
    list(train(state, clips, labels=labels, method=cell.method, loss=cell.loss, seed=0))
    assert asked
    assert all(torch.equal(labels, wanted[0]) for labels in asked)


def test_an_interrupted_cell_with_guidance_ends_bit_identical(codec, teacher, tmp_path, monkeypatch):
    cell = told(make_cell(loss="dmd", num_steps=8, micro_batch_size=4), label_dropout=0.2)
    cell = dataclasses.replace(cell, loss=Dmd(critic_updates=1, guidance=3.0))
    inputs = {"codec": codec, "teacher": teacher}

    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.step >= 6 and progress.metrics:
            raise Killed

    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "whole"))
    expected = run_unit("cell", cell, inputs)
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "broken"))
    with pytest.raises(Killed):
        run_unit("cell", cell, inputs, on_progress=kill)
    found = run_unit("cell", cell, inputs)
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def test_guidance_changes_what_a_student_learns(codec, teacher, work_root):
    cell, inputs = told(make_cell(loss="dmd", num_steps=2)), {"codec": codec, "teacher": teacher}
    losses = (Dmd(critic_updates=1, guidance=scale) for scale in (1.0, 3.0))
    first, second = (run_unit("cell", dataclasses.replace(cell, loss=loss), inputs) for loss in losses)
    assert digest_of(first / "out" / "student.safetensors") != digest_of(second / "out" / "student.safetensors")


def test_classes_that_do_not_fit_are_refused(codec, teacher, work_root, monkeypatch):
    monkeypatch.setattr("pipeline.training.cell.train", None)
    with pytest.raises(ValueError, match=r"guidance must be 1 where backbone.num_classes is 0, got 3.0"):
        dataclasses.replace(make_cell(loss="dmd"), loss=Dmd(guidance=3.0))
    with pytest.raises(ValueError, match=r"label_dropout must be 0 where backbone.num_classes is 0, got 0.1"):
        make_cell(label_dropout=0.1)
    with pytest.raises(ValueError, match=r"label_dropout must be in \[0, 1\], got 1.5"):
        make_cell(label_dropout=1.5)
    says = r"backbone.num_classes must be that of the teacher: 3 here, 2 in \S+/teacher"
    with pytest.raises(ValueError, match=says):
        run_unit("cell", told(make_cell(loss="dmd"), 3), {"codec": codec, "teacher": teacher})
    says = r"backbone.num_classes must be that of the student that training starts from: 3 here, 2 in \S+/teacher"
    with pytest.raises(ValueError, match=says):
        run_unit("cell", told(make_cell(), 3), {"codec": codec, "init": teacher})
    with pytest.raises(ValueError, match=r"num_classes must be above the labels in \S+train_classes.npy: 1, and 1"):
        run_unit("cell", told(make_cell(), 1), {"codec": codec})
    (codec / "train_classes.npy").unlink()
    with pytest.raises(ValueError, match=r"backbone.num_classes must be 0 where clips have no class, got 2"):
        run_unit("cell", told(make_cell()), {"codec": codec})
