"""What stands around every stage: errors in one line, products and records, no orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config import load_params
from pipeline.interfaces import Progress
from pipeline.unit import PROJECT, digest_of
from stages.entry import publish, stage


@dataclass(frozen=True)
class Paint:
    """Two steps, one product, one picture."""

    colour: str = "red"

    def run(self, directory, inputs) -> Generator[Progress, None, dict]:
        for part in ("out", "show"):
            (directory / part).mkdir(exist_ok=True)
        yield Progress(1, 2, {"loss": 0.5})
        yield Progress(2, 2, {"loss": 0.25})
        (directory / "out" / "weights").write_text(self.colour)
        (directory / "show" / "picture.txt").write_text("seen")
        return {"shade": 3}


@pytest.fixture
def params():
    return load_params(PROJECT / "params.yaml")


def test_publish_copies_products_and_writes_the_record(params, work_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = Path("reports/paint/a/left_over.txt")
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run")
    publish(params, "paint", "a", Paint(), {})
    record = json.loads(Path("reports/paint/a/record.json").read_text())
    assert (record["stage"], record["item"], record["profile"]) == ("paint", "a", "default")
    assert record["metrics"] == {"shade": 3}
    assert record["work"]["colour"] == "red"
    assert record["products"] == {"weights": digest_of(Path("artifacts/paint/a/weights"))}
    assert Path("reports/paint/a/picture.txt").read_text() == "seen"
    assert pd.read_csv("reports/paint/a/curve.csv").to_dict("list") == {"step": [1, 2], "loss": [0.5, 0.25]}
    assert not old.exists()


def test_what_a_person_can_mend_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    text = (PROJECT / "params.yaml").read_text().replace("seed: 0", "seed: none")
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as ended:
        stage(print)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "seed: input should be a valid integer, got 'none'\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


def test_a_loss_that_is_not_finite_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])

    def explode(params):
        raise FloatingPointError("student_loss is nan at step 3")

    with pytest.raises(SystemExit) as ended:
        stage(explode)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "student_loss is nan at step 3\n"


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killing_dvc_ends_the_stage(kill, tmp_path):
    (tmp_path / "sleep.py").write_text(
        "import os, time; from pathlib import Path; from stages.entry import end_with_parent; end_with_parent()\n"
        "Path('pid.tmp').write_text(str(os.getpid())); Path('pid.tmp').rename('pid'); time.sleep(120)\n"
    )
    (tmp_path / "dvc.yaml").write_text("stages:\n  sleep:\n    cmd: python sleep.py\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), "DVC_NO_ANALYTICS": "true"}
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=tmp_path, env=env, check=True)
    dvc = subprocess.Popen(["dvc", "repro", "-q"], cwd=tmp_path, env=env)
    deadline = time.monotonic() + 90
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    dvc.send_signal(kill)
    dvc.wait()
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
