"""The models of a sweep's cells in MLflow: they sample what the library samples, and the best has the alias."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model

from pipeline.cell_models import ALIAS, AWAY, REGISTERED
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.schedule import SCHEDULES, FlowMatching
from pipeline.diffusion.trajectory import STEPS
from pipeline.evaluation.sampling import load_student
from pipeline.logged_model import from_plain
from pipeline.model_files import REQUIRED
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import load_codec, new_codec, save_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, save_denoiser
from pipeline.sampling_stream import sample_stream
from pipeline.sweep_runs import ANIMATION
from pipeline.sweep_runs import AWAY as NO_ANIMATION
from pipeline.tracking import EXPERIMENT, track
from pipeline.unit import as_plain, digest_of
from tests.reporting.sweep_files import write_sweep
from tests.tracked import fill_workspace

SIZE = 4
CELLS = (("diffusion_forcing", "l2"), ("self_forcing", "dmd"))
SAMPLER = Sampler(num_steps=2, schedule=FlowMatching(shift=3.0), window=3)
BEST, OTHER = "self_forcing-dmd", "diffusion_forcing-l2"


def trials_of(workspace: Path) -> list[dict[str, str]]:
    with (workspace / "reports" / "grid" / "trials.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["phase"] in ("default", "tuned")]


def make_units(workspace: Path) -> Path:
    """The units of all trained trials, their networks tiny and untrained, each of other weights."""
    units, codec = workspace / "work", workspace / "artifacts" / "codec"
    save_codec(new_codec(None, (1, SIZE, SIZE)), codec)
    backbone = BackboneSpec(channels=1, frame_size=SIZE, patch=SIZE, width=8, depth=1, num_heads=1)
    for seed, row in enumerate(trials_of(workspace)):
        torch.manual_seed(seed)
        student = Denoiser(DenoiserSpec(backbone))
        out = units / "cell" / row["train_fingerprint"] / "out"
        save_denoiser(student, out, latents=digest_of(codec / "codec.json"))
        judged = units / "evaluate" / row["evaluate_fingerprint"]
        (judged / "show").mkdir(parents=True)
        (judged / "show" / ANIMATION).write_bytes(row["evaluate_fingerprint"].encode())
        work, revision = {"sampler": as_plain(SAMPLER), "num_frames": 6}, {"commit": f"c0de{seed}", "dirty": False}
        (judged / "unit.json").write_text(json.dumps({"work": work, "revision": revision}))
        (judged / "metrics.json").write_text("{}")
    return units


def make_workspace(directory: Path, migrated: Path) -> Path:
    workspace = fill_workspace(directory, migrated)
    write_sweep(workspace / "reports", cells=CELLS, phases=("default", "tuned"), num_seeds=2, failed=())
    return workspace


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, migrated) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("models"), migrated)
    found = track(workspace, make_units(workspace))
    assert (found.reason, found.pending) == ("", ())
    return workspace


@pytest.fixture
def _default_store(tracked, monkeypatch):
    """MLflow's own calls find the models of this store; the code of a model that they load is gone afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # processes that a later test starts inherit it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")


