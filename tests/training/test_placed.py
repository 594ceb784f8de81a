"""A placed cell: the same training elsewhere, in another precision, compiled; resumed as if never interrupted."""

import dataclasses
import json
import re

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file

from pipeline.diffusion.adaptive import AdaptiveSpec
from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.training import placed as placed_module
from pipeline.training.loop import Batch, TrainState, draw_batch, train
from pipeline.training.placed import Placed, PlacedBackbone, compile_blocks, exact, exactly, place
from pipeline.unit import as_plain, digest_of, run_unit, sources_of
from tests.cells import make_cell, make_latents
from tests.every_cell import clips, few_step_method, started
from tests.other_device import DEVICE, Far, other_device

RUNNABLE = [Cell(method, loss) for method in METHODS for loss in LOSSES if Cell(method, loss).excluded is None]
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SMALL = [Cell("diffusion_forcing", "l2"), Cell("self_forcing", "dmd"), Cell("self_forcing", "gan")]


@pytest.fixture
def codec(tmp_path):
    return make_latents(tmp_path / "codec")


@pytest.fixture
def inputs(tmp_path, codec):
    torch.manual_seed(1)
    denoiser = Denoiser(make_cell(attention="full").denoiser)
    save_denoiser(denoiser, tmp_path / "teacher", latents=digest_of(codec / "codec.json"))
    return {"codec": codec, "teacher": tmp_path / "teacher"}


class Killed(BaseException):
    """Nothing in the library may catch it."""


def kill_at(step):
    def listen(progress):
        if progress.step >= step and progress.metrics:
            raise Killed

    return listen


def trained(state, loss, cell, data):
    steps = train(state, data, method=few_step_method(cell), loss=loss, seed=0)
    return [{name: value.item() for name, value in report.metrics.items()} for report in steps]


def moved(state, device, precision="float32"):
    """A state as OnDevice makes it."""
    student, critics = (place(network, device, precision) for network in (state.student, state.critics))
    return TrainState(student, critics, state.config)


@pytest.mark.parametrize("cell", RUNNABLE, ids=str)
def test_every_cell_trains_to_the_same_numbers_on_another_device(cell):
    """Nothing mixes two devices, whatever is drawn on the CPU is moved, and no value is lost on the way."""
    here, loss = started(cell, num_steps=1)
    expected = trained(here, loss, cell, clips())
    with other_device():
        there, loss = started(cell, num_steps=1)
        there = moved(there, str(DEVICE))
        assert all(isinstance(parameter, Far) for parameter in there.student.parameters())
        found = trained(there, loss, cell, clips().to(DEVICE))
        weights = {name: tensor.cpu() for name, tensor in there.ema.average.state_dict().items()}
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    for name, weight in here.ema.average.state_dict().items():
        assert torch.allclose(weight, weights[name], rtol=1e-3, atol=1e-4), name


def test_the_stand_in_refuses_tensors_of_two_devices():
    with other_device():
        far = torch.ones(2, device=DEVICE)
        assert torch.equal((far + 1).cpu(), torch.full((2,), 2.0))
        assert far.cpu()[torch.tensor([1])] == 1
        with pytest.raises(RuntimeError, match="same device"):
            _ = far + torch.ones(2)


