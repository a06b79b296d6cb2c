"""Correct: tools that know what a vessel is, beside the brush and eraser of the layer; each is one undo step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QButtonGroup, QDoubleSpinBox, QPushButton, QSpinBox

from app import texts
from app.napari_plugin import layers, parts, preferences, tools
from app.napari_plugin.mouse import Pointer
from univg.errors import InputError

if TYPE_CHECKING:
    from napari.viewer import Viewer

# Tools that are pointed at the picture with; the others act on all of the mask.
POINTED = ("bridge", "cut", "calibre", "snap")


class CorrectPanel(parts.Panel):
    """Works on the mask of the image on screen."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._pointer: Pointer | None = None
        self._tool = ""
        self._first: tuple[float, float] | None = None
        self.status = parts.words("")
        self.body.addWidget(self.status)

        self.body.addWidget(parts.heading(texts.NAPARI_BRUSH))
        self.modes = {
            mode: self.button(text, lambda mode=mode: self._paint_with(mode), tip=tip)
            for mode, (text, tip) in texts.NAPARI_BRUSHES.items()
        }
        self.body.addLayout(parts.row(*self.modes.values()))
        self.undo_button = self.button(texts.NAPARI_UNDO, lambda: self._through_history("undo"), tip="Ctrl+Z")
        self.redo_button = self.button(texts.NAPARI_REDO, lambda: self._through_history("redo"), tip="Ctrl+Shift+Z")
        self.body.addLayout(parts.row(self.undo_button, self.redo_button))

        self.body.addWidget(parts.heading(texts.NAPARI_TOOLS))
        self._group = QButtonGroup(self)
        self._group.setExclusive(False)
        self.tools: dict[str, QPushButton] = {}
        for name in POINTED:
            text, tip, _ = texts.NAPARI_POINTED[name]
            button = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.clicked.connect(self.guarded(partial(self._tool_clicked, name)))
            self.tools[name] = button
        self.body.addLayout(parts.row(self.tools["bridge"], self.tools["snap"]))
        self.body.addLayout(parts.row(self.tools["cut"], self.tools["calibre"]))
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(0, 80)
        self.diameter.setDecimals(1)
        self.diameter.setSuffix(" px")
        self.diameter.setSpecialValueText(texts.NAPARI_AUTOMATIC)
        self.diameter.setToolTip(texts.NAPARI_DIAMETER_TIP)
        fields = parts.form()
        fields.addRow(texts.NAPARI_DIAMETER, self.diameter)
        self.body.addLayout(fields)
        self.help = parts.words("")
        self.body.addWidget(self.help)

        self.body.addWidget(parts.heading(texts.NAPARI_WHOLE))
        self.speck = QSpinBox()
        self.speck.setRange(1, 100_000)
        self.speck.setSuffix(" px")
        self.speck.setValue(preferences.smallest_speck())
        self.spur = QDoubleSpinBox()
        self.spur.setRange(0.5, 200)
        self.spur.setDecimals(1)
        self.spur.setSuffix(" px")
        self.spur.setValue(preferences.spur_length())
        self.specks_button = self.button(texts.NAPARI_SPECKS, self.remove_specks, tip=texts.NAPARI_SPECKS_TIP)
        self.spurs_button = self.button(texts.NAPARI_SPURS, self.prune_spurs, tip=texts.NAPARI_SPURS_TIP)
        self.body.addLayout(parts.row(self.specks_button, self.speck))
        self.body.addLayout(parts.row(self.spurs_button, self.spur))

        self.approve_button = self.button(
            texts.NAPARI_APPROVE, self.session.approve, tip=texts.NAPARI_APPROVE_TIP, main=True
        )
        self.body.addWidget(self.approve_button)
        self.body.addWidget(parts.words(texts.NAPARI_AUTOSAVE))
        self.body.addStretch(1)
        self.session.image_changed.connect(self._image_changed)
        self._image_changed()

    # --- the tools, by themselves

    def take(self, name: str) -> None:
        """Take one of `POINTED` in hand; an empty name puts it down."""
        if self._pointer is not None:
            self._pointer.let_go()
        self._pointer, self._tool, self._first = None, "", None
        for other, button in self.tools.items():
            button.setChecked(other == name)
        self.help.setText("")
        if not name:
            return
        try:
            self.session.required_image()
        except InputError:
            self.tools[name].setChecked(False)
            raise
        layer = self.session.labels
        self.session.viewer.layers.selection.active = layer
        stroke = self.guarded(self.stroke) if name == "snap" else None
        self._pointer = Pointer(layer, on_click=self.guarded(self.click), on_stroke=stroke, on_other_mode=self.leave)
        self._tool = name
        self.help.setText(texts.NAPARI_POINTED[name][2])

    def leave(self) -> None:
        """Put down what is in hand: the panel was closed, or napari's own brush taken."""
        self.take("")

    def _tool_clicked(self, name: str, *_checked: bool) -> None:
        """Bindings differ in whether they pass the state on, so the button is asked."""
        self.take(name if self.tools[name].isChecked() else "")

    def click(self, point: tuple[float, float]) -> None:
        """Use the tool in hand at ``(row, col)``."""
        diameter = self.diameter.value()
        if self._tool == "cut":
            self.session.correct(lambda mask: tools.cut_branch(mask, point))
        elif self._tool == "calibre":
            if diameter <= 0:
                raise InputError(texts.NAPARI_NO_DIAMETER, fix=texts.NAPARI_NO_DIAMETER_FIX)
            self.session.correct(lambda mask: tools.set_calibre(mask, point, diameter))
        elif self._tool == "bridge" and self._first is None:
            self._first = point
            self.help.setText(texts.NAPARI_BRIDGE_SECOND)
        elif self._tool == "bridge":
            start, self._first = self._first, None
            self.help.setText(texts.NAPARI_POINTED["bridge"][2])
            ridges = self.session.ridges
            self.session.correct(lambda mask: tools.bridge_gap(mask, ridges(), start, point, diameter=diameter))

    def stroke(self, points: np.ndarray) -> None:
        """Snap a stroke of ``(row, col)`` to the vessel below it."""
        diameter, ridges = self.diameter.value(), self.session.ridges
        self.session.correct(lambda mask: tools.snap_stroke(mask, ridges(), points, diameter=diameter))

    def remove_specks(self) -> None:
        smallest = self.speck.value()
        self.session.correct(lambda mask: tools.remove_specks(mask, smallest))

    def prune_spurs(self) -> None:
        length = self.spur.value()
        self.session.correct(lambda mask: tools.prune_spurs(mask, length))

    def _paint_with(self, mode: str) -> None:
        self.session.required_image()
        self.take("")
        layer = self.session.labels
        self.session.viewer.layers.selection.active = layer
        layer.selected_label = layers.VESSEL
        layer.mode = mode

    def _through_history(self, step: str) -> None:
        self.session.required_image()
        getattr(self.session.labels, step)()
        self.session.look()

    def _image_changed(self) -> None:
        current = self.session.open
        self.take("")
        self.status.setText(texts.NAPARI_NO_IMAGE_FIX if current is None else texts.NAPARI_ON.format(name=current.name))
        for button in (
            *self.modes.values(),
            *self.tools.values(),
            self.undo_button,
            self.redo_button,
            self.specks_button,
            self.spurs_button,
            self.approve_button,
        ):
            button.setEnabled(current is not None)
