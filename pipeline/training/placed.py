"""The unit of a cell on an accelerator: the code of TrainCell, its networks and its clips on a device."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from pipeline.interfaces import Labels, NoiseLevel, Progress, Video
from pipeline.models.backbone import Backbone, Block, LayerCache
from pipeline.rules import at_least, one_of
from pipeline.training.cell import TrainCell
from pipeline.training.loop import Clips, TrainState
from pipeline.unit import Metrics

PRECISIONS = ("float32", "bfloat16")
BACKEND = "inductor"  # of torch.compile
Network = TypeVar("Network", bound=nn.Module)
Said = TypeVar("Said")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Placed:
    """Train a cell as it stands, but elsewhere: another result than that of the plain cell, so another unit.

    Draws come from the same streams on every device. precision: of the products of matrices inside a backbone;
    all else is float32 or wider. compile: the student's blocks, by torch.compile. num_workers: processes that share
    every batch, see `pipeline.training.workers`.
    """

    work: TrainCell
    device: str = "cuda"
    precision: str = "float32"
    compile: bool = False
    num_workers: int = 1

    def __post_init__(self) -> None:
        check_placement(self.device, self.precision)
        at_least(1, num_workers=self.num_workers)
        training = self.work.training
        size, micro = training.batch_size, training.micro_batch_size
        if size % self.num_workers:
            raise ValueError(f"num_workers must divide batch_size, got {self.num_workers} and {size}")
        if micro is not None and (size // self.num_workers) % micro:
            raise ValueError(
                f"micro_batch_size must divide the batch of a worker, got {micro} and {size // self.num_workers}"
            )
        if training.adaptive is not None and (self.num_workers > 1 or self.device != "cpu"):
            raise ValueError(
                f"training.adaptive must be null but for one worker on the cpu: num_workers={self.num_workers}, "
                f"device={self.device}"
            )

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """As TrainCell.run. With several workers this is the first of them, and the others wait for it.

        Raises:
            ValueError: the device is not here, or there are other workers than these.
        """
        check_device(self.device)
        if self.num_workers > 1:
            from pipeline.training.workers import lead

            return lead(self, directory, inputs)
        return exactly(self.device, self.on_device().run(directory, inputs))

    def on_device(self) -> "OnDevice":
        """The cell that trains in this process alone."""
        given = {field.name: getattr(self.work, field.name) for field in fields(self.work)}
        return OnDevice(**given, device=self.device, precision=self.precision, compile=self.compile)


@dataclass(frozen=True)
class OnDevice(TrainCell):
    """A cell whose state and clips are on a device."""

    device: str = "cpu"
    precision: str = "float32"
    compile: bool = False

    def clips(self, inputs: Mapping[str, Path], codec: str) -> Clips:
        """All of them on the device, where batches are drawn from them."""
        return super().clips(inputs, codec).to(self.device)

    def start(self, inputs: Mapping[str, Path], codec: str, num_frames: int) -> TrainState:
        """The state made again of moved networks: averages and optimisers are then where the weights are."""
        built = super().start(inputs, codec, num_frames)
        student = place(built.student, self.device, self.precision)
        critics = place(built.critics, self.device, self.precision)
        state = TrainState(student, critics, self.training, built.adaptive)
        if self.compile:
            compile_blocks(state.student)
        return state


class PlacedBackbone(Backbone):
    """A backbone that takes classes from anywhere, and multiplies matrices in a precision of its own.

    Between its borders, which are float32, autocast decides: products in bfloat16, norms in float32.
    """

    precision: str

    def given(self, labels: Labels) -> Backbone:
        """See Backbone; labels are drawn on the CPU."""
        return super().given(labels.to(self.place.device))

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        """See Backbone."""
        with self._autocast():
            output = super().forward(x_t, t, end)
        return output.float()

    def features(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> tuple[Tensor, Tensor]:
        """See Backbone."""
        with self._autocast():
            tokens, condition = super().features(x_t, t, end)
        return tokens.float(), condition.float()

    def beside(
        self, x_t: Video, t: NoiseLevel, context: Video, context_t: NoiseLevel, end: NoiseLevel | None = None
    ) -> Video:
        """See Backbone."""
        with self._autocast():
            output = super().beside(x_t, t, context, context_t, end)
        return output.float()

    def features_beside(
        self, x_t: Video, t: NoiseLevel, context: Video, context_t: NoiseLevel, end: NoiseLevel | None = None
    ) -> tuple[Tensor, Tensor]:
        """See Backbone."""
        with self._autocast():
            tokens, condition = super().features_beside(x_t, t, context, context_t, end)
        return tokens.float(), condition.float()

    def chunk(
        self,
        x_t: Video,
        t: NoiseLevel,
        caches: list[LayerCache] | None,
        first_frame: int,
        end: NoiseLevel | None = None,
    ) -> tuple[Video, list[LayerCache]]:
        """See Backbone."""
        with self._autocast():
            output, added = super().chunk(x_t, t, caches, first_frame, end)
        return output.float(), added

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        # entered for one call and no longer: it keeps its copies of the weights until it ends
        return torch.autocast(self.place.device.type, dtype=torch.bfloat16)


class CompiledBlock(Block):
    """A block that runs compiled."""

    compiled: Callable[..., tuple[Tensor, LayerCache]]

    def forward(
        self, x: Tensor, modulation: Tensor, rotation: Tensor, mask: Tensor | None, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        """See Block."""
        if is_in_torch_dispatch_mode():  # where operations are counted torch.compile would give up, and for good
            return super().forward(x, modulation, rotation, mask, cache)
        return self.compiled(self, x, modulation, rotation, mask, cache)


def place(network: Network, device: str, precision: str) -> Network:
    """The network on the device, its backbones in a precision; the same weights under the same names."""
    network = network.to(device)
    for module in network.modules():
        if type(module) is Backbone:
            module.__class__ = PlacedBackbone
            assert isinstance(module, PlacedBackbone)
            module.precision = precision
    return network


def compile_blocks(network: nn.Module) -> None:
    """Compile the code of the blocks, once for all: whatever is asked of a backbone goes through them."""
    compiled = torch.compile(Block.forward, backend=BACKEND)
    for module in network.modules():
        if type(module) is Block:
            module.__class__ = CompiledBlock
            assert isinstance(module, CompiledBlock)
            module.compiled = compiled


def check_placement(device: str, precision: str) -> None:
    """Raises ValueError for what cannot be placed anywhere."""
    one_of(PRECISIONS, precision=precision)
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be a name of torch's, as cpu, cuda or cuda:1, got {device}") from error


def check_device(device: str) -> None:
    """Raises ValueError unless the device is one of this machine."""
    here = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if torch.device(device).type not in here:
        raise ValueError(f"device must be one that is here, {', '.join(here)}, got {device}")


def exactly(device: str, steps: Generator[Said, None, Result]) -> Generator[Said, None, Result]:
    """The same steps, each under `exact`, which is not left on while somebody else runs."""
    while True:
        with exact(device):
            try:
                said = next(steps)
            except StopIteration as end:
                return end.value
        yield said


@contextmanager
def exact(device: str) -> Iterator[None]:
    """On an accelerator: float32 is float32, not TF32, and what has a deterministic algorithm uses it."""
    if device == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS may sum in any order
    precision, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warned)
