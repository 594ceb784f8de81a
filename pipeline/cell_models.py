"""The models of a sweep's cells in MLflow: each logged once, loadable by its own call; the best under an alias."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.ledger import Ledger
from pipeline.mlflow_values import flatten
from pipeline.model_files import Files, save_model
from pipeline.sweep_notes import MODELS, NO_MODELS
from pipeline.sweep_records import COMPARED, Sweep, Trial

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

REGISTERED, ALIAS = "forcing-grid", "best"
VERSIONS = "mlflow.modelVersions"  # where MLflow's page of a model looks for what it is registered as
DESCRIPTION = """The student of the cell with the least mean excess of a sweep, in its last phase: the alias `best`.
Tags of a version say which cell, seed and unit it is, and the excess; the model's own page has its run."""
TOLD = (
    *("profile", "sweep", "cell", "method", "loss", "phase", "seed", "train_fingerprint", "evaluate_fingerprint"),
    *("git.revision", "dvc.stage", "current"),
)  # tags of the trial that its model has, too
AWAY = "none: its units or the codec are not on this machine"


@dataclasses.dataclass(frozen=True)
class Models:
    """note, tags: of the sweep's run."""

    note: str = ""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


def chosen_trials(sweep: Sweep) -> dict[str, Trial]:
    """The trial that stands for each cell: of the last of its phases, the seed with the least excess."""
    measured = [t for t in sweep.trials if t.tags.get("phase") in COMPARED and "excess" in t.metrics]
    measured.sort(key=lambda trial: (COMPARED.index(trial.tags["phase"]), -trial.metrics["excess"]))
    return {trial.tags["cell"]: trial for trial in measured}


def best_cell(sweep: Sweep, chosen: Mapping[str, Trial]) -> str:
    """The cell with the least mean excess in the last phase."""
    last = max(COMPARED.index(trial.tags["phase"]) for trial in chosen.values())
    means = {cell: sweep.means.get(f"{COMPARED[last]}.{cell}.excess") for cell in chosen}
    return min((mean, cell) for cell, mean in means.items() if mean is not None)[1]


def write_models(ledger: Ledger, sweep: Sweep, runs: "Mapping[str, Run]", units: Path) -> Models:
    """A model a cell, of those trials whose units are on this machine; the best cell's has the alias.

    runs: of the trials, by name.
    """
    chosen = chosen_trials(sweep)
    if not chosen or any("train_fingerprint" not in trial.tags for trial in chosen.values()):
        return Models()
    known = _known(ledger, sweep)
    models: dict[str, LoggedModel] = {}
    for cell, trial in chosen.items():
        run, model = runs[trial.name], known.pop(trial.tags["evaluate_fingerprint"], None)
        files = Files(
            units / "cell" / trial.tags["train_fingerprint"] / "out",
            ledger.workspace / "artifacts" / "codec",
            units / "evaluate" / trial.tags["evaluate_fingerprint"] / "unit.json",
        )
        if model is not None:
            _say(ledger, model, {"current": "true"})
        elif files.are_here():
            model = _log(ledger, trial, run, files)
        if model is not None:
            models[cell] = model
            if run.data.tags.get("model") != model.model_uri:
                _link(ledger, trial, run, model.model_id)
        ledger.say(run, {"model": model.model_uri if model else AWAY})
    for model in known.values():
        _say(ledger, model, {"current": "false"})
    best = best_cell(sweep, chosen)
    tags = {"models": f"{len(models)} of {len(chosen)} cells", "best": best}
    if not models:
        return Models(NO_MODELS, tags)
    shown = models[best] if best in models else next(iter(models.values()))
    uri, said = shown.model_uri, f"The best, {best}, is not among them."
    if best in models:
        name = REGISTERED if sweep.profile == "default" else f"{REGISTERED}-{sweep.profile}"
        version = _register(ledger, name, shown, chosen[best], runs[chosen[best].name])
        uri = f"models:/{name}@{ALIAS}"
        said = f"The best, {best}, is version {version} of `{name}`, with the alias `{ALIAS}`."
    num_frames = shown.params["num_frames"]
    note = MODELS.format(count=len(models), all=len(chosen), uri=uri, num_frames=num_frames, best=said)
    return Models(note, tags)


