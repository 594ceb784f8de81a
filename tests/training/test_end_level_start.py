"""A student with an end level starts from one without; not the other way round."""

import dataclasses

import pytest
import torch

from pipeline.losses.l2 import L2
from pipeline.models.denoiser import Denoiser, load_denoiser
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents


class NeedsEnd(L2):
    """A loss on data that says it asks for ends."""

    needs_end_level = True


def with_end(cell, **changes):
    backbone = dataclasses.replace(cell.denoiser.backbone, end_level=True)
    return dataclasses.replace(cell, denoiser=dataclasses.replace(cell.denoiser, backbone=backbone), **changes)


def test_a_student_with_an_end_level_starts_from_one_without_and_not_the_other_way_round(tmp_path, work_root):
    codec = make_latents(tmp_path / "codec")
    plain = run_unit("plain", make_cell(num_steps=2), {"codec": codec}) / "out"
    ended = with_end(make_cell(num_steps=2))
    latents = digest_of(codec / "codec.json")
    state = ended.start({"codec": codec, "init": plain}, latents, 4)
    origin = load_denoiser(plain, latents=latents)
    x_t, t = torch.randn(2, 4, 2, 2, 2), torch.rand(2, 4)
    assert torch.equal(state.student(x_t, t), origin(x_t, t))
    own = run_unit("ended", ended, {"codec": codec}) / "out"
    with pytest.raises(ValueError, match=r"backbone.end_level must be that of the student"):
        make_cell().start({"codec": codec, "init": own}, latents, 4)


def test_a_loss_that_asks_for_ends_refuses_a_student_that_cannot_tell_them():
    cell = make_cell()
    assert isinstance(Denoiser(with_end(cell, loss=NeedsEnd()).denoiser).backbone.step, torch.nn.Module)
    with pytest.raises(ValueError, match=r"backbone.end_level must be true with NeedsEnd, got false"):
        dataclasses.replace(cell, loss=NeedsEnd())
