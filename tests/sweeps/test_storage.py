"""Units and inputs at an address: nodes stand for themselves by folders of their own."""

import json
from pathlib import Path

import fsspec
import pytest

from pipeline.unit import run_unit
from sweeps import storage
from sweeps.storage import Storage
from tests.sweeps.ray_tasks import NUM_STEPS, Walk

WALK = Walk(3, step_s=0)


@pytest.fixture(params=["file", "memory"])
def address(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path / 'bucket'}"
    else:
        yield "memory://bucket"
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Makes this process one of the node of that name."""

    def be(name):
        monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / name))

    be("first")
    return be


class Gone(BaseException):
    """A node that went: no handler of errors sees it."""


def stop_at(step):
    def stop(progress):
        if progress.step == step:
            raise Gone

    return stop


def files_of(directory):
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in (".lock", "timing.json")}


def steps_of(directory):
    return [json.loads(line)["step"] for line in (directory / "curve.jsonl").read_text().splitlines()]


def names_at(address):
    files, root = fsspec.core.url_to_fs(address)
    return sorted(Path(path).relative_to(root).as_posix() for path in files.find(root))


def test_without_an_address_a_unit_is_the_one_of_the_library(node, tmp_path):
    kept = Storage.open(None)
    directory = kept.run_unit("walk", WALK, {})
    assert directory == run_unit("walk", WALK, {}, on_progress=stop_at(1))
    paths = {"clips": tmp_path / "clips"}
    assert kept.inputs(kept.share(paths)) == paths


def test_a_unit_finished_on_one_node_is_found_by_another(address, node):
    made = Storage.open(address).run_unit("walk", WALK, {})
    node("second")
    found = Storage.open(address).run_unit("walk", WALK, {}, on_progress=stop_at(1))
    assert found != made
    assert files_of(found) == files_of(made)
    assert found == run_unit("walk", WALK, {}, on_progress=stop_at(1)), "it must be where the library looks"


def test_what_a_node_left_goes_on_on_another_with_every_row_once(address, node):
    alone = files_of(run_unit("walk", WALK, {}))
    node("second")
    with pytest.raises(Gone):
        Storage(address, send_every_s=0).run_unit("walk", WALK, {}, on_progress=stop_at(5))
    node("third")
    began = []
    directory = Storage(address, send_every_s=0).run_unit(
        "walk", WALK, {}, on_progress=lambda progress: began.append(progress.step)
    )
    assert began == [5, 6, 7, 8], "the state of step 4 was sent"
    assert steps_of(directory) == list(range(1, NUM_STEPS + 1))
    assert files_of(directory) == alone
    assert names_at(address) == [f"walk/{directory.name}/finished.tar"], "states before are gone"


def test_the_newer_of_two_states_is_taken(address, node):
    kept = Storage(address, send_every_s=0)
    for name, last in (("first", 3), ("second", 7)):
        node(name)
        with pytest.raises(Gone):
            kept.run_unit("walk", WALK, {}, on_progress=stop_at(last))
    began = []
    node("first")  # which has step 2, the address has step 6
    kept.run_unit("walk", WALK, {}, on_progress=lambda progress: began.append(progress.step))
    assert began == [7, 8]
    with pytest.raises(Gone):  # here is step 4, at the address nothing
        kept.run_unit("walk", Walk(4, step_s=0), {}, on_progress=stop_at(5))
    node("fourth")
    with pytest.raises(Gone):  # a state of step 2 that is sent late
        Storage(address, send_every_s=1e9).run_unit("walk", Walk(4, step_s=0), {}, on_progress=stop_at(5))
    node("first")
    began.clear()
    kept.run_unit("walk", Walk(4, step_s=0), {}, on_progress=lambda progress: began.append(progress.step))
    assert began == [5, 6, 7, 8]


@pytest.mark.parametrize(("state", "steps"), [("000000004", [3, 4, 5, 6, 7, 8]), ("finished", [])])
def test_a_kill_while_a_state_is_sent_leaves_the_one_before(state, steps, address, node, monkeypatch):
    kept = Storage(address, send_every_s=0)
    files, _ = fsspec.core.url_to_fs(address)

    def killed(source, target, *arguments, move=files.mv, **options):
        if target.endswith(f"{state}.tar"):
            raise Gone
        return move(source, target, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "mv", killed)
        with pytest.raises(Gone):
            kept.run_unit("walk", WALK, {})
    assert any(name.endswith(".tmp") for name in names_at(address))
    node("second")
    began = []
    directory = kept.run_unit("walk", WALK, {}, on_progress=lambda progress: began.append(progress.step))
    assert began == steps, "it goes on from the last state that is there whole; the last is of step 8"
    assert steps_of(directory) == list(range(1, NUM_STEPS + 1))
    assert names_at(address) == [f"walk/{directory.name}/finished.tar"], "nothing half sent is left"


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_kill_while_a_state_is_fetched_loses_nothing(moved, node, tmp_path, monkeypatch):
    kept = Storage(f"file://{tmp_path / 'bucket'}", send_every_s=0)
    with pytest.raises(Gone):
        kept.run_unit("walk", WALK, {}, on_progress=stop_at(5))
    node("second")
    left = [moved]

    def killed(path, target, rename=Path.rename):
        left[0] -= 1
        if left[0] < 0:
            raise Gone
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Gone):
            kept.run_unit("walk", WALK, {})
    began = []
    directory = kept.run_unit("walk", WALK, {}, on_progress=lambda progress: began.append(progress.step))
    assert began == [5, 6, 7, 8]
    assert steps_of(directory) == list(range(1, NUM_STEPS + 1))


def test_inputs_are_sent_once_and_fetched_once_a_node(address, node, tmp_path, monkeypatch):
    clips, codec = tmp_path / "clips", tmp_path / "codec.json"
    (clips / "more").mkdir(parents=True)
    (clips / "more" / "clips.npy").write_bytes(b"0123")
    codec.write_text("{}")
    sent, fetched = [], []
    monkeypatch.setattr(storage, "_send", lambda *a, send=storage._send, **o: (sent.append(a[1]), send(*a, **o)))
    monkeypatch.setattr(storage, "_fetch", lambda *a, fetch=storage._fetch: (fetched.append(a[1]), fetch(*a))[1])
    kept = Storage.open(address)
    shared = kept.share({"clips": clips, "codec": codec})
    assert kept.share({"clips": clips, "codec": codec}) == shared
    assert sent == [clips, codec]
    for name in ("second", "third"):
        node(name)
        found = kept.inputs(shared)
        assert kept.inputs(shared) == found
        assert files_of(found["clips"]) == files_of(clips)
        assert found["codec"].read_text() == "{}"
    assert len(fetched) == 4
    (clips / "more" / "clips.npy").write_bytes(b"4567")
    assert kept.share({"clips": clips})["clips"] != shared["clips"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nowhere://bucket", "Protocol not known: nowhere"),
        ("file:///proc/forcing-grid", "No such file or directory|Permission denied"),
        ("s3://bucket/sweep", "Install s3fs"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_one_line(url, reason):
    with pytest.raises(
        ValueError, match=r"^sweep\.storage must be an address where files can be written"
    ) as refusal:
        Storage.open(url)
    assert f"got {url}: " in str(refusal.value)
    assert "\n" not in str(refusal.value)
    refusal.match(reason)


def test_an_address_that_forgets_is_refused(address, monkeypatch):
    files, _ = fsspec.core.url_to_fs(address)
    monkeypatch.setattr(files, "cat_file", lambda _: b"other")
    with pytest.raises(ValueError, match="what is read is not what was written"):
        Storage.open(address)
