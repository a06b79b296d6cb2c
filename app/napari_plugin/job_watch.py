"""Finds a job that was started elsewhere, in the browser or a terminal, while none is watched here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from app.napari_plugin.background import in_background, in_words
from app.napari_plugin.session import Session
from univg.workflow.jobs import Job, list_jobs
from univg.workflow.project import Project

LOOK_MS = 3000


class JobWatch:
    """Looks for another job every few seconds while the one that `owner` shows is finished.

    Parameters
    ----------
    owner : QWidget
        It looks no longer than this exists.
    session : Session
    kinds : sequence of str
        Of the jobs that count.
    shown : callable
        Gives the job that `owner` shows, or None.
    found : callable
        Gets a job to show in its place.
    """

    def __init__(
        self,
        owner: QWidget,
        session: Session,
        kinds: Sequence[str],
        *,
        shown: Callable[[], Job | None],
        found: Callable[[Job], None],
    ) -> None:
        self._owner, self._session, self._kinds = owner, session, kinds
        self._shown, self._found = shown, found
        self._looking = False
        self._timer = QTimer(owner)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()

    def look(self) -> None:
        """In the background, since it reads the records of all jobs."""
        project = self._session.project
        if project is None or self._looking or self._is_busy():
            return
        self._looking = True
        in_background(
            newest_job, project, self._kinds, done=lambda newest: self._take(project, newest), failed=self._failed
        )

    def _take(self, project: Project, newest: Job | None) -> None:
        self._looking = False
        if not isalive(self._owner) or self._session.project is not project or self._is_busy() or newest is None:
            return
        shown = self._shown()
        if shown is not None and (shown.folder, shown.attempt) == (newest.folder, newest.attempt):
            return
        try:
            self._found(newest)
        except Exception as error:  # a slot that raises would end the window on some platforms
            self._session.said.emit(in_words(error), "error")

    def _failed(self, _error: Exception) -> None:
        """Nobody asked for the look, and the next one may succeed."""
        self._looking = False

    def _is_busy(self) -> bool:
        shown = self._shown()
        return shown is not None and not shown.state.finished


def newest_job(project: Project, kinds: Sequence[str]) -> Job | None:
    """The job of `project` that is under way, which may be an earlier one that was resumed, else the newest."""
    jobs = [job for job in list_jobs(project) if job.kind in kinds]
    return next((job for job in jobs if not job.state.finished), jobs[0] if jobs else None)
