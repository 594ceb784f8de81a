import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.extractors import InDomainFeatures, TorchScriptI3D, VideoFeatures


def clips(num_frames, channels=1, size=16):
    return torch.randint(256, (20, num_frames, channels, size, size), dtype=torch.uint8)


def test_i3d_sees_three_channels_of_raw_pixels_in_the_order_of_its_protocol(i3d_path):
    network = TorchScriptI3D(i3d_path)
    video = clips(9)
    features = network(video)
    assert (features.shape, features.dtype) == ((20, 400), torch.float64)
    brightness = video.double().mean(dim=(1, 2, 3, 4)) / 127.5 - 1
    for channel in range(3):
        torch.testing.assert_close(features[:, channel], brightness, rtol=0, atol=1e-5)
    assert (features[:, 3] == 9).all()
    assert isinstance(network, VideoFeatures)


def test_i3d_takes_colour_as_it_is(i3d_path):
    video = clips(10, channels=3)
    expected = video.double().mean(dim=(1, 3, 4)) / 127.5 - 1
    torch.testing.assert_close(TorchScriptI3D(i3d_path)(video)[:, :3], expected, rtol=0, atol=1e-5)


def test_i3d_names_its_checksum_and_refuses_another(i3d_path):
    digest = hashlib.sha256(i3d_path.read_bytes()).hexdigest()
    assert TorchScriptI3D(i3d_path, digest.upper()).digest == digest
    with pytest.raises(ValueError, match=f"has {digest}, not 1234"):
        TorchScriptI3D(i3d_path, "1234")


def test_i3d_refuses_short_clips_odd_channels_and_other_types(i3d_path):
    network = TorchScriptI3D(i3d_path)
    with pytest.raises(ValueError, match="at least 9 frames, got 8"):
        network(clips(8))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        network(clips(9, channels=2))
    with pytest.raises(ValueError, match=r"of uint8, got torch\.float32"):
        network(clips(9).float())


def test_i3d_refuses_what_is_not_torchscript(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"not a module")
    with pytest.raises(ValueError, match=r"must be a TorchScript module: .*weights\.pt"):
        TorchScriptI3D(path)
    with pytest.raises(FileNotFoundError):
        TorchScriptI3D(tmp_path / "absent.pt")


def test_i3d_of_another_size_is_refused(tmp_path):
    class Other(nn.Module):
        def forward(
            self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
        ):
            return x.mean(dim=[2, 3, 4])

    torch.jit.script(Other()).save(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"400 features a clip, got shape \(20, 3\)"):
        TorchScriptI3D(tmp_path / "other.pt")(clips(9))


def test_in_domain_features_are_deterministic_and_in_units_of_the_reference(store, untrained_dir):
    reference = torch.from_numpy(np.array(store.clips("test")[:256, :8]))
    features = InDomainFeatures(untrained_dir)
    first, second = features(reference), InDomainFeatures(untrained_dir)(reference)
    assert torch.equal(first, second)
    assert (first.dtype, first.shape) == (torch.float64, (256, features.dim))
    assert len(features.digest) == 64
    torch.testing.assert_close(first.mean(dim=0), torch.zeros(features.dim).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(first.std(dim=0), torch.ones(features.dim).double(), rtol=0, atol=1e-4)
    assert isinstance(features, VideoFeatures)


def test_in_domain_features_refuse_other_types(untrained_dir):
    with pytest.raises(ValueError, match=r"of uint8, got torch\.float32"):
        InDomainFeatures(untrained_dir)(clips(8).float())
