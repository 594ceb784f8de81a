"""How fast it is here: `python -m pipeline.bench` times the training step of every cell and the rollout.

Each row is the median of its repeats, after a warm-up, on the sizes of params.yaml; rows of one run are compared as
ratios, since machines are noisy.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.config import Params, load_params
from pipeline.diffusion.autoregress import generate
from pipeline.models.denoiser import Denoiser
from pipeline.streams import noise_like, stream
from pipeline.training.cell import TrainCell
from pipeline.training.loop import TrainState, train

NUM_CLIPS, REPEATS, WARM_UP = 512, 7, 2


def main() -> None:
    params = load_params(Path("params.yaml"))
    torch.set_num_threads(params.num_threads)
    write(f"{'':34}{'ms':>9}{'GFLOP':>9}{'GFLOP/s':>9}   {params.num_threads} threads")
    backbone = params.denoiser.backbone
    shape = (backbone.channels, backbone.frame_size, backbone.frame_size)
    clips = torch.randn(NUM_CLIPS, params.prepare.num_frames, *shape)
    teacher = Denoiser(params.teacher_unit("bidirectional").denoiser)
    for name, cell in cells(params):
        state = TrainState(Denoiser(cell.denoiser), cell.loss.critics(teacher), cell.training)
        steps = train(state, clips, method=cell.method, loss=cell.loss, seed=0)
        seconds = median_s(lambda steps=steps: next(steps))
        flops = state.flops_per_step / 1e9
        write(f"step of {name:26}{1e3 * seconds:9.1f}{flops:9.2f}{flops / seconds:9.1f}")
    rollouts(params, clips)


def cells(params: Params) -> list[tuple[str, TrainCell]]:
    """Every training unit of the pipeline."""
    teachers = [(f"teacher@{name}", params.teacher_unit(name)) for name in ("causal", "bidirectional")]
    students = [
        (f"{stage}@{loss}", params.student_unit(stage, loss))
        for stage, part in (("distill", params.distill), ("rollout", params.rollout))
        for loss in part.losses
    ]
    return teachers + students


@torch.no_grad()
def rollouts(params: Params, clips: torch.Tensor) -> None:
    """The rollout with the cache, and the same frames by parallel forwards of all frames made so far."""
    student = Denoiser(params.denoiser).eval()
    sampler, schedule = params.sampler, params.denoiser.schedule
    rng = stream(0, "bench")
    noise = noise_like(clips, rng)
    chunks = sampler.chunks(clips.shape[1])

    def cached() -> None:
        generate(student, noise, schedule=schedule, sampler=sampler, rng=rng)

    def recomputed() -> None:
        for chunk in chunks:
            for _ in range(sampler.num_steps):
                student(noise[:, : chunk.stop], torch.full((len(noise), chunk.stop), 0.5))

    with_cache, without = median_s(cached), median_s(recomputed)
    frames = clips.shape[0] * clips.shape[1]
    for name, seconds in (("rollout with the cache", with_cache), ("the same without", without)):
        write(f"{name:34}{1e3 * seconds:9.1f}   {frames / seconds:.0f} frames/s")
    write(
        f"the cache saves a factor of {without / with_cache:.2f} at {len(noise)} clips of {clips.shape[1]} frames"
    )


def median_s(call: Callable[[], object]) -> float:
    """Median seconds of a call."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
