"""A teacher that cannot be asked about the student's frames is refused before anything trains."""

import dataclasses

import pytest

from pipeline.diffusion.schedule import FlowMatching
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents


@pytest.fixture
def codec(tmp_path):
    return make_latents(tmp_path / "codec")


@pytest.fixture
def train_with(tmp_path, codec, work_root, monkeypatch):
    """Run a cell with a teacher that differs from its student as told."""

    def run(method, loss, *, attention="full", trains=False, **changes):
        cell = make_cell(method, loss, num_steps=2)
        spec = dataclasses.replace(cell.denoiser, schedule=changes.pop("schedule", cell.denoiser.schedule))
        backbone = dataclasses.replace(spec.backbone, attention=attention, **changes)
        path, latents = tmp_path / "teacher", digest_of(codec / "codec.json")
        save_denoiser(Denoiser(dataclasses.replace(spec, backbone=backbone)), path, latents=latents)
        if not trains:
            monkeypatch.setattr("pipeline.training.cell.train", None)
        return run_unit("cell", cell, {"codec": codec, "teacher": path})

    return run


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frame_size": 4}, r"backbone.frame_size must be that of the teacher: 2 here, 4 in \S+/teacher"),
        ({"channels": 1}, r"backbone.channels must be that of the teacher: 2 here, 1 in \S+/teacher"),
        (
            {"schedule": FlowMatching(shift=3.0)},
            r"schedule must be that of the teacher: .*shift=1.0\) here, .*shift=3.0\) in "
            r"\S+/teacher",
        ),
    ],
)
def test_a_teacher_of_other_frames_or_levels_is_refused(changes, says, train_with):
    with pytest.raises(ValueError, match=says):
        train_with("diffusion_forcing", "dmd", **changes)


@pytest.mark.parametrize(
    ("method", "loss", "attention", "wanted"),
    [
        ("teacher_forcing", "dmd", "full", "causal"),
        ("teacher_forcing", "kd", "full", "causal"),
        ("bidirectional", "dmd", "causal", "full"),
        ("bidirectional", "kd", "causal", "full"),
        ("diffusion_forcing", "sid", "causal", "full"),
        ("self_forcing", "dmd", "causal", "full"),
    ],
)
def test_a_teacher_whose_attention_cannot_answer_the_method_is_refused(method, loss, attention, wanted, train_with):
    says = rf"attention of the teacher must be {wanted} under \w+ with \w+, got {attention} in \S+/teacher"
    with pytest.raises(ValueError, match=says):
        train_with(method, loss, attention=attention)


def test_a_causal_teacher_of_other_chunks_is_refused(train_with):
    says = r"backbone.chunk_len must be that of a causal teacher: 1 here, 2 in \S+/teacher"
    with pytest.raises(ValueError, match=says):
        train_with("teacher_forcing", "dmd", attention="causal", chunk_len=2)


@pytest.mark.parametrize(
    ("method", "loss", "attention"),
    [
        ("diffusion_forcing", "kd", "full"),  # CausVid's initialisation
        ("diffusion_forcing", "kd", "causal"),  # Causal Forcing's
        ("teacher_forcing", "sid", "causal"),
        ("bidirectional", "gan", "full"),
    ],
)
def test_a_teacher_that_can_answer_may_have_another_size(method, loss, attention, train_with):
    assert train_with(method, loss, attention=attention, trains=True, width=32, depth=2).exists()
