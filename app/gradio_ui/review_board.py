"""What the Review tab does, without the page: which pairs are listed, which is on screen, verdicts and undo."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from app.gradio_ui.numbers import is_measured
from univg.errors import InputError
from univg.io import file_stamp
from univg.workflow.near_duplicates import FLAG as NEAR_DUPLICATE
from univg.workflow.near_duplicates import RESULT_FILE, read_near_duplicates
from univg.workflow.project import Project
from univg.workflow.support_store import read_sidecar
from univg.workflow.verdicts import VERDICTS_FILE, Judgement, JudgementLog, Verdict, flags_of, judge

PAGE = 40
FILTERS = ("all", "undecided", "flagged", "accepted", "rejected")
FLAGS = ("disagrees", "broken", "faint", "copied mask", "copied image", NEAR_DUPLICATE)
_MAX_UNDO = 500
_NOT_MEASURED = 2.0  # sorts behind everything measured
_UNDECIDED = Judgement(Verdict.UNDECIDED)
_SETTLED_NS = 100_000_000


@dataclass(frozen=True)
class Entry:
    """A synthetic pair in the list.

    Attributes
    ----------
    name : str
    flags : tuple of str
        Of `FLAGS`.
    agreement, contrast, likeness : float
        See `univg.workflow.pair_checks.PairChecks`; `likeness` is that of the most similar real mask or image. NaN
        where it was not checked.
    pieces : int
        That the mask falls into.
    twin : str
        The earlier pair that this one nearly repeats; empty when there is none.
    judgement : Judgement
    """

    name: str
    flags: tuple[str, ...]
    agreement: float
    judgement: Judgement
    contrast: float = float("nan")
    likeness: float = float("nan")
    pieces: int = 0
    twin: str = ""

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict


@dataclass(frozen=True)
class Change:
    """A verdict that this page gave: what it replaced, and as it stands in the log."""

    name: str
    before: Judgement
    written: Judgement


# Flagged pairs first in the order of the work, then by one figure after another.
_KEYS: dict[str, Callable[[Entry], tuple]] = {
    "flagged": lambda entry: (not entry.flags, _or_last(entry.agreement), entry.name),
    "agreement": lambda entry: (_or_last(entry.agreement), entry.name),
    "contrast": lambda entry: (entry.contrast if entry.contrast == entry.contrast else float("inf"), entry.name),
    "pieces": lambda entry: (-entry.pieces, entry.name),
    "likeness": lambda entry: (-entry.likeness if entry.likeness == entry.likeness else _NOT_MEASURED, entry.name),
    "twins": lambda entry: (not entry.twin, entry.twin or entry.name, entry.name),
    "name": lambda entry: (entry.name,),
}
SORTS = tuple(_KEYS)


@dataclass
class ReviewBoard:
    """The state of the tab.

    Attributes
    ----------
    shown : str
        Of `FILTERS`.
    flag : str
        Of `FLAGS`, to list only pairs that carry it; empty for all.
    sort : str
        Of `SORTS`.
    current : str
        Name of the pair on screen.
    undo : list
        What each step changed.
    lock : Lock
        Held while the board answers: a page may ask several things at once.
    """

    shown: str = "all"
    sort: str = "flagged"
    current: str = ""
    undo: list[list[Change]] = field(default_factory=list)
    flag: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _listing: list[str] = field(default_factory=list, repr=False)
    _looked_at: set[str] = field(default_factory=set, repr=False)
    _listed_for: tuple = field(default=(), repr=False)

    def entries(self, project: Project) -> list[Entry]:
        """The listed pairs in order.

        A pair that is judged stays where it is until a control asks for a new list, and one that is new comes last:
        what is on screen must not move while pairs are drawn.
        """
        every = {entry.name: entry for entry in all_entries(project)}
        wanted = (self.shown, self.flag, self.sort, sum(bool(entry.twin) for entry in every.values()))
        if self._listed_for != wanted:
            self._listing, self._looked_at, self._listed_for = [], set(), wanted
        new = [entry for entry in every.values() if entry.name not in self._looked_at and self._is_listed(entry)]
        self._listing += [entry.name for entry in sorted(new, key=_KEYS[self.sort])]
        self._looked_at.update(every)
        return [every[name] for name in self._listing if name in every]

    def list_anew(self, **choice: str) -> None:
        """Change `shown`, `flag` or `sort` and forget the list, so that judged pairs leave it."""
        for name, value in choice.items():
            setattr(self, name, value)
        self._listed_for = ()

    def on_screen(self, project: Project) -> Entry | None:
        """The current pair, or the first one listed."""
        entries = self.entries(project)
        found = next((entry for entry in entries if entry.name == self.current), None)
        found = found or next(iter(entries), None)
        self.current = "" if found is None else found.name
        return found

    def move(self, project: Project, by: int) -> None:
        """Go `by` pairs on, or back where it is negative; the list has ends."""
        if self.on_screen(project) is None:
            return
        names = [entry.name for entry in self.entries(project)]
        self.current = names[min(max(names.index(self.current) + by, 0), len(names) - 1)]

    def judge_current(self, project: Project, verdict: Verdict, note: str = "") -> None:
        """Judge the pair on screen and go on to the next one."""
        entry = self.on_screen(project)
        if entry is None:
            raise InputError("There is no pair to judge", fix="Draw some in the Images tab.")
        self.judge_named(project, entry.name, verdict, note)

    def judge_named(self, project: Project, name: str, verdict: Verdict, note: str = "") -> None:
        """Judge the pair called `name`, which may have left the list meanwhile, and go on to the next one."""
        entry = next(entry for entry in all_entries(project) if entry.name == name)
        names = [other.name for other in self.entries(project)]
        at = names.index(name) if name in names else -1
        following = names[at + 1 :] or names[: max(at, 0)][-1:]
        self.judge_many(project, [entry], verdict, note)
        self.current = next(iter(following), name)

    def judge_many(self, project: Project, entries: Sequence[Entry], verdict: Verdict, note: str = "") -> None:
        """Judge `entries` at once; one step of undo."""
        if not entries:
            raise InputError("No pair is listed", fix="Choose another filter.")
        judge(project, [entry.name for entry in entries], verdict, note=note)
        written = _judgements(project)
        self.undo.append([Change(entry.name, entry.judgement, written[entry.name]) for entry in entries])
        del self.undo[:-_MAX_UNDO]

    def take_back(self, project: Project) -> tuple[list[str], list[str]]:
        """Undo the last step: the verdicts of before are appended to the log.

        Returns
        -------
        names : list of str
            Of the pairs whose verdict is that of before again.
        left : list of str
            Of those that were judged again since, in another tab or program: that later word stands.
        """
        if not self.undo:
            raise InputError("There is nothing to undo")
        step, present = self.undo[-1], _judgements(project)
        ours = [change for change in step if present.get(change.name) == change.written]
        alike: dict[tuple[Verdict, str], list[str]] = {}
        for change in ours:
            alike.setdefault((change.before.verdict, change.before.note), []).append(change.name)
        for (verdict, note), names in alike.items():
            judge(project, names, verdict, note=note)
        self.undo.pop()
        self._take_for_own(ours, _judgements(project))
        self.current = step[0].name
        names = [change.name for change in ours]
        return names, [change.name for change in step if change.name not in set(names)]

    def _take_for_own(self, undone: Sequence[Change], present: dict[str, Judgement]) -> None:
        """Let earlier steps know their verdicts again, which were brought back at another time."""
        back = {(change.name, change.before): present[change.name] for change in undone}
        for step in self.undo:
            step[:] = [
                replace(change, written=back.get((change.name, change.written), change.written)) for change in step
            ]

    def _is_listed(self, entry: Entry) -> bool:
        return _is_shown(entry, self.shown) and (not self.flag or self.flag in entry.flags)


def all_entries(project: Project) -> Sequence[Entry]:
    """Every synthetic pair of `project` with its latest verdict, by name."""
    return _index(project).entries()


def _judgements(project: Project) -> dict[str, Judgement]:
    return {entry.name: entry.judgement for entry in all_entries(project)}


def counts(entries: Sequence[Entry]) -> dict[str, int]:
    """How many there are in all, were judged, and stand behind each filter."""
    found = {name: sum(_is_shown(entry, name) for entry in entries) for name in FILTERS}
    return {**found, "judged": found["all"] - found["undecided"]}


def flag_counts(entries: Sequence[Entry]) -> dict[str, int]:
    """How many pairs carry each flag."""
    return {flag: sum(flag in entry.flags for entry in entries) for flag in FLAGS}


def _is_shown(entry: Entry, shown: str) -> bool:
    if shown == "flagged":
        return bool(entry.flags)
    return shown == "all" or entry.verdict == shown


def _or_last(number: float) -> float:
    return number if number == number else _NOT_MEASURED


class _Index:
    """What is known of the pairs of one project; files are read again only when they have changed."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._log = JudgementLog(project)
        self._seen: tuple = ()
        self._entries: tuple[Entry, ...] = ()
        self._lock = threading.Lock()

    def entries(self) -> tuple[Entry, ...]:
        folder = self._project.pairs_folder
        files = ("images", "masks", VERDICTS_FILE, RESULT_FILE)
        with self._lock:
            stamps = tuple(file_stamp(folder / name) for name in files)
            # A folder's time has steps of some milliseconds: a pair may come right after a look at it.
            settled = time.time_ns() - max(stamps[0][0], stamps[1][0]) > _SETTLED_NS
            if stamps != self._seen or not settled:
                only_judged = settled and self._seen and _without_verdicts(stamps) == _without_verdicts(self._seen)
                self._entries = self._judged_anew() if only_judged else self._read(folder)
                self._seen = stamps
            return self._entries

    def _judged_anew(self) -> tuple[Entry, ...]:
        judged = self._log.latest()
        return tuple(
            entry if (now := judged.get(entry.name, _UNDECIDED)) == entry.judgement else replace(entry, judgement=now)
            for entry in self._entries
        )

    def _read(self, folder: Path) -> tuple[Entry, ...]:
        judged, twins = self._log.latest(), read_near_duplicates(self._project)
        entries = []
        for name in self._project.pair_names():
            checks = _checks_of(folder, name)
            flags = (*checks["flags"], NEAR_DUPLICATE) if name in twins else checks["flags"]
            judgement, twin = judged.get(name, _UNDECIDED), twins.get(name, "")
            entries.append(Entry(name, judgement=judgement, twin=twin, **{**checks, "flags": flags}))
        return tuple(entries)


def _without_verdicts(stamps: tuple) -> tuple:
    images, masks, _, near_duplicates = stamps
    return images, masks, near_duplicates


@lru_cache(maxsize=8)
def _index(project: Project) -> _Index:
    return _Index(project)


@lru_cache(maxsize=100_000)
def _checks_of(folder: Path, name: str) -> dict:
    """Pairs never change, so their records are read once."""
    record = _record_of(folder, name)
    checks = record.get("checks") or {}
    return {
        "flags": flags_of(record),
        "agreement": _number(checks.get("agreement")),
        "contrast": _number(checks.get("contrast")),
        "likeness": max(filter(is_measured, map(checks.get, ("nearest_mask", "nearest_image"))), default=float("nan")),
        "pieces": int(checks.get("components") or 0),
    }


def _record_of(folder: Path, name: str) -> dict:
    """Empty for one that is damaged: the other pairs must not go with it."""
    try:
        record = read_sidecar(folder, name)
    except InputError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("checks") or {}, dict) else {}


def _number(value: object) -> float:
    """NaN for what records hold in its place."""
    return float(value) if is_measured(value) else float("nan")
