"""What all sweeps tell people: how far they are, and a table that fits the terminal."""

from stages.progress import Line
from sweeps.runner import show, tell


class Spy(Line):
    def show(self, step, num_steps, said=""):
        self.shown = step, num_steps, said


def told(shares, num_failed=0):
    line = Spy("cells")
    tell(line, shares, {"a": 10, "b": 30, "c": 60}, noun="cells", num_failed=num_failed)
    return line.shown


def test_the_line_counts_steps_of_all_tasks_and_names_those_at_work():
    assert told({"a": 0.0, "b": 0.0, "c": 0.0}) == (0, 100, "0 of 3 cells")
    assert told({"a": 1.0, "b": 0.5, "c": 0.25}) == (40, 100, "1 of 3 cells, at b, c")
    assert told({"a": 1.0, "b": 1.0, "c": 1.0}) == (100, 100, "3 of 3 cells")


def test_what_failed_is_not_counted_as_made():
    assert told({"a": 1.0, "b": 1.0, "c": 0.5}, num_failed=1) == (70, 100, "1 of 3 cells, 1 failed, at c")


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
