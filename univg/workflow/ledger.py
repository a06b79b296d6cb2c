"""What the finished stages of a job gave, on record in its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from univg.errors import InputError
from univg.io import read_json, write_json_atomic
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.job_records import CHECKPOINT_FOLDER

_FILE = "stages.json"


class Ledger:
    """Results of finished stages, in a file; `given` are those taken over from an earlier run.

    Parameters
    ----------
    context : JobContext or JobPart
    given : mapping, optional
        Stage -> result. What the file says comes first.
    """

    def __init__(self, context: JobContext | JobPart, given: Mapping[str, dict] | None = None) -> None:
        self._context = context
        self._file = context.checkpoint_folder / _FILE
        self._done = {**(given or {}), **(read_json(self._file) if self._file.is_file() else {})}

    def __contains__(self, stage: str) -> bool:
        return stage in self._done

    def once(self, stage: str, work: Callable[[JobPart], dict]) -> dict:
        """The result of `stage`, worked out only when it is not on record."""
        if stage not in self._done:
            self._done[stage] = work(self._context.within(stage))
            write_json_atomic(self._file, self._done)
        return self._done[stage]


def recorded_stages(job_folder: Path) -> dict[str, dict]:
    """Stage -> result of the finished stages of the job in `job_folder`."""
    file = job_folder / CHECKPOINT_FOLDER / _FILE
    try:
        found = read_json(file) if file.is_file() else {}
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}
