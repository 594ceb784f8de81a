"""The codec's unit: train the frame autoencoder, measure what it loses, and write the training clips' latents."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.store import ClipStore, to_uint8, to_video
from pipeline.interfaces import Progress, Scalar, Video
from pipeline.models.codec import Codec, CodecSpec, LatentFrames, Latents, PixelCodec, new_codec, save_codec
from pipeline.models.digit_reader import load_digit_reader
from pipeline.rules import at_least, within
from pipeline.streams import noise_like, stream, stream_seed
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.codec_quality import ENCODED_AT_ONCE, describe_latents, draw_reconstructions, measure, psnr
from pipeline.training.optimizer import Optimizer, OptimizerSpec
from pipeline.unit import Metrics

FRAMES = 3  # of one clip in a training example
WATCHED_FRAMES = 512  # metric-split frames whose PSNR is the curve
WATCHED = "learning_rate, batch_size, latent_noise"  # the parameters to look at when the loss is not finite


@dataclass(frozen=True)
class CodecTraining:
    """How the autoencoder is trained: squared error of pixels in [-1, 1], and what makes latents easy to model.

    latent_noise: the decoder sees latents with noise of a standard deviation drawn from [0, latent_noise], so that
    it forgives what a denoiser gets wrong. Of the content channels, if the codec has any: constancy: weight of
    their variance within a clip; swap_share: of examples whose content is exchanged between frames before decoding,
    so that it cannot say where things are; both rise to their value over the first ramp_share of the run.
    """

    num_steps: int = 1_000
    batch_size: int = 85  # examples of 3 frames
    latent_noise: float = 0.3
    constancy: float = 0.08
    swap_share: float = 0.5
    ramp_share: float = 0.3
    optimizer: OptimizerSpec = field(
        default_factory=lambda: OptimizerSpec(learning_rate=2e-3, weight_decay=1e-3, warmup_steps=100)
    )
    report_every: int = 50
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        at_least(1, num_steps=self.num_steps, batch_size=self.batch_size)
        at_least(1, report_every=self.report_every, checkpoint_every=self.checkpoint_every)
        at_least(0, latent_noise=self.latent_noise, constancy=self.constancy)
        within(0, 1, swap_share=self.swap_share)
        within(0, 1, open_low=True, ramp_share=self.ramp_share)
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

        out/train_classes.npy (int64) too, where clips have a class.

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
        classes = store.classes("train")
        if classes is not None:
            np.save(out / "train_classes.npy", classes)
        save_codec(codec, out)
        draw_reconstructions(codec, store).save(show / "reconstructions.png")
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
            ramp = min(1.0, step / (config.ramp_share * config.num_steps))
            loss = reconstruction_loss(codec, draw_examples(clips, config.batch_size, rng), config, ramp, rng)
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


def reconstruction_loss(
    codec: Codec, examples: Video, config: CodecTraining, ramp: float, rng: torch.Generator
) -> Scalar:
    """mean (decode(z' + s eps) - x)^2 + ramp constancy mean (c - mean_t c)^2.

    z: latents of the frames of an example; c: their content channels; z': z, with content exchanged in a share of
    ramp swap_share of the examples; s ~ U[0, latent_noise].
    """
    z = batch_standardised(codec.encoder(examples.flatten(0, 1))).unflatten(0, examples.shape[:2])
    content, place = z.tensor_split((codec.spec.content_channels,), dim=2)
    seen = torch.cat([exchanged(content, ramp * config.swap_share, rng), place], dim=2).flatten(0, 1)
    scale = config.latent_noise * torch.rand(len(seen), 1, 1, 1, generator=rng)
    loss = (codec.decoder(seen + scale * noise_like(seen, rng)) - examples.flatten(0, 1)).square().mean()
    if codec.spec.content_channels:
        variance = (content - content.mean(1, keepdim=True)).square().mean()
        loss = loss + ramp * config.constancy * variance
    return loss


def exchanged(content: Latents, share: float, rng: torch.Generator) -> Latents:
    """In a share of the examples, every frame's content is replaced by that of any frame of the same example."""
    B, T = content.shape[:2]
    swaps = torch.rand(B, 1, generator=rng) < share
    source = torch.where(swaps, torch.randint(T, (B, T), generator=rng), torch.arange(T))
    return content[torch.arange(B)[:, None], source]


def batch_standardised(latents: LatentFrames) -> LatentFrames:
    """Mean 0, standard deviation 1 by channel over this batch; the gradient knows of both."""
    mean = latents.mean((0, 2, 3), keepdim=True)
    return (latents - mean) / latents.std((0, 2, 3), keepdim=True, correction=0).clamp_min(1e-6)


def draw_examples(clips: Tensor, batch_size: int, rng: torch.Generator) -> Video:
    """Three different frames of uint8 clips (N, T, C, H, W), as pixels in [-1, 1] (batch_size, 3, C, H, W)."""
    clip = torch.randint(len(clips), (batch_size, 1), generator=rng)
    frames = torch.rand(batch_size, clips.shape[1], generator=rng).argsort(dim=1)[:, :FRAMES]
    return clips[clip, frames].float() / 127.5 - 1


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
    codec.std.copy_(variance.sqrt()[0, 0].clamp_min(1e-6))
    return (latents - codec.mean) / codec.std


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
