"""What stands around every stage: errors in one line, products and records, no orphans."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

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


def test_what_a_person_ends_is_one_line_and_exit_code_130(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])

    def interrupt(params):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        stage(interrupt)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on from here\n"


PATIENCE = 12_000  # naps of 5 ms


def is_importing(process, work):
    return any("numpy" in file.path for file in process.memory_maps())  # long before it reads its parameters


def is_at_work(process, work):
    return any(path.stat().st_size for path in work.rglob("out/*"))


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])  # dash stays between dvc and a command without exec
@pytest.mark.parametrize(
    ("kill", "moment"),
    [(signal.SIGKILL, is_importing), (signal.SIGKILL, is_at_work), (signal.SIGTERM, is_at_work)],
)
def test_killing_dvc_ends_the_stage(kill, moment, shell, tmp_path):
    params = (PROJECT / "params.yaml").read_text()
    many = re.sub(r"num_train: \d+", "num_train: 2000000", params)  # minutes, were it left alone
    assert many != params
    (tmp_path / "params.yaml").write_text(many)
    command = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]["prepare"]["cmd"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": {"cmd": command}}}))
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "FORCING_GRID_WORK": str(tmp_path / "work"),
        "DVC_NO_ANALYTICS": "true",
        "SHELL": shell,
    }
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=tmp_path, env=env, check=True)
    dvc = subprocess.Popen(["dvc", "repro", "-q"], cwd=tmp_path, env=env)
    child = None
    for _ in range(PATIENCE):
        child = child or stage_below(dvc.pid)
        if child is not None and moment(child, tmp_path / "work"):
            break
        time.sleep(0.005)
    assert child is not None
    try:
        assert is_running(child.pid)
        dvc.send_signal(kill)
        dvc.wait()
        for _ in range(PATIENCE):  # a count, and no clock, which leaps where the machine was suspended
            if not is_running(child.pid):
                break
            time.sleep(0.005)
        assert not is_running(child.pid), Path(f"/proc/{child.pid}/status").read_text()  # what signals it has met
        assert not list((tmp_path / "work").rglob("metrics.json"))  # it was ended, and did not come to its end
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def test_every_command_of_the_chain_replaces_its_shell():
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    commands = [stage.get("do", stage)["cmd"] for stage in stages.values()]
    assert len(commands) > 10
    assert all(command.startswith("exec python -m ") for command in commands)


def stage_below(pid):
    """The stage's Python among the processes that `pid` has started; None before it is there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            if process.cmdline()[1:] == ["-m", "stages.prepare"]:
                return process
    return None


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