def client_of(workspace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")


def experiment_of(workspace: Path) -> str:
    return client_of(workspace).get_experiment_by_name(EXPERIMENT).experiment_id


def models_of(workspace: Path) -> dict:
    found = client_of(workspace).search_logged_models([experiment_of(workspace)])
    assert len({model.name for model in found}) == len(found)
    return {model.name: model for model in found}


def runs(workspace: Path, condition: str) -> list:
    return list(client_of(workspace).search_runs([experiment_of(workspace)], condition))


def best_of(workspace: Path) -> dict[str, float]:
    """The least excess of each cell among its tuned trials."""
    found: dict[str, float] = {}
    for row in trials_of(workspace):
        cell, excess = f"{row['method']}-{row['loss']}", float(row["excess"])
        if row["phase"] == "tuned":
            found[cell] = min(excess, found.get(cell, excess))
    return found


def request(*rows: tuple[int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["num_clips", "num_frames", "seed"])


@pytest.mark.usefixtures("_default_store")
def test_the_loaded_model_samples_what_the_library_samples_of_the_same_checkpoint(tracked):
    model = mlflow.pyfunc.load_model(f"models:/{REGISTERED}@{ALIAS}")
    tags = models_of(tracked)[BEST].tags
    codec = tracked / "artifacts" / "codec"
    trained = tracked / "work" / "cell" / tags["train_fingerprint"] / "out"
    student = load_student(trained, latents=digest_of(codec / "codec.json"))
    of_library = [
        torch.cat(list(sample_stream(student, load_codec(codec), n, 6, sampler=SAMPLER, seed=seed)), 1)
        for n, seed in ((2, 5), (1, 7))
    ]
    clips = model.predict(request((2, 6, 5), (1, 6, 7)))
    assert clips.dtype == np.uint8
    assert np.array_equal(clips, torch.cat(of_library).permute(0, 1, 3, 4, 2).numpy())
    assert not np.array_equal(clips, model.predict(request((2, 6, 6), (1, 6, 8))))


@pytest.mark.usefixtures("_default_store")
def test_a_model_refuses_clips_of_different_length():
    model = mlflow.pyfunc.load_model(f"models:/{REGISTERED}@{ALIAS}")
    with pytest.raises(ValueError, match=r"num_frames must be the same in all rows: \[4, 6\]"):
        model.predict(request((1, 6, 0), (1, 4, 0)))
    with pytest.raises(ValueError, match="num_clips must be at least 1, got 0"):
        model.predict(request((0, 6, 0)))


def test_every_cell_has_the_model_of_its_best_tuned_seed_without_a_pickle(tracked):
    found = models_of(tracked)
    least = best_of(tracked)
    assert set(found) == set(least) == {BEST, OTHER}
    client = client_of(tracked)
    for cell, model in found.items():
        assert model.status.name == "READY"
        metrics = {metric.key: metric.value for metric in model.metrics}
        assert metrics["excess"] == least[cell]
        assert model.params["sampler.num_steps"] == "2"
        run = client.get_run(model.source_run_id)
        assert (run.data.tags["model"], run.data.metrics["excess"]) == (model.model_uri, least[cell])
        assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
        directory = tracked / "mlartifacts" / "models" / model.model_id / "artifacts"
        files = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
        files = {name for name in files if "__pycache__" not in name} - {"registered_model_meta"}  # by load_model
        outside = {name for name in files if not name.startswith("code/pipeline/")}
        assert outside == {
            *("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "logged_model.py"),
            *("input_example.json", "serving_input_example.json"),
            *(f"artifacts/{stem}/{stem}.{end}" for stem in ("student", "codec") for end in ("json", "safetensors")),
        }
        code = {name.removeprefix("code/") for name in files - outside}
        assert {"pipeline/sampling_stream.py", "pipeline/models/denoiser.py"} < code
        assert all(name.endswith(".py") for name in code)
        assert not any(name.startswith(("pipeline/reporting", "pipeline/losses")) for name in code)
        needed = (directory / "requirements.txt").read_text().split()
        assert [line.split("==")[0] for line in needed] == list(REQUIRED)
        signature = Model.load(str(directory)).signature
        assert signature.inputs.input_names() == ["num_clips", "num_frames", "seed"]
        assert signature.outputs.inputs[0].shape == (-1, -1, SIZE, SIZE, 1)


def test_the_run_of_the_sweep_says_how_many_models_there_are_and_which_is_best(tracked):
    (sweep,) = runs(tracked, "tags.kind = 'sweep'")
    assert (sweep.data.tags["models"], sweep.data.tags["best"]) == ("2 of 2 cells", BEST)
    note = sweep.data.tags["mlflow.note.content"]
    assert f'load_model("models:/{REGISTERED}@{ALIAS}")' in note
    assert '"num_frames": [6]' in note
    assert f"The best, {BEST}, is version 1 of `{REGISTERED}`" in note


def test_every_trial_carries_its_animation_and_the_revision_of_its_unit(tracked):
    trials = runs(tracked, "tags.kind = 'trial'")
    assert len(trials) == 8
    revisions = set()
    for run in trials:
        path = client_of(tracked).download_artifacts(run.info.run_id, ANIMATION)
        assert Path(path).read_text() == run.data.tags["evaluate_fingerprint"]
        assert run.data.tags["animation"] == ANIMATION
        assert run.data.tags["mlflow.source.git.commit"] == run.data.tags["git.revision"]
        revisions.add(run.data.tags["git.revision"])
    assert revisions == {f"c0de{seed}" for seed in range(8)}


def test_a_second_call_logs_and_registers_nothing(tracked):
    before = {name: model.model_id for name, model in models_of(tracked).items()}
    assert track(tracked, tracked / "work").num_new == 0
    assert {name: model.model_id for name, model in models_of(tracked).items()} == before
    assert len(client_of(tracked).search_model_versions(f"name = '{REGISTERED}'")) == 1


def test_a_half_written_model_is_written_anew(tracked):
    client, experiment = client_of(tracked), experiment_of(tracked)
    tags = {"sweep": "grid", "profile": "default", "evaluate_fingerprint": "1"}
    half = client.create_logged_model(experiment, "half", tags=tags)
    track(tracked, tracked / "work")
    assert half.name not in models_of(tracked)


@pytest.mark.slow
def test_the_alias_follows_the_best_and_goes_back_to_its_first_version(tmp_path, migrated):
    workspace = make_workspace(tmp_path, migrated)
    units, table = make_units(workspace), workspace / "reports" / "grid" / "cells.csv"
    first = table.read_text()
    track(workspace, units)
    client = client_of(workspace)
    assert client.get_model_version_by_alias(REGISTERED, ALIAS).tags["cell"] == BEST
    logged = {name: model.model_id for name, model in models_of(workspace).items()}

    rows = list(csv.DictReader(first.splitlines()))
    for row in rows:
        if (row["phase"], f"{row['method']}-{row['loss']}", row["metric"]) == ("tuned", OTHER, "excess"):
            row["mean"] = "0.01"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    track(workspace, units)
    now = client.get_model_version_by_alias(REGISTERED, ALIAS)
    assert (now.version, now.tags["cell"], now.source) == (2, OTHER, f"models:/{logged[OTHER]}")
    assert {name: model.model_id for name, model in models_of(workspace).items()} == logged  # none logged twice
    (run,) = runs(workspace, f"tags.model = 'models:/{logged[OTHER]}' and tags.current = 'true'")
    assert [output.model_id for output in run.outputs.model_outputs] == [logged[OTHER]]

    table.write_text(first)
    track(workspace, units)
    assert client.get_model_version_by_alias(REGISTERED, ALIAS).version == 1
    assert len(client.search_model_versions(f"name = '{REGISTERED}'")) == 2


def test_without_units_there_are_no_models_and_tags_say_why_until_they_are_there(tmp_path, migrated):
    workspace = make_workspace(tmp_path, migrated)
    track(workspace, tmp_path / "elsewhere")
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    assert sweep.data.tags["models"] == "0 of 2 cells"
    assert "None: the units of the cells" in sweep.data.tags["mlflow.note.content"]
    trials = runs(workspace, "tags.kind = 'trial'")
    assert {run.data.tags["animation"] for run in trials} == {NO_ANIMATION}
    assert sorted(run.data.tags.get("model", "") for run in trials) == [*[""] * 6, AWAY, AWAY]
    assert models_of(workspace) == {}
    assert client_of(workspace).search_registered_models() == []
    assert track(workspace, make_units(workspace)).num_new == 0
    assert set(models_of(workspace)) == {BEST, OTHER}
    assert {run.data.tags["animation"] for run in runs(workspace, "tags.kind = 'trial'")} == {ANIMATION}


def test_a_student_of_another_codec_is_not_logged(tmp_path, migrated):
    workspace = make_workspace(tmp_path, migrated)
    units = make_units(workspace)
    shutil.rmtree(workspace / "artifacts")
    save_codec(new_codec(None, (1, 2 * SIZE, 2 * SIZE)), workspace / "artifacts" / "codec")
    track(workspace, units)
    assert models_of(workspace) == {}


@pytest.mark.parametrize("name", [*STEPS, *SCHEDULES])
def test_every_sampler_comes_back_from_plain_values(name):
    part = {"step": STEPS[name]()} if name in STEPS else {"schedule": SCHEDULES[name]()}
    sampler = replace(SAMPLER, **part)
    assert from_plain(json.loads(json.dumps(as_plain(sampler)))) == sampler


def test_a_sampler_is_made_of_classes_of_the_library_alone():
    with pytest.raises(ValueError, match=r"classes of pipeline, got subprocess\.Popen"):
        from_plain({"type": "subprocess.Popen", "args": "true"})


@pytest.mark.slow
def test_a_process_away_from_the_project_loads_the_model_with_the_code_that_it_carries(tracked, tmp_path):
    program = (
        "import sys; sys.meta_path = [one for one in sys.meta_path if 'Editable' not in str(one)]\n"
        "import mlflow, pandas\n"
        f"mlflow.set_tracking_uri('sqlite:///{tracked / 'mlflow.db'}')\n"
        f"model = mlflow.pyfunc.load_model('models:/{REGISTERED}@{ALIAS}')\n"
        "clips = model.predict(pandas.DataFrame({'num_clips': [2], 'num_frames': [3], 'seed': [0]}))\n"
        "import pipeline\n"
        "print(clips.shape, pipeline.__file__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    shape, _, where = ran.stdout.strip().rpartition(" ")
    assert shape == f"(2, 3, {SIZE}, {SIZE}, 1)"
    assert Path(where).is_relative_to(tracked / "mlartifacts" / "models")
