"""Measurements: figures of the mask on screen that follow each correction, and its centreline in colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QFileDialog, QHeaderView, QTableWidget, QTableWidgetItem

from app import texts
from app.napari_plugin import layers, parts
from app.napari_plugin.background import Newest, in_words
from app.napari_plugin.helpers import MEASURING
from app.napari_plugin.measures import QUANTITIES, Coloured, Measure, colour_centreline, measure_mask, to_csv
from univg.errors import InputError
from univg.io import write_bytes_atomic

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

_NONE = "none"
_SETTLE_MS = 250  # strokes in quick succession are measured once


@dataclass(frozen=True, eq=False)
class _Measured:
    name: str
    mask: np.ndarray
    spacing_mm: float | None
    probability: np.ndarray | None = None


class MeasurePanel(parts.Panel):
    """Measures the mask being corrected or another Labels layer: all of the frame, or the region of interest."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.measures: list[Measure] = []
        self._asked: bool | None = None  # whether for the region alone; None when there is nothing to measure
        self.name, self.part = "", texts.NAPARI_WHOLE_IMAGE
        failed = self.while_open(lambda error: self.say(in_words(error), "error"))
        self._newest = Newest(self.while_open(self._show), failed)
        self.status = parts.words(texts.NAPARI_NO_IMAGE_FIX)
        self.source = QComboBox()
        self.source.setToolTip(texts.NAPARI_MEASURE_LAYER_TIP)
        self._watched: Labels | None = None
        self.part_only = parts.RegionBox(self.session)
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(texts.NAPARI_MEASURE_HEAD)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setWordWrap(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.table.setMinimumHeight(270)
        self.colour = QComboBox()
        choices = [(texts.NAPARI_COLOUR_NONE, _NONE)]
        choices += [(texts.NAPARI_QUANTITIES[name], name) for name in QUANTITIES]
        parts.fill(self.colour, choices, _NONE)
        self.scale = parts.words("")
        self.csv_button = self.button(texts.NAPARI_CSV, self._ask_and_save, tip=texts.NAPARI_CSV_TIP)
        fields = parts.form()
        fields.addRow(texts.NAPARI_COLOUR, self.colour)
        which = parts.form()
        which.addRow(texts.NAPARI_MEASURE_LAYER, self.source)
        self.body.addWidget(self.status)
        self.body.addLayout(which)
        self.body.addWidget(self.part_only)
        self.body.addWidget(self.table, 1)
        self.body.addLayout(fields)
        self.body.addWidget(self.scale)
        self.body.addWidget(self.csv_button)
        self.body.addStretch(0)

        self.part_only.toggled.connect(self.guarded(self._part_toggled))
        self.colour.currentIndexChanged.connect(self.guarded(lambda _: self.measure()))
        self.source.currentIndexChanged.connect(self.guarded(lambda _: self.measure()))
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLE_MS)
        self._settled.timeout.connect(self.guarded(self.measure))
        session = self.session
        for signal in (session.image_changed, session.mask_changed, session.segmented, session.region_changed):
            signal.connect(self._settled.start)
        for event in (self.session.viewer.layers.events.inserted, self.session.viewer.layers.events.removed):
            event.connect(self._layers_changed)
        self._layers_changed()
        self.guarded(self.measure)()

    def measure(self) -> None:
        """Measure what is on screen; while that runs, later wishes wait and only the newest is met."""
        measured = self._measured()
        if measured is None:
            self._clear(texts.NAPARI_NO_IMAGE_FIX)
            return
        try:
            window = self.part_only.window_in(measured.mask.shape)
        except InputError:
            self._clear("")  # else the figures of before would stand below a ticked box
            raise
        self.csv_button.setEnabled(True)
        self._asked = window is not None
        quantity = self.colour.currentData()

        def work() -> tuple:
            mask, spacing = measured.mask, measured.spacing_mm
            part = mask if window is None else mask[window].copy()
            measures = MEASURING.call(measure_mask, part, spacing_mm=spacing)
            coloured = None
            if quantity != _NONE:
                coloured = MEASURING.call(
                    colour_centreline, mask, quantity, probability=measured.probability, spacing_mm=spacing
                )
            return measured, window, measures, coloured, quantity

        self._newest.ask(work)

    def _part_toggled(self, on: bool) -> None:
        self.part_only.take(on)
        self.measure()

    def _clear(self, status: str) -> None:
        self.measures, self._asked = [], None
        self.csv_button.setEnabled(False)
        self.table.setRowCount(0)
        self.scale.setText("")
        self.status.setText(status)

    def _measured(self) -> _Measured | None:
        """What the choice of the layer means now; None when there is nothing to measure."""
        layer = self.chosen_layer()
        self._watch(layer)
        current = self.session.open
        if layer is not None:
            return _Measured(layer.name, layers.mask_in(layer), layers.spacing_mm_of(layer))
        if current is None or self.session.labels is None:
            return None
        probability = current.found.probability if current.found is not None else None
        return _Measured(current.name, self.session.mask(), current.spacing_mm, probability)

    def chosen_layer(self) -> Labels | None:
        """A Labels layer that is not the mask being corrected; None is that mask."""
        chosen = self.source.currentData()
        return next(
            (
                layer
                for layer in layers.other_masks(self.session.viewer, self.session.labels)
                if layer.unique_id == chosen
            ),
            None,
        )

    def _layers_changed(self, _event=None) -> None:
        """Offer the mask being corrected and all other Labels layers with two axes."""
        if not isalive(self):  # the panel was closed; napari does not know
            return
        others = [
            (layer.name, layer.unique_id) for layer in layers.other_masks(self.session.viewer, self.session.labels)
        ]
        chosen = self.source.currentData()
        parts.fill(self.source, [(texts.NAPARI_MEASURE_MASK, _NONE), *others], chosen)
        if self.source.currentData() != chosen:  # its layer is gone
            self._settled.start()

    def _watch(self, layer: Labels | None) -> None:
        """Measure again when a layer changes that the session does not look after."""
        if layer is self._watched:
            return
        for watched, change in ((self._watched, "disconnect"), (layer, "connect")):
            for name in ("set_data", "labels_update", "paint"):
                if watched is not None and hasattr(watched.events, name):
                    getattr(getattr(watched.events, name), change)(self._other_changed)
        self._watched = layer

    def _other_changed(self, _event=None) -> None:
        if isalive(self):
            self._settled.start()

    def save(self, path: str | Path) -> Path:
        """Write the table as CSV."""
        target = Path(path)
        target = target if target.suffix.lower() == ".csv" else target.with_name(f"{target.name}.csv")
        write_bytes_atomic(target, to_csv([(self.name, self.part, self.measures)]))
        self.say(texts.NAPARI_CSV_SAVED.format(name=target.name))
        return target

    def _show(self, result: tuple) -> None:
        measured, window, measures, coloured, quantity = result
        now = self._measured()
        if now is None or now.name != measured.name or self._asked is not (window is not None):
            return
        self.name, self.measures = measured.name, measures
        self.part = texts.NAPARI_WHOLE_IMAGE if window is None else texts.NAPARI_PART
        unit = texts.NAPARI_IN_MM if measured.spacing_mm else texts.NAPARI_IN_PIXELS
        self.status.setText(texts.NAPARI_MEASURED.format(name=measured.name, part=self.part, unit=unit))
        self.table.setRowCount(len(self.measures))
        for number, measure in enumerate(self.measures):
            label, tip = texts.NAPARI_MEASURES[measure.key]
            for column, text in enumerate((label, _value_text(measure))):
                item = QTableWidgetItem(text)
                item.setToolTip(tip)
                self.table.setItem(number, column, item)
        self.table.resizeRowsToContents()
        self._show_colours(coloured, quantity, measured.spacing_mm)

    def _show_colours(self, coloured: Coloured | None, quantity: str, spacing: float | None) -> None:
        if coloured is None:
            self.session.drop_layer("centreline")
            self.scale.setText("" if quantity == _NONE else texts.NAPARI_NO_COLOURS)
            return
        layer = self.session.layer("centreline")
        if layer is not None and layer.data.shape == coloured.picture.shape:
            layers.show_other(layer, coloured.picture, spacing_mm=spacing)
        else:
            active = self.session.viewer.layers.selection.active
            layer = layers.add_picture(self.session.viewer, coloured.picture, name="centreline", spacing_mm=spacing)
            self.session.keep_layer("centreline", layer)
            self.session.viewer.layers.selection.active = active
        self.scale.setText(texts.NAPARI_SCALE.format(low=coloured.low, high=coloured.high, unit=coloured.unit))

    def _ask_and_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, texts.NAPARI_CSV, f"{self.name}.csv", "CSV (*.csv)")
        if path:
            self.save(path)


def _value_text(measure: Measure) -> str:
    if np.isnan(measure.value):
        return texts.UNDEFINED
    number = f"{measure.value:.0f}" if measure.key == "branch_points" else f"{measure.value:.4g}"
    spread = "" if np.isnan(measure.spread) else f"± {measure.spread:.2g}"
    count = f"(n = {measure.n})" if measure.n else ""
    return " ".join(filter(None, (number, spread, measure.unit, count)))
