"""Transcripts: what is typed and what is to be seen, as one text, and how they are compared.

$ kubectl get pods            a command; `NAME=value` before it sets its environment, `<<EOF ... EOF` after it its input
NAME   READY   AGE            the lines it prints; runs of blanks count as one
web    1/1     <age>          placeholders: <age> <ip> <uid> <hash> <time> <number> <any> <word>
...                           any lines, also none
! error: ...                  a line on standard error
[exit 1]                      the exit code, where it isn't 0
# a comment
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

PLACEHOLDERS = {
    "<age>": r"(\d+[smhdy])+",
    "<ip>": r"\d+\.\d+\.\d+\.\d+",
    "<uid>": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "<hash>": r"[a-z0-9]+",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "<date>": r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
    "<number>": r"\d+",
    "<word>": r"\S+",
    "<any>": r".*",
}
_SPLIT = re.compile("(" + "|".join(PLACEHOLDERS) + ")")


@dataclass
class Step:
    line: int
    command: str
    stdin: str = ""
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def arguments(self) -> list[str]:
        """After the words that set the environment."""
        words = shlex.split(self.command)
        return words[len(self.environment) :]

    @property
    def environment(self) -> dict[str, str]:
        found = {}
        for word in shlex.split(self.command):
            name, equals, value = word.partition("=")
            if not equals or not name.isupper():
                break
            found[name] = value
        return found


def parse(text: str) -> list[Step]:
    steps: list[Step] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.startswith("$ "):
            command, heredoc, _ = line[2:].partition(" <<EOF")
            steps.append(Step(number, command))
            if heredoc:
                body = []
                for _, inner in lines:
                    if inner == "EOF":
                        break
                    body.append(inner)
                steps[-1].stdin = "\n".join(body) + "\n"
        elif line.startswith("// ") or not steps:
            continue
        elif line.startswith("! ") or line == "!":
            steps[-1].err.append(line[2:])
        elif line.startswith("[exit "):
            steps[-1].code = int(line[6:-1])
        else:
            steps[-1].out.append(line)
    for step in steps:
        for side in (step.out, step.err):
            while side and not side[-1].strip():
                side.pop()
    return steps


def _pattern(line: str) -> re.Pattern[str]:
    parts = _SPLIT.split(_squeezed(line))
    return re.compile("".join(PLACEHOLDERS.get(each) or re.escape(each) for each in parts if each is not None))


def _squeezed(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def agree(expected: list[str], found: list[str]) -> bool:
    """Whether the lines are as expected; `...` stands for any number of lines."""
    if not expected:
        return not found
    if expected[0] == "...":
        return any(agree(expected[1:], found[skip:]) for skip in range(len(found) + 1))
    return bool(found) and bool(_pattern(expected[0]).fullmatch(_squeezed(found[0]))) and agree(expected[1:], found[1:])


def lines_of(text: str) -> list[str]:
    """Without empty ones at the end, and without blank ones where the transcript has none either."""
    found = text.splitlines()
    while found and not found[-1].strip():
        found.pop()
    return found
