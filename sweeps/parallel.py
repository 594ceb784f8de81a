"""Tasks side by side, each in a process of one thread that ends with its parent: shares done, results, failures."""

import multiprocessing
import signal
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from pipeline.environment import end_with_parent

LONGEST = 300  # letters of a reason
OnShare = Callable[..., None]  # (share, words=""): of the task, done so far; words: for people, such as its losses
Run = Callable[[Any, OnShare], Any]  # a function of a module: a task -> its result, saying what share is done


@dataclass(frozen=True)
class Event:
    """What a process says of the task of this index."""

    index: int
    share: float = 0.0  # done so far, of 1
    result: Any = None
    failure: str | None = None  # the reason, in one line
    is_last: bool = False
    words: str = ""  # what it says for people


def in_parallel(run: Run, tasks: Sequence[Any], *, num_processes: int) -> Iterator[Event]:
    """Run every task, whatever becomes of the others; the last event of each has its result or its failure."""
    waiting = list(enumerate(tasks))[::-1]
    busy: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        for _ in range(min(num_processes, len(tasks))):
            connection, process = _start(run)
            busy[connection] = _next_task(connection, waiting), process
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                index, process = busy[connection]
                try:
                    event = connection.recv()
                except (EOFError, ConnectionResetError):  # killed, or out of memory
                    process.join()
                    del busy[connection]
                    reason = f"its process ended with exit code {process.exitcode}"
                    event = Event(index, failure=reason, is_last=True)
                    if waiting:
                        connection, process = _start(run)
                        busy[connection] = _next_task(connection, waiting), process
                else:
                    if event.is_last and waiting:
                        busy[connection] = _next_task(connection, waiting), process
                    elif event.is_last:
                        connection.send(None)
                        del busy[connection]
                yield event
    finally:
        for _, process in busy.values():
            process.terminate()


def _start(run: Run) -> tuple[Connection, BaseProcess]:
    """A fresh interpreter: a fork of one that has torch's threads may hang."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, run), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return ours, process


def _next_task(connection: Connection, waiting: list[tuple[int, Any]]) -> int:
    index, task = waiting.pop()
    connection.send((index, task))
    return index


def _serve(connection: Connection, run: Run) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process; the parent alone says so
    while (given := connection.recv()) is not None:
        index, task = given

        def on_share(share: float, words: str = "", index: int = index) -> None:
            connection.send(Event(index, share, words=words))

        try:
            result = run(task, on_share)
        except Exception as error:  # whatever it is, the other tasks go on
            connection.send(Event(index, failure=one_line(error), is_last=True))
        else:
            connection.send(Event(index, 1.0, result, is_last=True))


def one_line(error: Exception) -> str:
    """What a person reads: the message, with the kind of error where it is none that a person caused."""
    message = textwrap.shorten(str(error), LONGEST, placeholder=" ...")
    is_said = isinstance(error, ValueError | FileNotFoundError | FloatingPointError)
    return message if is_said else f"{type(error).__name__}: {message}"
