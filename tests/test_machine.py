"""What a record says of the machine."""

import os
import platform

from pipeline import machine


def test_machine_names_what_this_process_has():
    found = machine.machine()
    assert found["python"] == platform.python_version()
    assert found["num_cores"] == len(os.sched_getaffinity(0))
    assert found["memory_gib"] > 0
    assert found["processor"]


def test_machine_reads_processor_and_gpus_where_the_system_tells_them(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nmodel name\t: Another\n")
    for bus, model in (("b", "H200"), ("a", "H100")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ: 3\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "GPUS", tmp_path)
    found = machine.machine()
    assert (found["processor"], found["gpus"]) == ("Some CPU @ 2.0GHz", ["H100", "H200"])
    assert "H100, H200" in machine.words_of(found)
    assert "no GPU" in machine.words_of({**found, "gpus": []})
