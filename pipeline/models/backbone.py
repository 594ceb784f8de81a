"""The one backbone: a space-time transformer, conditioned by frame on its noise level.

Each frame is cut into patches, a token each; all tokens of a clip attend to each other (`full`) or to those of
their own and of earlier chunks (`causal`). Time enters attention as rotary phases of the frame index, so only the
distance between frames counts and a sliding window rolls out further than the training length.
Diffusion Transformer, arXiv:2212.09748; adaLN-single, arXiv:2310.00426, sec. 2.3; rotary phases, arXiv:2104.09864.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.interfaces import Labels, NoiseLevel, Video
from pipeline.models.conditioning import ClassEmbedding, LevelEmbedding, StepEmbedding
from pipeline.rules import at_least, one_of

ATTENTIONS = ("causal", "full")
GATES, INITIAL_GATE = [2, 5], 0.3  # of the six modulations of a block, those on its two residuals


@dataclass(frozen=True)
class BackboneSpec:
    """Sizes. `channels` and `frame_size` are those of the latent frames."""

    channels: int = 4
    frame_size: int = 4
    patch: int = 4  # patch x patch latents make a token
    width: int = 256
    depth: int = 4
    num_heads: int = 4
    attention: str = "causal"
    chunk_len: int = 1  # frames that see each other under causal attention
    end_level: bool = False  # conditioned on a second level, at which a step from the first one ends
    num_classes: int = 0  # of clips, of which it may be told; 0: of none

    def __post_init__(self) -> None:
        at_least(1, channels=self.channels, frame_size=self.frame_size, patch=self.patch, width=self.width)
        at_least(0, num_classes=self.num_classes)
        at_least(1, depth=self.depth, num_heads=self.num_heads, chunk_len=self.chunk_len)
        if self.frame_size % self.patch:
            raise ValueError(
                f"patch must divide the latent frame: patch={self.patch}, frame_size={self.frame_size}"
            )
        if self.width % (4 * self.num_heads):
            raise ValueError(f"width must be a multiple of 4 num_heads: width={self.width}, {self.num_heads} heads")
        one_of(ATTENTIONS, attention=self.attention)

    @property
    def tokens_per_frame(self) -> int:
        return (self.frame_size // self.patch) ** 2

    @property
    def token_size(self) -> int:
        return self.channels * self.patch**2


class LayerCache(NamedTuple):
    """Keys (rotated to their frames) and values of the finished frames in one layer: (B, heads, N, head_size)."""

    keys: Float[Tensor, "B heads N size"]
    values: Float[Tensor, "B heads N size"]


class Backbone(nn.Module):
    """Noisy frames and their levels -> one output a latent value, in the shape of the frames."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Linear(spec.token_size, spec.width)
        self.embed_level = nn.Linear(spec.width, spec.width)
        self.place = nn.Parameter(torch.randn(spec.tokens_per_frame, spec.width) * 0.02)
        self.level = LevelEmbedding(spec.width)
        self.modulation = nn.Linear(spec.width, 6 * spec.width)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.head_modulation = nn.Linear(spec.width, 2 * spec.width)
        self.head = nn.Linear(spec.width, spec.token_size)
        for layer in (self.modulation, self.head_modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.step = StepEmbedding(spec.width) if spec.end_level else None
        self.classes = ClassEmbedding(spec.num_classes, spec.width) if spec.num_classes else None
        self.labels: Labels | None = None  # of the clips that it is asked about

    def given(self, labels: Labels) -> "Backbone":
        """The same network, told the classes of the clips that it is asked about; num_classes: of a clip, none.

        It shares every parameter. Raises ValueError: a network without classes.
        """
        if self.classes is None:
            raise ValueError("num_classes must be above 0 where a network is told classes, got 0")
        told = copy.copy(self)
        told.labels = labels
        return told

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        """All frames in parallel, under the mask of the spec's attention. `end`: see `condition`."""
        return self._head(*self.features(x_t, t, end), x_t.shape)

    def features(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> tuple[Tensor, Tensor]:
        """Tokens after the last block (B, T*P, width), and the condition of every token."""
        num_frames, device = x_t.shape[1], x_t.device
        condition = self.condition(t, end)
        return self._features(x_t, condition, self._rotation(0, num_frames, device), self._mask(num_frames, device))

    def beside(
        self, x_t: Video, t: NoiseLevel, context: Video, context_t: NoiseLevel, end: NoiseLevel | None = None
    ) -> Video:
        """Every chunk as if alone after the chunks of `context` before it; see features_beside."""
        return self._head(*self.features_beside(x_t, t, context, context_t, end), x_t.shape)

    def features_beside(
        self, x_t: Video, t: NoiseLevel, context: Video, context_t: NoiseLevel, end: NoiseLevel | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and conditions of x_t, as `features` gives them, from one pass over [context | x_t].

        Frame f of the context sees the context up to its chunk; frame f of x_t sees the context of earlier chunks,
        and of x_t its own chunk alone. Both are frame f to the rotary phases. ACDiT, arXiv:2412.07720, section 3.2.

        Raises:
            ValueError: attention is full, under which the context sees the frames that follow.
        """
        if self.spec.attention != "causal":
            raise ValueError(
                f"attention must be causal where noisy frames stand beside their clean context, got "
                f"{self.spec.attention!r}"
            )
        num_frames, device = x_t.shape[1], x_t.device
        both, levels = torch.cat([context, x_t], 1), torch.cat([context_t, t], 1)
        ends = None if end is None else F.pad(end, (num_frames, 0))  # of the context at 0
        condition = self.condition(levels, ends)
        rotation = self._rotation(0, num_frames, device).repeat(2, 1)
        tokens, condition = self._features(both, condition, rotation, self._mask_beside(num_frames, device))
        _, tokens = tokens.chunk(2, dim=1)
        _, condition = condition.chunk(2, dim=1)
        return tokens, condition

    def condition(self, t: NoiseLevel, end: NoiseLevel | None) -> Float[Tensor, "B T width"]:
        """What a frame's tokens are told: level, class of the clip, and how far a step goes; None: to level 0.

        Raises:
            ValueError: an end for a backbone without end_level.
        """
        condition = self.level(t)
        if self.classes is not None:
            condition = condition + self.classes(self.labels)
        if self.step is None:
            if end is not None:
                raise ValueError("end_level must be true where a network is told the end of a step, got false")
            return condition
        return condition + self.step(t if end is None else t - end)

    def _features(
        self, x_t: Video, condition: Tensor, rotation: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        tokens, condition = self._embed(x_t, condition)
        modulation = self.modulation(condition)
        for block in self.blocks:
            tokens, _ = block(tokens, modulation, rotation, mask, None)
        return tokens, condition

    def chunk(
        self,
        x_t: Video,
        t: NoiseLevel,
        caches: list[LayerCache] | None,
        first_frame: int,
        end: NoiseLevel | None = None,
    ) -> tuple[Video, list[LayerCache]]:
        """One chunk, or several in a row, whose frames start at first_frame, in the context of cached frames.

        All of them see what is cached; of each other, what the mask of the spec's attention lets them see. Returns
        their output, and the keys and values that they would add to the caches.
        """
        tokens, condition = self._embed(x_t, self.condition(t, end))
        rotation = self._rotation(first_frame, x_t.shape[1], x_t.device)
        modulation = self.modulation(condition)
        mask = self._mask(x_t.shape[1], x_t.device)
        if mask is not None and caches:
            mask = F.pad(mask, (caches[0].keys.shape[2], 0), value=True)
        added = []
        for index, block in enumerate(self.blocks):
            tokens, own = block(tokens, modulation, rotation, mask, caches[index] if caches else None)
            added.append(own)
        return self._head(tokens, condition, x_t.shape), added

    def _embed(self, x_t: Video, condition: Float[Tensor, "B T width"]) -> tuple[Tensor, Tensor]:
        """Tokens, and the condition of the frame of each."""
        condition = condition.repeat_interleave(self.spec.tokens_per_frame, dim=1)
        place = self.place.repeat(x_t.shape[1], 1)
        return self.embed(patchify(x_t, self.spec.patch)) + self.embed_level(condition) + place, condition

    def _head(self, tokens: Tensor, condition: Tensor, shape: torch.Size) -> Video:
        shift, scale = self.head_modulation(condition).chunk(2, dim=-1)
        return unpatchify(self.head(modulate(tokens, shift, scale)), self.spec.patch, shape)

    def _rotation(self, first: int, num_frames: int, device: torch.device) -> Tensor:
        """Rotary phases (N, head_size / 4) of every token's frame; the other half of a head does not rotate."""
        size = self.spec.width // self.spec.num_heads
        rate = 32.0 ** -torch.linspace(0, 1, size // 4, device=device)
        frame = torch.arange(first, first + num_frames, device=device)
        return (frame[:, None] * rate).repeat_interleave(self.spec.tokens_per_frame, dim=0)

    def _mask(self, num_frames: int, device: torch.device) -> Bool[Tensor, "N N"] | None:
        """Which tokens see which; None where all see all."""
        if self.spec.attention == "full" or num_frames <= self.spec.chunk_len:
            return None
        chunk = self._chunk_of_tokens(num_frames, device)
        return chunk[:, None] >= chunk[None, :]

    def _mask_beside(self, num_frames: int, device: torch.device) -> Bool[Tensor, "N N"]:
        """Which tokens of [context | noisy frames] see which: columns are what is seen."""
        chunk = self._chunk_of_tokens(num_frames, device)
        here, there = chunk[:, None], chunk[None, :]
        of_context = torch.cat([here >= there, torch.zeros_like(here >= there)], 1)
        of_noisy = torch.cat([here > there, here == there], 1)
        return torch.cat([of_context, of_noisy], 0)

    def _chunk_of_tokens(self, num_frames: int, device: torch.device) -> Int[Tensor, " N"]:
        chunk = torch.arange(num_frames, device=device) // self.spec.chunk_len
        return chunk.repeat_interleave(self.spec.tokens_per_frame)


class Block(nn.Module):
    """Attention and a feed-forward layer, both modulated by the noise level of the token's frame."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.num_heads = spec.num_heads
        offset = torch.zeros(6, spec.width)
        offset[GATES] = INITIAL_GATE
        self.offset = nn.Parameter(offset.flatten())
        self.qkv = nn.Linear(spec.width, 3 * spec.width, bias=False)
        self.out = nn.Linear(spec.width, spec.width, bias=False)
        self.up = nn.Linear(spec.width, 4 * spec.width)
        self.down = nn.Linear(4 * spec.width, spec.width)

    def forward(
        self, x: Tensor, modulation: Tensor, rotation: Tensor, mask: Tensor | None, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (modulation + self.offset).chunk(6, dim=-1)
        qkv = self.qkv(modulate(x, shift_a, scale_a)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        size = q.shape[-1]
        q, own = rotate(F.rms_norm(q, (size,)), rotation), LayerCache(rotate(F.rms_norm(k, (size,)), rotation), v)
        seen = (
            own if cache is None else LayerCache(*(torch.cat(pair, dim=2) for pair in zip(cache, own, strict=True)))
        )
        mixed = F.scaled_dot_product_attention(q, seen.keys, seen.values, attn_mask=mask)
        x = x + gate_a * self.out(mixed.transpose(1, 2).flatten(2))
        return x + gate_f * self.down(F.gelu(self.up(modulate(x, shift_f, scale_f)), approximate="tanh")), own


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it by its noise level."""
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def rotate(x: Float[Tensor, "B heads N size"], phase: Float[Tensor, "N quarter"]) -> Tensor:
    """Rotate the first half of every head, pair by pair, by the phases of the token's frame."""
    a, b, rest = x.tensor_split((phase.shape[-1], 2 * phase.shape[-1]), dim=-1)
    cos, sin = phase.cos(), phase.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


def patchify(x: Video, patch: int) -> Float[Tensor, "B N D"]:
    """(B, T, C, H, W) -> tokens in the order of frames, then places."""
    B, T, C, H, W = x.shape
    x = x.reshape(B, T, C, H // patch, patch, W // patch, patch).permute(0, 1, 3, 5, 2, 4, 6)
    return x.reshape(B, T * (H // patch) * (W // patch), C * patch * patch)


def unpatchify(tokens: Float[Tensor, "B N D"], patch: int, shape: torch.Size) -> Video:
    """The inverse of patchify."""
    B, T, C, H, W = shape
    x = tokens.reshape(B, T, H // patch, W // patch, C, patch, patch).permute(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(B, T, C, H, W)
