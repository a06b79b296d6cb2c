"""Parts of the Trees panel: the variations to choose from, and many trees grown into the project as a job."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QGridLayout, QProgressBar, QSpinBox, QToolButton, QVBoxLayout, QWidget

from app import texts
from app.napari_plugin import parts
from app.napari_plugin.background import in_words
from app.napari_plugin.job_curve import JobReports, job_text
from app.napari_plugin.job_watch import JobWatch, newest_job
from app.napari_plugin.session import Session
from univg.errors import InputError
from univg.sca import TreeScene
from univg.workflow.bulk import MAX_COUNT
from univg.workflow.jobs import Job, cancel_job, start_job
from univg.workflow.project import Project
from univg.workflow.tree_sets import tree_set_params, tree_sets

_COLUMNS, _ICON_SIDE = 3, 92
_LOOK_MS = 500
_KIND = "trees"


class Variations(QWidget):
    """Small pictures of trees; a click chooses the seed of one."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.buttons: list[QToolButton] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(4)
        self.hide()

    def show_trees(self, trees: list[tuple[int, np.ndarray]]) -> None:
        """Offer (seed, small mask) pairs in place of earlier ones."""
        for button in self.buttons:
            button.deleteLater()
        self.buttons = []
        for number, (seed, mask) in enumerate(trees):
            button = QToolButton()
            button.setText(str(seed))
            button.setIcon(QIcon(_pixmap(mask)))
            button.setIconSize(QSize(_ICON_SIDE, _ICON_SIDE))
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
            button.setToolTip(texts.NAPARI_VARIATION_TIP.format(seed=seed))
            button.clicked.connect(lambda _checked=False, seed=seed: self.chosen.emit(seed))
            self._grid.addWidget(button, number // _COLUMNS, number % _COLUMNS)
            self.buttons.append(button)
        self.setVisible(bool(trees))


class ManyTrees(QWidget):
    """Starts the job, follows it, and lists what earlier ones grew.

    Parameters
    ----------
    session : Session
    scene : callable
        Gives the scene to grow; raises `InputError` when there is none.
    guarded : callable
        Makes a slot of a function, see `parts.Panel.guarded`.
    """

    def __init__(
        self, session: Session, scene: Callable[[], TreeScene], guarded: Callable[[Callable], Callable]
    ) -> None:
        super().__init__()
        self._session, self._scene = session, scene
        self.job: Job | None = None
        self._reports: JobReports | None = None
        self.count = QSpinBox()
        self.count.setRange(1, MAX_COUNT)
        self.count.setValue(100)
        self.every_mask = QCheckBox(texts.TREES_ALL_MASKS)
        self.every_mask.setToolTip(texts.TREES_ALL_MASKS_HELP)
        self.every_mask.setChecked(True)
        self.start_button = parts.push_button(texts.TREES_SAVE_MANY, guarded(lambda *_: self.start()))
        self.cancel_button = parts.push_button(texts.CANCEL, guarded(lambda *_: self.cancel()))
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.state = parts.words("")
        self.saved = parts.words("")
        fields = parts.form()
        fields.addRow(texts.TREES_COUNT_LABEL, self.count)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(fields)
        column.addWidget(self.every_mask)
        column.addWidget(self.start_button)
        column.addWidget(self.progress)
        column.addWidget(self.state)
        column.addWidget(self.cancel_button)
        column.addWidget(self.saved)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look_if_running)  # not guarded: that would empty the message line
        self._timer.start()
        self._elsewhere = JobWatch(self, session, (_KIND,), shown=lambda: self.job, found=self._follow)

    def start(self) -> None:
        """Grow that many; the job goes on when napari is closed."""
        project, scene = self._session.required_project(), self._scene()
        params = tree_set_params(project, scene, count=self.count.value(), every_mask=self.every_mask.isChecked())
        if scene.mask_name in params["masks"]:
            self._refuse_other_mask(project, scene.mask_name)
        self._follow(start_job(project, _KIND, params))

    def _refuse_other_mask(self, project: Project, name: str) -> None:
        """The tree that is shown grows along the mask on screen, those of the job along the project's."""
        current = self._session.open
        if current is None or current.name != name:
            return
        if not np.array_equal(self._session.mask(), project.support_pair(name).mask):
            raise InputError(texts.NAPARI_TREES_OTHER_MASK.format(name=name), fix=texts.NAPARI_TREES_OTHER_MASK_FIX)

    def cancel(self) -> None:
        if self.job is not None:
            self.job = cancel_job(self.job)
            self.look()

    def project_changed(self) -> None:
        """Find the newest job of the project, also one that the browser started."""
        project = self._session.project
        newest = newest_job(project, (_KIND,)) if project is not None else None
        if newest is not None:
            self._follow(newest)
        else:
            self.job = self._reports = None
            self.look()

    def look(self) -> None:
        """See how far the job is."""
        project = self._session.project
        if self.job is not None:
            self.job = self.job.refreshed()
            self._reports.read_new()
        running = self.job is not None and not self.job.state.finished
        event = self._reports.latest if self._reports is not None else None
        self.start_button.setEnabled(project is not None and not running)
        self.cancel_button.setVisible(running)
        self.progress.setVisible(running)
        self.progress.setValue(round(1000 * event.fraction) if event is not None else 0)
        done = texts.NAPARI_TREES_DONE
        self.state.setText("" if self.job is None else job_text(self.job, event, done=done))
        self.state.setVisible(bool(self.state.text()))
        sets = tree_sets(project) if project is not None else []
        lines = [
            texts.SAVED_TREES.format(count=count, noun=texts.noun(count, "tree"), folder=f"trees/{name}")
            for name, count in sets
        ]
        self.saved.setText("\n".join(lines))
        self.saved.setVisible(bool(lines))

    def _follow(self, job: Job) -> None:
        self.job, self._reports = job, JobReports(job.folder)
        self.look()

    def _look_if_running(self) -> None:
        if self.job is None or self.job.state.finished:
            return
        try:
            self.look()
        except Exception as error:  # a slot that raises would end the window on some platforms
            self._session.said.emit(in_words(error), "error")


def _pixmap(mask: np.ndarray) -> QPixmap:
    mask = np.ascontiguousarray(mask)
    height, width = mask.shape
    return QPixmap.fromImage(QImage(mask.data, width, height, width, QImage.Format.Format_Grayscale8).copy())
