"""The codec's unit: train the frame autoencoder, measure what it loses, and write the training clips' latents."""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.contact_sheet import contact_sheet
from pipeline.data.store import ClipStore, one_of_each, to_uint8, to_video
from pipeline.interfaces import Progress, Scalar, Video
from pipeline.models.codec import Codec, CodecSpec, LatentFrames, Latents, PixelCodec, new_codec, save_codec
from pipeline.models.digit_reader import DigitReader, load_digit_reader
from pipeline.streams import noise_like, stream, stream_seed
from pipeline.training.checkpoint import delete_checkpoints, load_checkpoint, save_checkpoint
from pipeline.training.optimizer import Optimizer, OptimizerSpec
from pipeline.unit import Metrics

WINDOW = 3  # consecutive frames a training example: as many as an acceleration needs
ENCODED_AT_ONCE = 256  # clips
HELDOUT_STRIDE = 4  # of the frames of the test clips, every so many are measured
WATCHED_FRAMES = 512  # metric-split frames whose PSNR is the curve
WATCHED = "learning_rate, batch_size, latent_noise"  # the parameters to look at when the loss is not finite
MAX_PIXEL = 255.0


@dataclass(frozen=True)
class CodecTraining:
    """How the autoencoder is trained: squared error of pixels in [-1, 1], and what makes latents easy to model.

    latent_noise: the decoder sees latents with noise of a standard deviation drawn from [0, latent_noise], so that
    it forgives what a denoiser gets wrong. slowness, straightness: weights of the mean squared first and second
    difference of standardised latents between frames, so that motion becomes simple. More of it
    makes the next frame easier to predict, and costs PSNR.
    """

    num_steps: int = 1_000
    batch_size: int = 85  # windows of 3 frames
    latent_noise: float = 0.3
    slowness: float = 0.03
    straightness: float = 0.0
    optimizer: OptimizerSpec = field(
        default_factory=lambda: OptimizerSpec(learning_rate=2e-3, weight_decay=1e-3, warmup_steps=100)
    )
    report_every: int = 50
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        for name, value in (
            ("num_steps", self.num_steps),
            ("batch_size", self.batch_size),
            ("report_every", self.report_every),
            ("checkpoint_every", self.checkpoint_every),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in (
            ("latent_noise", self.latent_noise),
            ("slowness", self.slowness),
            ("straightness", self.straightness),
        ):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if self.checkpoint_every % self.report_every:
            raise ValueError(
                f"checkpoint_every must be a multiple of report_every: checkpoint_every={self.checkpoint_every}, "
                f"report_every={self.report_every}"
            )


@dataclass(frozen=True)
class TrainCodec:
    """Train `codec`, or none, on the frames of the train split.

    Inputs: `clips`, a clip store; `features`, which holds the digit reader.
    """

    codec: CodecSpec | None = field(default_factory=CodecSpec)
    training: CodecTraining = field(default_factory=CodecTraining)
    seed: int = 0
    num_threads: int = 1

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Write out/codec.safetensors, out/codec.json, out/train.npy (float32 latents), show/reconstructions.png.

        Raises:
            ValueError: the frames cannot be divided by the codec.
            FloatingPointError: the loss is not finite.
        """
        torch.set_num_threads(self.num_threads)
        torch.manual_seed(stream_seed(self.seed, "weights"))
        store, reader = ClipStore(inputs["clips"]), load_digit_reader(inputs["features"])
        clips = store.clips("train")
        codec = new_codec(self.codec, clips.shape[2:])
        if isinstance(codec, Codec):
            yield from self._train(codec, store, directory)
        codec.eval().requires_grad_(False)
        out, show = directory / "out", directory / "show"
        out.mkdir(exist_ok=True)
        show.mkdir(exist_ok=True)
        latents = standardise(codec, clips)
        np.save(out / "train.npy", latents.numpy())
        save_codec(codec, out)
        draw_reconstructions(codec, store).save(show / "reconstructions.png")
        delete_checkpoints(directory)
        return {
            "codec": "none" if self.codec is None else "convolutional",
            "latent_shape": list(codec.latent_shape),
            "parameters": sum(p.numel() for p in codec.parameters()),
            **measure(codec, reader, store),
            **describe_latents(latents),
        }

    def _train(self, codec: Codec, store: ClipStore, directory: Path) -> Generator[Progress, None, None]:
        """Resume or start; yields the mean loss and the PSNR of held-out frames every `report_every` steps."""
        config = self.training
        clips = torch.from_numpy(np.array(store.clips("train")))
        watched = to_video(store.clips("metric")[:WATCHED_FRAMES, 0])
        optimizer = Optimizer(config.optimizer, codec)
        start, losses = 0, []
        checkpoint = load_checkpoint(directory)
        if checkpoint is not None:
            start = checkpoint.step
            load_parts(codec, optimizer, checkpoint.tensors)
        yield Progress(start, config.num_steps)
        for step in range(start, config.num_steps):
            rng = stream(self.seed, "codec", step)
            loss = reconstruction_loss(codec, draw_windows(clips, config.batch_size, rng), config, rng)
            if not torch.isfinite(loss):
                last = load_checkpoint(directory)
                kept = f"checkpoint of step {last.step} in {directory}" if last else "there is no checkpoint yet"
                raise FloatingPointError(
                    f"loss is {loss.item()} at step {step}; last good: {kept}; look at {WATCHED}"
                )
            gradients = torch.autograd.grad(loss, optimizer.parameters)
            optimizer.update(gradients, factor=config.optimizer.rate_at(step, config.num_steps))
            losses.append(loss.item())
            done = step + 1
            if done % config.report_every == 0 or done == config.num_steps:
                with torch.no_grad():
                    seen = codec.decoder(batch_standardised(codec.encoder(watched)))
                values = {"loss": float(np.mean(losses)), "psnr": psnr(to_uint8(watched), to_uint8(seen))}
                yield Progress(done, config.num_steps, {name: round(value, 6) for name, value in values.items()})
                losses.clear()
            if done % config.checkpoint_every == 0 and done < config.num_steps:
                save_checkpoint(directory, done, parts(codec, optimizer), {})


def reconstruction_loss(codec: Codec, windows: Video, config: CodecTraining, rng: torch.Generator) -> Scalar:
    """mean (decode(z + s eps) - x)^2 + slowness mean (dz)^2 + straightness mean (ddz)^2, s ~ U[0, latent_noise]."""
    frames = windows.flatten(0, 1)
    z = batch_standardised(codec.encoder(frames))
    scale = config.latent_noise * torch.rand(len(z), 1, 1, 1, generator=rng)
    error = (codec.decoder(z + scale * noise_like(z, rng)) - frames).square().mean()
    step = z.unflatten(0, windows.shape[:2]).diff(dim=1)
    return error + config.slowness * step.square().mean() + config.straightness * step.diff(dim=1).square().mean()


def batch_standardised(latents: LatentFrames) -> LatentFrames:
    """Mean 0, standard deviation 1 by channel over this batch; the gradient knows of both."""
    mean = latents.mean((0, 2, 3), keepdim=True)
    return (latents - mean) / latents.std((0, 2, 3), keepdim=True, correction=0).clamp_min(1e-6)


def draw_windows(clips: Tensor, batch_size: int, rng: torch.Generator) -> Video:
    """Windows of consecutive frames of uint8 clips (N, T, C, H, W), as pixels in [-1, 1]."""
    clip = torch.randint(len(clips), (batch_size, 1), generator=rng)
    first = torch.randint(clips.shape[1] - WINDOW + 1, (batch_size, 1), generator=rng)
    return clips[clip, first + torch.arange(WINDOW)].float() / (MAX_PIXEL / 2) - 1


@torch.no_grad()
def standardise(codec: Codec | PixelCodec, clips: np.ndarray) -> Latents:
    """Set the codec's mean and standard deviation by channel to those of these clips; returns their latents."""
    codec.mean.zero_()
    codec.std.fill_(1.0)
    chunks = (to_video(clips[start : start + ENCODED_AT_ONCE]) for start in range(0, len(clips), ENCODED_AT_ONCE))
    latents = torch.cat([codec.encode(chunk) for chunk in chunks])
    by_channel = (0, 1, 3, 4)
    mean = latents.mean(by_channel, keepdim=True, dtype=torch.float64)
    variance = (latents - mean).square().mean(by_channel, keepdim=True)
    codec.mean.copy_(mean[0, 0])
    codec.std.copy_(variance.sqrt()[0, 0])
    return (latents - codec.mean) / codec.std


@torch.no_grad()
def measure(codec: Codec | PixelCodec, reader: DigitReader, store: ClipStore) -> dict[str, Any]:
    """What is lost on test clips, whose digits were never trained on; pixels rounded to 8 bits on both sides."""
    frames = store.clips("test")[:, ::HELDOUT_STRIDE]
    video = to_video(frames)
    decoded = to_uint8(torch.cat([codec.decode(codec.encode(part)) for part in video.split(ENCODED_AT_ONCE)]))
    read, read_decoded = (
        torch.cat([reader.read(part.flatten(0, 1)) for part in pixels.split(ENCODED_AT_ONCE)])
        for pixels in (video, to_video(decoded))
    )
    digits = torch.from_numpy(store.labels("test")["class"][:, 0]).repeat_interleave(frames.shape[1])
    shares = {
        "read_agreement": read_decoded == read,
        "read_accuracy": read_decoded == digits,
        "read_accuracy_originals": read == digits,
    }
    return {
        "psnr": None if isinstance(codec, PixelCodec) else round(psnr(np.asarray(frames), decoded), 4),
        **{name: round(share.float().mean().item(), 6) for name, share in shares.items()},
    }


def describe_latents(latents: Latents) -> dict[str, float]:
    """How hard latents are to model: mean squared step between frames (2 = unrelated frames), effective dimension.

    The effective dimension of frames is (sum of eigenvalues)^2 / sum of their squares, of the covariance.
    """
    flat = latents[:: max(1, len(latents) // 2_000)].flatten(2)
    covariance = torch.cov(flat.flatten(0, 1).double().T)
    dimension = covariance.trace().square() / covariance.square().sum()
    return {
        "latent_step": round(flat.diff(dim=1).square().mean().item(), 6),
        "latent_dimension": round(dimension.item(), 3),
    }


def psnr(originals: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pixels: 10 log10(255^2 / mean squared error); not of equal ones."""
    error = np.mean((originals.astype(np.float32) - decoded.astype(np.float32)) ** 2)
    return 10 * math.log10(MAX_PIXEL**2 / float(error))


@torch.no_grad()
def draw_reconstructions(codec: Codec | PixelCodec, store: ClipStore) -> Image.Image:
    """Test clips above what the codec makes of them, one of each class."""
    frames, labels = store.clips("test"), store.labels("test")
    chosen = np.asarray(frames[one_of_each(labels, len(frames), 10)][:, : store.manifest["num_frames"]])
    decoded = to_uint8(codec.decode(codec.encode(to_video(chosen))))
    rows = [row for pair in zip(chosen, decoded, strict=True) for row in pair]
    shape = "x".join(str(size) for size in codec.latent_shape)
    title = f"held-out clips, and each through latents of {shape} a frame"
    return contact_sheet(rows, ["original", "decoded"] * len(chosen), title)


def parts(codec: Codec, optimizer: Optimizer) -> dict[str, Tensor]:
    """All that changes while a codec trains, by name."""
    weights = {f"codec/{name}": tensor for name, tensor in codec.state_dict().items()}
    return weights | {f"optimizer/{name}": tensor for name, tensor in optimizer.tensors().items()}


def load_parts(codec: Codec, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what `parts` gave."""
    split = {"codec": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        owner, name = key.split("/", 1)
        split[owner][name] = tensor
    codec.load_state_dict(split["codec"])
    optimizer.load(split["optimizer"])
