"""README.md and docs/*.md as tests read them: fenced blocks, command lines, edits of files, links.

A block belongs to a file where the line before it is that file's path and a colon, alone: `path`: A `diff` block of
a file is one hunk without numbers: its unchanged lines say where it goes.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.unit import PROJECT

PAGES = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
SHELLS = ("sh", "bash", "console")
BLOCK = re.compile(r"(?:^`(?P<path>[^`\n]+)`:\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
SPANNED = ("python3 -m ", "python -m ", "dvc ", "ray ")  # of a command inside a sentence or a table
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """kind: the word after the fence. path: of the file that it is, or changes; None where it is neither."""

    kind: str
    text: str
    path: str | None


@dataclass(frozen=True)
class Command:
    """One command line: the variables before it, and its words."""

    page: str
    env: tuple[tuple[str, str], ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    """In their order."""
    found = BLOCK.finditer(page.read_text())
    return [Block(match["kind"], match["text"], match["path"]) for match in found]


def commands(page: Path) -> list[Command]:
    """Of shell blocks, line by line, and of code in sentences that begins as a command does."""
    text = page.read_text()
    lines = [line for block in blocks(page) if block.kind in SHELLS for line in joined(block.text).splitlines()]
    sentences = BLOCK.sub("", text)
    lines += [span for span in SPAN.findall(sentences) if span.startswith(SPANNED) and not span.endswith(" …")]
    return [command(page, line) for line in lines if line.split("#")[0].strip()]


def joined(text: str) -> str:
    """Lines that a backslash continues, as one."""
    return text.replace("\\\n", " ")


def command(page: Path, line: str) -> Command:
    """Raises ValueError for what a shell would do more with than start a program."""
    words = shlex.split(line, comments=True)
    if any(re.fullmatch(r"[|&;<>]+", word) for word in words):
        raise ValueError(f"{page.name}: a command must be one program, got {line}")
    num_set = next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    env = tuple((name, value) for name, _, value in (word.partition("=") for word in words[:num_set]))
    return Command(page.name, env, tuple(words[num_set:]))


def apply(block: Block, project: Path) -> None:
    """Write the block's file, or change it. Raises ValueError where a hunk has no place, or several."""
    assert block.path is not None
    path = project / block.path
    if block.kind != "diff":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    text = path.read_text()
    if text.count(before) != 1:
        raise ValueError(f"{block.path} must have these lines once, has them {text.count(before)} times:\n{before}")
    path.write_text(text.replace(before, after))


def links(page: Path) -> Iterator[str]:
    """Targets of links and images outside of code."""
    for match in LINK.finditer(SPAN.sub("", BLOCK.sub("", page.read_text()))):
        yield match[1] or match[2]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    heads = HEADING.findall(BLOCK.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
