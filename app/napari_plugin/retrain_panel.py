"""Retrain: a job on all approved images, its curve, and old against new on the images that never train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QHeaderView, QProgressBar, QTableWidget, QTableWidgetItem

from app import texts
from app.napari_plugin import parts
from app.napari_plugin.background import in_background, in_words
from app.napari_plugin.image_queue import ImageQueue, Status, TakenIn
from app.napari_plugin.job_curve import Curve, JobReports, job_text
from app.napari_plugin.job_watch import JobWatch, newest_job
from app.napari_plugin.models import Score, score_on
from univg.errors import InputError, JobRunningError
from univg.workflow.expected_time import minutes_here
from univg.workflow.jobs import Job, JobState, cancel_job, list_jobs, resume_job, start_job
from univg.workflow.model_versions import active_segmenter, held_out_of, promote
from univg.workflow.presets import PRESETS
from univg.workflow.project import Project
from univg.workflow.verdicts import training_choice

if TYPE_CHECKING:
    from napari.viewer import Viewer

_EFFORTS = ("preview", "standard")
_KINDS = ("adapt", "retrain")  # a run started in the browser is watched here too
_LOOK_MS = 500


class RetrainPanel(parts.Panel):
    """The job goes on when napari is closed; the panel finds it again."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.job: Job | None = None
        self.scores: tuple[list[Score], list[Score]] | None = None
        self._reports: JobReports | None = None
        self._compared = ""
        self._starting = False
        self.status = parts.words("")
        self.effort = QComboBox()
        self._describe_efforts({name: PRESETS[name].expected_minutes for name in _EFFORTS})
        fields = parts.form()
        fields.addRow(texts.PRESET, self.effort)
        self.start_button = self.button(texts.NAPARI_RETRAIN, self.start, tip=texts.NAPARI_RETRAIN_TIP, main=True)
        self.cancel_button = self.button(texts.CANCEL, self.cancel)
        self.resume_button = self.button(texts.RESUME_BUTTON, self.resume)
        self.body.addWidget(self.status)
        self.body.addLayout(fields)
        self.body.addWidget(self.start_button)
        self.body.addLayout(parts.row(self.cancel_button, self.resume_button))

        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress_text = parts.words("")
        self.curve = Curve()
        self.body.addWidget(self.progress)
        self.body.addWidget(self.progress_text)
        self.body.addWidget(self.curve)

        self.body.addWidget(parts.heading(texts.NAPARI_COMPARE))
        self.verdict = parts.words(texts.NAPARI_COMPARE_WAIT)
        self.table = QTableWidget(0, 3)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setMinimumHeight(110)
        self.promote_button = self.button(texts.NAPARI_PROMOTE, lambda: self.decide(new=True), main=True)
        self.keep_button = self.button(texts.NAPARI_KEEP, lambda: self.decide(new=False))
        self.body.addWidget(self.verdict)
        self.body.addWidget(self.table)
        self.body.addLayout(parts.row(self.promote_button, self.keep_button))
        self.body.addStretch(1)

        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self.guarded_look)
        self._timer.start()
        self._elsewhere = JobWatch(self, self.session, _KINDS, shown=lambda: self.job, found=self._take_found)
        self.session.project_changed.connect(self._project_changed)
        self.session.queue_changed.connect(self.refresh)
        self.session.model_changed.connect(self._model_changed)
        self._project_changed()
        in_background(_minutes_here, done=self._describe_efforts, failed=self._failed)

    def _describe_efforts(self, minutes: dict[str, float]) -> None:
        described = {name: parts.presets_text(name, minutes[name]) for name in _EFFORTS}
        choices = [(text.partition(": ")[0], name) for name, text in described.items()]
        parts.fill(self.effort, choices, self.effort.currentData() or "standard")
        self.effort.setToolTip("\n".join((texts.PRESET_HELP, *described.values())))

    # --- what the buttons do

    def start(self) -> None:
        """Approved images become annotated pairs; the job trains from the vessel prior on all of these."""
        self.session.save_now()
        project, queue, preset = self.session.required_project(), self.session.queue, self.effort.currentData()
        self._starting = True
        self.refresh()
        self.say(texts.NAPARI_WORKING)
        in_background(
            lambda: _start_retraining(project, queue, preset), done=self._take_started, failed=self._start_failed
        )

    def _take_started(self, started: tuple[Job, TakenIn]) -> None:
        job, taken = started
        self._starting = False
        if self.session.project is not None and job.folder.is_relative_to(self.session.project.path):
            self._watch(job)
            self.session.queue_changed.emit()
        self.say(_taken_in_words(taken))

    def _start_failed(self, error: Exception) -> None:
        self._starting = False
        if isinstance(error, JobRunningError) and self.session.project is not None:
            running = [job for job in list_jobs(self.session.project) if job.id == error.job_id and job.kind in _KINDS]
            if running:
                self._watch(running[0])
        self.session.queue_changed.emit()
        self.refresh()
        self.say(in_words(error), "error")

    def cancel(self) -> None:
        if self.job is None or self.job.state.finished:
            raise InputError(texts.NOTHING_TO_CANCEL)
        self.job = cancel_job(self.job)
        self.refresh()

    def resume(self) -> None:
        if self.job is None:
            raise InputError(texts.NOTHING_TO_RESUME)
        self._watch(resume_job(self.job))

    def decide(self, *, new: bool) -> None:
        """Use the new model or go on with the old one; then the next image opens and is segmented by it.

        Where none is left, the one on screen is looked at again.
        """
        old_version, new_version = self._versions()
        version = new_version if new else old_version
        if version is None:
            raise InputError(texts.NAPARI_NO_OTHER_MODEL)
        promote(self.session.required_project(), version)
        self.session.model_changed.emit()
        self.session.score_queue()
        self.session.go_on()
        self.say(texts.SEG_USED.format(version=version))

    # --- watching

    def guarded_look(self) -> None:
        """As `look`; errors are said."""
        try:
            self.look()
        except Exception as error:  # a timer must not end the window
            self.say(in_words(error), "error")

    def look(self) -> None:
        """See what the job has done since the last look."""
        if self.job is None or self.session.project is None:
            return
        finished_before = self.job.state.finished
        if not finished_before:
            self.job = self.job.refreshed()
        news = self._reports.read_new()
        if news or self.job.state.finished != finished_before:
            self.refresh()
        if self.job.state.finished and not finished_before:  # it may have put its model in use
            self.session.model_changed.emit()
            self.session.score_queue()
        if self.job.state is JobState.DONE and self._compared != self.job.id:
            self._compared = self.job.id
            self._compare()

    def refresh(self) -> None:
        project, job = self.session.project, self.job
        running = job is not None and not job.state.finished
        self.start_button.setEnabled(project is not None and not running and not self._starting)
        self.cancel_button.setEnabled(running and job.state is not JobState.CANCELLING)
        self.resume_button.setEnabled(job is not None and job.state in (JobState.CANCELLED, JobState.FAILED))
        self.resume_button.setText(texts.GO_ON_BUTTON if job is not None and job.waits_for else texts.RESUME_BUTTON)
        self.curve.show_reports(self._reports)
        if project is None:
            self.status.setText(texts.NAPARI_OPEN_FIRST)
        else:
            entries = self.session.queue.entries()
            held = sum(entry.held_out for entry in entries)
            train = sum(entry.status is Status.APPROVED and not entry.held_out for entry in entries)
            self.status.setText(texts.NAPARI_TRAINS_ON.format(count=train, noun=texts.noun(train, "image"), held=held))
        event = self._reports.latest if self._reports else None
        self.progress.setVisible(running)
        self.progress.setValue(round(1000 * event.fraction) if event else 0)
        self.progress_text.setText("" if job is None else job_text(job, event))
        done = job is not None and job.state is JobState.DONE
        old, new = self._versions() if done else (None, None)
        self.promote_button.setEnabled(new is not None)
        self.keep_button.setEnabled(old is not None)

    def _project_changed(self) -> None:
        project = self.session.project
        newest = newest_job(project, _KINDS) if project else None
        if newest is None:
            self.job = self._reports = self.scores = None
            self._compared = ""
            self.verdict.setText(texts.NAPARI_COMPARE_WAIT)
            self.table.hide()
            self.refresh()
        elif self.job is None or self.job.folder != newest.folder:
            self._watch(newest)

    def _take_found(self, job: Job) -> None:
        """One that was started elsewhere, and may have ended since."""
        self._watch(job)
        if job.state.finished:
            self.session.model_changed.emit()
            self.session.score_queue()

    def _watch(self, job: Job) -> None:
        self.job, self._reports, self.scores = job, JobReports(job.folder), None
        self._compared = ""
        self.verdict.setText(texts.NAPARI_COMPARE_WAIT)
        self.table.hide()
        self._reports.read_new()
        self.refresh()

    def _versions(self) -> tuple[str | None, str | None]:
        """The model that was in use when the job started, and the one that it made; None for one that is not there."""
        result = (self.job.result() or {}) if self.job else {}
        known = self.session.project.segmenter_versions() if self.session.project else []
        new, old = result.get("segmenter"), self.job.params.get("compare_with") if self.job else None
        old = old or (result.get("versions") or {}).get("before")  # of a run that was started in the browser
        return (old if old in known and old != new else None), (new if new in known else None)

    # --- old against new

    def _compare(self) -> None:
        project, queue = self.session.required_project(), self.session.queue
        versions, job = self._versions(), self.job
        if versions[1] is None:
            return
        self.verdict.setText(texts.NAPARI_COMPARING)

        def work() -> tuple:
            pairs = queue.held_out_pairs()
            return tuple(score_on(pairs, project.segmenters_folder / v) if v else [] for v in versions)

        def done(scores: tuple) -> None:
            if self.job is not None and self.job.id == job.id:
                self.scores = scores
                self._show_scores(*versions)

        in_background(work, done=self.while_open(done), failed=self._failed)

    def _failed(self, error: Exception) -> None:
        self.say(in_words(error), "error")

    def _model_changed(self) -> None:
        """The verdict says which model is in use."""
        old, new = self._versions()
        if self.scores is not None and new is not None:
            self._show_scores(old, new)

    def _show_scores(self, old: str | None, new: str) -> None:
        before, after = self.scores
        active = active_segmenter(self.session.required_project())
        in_use = " " + texts.NAPARI_NOW_IN_USE.format(version=active.name) if active is not None else ""
        if not after:
            folder = self.session.required_project().segmenters_folder
            first, second = (held_out_of(folder / version) if version else None for version in (old, new))
            text = texts.NAPARI_NO_HELD_OUT
            if first is not None and second is not None and second.comparable_with(first):
                text += " " + texts.NAPARI_VALIDATION.format(before=first.dice, after=second.dice)
            self.verdict.setText(text + in_use)
            self.refresh()
            return
        self.table.setHorizontalHeaderLabels([texts.FIGURES_IMAGE, old or texts.UNDEFINED, new])
        old_dice = {score.image: score.dice for score in before}
        rows = [(s.image, old_dice.get(s.image, float("nan")), s.dice) for s in after]
        means = [float(np.mean([row[column] for row in rows])) for column in (1, 2)]
        rows.append((texts.FIGURES_MEAN.format(n=len(after)), *means))
        self.table.setRowCount(len(rows))
        for number, values in enumerate(rows):
            for column, value in enumerate(values):
                text = value if isinstance(value, str) else texts.UNDEFINED if np.isnan(value) else f"{value:.3f}"
                self.table.setItem(number, column, QTableWidgetItem(text))
        self.table.show()
        if before:
            better = texts.NAPARI_BETTER if means[1] >= means[0] else texts.NAPARI_WORSE
            text = better.format(new=new, old=old, before=means[0], after=means[1], n=len(after))
        else:
            text = texts.NAPARI_FIRST.format(new=new, after=means[1], n=len(after))
        self.verdict.setText(text + in_use)
        self.refresh()


