"""One line for long work: it fits the terminal, says the losses, and leaves one line behind."""

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable

import pytest

from pipeline.interfaces import Progress
from stages.progress import Line, losses, took

STUDENT = {"critic_loss": 1.38442, "critic_grad_norm": 0.31, "student_loss": 0.7321, "grad_norm": 0.085}


@pytest.fixture
def terminal(monkeypatch) -> Callable[[int, Callable[[], None]], list[str]]:
    """What a call has written on a terminal of so many columns: everything that stood in a line at some time."""

    def run(columns: int, call: Callable[[], None]) -> list[str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        with os.fdopen(theirs, "w") as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            call()
        text = ""
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                text += os.read(ours, 1 << 16).decode()
        os.close(ours)
        return text.replace("\r\n", "\n").replace("\r", "\n\r").split("\n")

    return run


def work(name: str) -> Callable[[], None]:
    def call() -> None:
        with Line(name) as line:
            line.follow(Progress(0, 400))
            line.follow(Progress(180, 400, STUDENT))
            line.follow(Progress(181, 400))
            assert line.bar is not None
            if not line.bar.disable:
                line.bar.start_t -= 20  # as if it had taken so long
                line.bar.refresh()
            line.follow(Progress(400, 400, STUDENT))

    return call


@pytest.mark.parametrize("columns", [80, 120])
def test_the_line_fits_and_says_step_rate_time_left_and_losses(terminal, columns):
    written = terminal(columns, work("rollout/gan"))
    assert max(len(line.strip("\r")) for line in written) <= columns
    shown = next(line for line in written if "181/400 steps" in line)
    assert "/s, " in shown
    assert " left, student 0.732, critic 1.38" in shown
    assert "grad_norm" not in shown


def test_a_long_name_does_not_wrap(terminal):
    written = terminal(80, work("evaluate/" + "a-very-long-name-" * 6))
    assert all(len(line.strip("\r")) <= 80 for line in written[:-2])


def test_the_end_is_one_line_of_what_was_done(terminal):
    *_, cleared, last, after = terminal(80, work("rollout/gan"))
    assert not cleared.strip()
    assert last.strip("\r").startswith("rollout/gan: 400 steps in ")
    assert last.endswith(" s, student 0.732, critic 1.38")
    assert not after


def test_what_was_made_before_says_so(terminal):
    def call() -> None:
        with Line("codec"):
            pass

    assert terminal(80, call) == ["codec: made before", ""]


def test_a_line_above_stays_and_an_error_leaves_no_end(terminal):
    def call() -> None:
        with contextlib.suppress(ValueError), Line("trials") as line:
            line.show(1, 4, "0 of 2 trials")
            line.write("self_forcing-gan seed 1: student_loss is nan")
            raise ValueError

    written = terminal(80, call)
    assert [line for line in written if "student_loss is nan" in line] == [
        "\rself_forcing-gan seed 1: student_loss is nan"
    ]
    assert not any(" in " in line for line in written)


def test_nothing_is_written_where_there_is_no_terminal(capsys):
    work("rollout/gan")()
    assert capsys.readouterr().err == ""


def test_at_most_three_losses_are_shown():
    assert losses(STUDENT) == "student 0.732, critic 1.38"
    assert losses({"loss": 0.5, "psnr": 20.0}) == "loss 0.5"
    assert (
        losses(dict.fromkeys(("class_loss", "position_loss", "velocity_loss", "reader_loss"), 1.0)).count(",") == 2
    )
    assert losses({}) == ""


@pytest.mark.parametrize(("seconds", "said"), [(4.21, "4.2 s"), (751, "12:31"), (3723, "1:02:03")])
def test_a_time_is_said_for_people(seconds, said):
    assert took(seconds) == said
