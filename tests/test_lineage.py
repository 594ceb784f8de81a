"""A result says which code and which entry of dvc.lock it came from."""

import json
import subprocess

from pipeline.lineage import lock_digests, source_tags


def test_lock_digests_see_only_their_own_entry(tmp_path):
    lock = {"schema": "2.0", "stages": {"codec": {"cmd": "python -m stages.codec"}}}
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    before = lock_digests(tmp_path)["codec"]
    lock["stages"]["track"] = {"cmd": "python -m stages.track"}
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    assert lock_digests(tmp_path)["codec"] == before
    lock["stages"]["codec"]["cmd"] += " "
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    assert lock_digests(tmp_path)["codec"] != before


def test_source_tags_are_none_outside_a_repository_of_the_project(tmp_path):
    assert source_tags(tmp_path) == {"git.revision": "none", "git.dirty": "none"}


def test_source_tags_do_not_count_results_as_changes(tmp_path):
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=tmp_path, check=True)

    (tmp_path / "reports").mkdir()
    for name in ("code.py", "reports/grid.csv"):
        (tmp_path / name).write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "reports/grid.csv").write_text("2\n")
    assert source_tags(tmp_path)["git.dirty"] == "false"
    (tmp_path / "code.py").write_text("2\n")
    assert source_tags(tmp_path)["git.dirty"] == "true"
