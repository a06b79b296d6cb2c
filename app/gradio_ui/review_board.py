"""What the Review tab does, without the page: which pairs are listed, which is on screen, verdicts and undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from univg.errors import InputError
from univg.workflow.project import Project
from univg.workflow.verdicts import Judgement, Verdict, flags_of, judge, read_judgements

PAGE = 40
FILTERS = ("all", "undecided", "flagged", "accepted", "rejected")
SORTS = ("flagged", "agreement", "name")
_MAX_UNDO = 500


@dataclass(frozen=True)
class Entry:
    """A synthetic pair in the list.

    Attributes
    ----------
    name : str
    flags : tuple of str
    agreement : float
        See `univg.workflow.pair_checks.PairChecks`; NaN where it was not checked.
    judgement : Judgement
    """

    name: str
    flags: tuple[str, ...]
    agreement: float
    judgement: Judgement

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict


@dataclass
class ReviewBoard:
    """The state of the tab.

    Attributes
    ----------
    shown, sort : str
        Of `FILTERS` and `SORTS`.
    current : str
        Name of the pair on screen.
    undo : list
        What each verdict replaced: pairs of a name and the verdict before.
    """

    shown: str = "all"
    sort: str = "flagged"
    current: str = ""
    undo: list[list[tuple[str, Judgement]]] = field(default_factory=list)
    changed: int = 0

    def entries(self, project: Project) -> list[Entry]:
        """The listed pairs in order. A pair that is judged stays until the list is asked for anew by a control."""
        every = all_entries(project)
        wanted = [entry for entry in every if _is_shown(entry, self.shown) or entry.name == self.current]
        if self.sort == "name":
            return sorted(wanted, key=lambda entry: entry.name)
        if self.sort == "agreement":
            return sorted(wanted, key=lambda entry: (_finite(entry.agreement), entry.name))
        return sorted(wanted, key=lambda entry: (not entry.flags, _finite(entry.agreement), entry.name))

    def on_screen(self, project: Project) -> Entry | None:
        """The current pair, or the first one listed."""
        entries = self.entries(project)
        found = next((entry for entry in entries if entry.name == self.current), None)
        found = found or next(iter(entries), None)
        self.current = "" if found is None else found.name
        return found

    def move(self, project: Project, by: int) -> None:
        """Go on by some pairs; stops at the ends."""
        names = [entry.name for entry in self.entries(project)]
        if names:
            at = names.index(self.current) if self.current in names else 0
            self.current = names[min(max(at + by, 0), len(names) - 1)]

    def judge_current(self, project: Project, verdict: Verdict, note: str = "") -> None:
        """Judge the pair on screen and go on to the next one."""
        entry = self.on_screen(project)
        if entry is None:
            raise InputError("There is no pair to judge", fix="Draw some in the Images tab.")
        names = [other.name for other in self.entries(project)]
        following = names[names.index(entry.name) + 1 :] or names[: names.index(entry.name)][-1:]
        self.judge_many(project, [entry], verdict, note)
        self.current = next(iter(following), entry.name)

    def judge_many(self, project: Project, entries: Sequence[Entry], verdict: Verdict, note: str = "") -> None:
        """Judge `entries` at once; one step of undo."""
        if not entries:
            raise InputError("No pair is listed", fix="Choose another filter.")
        judge(project, [entry.name for entry in entries], verdict, note=note)
        self.undo.append([(entry.name, entry.judgement) for entry in entries])
        del self.undo[:-_MAX_UNDO]

    def take_back(self, project: Project) -> None:
        """Undo the last step: the verdicts of before are appended to the log."""
        if not self.undo:
            raise InputError("There is nothing to undo")
        step = self.undo.pop()
        for name, before in step:
            judge(project, [name], before.verdict, note=before.note)
        self.current = step[0][0]


def all_entries(project: Project) -> list[Entry]:
    """Every synthetic pair of `project` with its latest verdict."""
    judged = read_judgements(project)
    entries = []
    for name in project.pair_names():
        flags, agreement = _checks_of(project.path, name)
        entries.append(Entry(name, flags, agreement, judged.get(name, Judgement(Verdict.UNDECIDED))))
    return entries


def counts(entries: Sequence[Entry]) -> dict[str, int]:
    """How many there are in all, were judged, and stand behind each filter."""
    found = {name: sum(_is_shown(entry, name) for entry in entries) for name in FILTERS}
    return {**found, "judged": found["all"] - found["undecided"]}


def _is_shown(entry: Entry, shown: str) -> bool:
    if shown == "flagged":
        return bool(entry.flags)
    return shown == "all" or str(entry.verdict) == shown


def _finite(number: float) -> float:
    return number if number == number else 2.0


@lru_cache(maxsize=100_000)
def _checks_of(path: Path, name: str) -> tuple[tuple[str, ...], float]:
    """Pairs never change, so their records are read once."""
    record = Project.open(path).pair_record(name)
    checks = record.get("checks") or {}
    return flags_of(record), float(checks.get("agreement", float("nan")))
