"""Units: the fingerprint, the curve, the lock."""

import json
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest

from pipeline import unit
from pipeline.interfaces import Progress
from pipeline.unit import as_plain, digest_of, keep_rows_before, run_unit, sources_of


@dataclass(frozen=True)
class Sizes:
    width: int = 3


@dataclass(frozen=True)
class Count:
    """Counts to num_steps, and remembers how far it came."""

    num_steps: int = 5
    sizes: Sizes = field(default_factory=Sizes)

    def run(self, directory, inputs) -> Generator[Progress, None, dict]:
        memory = directory / "memory"
        start = int(memory.read_text()) if memory.exists() else 0
        for step in range(start + 1, self.num_steps + 1):
            yield Progress(step, self.num_steps, {"value": step * 1.5})
            memory.write_text(str(step))
        return {"last": self.num_steps}


def test_a_unit_leaves_its_description_curve_time_and_metrics(work_root):
    directory = run_unit("count", Count(), {})
    assert directory.parent == work_root / "count"
    assert json.loads((directory / "metrics.json").read_text()) == {"last": 5}
    rows = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    assert rows == [{"step": k, "value": 1.5 * k} for k in range(1, 6)]
    assert json.loads((directory / "timing.json").read_text())["seconds"] >= 0
    assert json.loads((directory / "unit.json").read_text())["work"]["sizes"]["width"] == 3


def test_a_resumed_unit_repeats_no_row_of_its_curve(work_root):
    def stop_at_3(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_unit("count", Count(), {}, on_progress=stop_at_3)
    directory = run_unit("count", Count(), {})
    steps = [json.loads(line)["step"] for line in (directory / "curve.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_a_row_that_was_cut_short_is_dropped(tmp_path):
    curve = tmp_path / "curve.jsonl"
    curve.write_text('{"step": 1}\n{"step": 2}\n{"st')
    keep_rows_before(curve, 9)
    assert curve.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_equal_fields_of_two_classes_are_two_fingerprints():
    @dataclass(frozen=True)
    class Other:
        width: int = 3

    assert as_plain(Sizes()) != as_plain(Other())


def test_a_parameter_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="must be plain values or dataclasses, got set"):
        as_plain({"a": {1, 2}})


def test_sources_follow_imports_and_stop_at_registries_that_nobody_names():
    dmd = sources_of({"pipeline.losses.dmd"})
    assert {"pipeline.losses.dmd", "pipeline.diffusion.denoising", "pipeline.models.backbone"} <= set(dmd)
    assert "pipeline.losses.gan" not in dmd
    cell = sources_of({"pipeline.training.cell"})
    assert "pipeline.losses.gan" not in cell, "a new loss must not make the results of the others stale"
    assert not any(name.startswith(("pipeline.reporting", "pipeline.tracking", "pipeline.config")) for name in cell)
    assert {"pipeline.losses.gan", "pipeline.losses.dmd"} <= set(sources_of({"pipeline.losses"}))


def test_changed_code_never_meets_an_old_result(work_root, monkeypatch):
    first = run_unit("count", Count(), {})
    original = unit.sources_of
    monkeypatch.setattr(unit, "sources_of", lambda names: {**original(names), "tests.test_unit": "edited"})
    assert run_unit("count", Count(), {}) != first


def test_an_edit_of_a_used_module_changes_its_source_digest(tmp_path, monkeypatch):
    for name, text in {"a": "from inner import b\n", "inner/__init__": "", "inner/b": "X = 1\n"}.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(unit, "PROJECT", tmp_path)
    before = sources_of({"a"})
    (tmp_path / "inner" / "b.py").write_text("X = 2\n")
    after = sources_of({"a"})
    assert set(before) == {"a", "inner.b"}
    assert before["a"] == after["a"]
    assert before["inner.b"] != after["inner.b"]


def test_a_digest_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = digest_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = digest_of(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, digest_of(tmp_path)}) == 3


def test_a_missing_input_is_named(work_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"an input of a unit must exist: .*nowhere"):
        run_unit("count", Count(), {"clips": tmp_path / "nowhere"})
