"""What all sweeps tell people: how far they are, and a table that fits the terminal."""

from pipeline.interfaces import Progress
from stages.progress import Line
from sweeps import on_ray
from sweeps.parallel import Event
from sweeps.runner import PARTS, InTurn, SideBySide, show


class Spy(Line):
    def show(self, step, num_steps, said=""):
        self.shown = step, num_steps, said


class Walk:
    """A unit that tells its loss once."""

    def run(self, directory, inputs):
        yield Progress(0, 4)
        yield Progress(2, 4, {"student_loss": 0.5})
        yield Progress(4, 4)
        return {}


def told(*events):
    """The line after these events of three tasks."""
    line = Spy("cells")
    tasks = SideBySide(line, {"a": 10, "b": 30, "c": 60}, "cells")
    for event in events:
        tasks.hear(event.name if isinstance(event, on_ray.Event) else "abc"[event.index], event)
    return line.shown


def test_the_line_counts_steps_of_all_tasks_and_names_those_at_work():
    assert told() == (0, 100, "0 of 3 cells")
    events = [Event(0, 1.0, is_last=True), Event(1, 0.5, words="student 0.73"), Event(2, 0.25)]
    assert told(*events) == (40, 100, "1 of 3 cells, at b (student 0.73), c")
    ends = [Event(index, 1.0, is_last=True) for index in (1, 2)]
    assert told(*events, *ends) == (100, 100, "3 of 3 cells")


def test_what_failed_is_not_counted_as_made():
    events = [Event(0, 1.0, is_last=True), Event(1, failure="it is nan", is_last=True), Event(2, 0.5)]
    assert told(*events) == (70, 100, "1 of 3 cells, 1 failed, at c")


def test_a_task_is_made_when_it_says_so_and_not_when_its_last_unit_has_no_more_steps():
    assert told(Event(0, 1.0, words="student 0.5")) == (10, 100, "0 of 3 cells, at a (student 0.5)")


def test_what_is_tried_again_has_not_failed():
    assert told(on_ray.Event("a", 0.5), on_ray.Event("a", failure="its process ended")) == (0, 100, "0 of 3 cells")


def test_a_task_says_the_losses_of_its_last_report(tmp_path):
    heard = []

    def run(kind, work, inputs, *, on_progress):
        for progress in work.run(tmp_path, inputs):
            on_progress(progress)
        for part in PARTS:
            (tmp_path / f"{part}.json").write_text("{}")
        return tmp_path

    units = InTurn({"train": 0.5, "evaluate": 0.5}, lambda share, words: heard.append((share, words)), run=run)
    units.make("train", "cell", Walk(), {})
    assert heard == [(0.0, ""), (0.25, "student 0.5"), (0.5, "student 0.5")]


def test_a_table_keeps_its_columns_and_long_sentences_are_broken(capsys):
    row = "self forcing  gan" + " " * 80 + "5.7 [4.5, 7.0]*"
    show("\n".join([row, "", "word " * 60]))
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [row, ""]
    assert max(map(len, shown)) <= 120
    assert " ".join(shown[2:-1]).split() == ["word"] * 60
    assert shown[-1] == "* best of its column"


def test_without_a_mark_nothing_is_said_of_it(capsys):
    show("cell")
    assert capsys.readouterr().out == "cell\n"
