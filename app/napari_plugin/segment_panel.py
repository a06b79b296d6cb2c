"""Segment: let a model look at the image, and see the mask, the probability and where it is unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox

from app import texts
from app.napari_plugin import parts
from univg.workflow.model_versions import active_segmenter, promote

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

_SETTLE_MS = 120  # a slider that is being moved is one undo step, not fifty


class SegmentPanel(parts.Panel):
    """Works on the image that the Project panel opened."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._in_use: tuple = ()
        self._followed: Labels | None = None
        self.status = parts.words("")
        self.model = QComboBox()
        self.use_button = self.button(texts.SEG_USE, self._use)
        self.augment = QCheckBox(texts.SEG_AUGMENT)
        self.augment.setToolTip(texts.SEG_AUGMENT_HELP)
        self.part_only = parts.RegionBox(self.session)
        self.part_only.toggled.connect(self.guarded(self._part_toggled))
        self.run_button = self.button(texts.SEG_BUTTON, self.run, main=True)
        fields = parts.form()
        fields.addRow(texts.SEG_MODEL, self.model)
        self.body.addWidget(self.status)
        self.body.addLayout(fields)
        self.body.addWidget(self.use_button)
        self.body.addWidget(self.part_only)
        self.body.addWidget(self.augment)
        self.body.addWidget(self.run_button)

        self.threshold = parts.Slider(texts.SEG_THRESHOLD, texts.NAPARI_THRESHOLD_TIP, 0.01, 0.99, 0.01)
        self.threshold.set_quietly(0.5)
        self.opacity = parts.Slider(texts.SEG_OPACITY, texts.SEG_OPACITY_HELP, 0, 100, 1)
        self.opacity.set_quietly(60)
        self.outline = QCheckBox(texts.VIEW_OUTLINE)
        self.shown = {name: QCheckBox(texts.NAPARI_LAYERS[name]) for name in ("probability", "uncertainty")}
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLE_MS)
        self._settled.timeout.connect(self.guarded(lambda: self.session.set_threshold(self.threshold.value)))
        self.threshold.moved.connect(lambda _: self._settled.start())
        self.opacity.moved.connect(self._set_opacity)
        self.outline.toggled.connect(self._set_outline)
        self.body.addWidget(parts.heading(texts.SEG_VIEW))
        self.body.addWidget(self.threshold)
        self.body.addWidget(self.opacity)
        self.body.addWidget(self.outline)
        for name, box in self.shown.items():
            box.setToolTip(texts.NAPARI_MAP_TIPS[name])
            box.toggled.connect(lambda on, name=name: self._set_visible(name, on))
            self.body.addWidget(box)

        self.body.addWidget(parts.heading(texts.NAPARI_DOUBTS))
        self.previous_button = self.button(texts.NAPARI_PREVIOUS_DOUBT, lambda: self.session.jump(-1))
        self.next_button = self.button(texts.NAPARI_NEXT_DOUBT, lambda: self.session.jump(1))
        self.body.addLayout(parts.row(self.previous_button, self.next_button))
        self.body.addWidget(parts.words(texts.NAPARI_KEYS))
        self.body.addStretch(1)

        self.model.currentIndexChanged.connect(lambda _: self._model_chosen())
        self.session.project_changed.connect(self.refresh)
        self.session.image_changed.connect(self.refresh)
        self.session.segmented.connect(self.refresh)
        self.session.model_changed.connect(self.refresh)
        self.session.maps_changed.connect(self._show_maps)
        if self.session.labels is not None:  # as the user may have set it before the panel was opened
            self._follow(self.session.labels)
        self.refresh()

    def run(self) -> None:
        """Segment the image on screen, or its region of interest alone, with the model that is chosen."""
        current = self.session.required_image()
        window = self.part_only.window_in(current.image.shape[:2])
        self.session.segment(
            version=self.model.currentData(), augmented=self.augment.isChecked(), window=window, into_mask=True
        )

    def refresh(self) -> None:
        project, current = self.session.project, self.session.open
        folder = active_segmenter(project) if project else None
        active = folder.name if folder else None
        versions = project.segmenter_versions() if project else []
        names = [(texts.NAPARI_IN_USE.format(version=v) if v == active else v, v) for v in reversed(versions)]
        in_use, chosen = (project.path if project else None, active), self.model.currentData()
        keeps = in_use == self._in_use and chosen in versions  # another project, or model in use, ends a choice
        parts.fill(self.model, names, chosen if keeps else active)
        self._in_use = in_use
        self._model_chosen()
        self.run_button.setEnabled(current is not None and bool(versions))
        for box in (*self.shown.values(), self.previous_button, self.next_button, self.threshold):
            box.setEnabled(current is not None and current.found is not None)
        if project is None:
            text = texts.NAPARI_OPEN_FIRST
        elif not versions:
            text = texts.NAPARI_NO_MODEL_FIX
        elif current is None:
            text = texts.NAPARI_NO_IMAGE_FIX
        elif current.found is None:
            text = texts.SEG_WAITING
        else:
            found = current.found
            text = texts.NAPARI_FOUND.format(
                version=found.version, seconds=found.seconds, uncertainty=found.mean_uncertainty
            )
            self.threshold.set_quietly(found.threshold if current.threshold is None else current.threshold)
        self.status.setText(text)
        if self.session.labels is not None and self.session.labels is not self._followed:
            self._set_opacity(self.opacity.value)
            self._set_outline(self.outline.isChecked())
            self._follow(self.session.labels)
        self._show_maps()

    def _follow(self, layer: Labels) -> None:
        """Show what is set in napari's own controls, which holds as well."""
        self._followed = layer
        for event in (layer.events.opacity, layer.events.contour):
            event.connect(self._layer_changed)
        self._layer_changed()

    def _layer_changed(self, _event=None) -> None:
        if not isalive(self) or self._followed is not self.session.labels:
            return
        self.opacity.set_quietly(100 * self._followed.opacity)
        self.outline.blockSignals(True)
        self.outline.setChecked(self._followed.contour > 0)
        self.outline.blockSignals(False)

    def _show_maps(self) -> None:
        for name, box in self.shown.items():
            self._set_visible(name, box.isChecked())

    def _model_chosen(self) -> None:
        folder = active_segmenter(self.session.project) if self.session.project else None
        chosen = self.model.currentData()
        self.use_button.setVisible(chosen is not None and folder is not None and chosen != folder.name)

    def _use(self) -> None:
        promote(self.session.required_project(), self.model.currentData())
        self.session.model_changed.emit()
        self.session.score_queue()

    def _part_toggled(self, on: bool) -> None:
        self.part_only.take(on)
        if not on:
            self.session.drop_layer("roi")
            if self.session.labels is not None:
                self.session.viewer.layers.selection.active = self.session.labels

    def _set_opacity(self, percent: float) -> None:
        if self.session.labels is not None:
            self.session.labels.opacity = percent / 100

    def _set_outline(self, on: bool) -> None:
        if self.session.labels is not None:
            self.session.labels.contour = 1 if on else 0

    def _set_visible(self, name: str, on: bool) -> None:
        layer = self.session.layer(name)
        if layer is not None:
            layer.visible = on
