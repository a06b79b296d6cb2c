"""What a person decided about synthetic pairs: a log that only grows, and the pairs that training uses by it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from univg.errors import InputError
from univg.workflow.folder_access import locked, utc_now, writing
from univg.workflow.project import Project

VERDICTS_FILE = "verdicts.jsonl"
MAX_NOTE = 2000
# What the next training does with a pair that nobody has judged.
POLICY = "Accepted pairs train, rejected ones do not; undecided ones train unless an automatic check flagged them."


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judgement:
    """The latest word on a pair."""

    verdict: Verdict
    note: str = ""
    time: str = ""


def judge(project: Project, names: Sequence[str], verdict: Verdict | str, *, note: str = "") -> None:
    """Append a verdict on each of `names` to the log, flushed to the disk before this returns.

    Raises
    ------
    InputError
        If a name is no synthetic pair's, the note is too long, or the folder cannot be written to.
    """
    verdict = Verdict(verdict)
    if len(note) > MAX_NOTE:
        raise InputError(f"A note has at most {MAX_NOTE} characters, got {len(note)}")
    known = set(project.pair_names())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"The project holds no synthetic pair called {unknown[0]!r}", path=project.path)
    lines = [{"name": name, "verdict": str(verdict), "note": note, "time": utc_now()} for name in names]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file = project.pairs_folder / VERDICTS_FILE
    with locked(project.path / ".lock"), writing(project.pairs_folder):
        project.pairs_folder.mkdir(exist_ok=True)
        with file.open("ab+") as log:
            if log.tell() and _last_byte(log) != b"\n":  # a crash tore the last line
                log.write(b"\n")
            log.write(text.encode())
            log.flush()
            os.fsync(log.fileno())


def read_judgements(project: Project) -> dict[str, Judgement]:
    """The latest judgement of each pair that was ever judged; torn lines are passed over."""
    file = project.pairs_folder / VERDICTS_FILE
    if not file.is_file():
        return {}
    found = {}
    for line in file.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            found[str(entry["name"])] = Judgement(
                Verdict(entry["verdict"]), str(entry.get("note", "")), str(entry.get("time", ""))
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def pairs_that_train(project: Project, names: Sequence[str] | None = None) -> list[str]:
    """Those of `names` (by default all synthetic pairs) that training uses, by `POLICY`; sorted."""
    judged = read_judgements(project)
    chosen = []
    for name in sorted(project.pair_names() if names is None else names):
        verdict = judged[name].verdict if name in judged else Verdict.UNDECIDED
        if verdict is Verdict.ACCEPTED or (verdict is Verdict.UNDECIDED and not flags_of(project.pair_record(name))):
            chosen.append(name)
    return chosen


def flags_of(record: Mapping) -> tuple[str, ...]:
    """Names of the checks that a pair did not pass."""
    return tuple((record.get("checks") or {}).get("flags") or ())


def _last_byte(log) -> bytes:
    log.seek(-1, os.SEEK_END)
    return log.read(1)