def test_labels_drawn_on_the_cpu_reach_a_network_elsewhere(rng):
    cell = make_cell()
    spec = dataclasses.replace(cell.denoiser, backbone=dataclasses.replace(cell.denoiser.backbone, num_classes=3))
    data, labels = torch.randn(8, 4, 2, 2, 2, generator=rng), torch.arange(8) % 3
    training = dataclasses.replace(cell.training, label_dropout=0.5)
    state = TrainState(Denoiser(spec), torch.nn.Module(), training)
    for parameter in state.student.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=rng)
    batch = draw_batch(Batch(data, labels), state, rng)
    assert batch.labels is not None
    t = torch.full((8, 4), 0.5)
    expected = state.student.given(batch.labels)(batch.clips, t)
    with other_device():
        student = place(state.student, str(DEVICE), "float32")
        found = student.given(batch.labels)(batch.clips.to(DEVICE), t.to(DEVICE)).cpu()
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("cell", SMALL, ids=str)
def test_networks_answer_in_float32_and_multiply_in_bfloat16(cell, monkeypatch):
    state, loss = started(cell, num_steps=1)
    state = moved(state, "cpu", "bfloat16")
    products, answers = set(), set()
    linear = torch.nn.Linear.forward

    def watched(module, x):
        y = linear(module, x)
        if "backbone" in names[id(module)]:
            products.add(y.dtype)
        return y

    def answered(module, args, answer):
        answers.add(answer.dtype)

    names = {id(module): name for part in (state.student, state.critics) for name, module in part.named_modules()}
    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    rollout = few_step_method(cell).rollout(
        state.student, clips()[:8], schedule=state.schedule, rng=torch.Generator().manual_seed(0)
    )
    assert rollout.x0_hat.dtype == torch.float32
    trained(state, loss, cell, clips())
    assert products == {torch.bfloat16}
    assert {tensor.dtype for tensor in state.tensors().values() if tensor.is_floating_point()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_is_near_float32_and_not_it(rng):
    state, _ = started(SMALL[0], num_steps=1)
    x, t = torch.randn(8, 4, 2, 2, 2, generator=rng), torch.rand(8, 4, generator=rng)
    exact_answer = state.student(x, t)
    half = place(state.student, "cpu", "bfloat16")(x, t)
    error = (half - exact_answer).abs().max() / exact_answer.abs().max()
    assert 0 < error < 2e-2


def test_bfloat16_sees_every_update_of_its_weights(rng):
    """Autocast keeps copies of the weights; none may outlive the call that it is for."""
    state, _ = started(SMALL[0], num_steps=1)
    student = place(state.student, "cpu", "bfloat16")
    x, t = torch.randn(2, 4, 2, 2, 2, generator=rng), torch.rand(2, 4, generator=rng)
    before = student(x, t)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(2)
    assert not torch.equal(student(x, t), before)


@pytest.fixture
def graphs(monkeypatch):
    """Those that torch.compile made; while it traces, annotations are not checked, which it cannot follow."""
    made = []

    def backend(graph, example_inputs):
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(placed_module, "BACKEND", backend)
    jaxtyping.config.update("jaxtyping_disable", True)
    torch.compiler.reset()
    yield made
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("end", ["forward", "beside", "denoise_chunk"])
def test_compiled_blocks_answer_alike(end, rng, graphs):
    state, _ = started(SMALL[0], num_steps=1)
    x, t = torch.randn(2, 4, 2, 2, 2, generator=rng), torch.rand(2, 4, generator=rng)
    given = {"forward": (x, t), "beside": (x, t, x), "denoise_chunk": (x, t, None)}[end]
    expected = getattr(state.student, end)(*given)
    compile_blocks(state.student)
    assert torch.equal(getattr(state.student, end)(*given), expected)
    assert graphs


@pytest.mark.parametrize("cell", SMALL, ids=str)
def test_a_placed_cell_of_float32_on_the_cpu_is_the_plain_one(cell, inputs, work_root):
    """`placed` never makes it; what changes the numbers elsewhere is then the device alone."""
    plain = run_unit("cell", make_cell(cell.method, cell.loss, num_steps=4), inputs)
    same = run_unit("cell", Placed(make_cell(cell.method, cell.loss, num_steps=4), "cpu"), inputs)
    assert same != plain
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert (same / name).read_bytes() == (plain / name).read_bytes(), name


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("cell", SMALL, ids=str)
def test_an_interrupted_cell_in_bfloat16_ends_bit_identical(cell, device, inputs, tmp_path, monkeypatch):
    work = Placed(make_cell(cell.method, cell.loss, num_steps=8), device, "bfloat16")
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "whole"))
    expected = run_unit("cell", work, inputs)
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "broken"))
    for step in (2, 6):
        with pytest.raises(Killed):
            run_unit("cell", work, inputs, on_progress=kill_at(step))
    found = run_unit("cell", work, inputs)
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