def _known(ledger: Ledger, sweep: Sweep) -> "dict[str, LoggedModel]":
    """Models of this sweep, by the fingerprint of what judged them; one that was left half-written is deleted."""
    found = {}
    condition = f"tags.sweep = '{sweep.name}' AND tags.profile = '{sweep.profile}'"
    for model in _pages(ledger, condition):
        if model.status.name == "READY":
            found[model.tags["evaluate_fingerprint"]] = model
        else:
            ledger.client.delete_logged_model(model.model_id)
    return found


def _pages(ledger: Ledger, condition: str) -> "Iterator[LoggedModel]":
    token = None
    while True:
        page = ledger.client.search_logged_models([ledger.experiment], condition, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _say(ledger: Ledger, model: "LoggedModel", tags: dict[str, str]) -> None:
    if not tags.items() <= model.tags.items():
        ledger.client.set_logged_model_tags(model.model_id, tags)


def _log(ledger: Ledger, trial: Trial, run: "Run", files: Files) -> "LoggedModel":
    """The model of a trial, written to its end."""
    from mlflow.models import Model

    client, work = ledger.client, json.loads(files.judged.read_text())["work"]
    tags = {name: run.data.tags[name] for name in TOLD if name in run.data.tags}
    settings = {**trial.params, "num_frames": work["num_frames"], "sampler": work["sampler"]}
    params = {name: str(value) for name, value in flatten(settings).items()}
    model = client.create_logged_model(
        ledger.experiment, trial.tags["cell"], run.info.run_id, tags, params, "video diffusion student"
    )
    about = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        run_id=run.info.run_id,
        model_id=model.model_id,
    )
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory), about, files, work)
        client.log_model_artifacts(model.model_id, str(Path(directory) / "model"))
    return client.finalize_logged_model(model.model_id, "READY")


def _link(ledger: Ledger, trial: Trial, run: "Run", model_id: str) -> None:
    """The run leads to the model, and the model has the run's final numbers."""
    from mlflow.entities import LoggedModelOutput, Metric

    step = int(trial.metrics.get("student_updates", 0))
    ledger.client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step)])
    numbers = [
        Metric(name, value, run.info.end_time or 0, step, model_id=model_id)
        for name, value in trial.metrics.items()
    ]
    ledger.client.log_batch(run.info.run_id, metrics=numbers)


def _register(ledger: Ledger, name: str, model: "LoggedModel", trial: Trial, run: "Run") -> str:
    """The version of the registered model that is this one, new only if there is none; it alone has the alias."""
    client = ledger.client
    found = client.search_registered_models(f"name = '{name}'")
    registered = found[0] if found else client.create_registered_model(name, description=DESCRIPTION)
    known = client.search_model_versions(f"name = '{name}'")
    versions = [one for one in known if one.source == model.model_uri]
    if versions:
        version = str(versions[0].version)
    else:
        tags = {key: run.data.tags[key] for key in TOLD if key in run.data.tags and key != "current"}
        tags |= {"excess": f"{trial.metrics['excess']:.4g}"}
        source, model_id = model.model_uri, model.model_id
        with default_store(client.tracking_uri):
            made = client.create_model_version(name, source, run.info.run_id, tags=tags, model_id=model_id)
        version = str(made.version)
        said = json.dumps([{"name": name, "version": version}])
        client.set_logged_model_tags(model_id, {VERSIONS: said})
    if str(registered.aliases.get(ALIAS)) != version:
        client.set_registered_model_alias(name, ALIAS, version)
    return version


@contextlib.contextmanager
def default_store(uri: str) -> Iterator[None]:
    """MLflow 3.17 looks a version's model up in the default store, not in that of the client that makes it."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    os.environ[name] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
