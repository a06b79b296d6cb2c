"""What a person decided about synthetic pairs: a log that only grows, and the pairs that training uses by it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from univg.errors import InputError
from univg.workflow.folder_access import append_lines, locked, utc_now, writing
from univg.workflow.model_versions import name_to_hold_out
from univg.workflow.near_duplicates import FLAG as NEAR_DUPLICATE
from univg.workflow.near_duplicates import read_near_duplicates
from univg.workflow.project import Project
from univg.workflow.support_store import content_hashes

VERDICTS_FILE = "verdicts.jsonl"
MAX_NOTE = 2000
# What the next training does with a pair that nobody has judged.
POLICY = (
    "Accepted pairs train, rejected ones do not. Undecided ones train unless an automatic check flagged them, and are "
    "drawn more rarely the less their image and mask agree: in proportion to the agreement, accepted ones count as 1. "
    "Pairs that were made from the annotated image that models are compared on do not train."
)
_UNCHECKED_WEIGHT = 0.5  # of an undecided pair of which nobody measured how well image and mask agree
_LEAST_WEIGHT = 0.05
_HEAD_BYTES = 512


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
        append_lines(file, text)


class JudgementLog:
    """The log of a project, read on from where it was left: verdicts come one by one, and a page asks after each.

    Not for several threads at once.
    """

    def __init__(self, project: Project) -> None:
        self._file = project.pairs_folder / VERDICTS_FILE
        self._read_bytes = 0
        self._head = b""  # tells this log from one that was put in its place: its first line has a time
        self._found: dict[str, Judgement] = {}

    def latest(self) -> dict[str, Judgement]:
        """The latest judgement of each pair that was ever judged; torn lines are passed over."""
        try:
            with self._file.open("rb") as log:
                head = log.read(_HEAD_BYTES)
                if not head.startswith(self._head) or log.seek(0, os.SEEK_END) < self._read_bytes:
                    self._read_bytes, self._found = 0, {}  # another file was put in its place
                self._head = head
                log.seek(self._read_bytes)
                new = log.read()
        except FileNotFoundError:
            self._read_bytes, self._head, self._found = 0, b"", {}
            return {}
        whole = new.rfind(b"\n") + 1
        for line in new[:whole].splitlines():
            self._take(line)
        self._read_bytes += whole
        if whole == len(new):
            return dict(self._found)
        # The last line has no end: torn, or its end is on its way. It counts if it can be read, now and again later.
        kept = dict(self._found)
        self._take(new[whole:])
        found, self._found = self._found, kept
        return found

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            name, verdict = str(entry["name"]), Verdict(entry["verdict"])
            self._found[name] = Judgement(verdict, str(entry.get("note", "")), str(entry.get("time", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            return


def read_judgements(project: Project) -> dict[str, Judgement]:
    """The latest judgement of each pair that was ever judged; torn lines are passed over."""
    return JudgementLog(project).latest()


def pairs_that_train(project: Project, names: Sequence[str] | None = None) -> list[str]:
    """Those of `names` (by default all synthetic pairs) that training uses, by `POLICY`; sorted."""
    return sorted(training_weights(project, names))


def training_weights(project: Project, names: Sequence[str] | None = None) -> dict[str, float]:
    """Those of `names` (by default all synthetic pairs) that training uses, and how often, by `POLICY`.

    Returns
    -------
    dict of str to float
        In order of the names; how often a pair is drawn against one that was accepted, in (0, 1].
    """
    return _weights(project, names, _hashes_kept_apart(project))


def barred_by_held_out(project: Project, names: Sequence[str]) -> list[str]:
    """Those of `names` that would train, had they not been made from the image that models are compared on."""
    trained = training_weights(project, names)
    return [name for name in _weights(project, names, set()) if name not in trained]


def _weights(project: Project, names: Sequence[str] | None, apart: Collection[str]) -> dict[str, float]:
    judged, twins, weights = read_judgements(project), read_near_duplicates(project), {}
    for name in sorted(project.pair_names() if names is None else names):
        verdict = judged[name].verdict if name in judged else Verdict.UNDECIDED
        record = project.pair_record(name) if apart or verdict is Verdict.UNDECIDED else {}
        if verdict is Verdict.REJECTED or _has_seen(record, apart):
            continue
        if verdict is Verdict.ACCEPTED:
            weights[name] = 1.0
        elif not flags_of(record, name in twins):
            weights[name] = fidelity(record)
    return weights


def training_choice(project: Project) -> dict:
    """Which synthetic pairs would train now, as the parameters of a ``retrain`` job: ``pairs`` and ``weights``.

    They go on record with the job, so that later verdicts change neither a resumed run nor what it is known to have
    seen.
    """
    weights = training_weights(project)
    return {"pairs": list(weights), "weights": [round(weight, 4) for weight in weights.values()]}


def draw_from(weights: Mapping[str, float], most: int, *, seed: int) -> dict[str, float]:
    """At most `most` of the pairs in `weights`, drawn by these: a training loads no more than it can draw.

    Returns
    -------
    dict of str to float
        In the same order; all equal where some were left out, since their weights have had their say.
    """
    if len(weights) <= most:
        return dict(weights)
    names, shares = list(weights), np.array(list(weights.values()))
    chosen = np.random.default_rng(seed).choice(len(names), most, replace=False, p=shares / shares.sum())
    return {names[i]: 1.0 for i in sorted(chosen)}


def without_sight_of(project: Project, names: Sequence[str], files: Collection[str]) -> list[str]:
    """Those of `names` that were not made from any of `files`, which are told by their SHA-256."""
    hashes = set(files)
    return [name for name in names if not hashes or not _has_seen(project.pair_record(name), hashes)]


def hashes_of_image(sha256: Mapping[str, str], name: str | None) -> set[str]:
    """Of the image and the mask called `name` in a `SupportSet.sha256`; fields of view are often the same file."""
    return {sha for file, sha in sha256.items() if Path(file).stem == name and not file.startswith("fov/")}


def _has_seen(record: Mapping, files: Collection[str]) -> bool:
    seen = record.get("support_sha256") or ()  # of older pairs by the name of the file
    return not set(files).isdisjoint(seen.values() if isinstance(seen, dict) else seen)


def _hashes_kept_apart(project: Project) -> set[str]:
    """Of the annotated image that models are compared on, which a training keeps apart."""
    name = name_to_hold_out(project)
    return set() if name is None else hashes_of_image(content_hashes(project.support_folder, [name]), name)


def fidelity(record: Mapping) -> float:
    """How well image and mask of a checked pair agree, as a weight in (0, 1]."""
    agreement = (record.get("checks") or {}).get("agreement")
    if not isinstance(agreement, (int, float)) or not 0 <= agreement <= 1:  # NaN is neither
        return _UNCHECKED_WEIGHT
    return max(float(agreement), _LEAST_WEIGHT)


def flags_of(record: Mapping, is_near_duplicate: bool = False) -> tuple[str, ...]:
    """Names of the checks that a pair did not pass; whether it repeats another one is no part of its own `record`."""
    flags = tuple((record.get("checks") or {}).get("flags") or ())
    return (*flags, NEAR_DUPLICATE) if is_near_duplicate else flags