def _minutes_here() -> dict[str, float]:
    return {name: minutes_here(PRESETS[name]) for name in _EFFORTS}


def _taken_in_words(taken: TakenIn) -> str:
    count = len(taken.changed)
    sentences = [texts.NAPARI_TAKEN_IN.format(count=count, noun=texts.noun(count, "image"))]
    for text, names in (
        (texts.NAPARI_OTHER_IMAGE, taken.other_image),
        (texts.NAPARI_PAINTED_SINCE, taken.painted_since),
    ):
        if names:
            sentences.append(text.format(names=", ".join(f"“{name}”" for name in names)))
    return " ".join(sentences)


def _start_retraining(project: Project, queue: ImageQueue, preset: str) -> tuple[Job, TakenIn]:
    """The job, and which approved images became pairs of the project or gave one a better mask."""
    running = next((job for job in list_jobs(project) if not job.state.finished), None)
    if running is not None:  # before anything is changed that it works with
        raise JobRunningError(running.id)
    taken = queue.approved_into_support()
    if not project.support_names():
        raise InputError(texts.NAPARI_NOTHING_APPROVED, fix=texts.NAPARI_NOTHING_APPROVED_FIX)
    before = active_segmenter(project)
    params = {
        "preset": preset,
        "seed": 0,
        **training_choice(project),
        "held_out": queue.freeze(),
        "compare_with": before.name if before else None,
    }
    return start_job(project, "retrain", params), taken
