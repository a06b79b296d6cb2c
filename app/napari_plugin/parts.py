"""What every panel is made of: its frame, its message line, and the few controls that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari.utils.theme import get_theme
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from app import texts
from app.napari_plugin import layers
from app.napari_plugin.background import in_words
from app.napari_plugin.session import Session, session_of
from univg.errors import InputError

if TYPE_CHECKING:
    from napari.viewer import Viewer

_ERROR_COLOURS = {"dark": "#ff9a76", "light": "#a33b12"}  # on napari's themes at least 4.5 to 1
MARGIN = 8
NARROWEST = 360


class Panel(QWidget):
    """A dock widget: content that scrolls, and below it one line that says what happened."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.session: Session = session_of(viewer)
        self.setMinimumWidth(NARROWEST)
        content = QWidget()
        self.body = QVBoxLayout(content)
        self.body.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        self.message = words("")
        self.message.setContentsMargins(MARGIN, 0, MARGIN, MARGIN)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.message)
        self.session.said.connect(self._hear)

    def _hear(self, text: str, level: str) -> None:
        """What the session says; that its work has ended takes no message away that came meanwhile."""
        if text or self.message.text() == texts.NAPARI_WORKING:
            self.say(text, level)

    def say(self, text: str, level: str = "") -> None:
        self.message.setText(text)
        style = ""
        if level == "error":
            style = f"color: {_ERROR_COLOURS[get_theme(self.session.viewer.theme).type]}; font-weight: 600;"
        self.message.setStyleSheet(style)
        self.message.setVisible(bool(text))

    def guarded(self, act: Callable) -> Callable:
        """`act` as a slot: what goes wrong is said in the message line, in place of what was there before.

        A closed panel does nothing.
        """

        def slot(*values) -> None:
            if not isalive(self):
                return
            self.say(texts.NAPARI_WORKING if self.session.busy else "")
            try:
                act(*values)
            except Exception as error:  # a slot that raises would end the window on some platforms
                self.say(in_words(error), "error")

        return slot

    def button(self, text: str, act: Callable, *, tip: str = "", main: bool = False) -> QPushButton:
        """A button; the one that a panel is for is `main`."""
        button = push_button(text, self.guarded(lambda *_: act()), tip=tip)
        if main:
            button.setStyleSheet("QPushButton:enabled { background-color: #0f6c84; color: white; font-weight: 600; }")
        return button

    def while_open(self, act: Callable) -> Callable:
        """`act` for work that may come back after the panel was closed."""
        return lambda *values: act(*values) if isalive(self) else None

    def showEvent(self, event) -> None:  # noqa: N802 - Qt's name
        self.session.save_when_closed(self)
        super().showEvent(event)

    def event(self, event) -> bool:
        """napari only takes a closed panel out of its frame: without this it would go on listening and working."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.guarded(self.leave)()
            self.deleteLater()
        return super().event(event)

    def leave(self) -> None:
        """Put down what is in hand, since the panel was closed."""


class Slider(QWidget):
    """A labelled slider with its number; `moved` is emitted by the user's moves only."""

    moved = Signal(float)

    def __init__(self, text: str, tip: str, low: float, high: float, step: float) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        label = QLabel(text)
        self._slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._slider.setRange(low, high)
        self._slider.setSingleStep(step)
        self._slider.setDecimals(_decimals(step))
        self._slider.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        for part in (self._slider, *self._slider.findChildren(QWidget)):
            part.installEventFilter(self)
        for part in (label, self._slider):
            part.setToolTip(tip)
        label.setBuddy(self._slider)
        column.addWidget(label)
        column.addWidget(self._slider)
        self._slider.valueChanged.connect(self.moved)

    def eventFilter(self, watched, event) -> bool:  # noqa: N802 - Qt's name
        """The wheel scrolls the panel, unless the slider was chosen: what it moves may change a mask."""
        if event.type() == QEvent.Type.Wheel and not self._has_focus():
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def _has_focus(self) -> bool:
        focused = QApplication.focusWidget()
        return focused is not None and (focused is self._slider or self._slider.isAncestorOf(focused))

    @property
    def value(self) -> float:
        return float(self._slider.value())

    def set_quietly(self, value: float) -> None:
        """Move it without saying so; its range grows when a preset lies outside."""
        self._slider.blockSignals(True)
        self._slider.setRange(min(self._slider.minimum(), value), max(self._slider.maximum(), value))
        self._slider.setValue(value)
        self._slider.blockSignals(False)

    def move_to(self, value: float) -> None:
        """As the user's hand would."""
        self._slider.setValue(value)


class RegionBox(QCheckBox):
    """Whether only the region of interest counts: ticked, it lets one be drawn; unticked when that is gone."""

    def __init__(self, session: Session) -> None:
        super().__init__(texts.NAPARI_ROI_ONLY)
        self.setToolTip(texts.NAPARI_ROI_TIP)
        self._session = session
        session.region_changed.connect(self._follow)

    def take(self, on: bool) -> None:
        """What a tick means; one that cannot be met is taken back."""
        if on:
            try:
                self._session.draw_region()
            except InputError:
                self._follow()
                raise

    def window_in(self, shape: tuple[int, int]) -> tuple[slice, slice] | None:
        """The region within `shape`; None when all of the frame counts, `InputError` when none is drawn yet."""
        if not self.isChecked():
            return None
        window = layers.window_in(self._session.layer("roi"), shape)
        if window is None:
            raise InputError(texts.NAPARI_NO_ROI, fix=texts.NAPARI_NO_ROI_FIX)
        return window

    def _follow(self) -> None:
        if self._session.layer("roi") is None:
            self.blockSignals(True)
            self.setChecked(False)
            self.blockSignals(False)


class Fold(QWidget):
    """Controls that are hidden until their heading is clicked."""

    def __init__(self, text: str, content: QWidget) -> None:
        super().__init__()
        self._text, self._content = text, content
        self._head = push_button("", lambda *_: self.set_open(not self.is_open))
        self._head.setStyleSheet("text-align: left; padding: 4px 6px; font-weight: 600;")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 4)
        column.setSpacing(6)
        column.addWidget(self._head)
        column.addWidget(content)
        self.is_open = False
        self.set_open(False)

    def set_open(self, is_open: bool) -> None:
        self.is_open = is_open
        self._head.setText(f"{'▾' if is_open else '▸'}  {self._text}")
        self._content.setVisible(is_open)


def push_button(text: str, slot: Callable, *, tip: str = "") -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(slot)
    return button


def words(text: str) -> QLabel:
    """Text that wraps and can be copied."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    return label


def heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setStyleSheet("font-weight: 600; padding-top: 4px;")
    return label


def row(*parts: QWidget) -> QHBoxLayout:
    line = QHBoxLayout()
    line.setSpacing(6)
    for part in parts:
        line.addWidget(part)
    return line


def form() -> QFormLayout:
    """Label and field in a line; the field takes the room."""
    layout = QFormLayout()
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
    return layout


def fill(combo: QComboBox, choices: list[tuple[str, str]], chosen: str | None = None) -> None:
    """Offer (text, value) pairs without saying that the choice changed."""
    combo.blockSignals(True)
    combo.clear()
    for text, value in choices:
        combo.addItem(text, value)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(10)
    at = combo.findData(chosen) if chosen is not None else 0
    combo.setCurrentIndex(max(at, 0) if choices else -1)
    combo.blockSignals(False)


def presets_text(name: str, minutes: float) -> str:
    return texts.PRESETS[name].format(minutes=texts.minutes(minutes))


def _decimals(step: float) -> int:
    return 0 if step >= 1 else 1 if step >= 0.1 else 2
