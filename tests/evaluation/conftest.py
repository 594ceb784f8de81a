"""A small store of moving digits, and metric networks that are built but hardly trained."""

import pytest
import torch
from torch import nn

from pipeline.data.moving_digits import MovingDigits
from pipeline.data.store import ClipStore, Prepare
from pipeline.evaluation.features import standardise
from pipeline.models.clip_encoder import ClipEncoder, ClipEncoderSpec, save_clip_encoder
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec, save_digit_reader


def run_to_end(steps):
    """What a generator yielded, and what it returned."""
    yielded = []
    while True:
        try:
            yielded.append(next(steps))
        except StopIteration as end:
            return yielded, end.value


@pytest.fixture(scope="session")
def finish():
    return run_to_end


class TinyI3D(nn.Module):
    """The call of StyleGAN-V's module; its features are the mean of each channel, and the number of frames."""

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
        if rescale:
            x = x / 127.5 - 1
        assert resize
        assert return_features
        features = torch.zeros(x.shape[0], 400)
        features[:, :3] = x.mean(dim=[2, 3, 4])
        features[:, 3] = x.shape[2]
        return features


@pytest.fixture(scope="session")
def i3d_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    torch.jit.script(TinyI3D()).save(str(path))
    return path


@pytest.fixture(scope="session")
def clips_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepare")
    run_to_end(
        Prepare(source=MovingDigits(), num_frames=8, num_train=64, num_metric=400, num_test=512).run(directory, {})
    )
    return directory / "out"


@pytest.fixture(scope="session")
def store(clips_dir):
    return ClipStore(clips_dir)


@pytest.fixture(scope="session")
def untrained_dir(tmp_path_factory, store):
    """Artifacts of the stage "features" with random weights: enough for whatever does not judge quality."""
    directory = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    encoder = ClipEncoder(ClipEncoderSpec(width=4, feature_dim=12)).eval().requires_grad_(False)
    standardise(encoder, store.clips("test")[:256, :8])
    save_clip_encoder(encoder, directory, {})
    save_digit_reader(DigitReader(DigitReaderSpec(width=4, feature_dim=8)), directory, {})
    return directory