@NEEDS_GPU
@pytest.mark.parametrize("cell", SMALL, ids=str)
def test_a_cell_on_a_gpu_learns_what_the_plain_one_does(cell, inputs, work_root):
    work = make_cell(cell.method, cell.loss, num_steps=4, muon=False)
    plain, there = (run_unit("cell", one, inputs) for one in (work, Placed(work)))
    weights = [load_file(unit / "out" / "student.safetensors") for unit in (plain, there)]
    for name, weight in weights[0].items():
        assert torch.allclose(weights[1][name], weight, rtol=1e-2, atol=1e-3), name


def test_a_compiled_cell_counts_the_operations_of_the_plain_one(codec, work_root, graphs):
    """Counted on the first step, which must not keep the others from being compiled."""
    cell = make_cell(num_steps=4)
    plain = run_unit("cell", cell, {"codec": codec})
    assert not graphs
    compiled = run_unit("cell", Placed(cell, "cpu", compile=True), {"codec": codec})
    assert len(graphs) == 1
    counts = [json.loads((unit / "metrics.json").read_text())["flops"] for unit in (plain, compiled)]
    assert counts[0] == counts[1] > 0
    weights = [load_file(unit / "out" / "student.safetensors") for unit in (plain, compiled)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert torch.allclose(weights[1][name], weight, atol=1e-5), name


def test_no_plain_cell_knows_of_placed_ones():
    """Their fingerprints are made of the modules that they import."""
    assert not [name for name in sources_of({"pipeline.training.cell"}) if "placed" in name or "workers" in name]
    assert "pipeline.training.workers" in sources_of({Placed.__module__})


def test_every_field_is_part_of_the_unit():
    cell = make_cell()
    described = [as_plain(work) for work in (cell, Placed(cell), Placed(cell, precision="bfloat16"))]
    described += [as_plain(Placed(cell, compile=True)), as_plain(Placed(cell, num_workers=2))]
    assert len({json.dumps(one) for one in described}) == 5


@pytest.mark.parametrize(
    ("micro", "change", "says"),
    [
        (None, {"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        (None, {"device": "gpu"}, "device must be a name of torch's, as cpu, cuda or cuda:1, got gpu"),
        (None, {"num_workers": 0}, "num_workers must be at least 1, got 0"),
        (None, {"num_workers": 3}, "num_workers must divide batch_size, got 3 and 8"),
        (8, {"num_workers": 2}, "micro_batch_size must divide the batch of a worker, got 8 and 4"),
    ],
)
def test_what_cannot_be_placed_is_refused(micro, change, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Placed(make_cell(micro_batch_size=micro), **change)


@pytest.mark.parametrize("change", [{"num_workers": 2, "device": "cpu"}, {"device": "cuda"}])
def test_an_adaptive_schedule_stays_on_the_cpu_of_one_worker(change):
    cell = make_cell(adaptive=AdaptiveSpec())
    with pytest.raises(ValueError, match=r"training\.adaptive must be null"):
        Placed(cell, **change)
    assert Placed(cell, "cpu", "bfloat16").work is cell


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said without one")
def test_a_device_that_is_not_here_is_refused_before_the_work(codec, work_root):
    with pytest.raises(ValueError, match="device must be one that is here, cpu, got cuda"):
        run_unit("cell", Placed(make_cell()), {"codec": codec})


def test_what_is_exact_is_so_for_the_steps_and_not_between_them():
    def steps():
        yield torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
        return "end"

    torch.set_float32_matmul_precision("high")
    try:
        run = exactly("cuda", steps())
        assert next(run) == ("highest", True)
        assert torch.get_float32_matmul_precision() == "high"
        assert not torch.are_deterministic_algorithms_enabled()
        with exact("cpu"):
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_average_of_a_placed_student_is_loaded_as_any_other(codec, work_root):
    unit = run_unit("cell", Placed(make_cell(num_steps=2), "cpu", "bfloat16"), {"codec": codec})
    weights = load_file(unit / "out" / "student.safetensors")
    plain = Denoiser(make_cell().denoiser)
    plain.load_state_dict(weights)
    assert not any(isinstance(module, PlacedBackbone) for module in plain.modules())
