"""Clips of every cell and every checkpoint beside real ones: a film each, all of the same length."""

import base64
import io
import re

import numpy as np
from PIL import Image

from pipeline.grid import Cell
from pipeline.reporting.player import NUM_CLIPS, moving, player
from pipeline.reporting.read import read_study
from pipeline.reporting.samples import film, read_samples
from pipeline.reporting.sweep_read import START, read_sweep
from pipeline.reporting.sweep_trainings import read_clips
from tests.reporting.sweep_files import write_sweep


def test_a_film_is_its_clips_at_whole_pixels():
    clips = np.random.default_rng(0).integers(0, 256, (3, 5, 1, 16, 16), np.uint8)
    text = moving(clips, "noise")
    assert "--h:16;--frames:5;--zoom:4" in text
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (pixels == film(clips)[..., 0]).all()


def test_clips_of_many_pixels_are_not_enlarged():
    assert "--zoom:1" in moving(np.zeros((1, 2, 3, 96, 96), np.uint8), "large")


def test_every_checkpoint_plays_beside_real_clips(reports):
    study = read_study(reports)
    text = player(study, None, {})
    names = set(re.findall(r"<strong>(.*?)</strong>", text))
    assert names == {"real clips", *(checkpoint.name for checkpoint in study.checkpoints)}
    num_real = -(-len(read_samples(study.checkpoints[0]).real) // NUM_CLIPS)
    assert text.count('class="film"') == num_real + len(study.checkpoints)
    assert len(set(re.findall(r"--frames:(\d+)", text))) == 1


def test_every_cell_plays_or_says_why_not(reports):
    write_sweep(reports)
    study, found = read_study(reports), read_sweep(reports)
    text = player(study, found, read_clips(reports, found))
    for method in found.methods:
        for loss in (START, *found.losses):
            name = f"{method} \u00d7 {loss}".replace("_", " ")
            card = text[text.index(f"<strong>{name}</strong>") :].split("</div>")[0]
            is_excluded = Cell(method, loss) in found.excluded
            assert ('class="film"' in card) is not is_excluded
            assert ("excluded: l2 needs a target" in card) is is_excluded
