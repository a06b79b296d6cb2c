"""What a job has reported so far, read from its folder as it grows: in words, and as a small learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from app import texts
from univg.overlay import PREDICTION, REFERENCE, Colour
from univg.progress import ProgressEvent
from univg.workflow.job_records import EventReader, JobState
from univg.workflow.jobs import Job

_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 34, 20, 34
_MOST_POINTS = 300

Points = list[tuple[float, float]]


class JobReports:
    """The events of one job; `read_new` looks again.

    Attributes
    ----------
    loss, dice : list of (step, value)
        Of the segmenter's training; `dice` on the image that was kept apart from it.
    total : int
        Steps of that training.
    latest : ProgressEvent or None
    """

    def __init__(self, folder: Path) -> None:
        self._reader = EventReader(folder)
        self.loss: Points = []
        self.dice: Points = []
        self.total = 1
        self.latest: ProgressEvent | None = None

    def read_new(self) -> bool:
        """Whether there was anything new."""
        events = self._reader.read_new()
        for event in events:
            self.latest = event
            if event.stage != "segmenter":
                continue
            self.total = max(event.total, 1)
            for points, name in ((self.loss, "loss"), (self.dice, "held_out_dice")):
                if name in event.metrics:
                    # A resumed job repeats the steps after its last checkpoint.
                    while points and points[-1][0] >= event.step:
                        points.pop()
                    points.append((event.step, float(event.metrics[name])))
        return bool(events)


class Curve(QWidget):
    """Loss on the left axis, Dice from 0 to 1 on the right one, over all the steps that there will be."""

    def __init__(self) -> None:
        super().__init__()
        self._loss: Points = []
        self._dice: Points = []
        self._total = 1
        self.setMinimumHeight(150)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_reports(self, reports: JobReports | None) -> None:
        self._loss = list(reports.loss) if reports else []
        self._dice = list(reports.dice) if reports else []
        self._total = reports.total if reports else 1
        self.setAccessibleName(f"{texts.CURVE_LOSS}, {texts.CURVE_DICE}")
        self.update()

    @property
    def points_shown(self) -> int:
        return len(self._loss)

    def paintEvent(self, event) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        area = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        if not self._loss:
            painter.setPen(ink)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, texts.CURVE_EMPTY)
            painter.end()
            return
        top = max(value for _, value in self._loss) or 1.0
        faint = QColor(ink)
        faint.setAlpha(60)
        middle, left, right = Qt.AlignmentFlag.AlignHCenter, Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        for share in (0.0, 0.5, 1.0):
            y = area.bottom() - share * area.height()
            painter.setPen(faint)
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(ink)
            painter.drawText(QRectF(0, y - 8, _LEFT - 5, 16), right, f"{share * top:.2g}")
            painter.drawText(QRectF(area.right() + 5, y - 8, _RIGHT, 16), left, f"{share:.1f}")
            x = area.left() + share * area.width()
            painter.drawText(QRectF(x - 30, area.bottom() + 2, 60, 16), middle, f"{round(share * self._total)}")
        painter.drawText(QRectF(area.left(), self.height() - 17, area.width(), 16), middle, texts.CURVE_STEP)
        self._draw(painter, area, _thinned(self._loss), 1 / top, REFERENCE, dots=False)
        self._draw(painter, area, self._dice, 1.0, PREDICTION, dots=True)
        painter.setPen(QColor(*REFERENCE))
        painter.drawText(QRectF(2, 0, self.width() / 2, 16), left, texts.CURVE_LOSS)
        painter.setPen(QColor(*PREDICTION))
        painter.drawText(QRectF(0, 0, self.width() - 2, 16), right, texts.NAPARI_CURVE_DICE)
        painter.end()

    def _draw(
        self, painter: QPainter, area: QRectF, points: Points, unit: float, colour: Colour, *, dots: bool
    ) -> None:
        places = [
            QPointF(
                area.left() + area.width() * min(step / self._total, 1),
                area.bottom() - area.height() * min(max(value * unit, 0), 1),
            )
            for step, value in points
        ]
        painter.setPen(QPen(QColor(*colour), 1.6))
        painter.drawPolyline(QPolygonF(places))
        if dots:
            for place in places:
                painter.drawEllipse(place, 2.0, 2.0)


def _thinned(points: Sequence[tuple[float, float]]) -> Points:
    """At most about `_MOST_POINTS`, each the mean of some neighbours."""
    size = -(-len(points) // _MOST_POINTS)
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(s for s, _ in b) / len(b), sum(v for _, v in b) / len(b)) for b in bins]


def job_text(job: Job, event: ProgressEvent | None, *, done: str = texts.JOB_DONE) -> str:
    """What `job` is doing, in words; `done` is said of one that ended well, with its ``{version}`` filled in."""
    if job.waits_for:
        return texts.NAPARI_REVIEW_WAITS.format(tab=texts.TAB_REVIEW, go_on=texts.GO_ON_BUTTON)
    if job.state is JobState.QUEUED:
        return texts.JOB_QUEUED
    if job.state is JobState.CANCELLING:
        return texts.JOB_CANCELLING
    if job.state is JobState.CANCELLED:
        return texts.JOB_CANCELLED
    if job.state is JobState.FAILED:
        return f"{texts.JOB_FAILED.format(reason=(job.error or '').rstrip('.'))} {texts.JOB_FAILED_FIX}"
    if job.state is JobState.DONE:
        return done.format(version=(job.result() or {}).get("segmenter", ""))
    if event is None:
        return texts.JOB_STARTING
    title = texts.STAGES.get(event.stage, (event.stage, ""))[0]
    left = texts.TIME_UNKNOWN
    if event.seconds_left is not None:
        left = texts.TIME_LEFT.format(time=texts.duration(event.seconds_left))
    return f"{title}: {texts.STAGE_OF.format(step=event.step, total=event.total)}, {left}."
