"""Project: open or create one, and the queue of its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import texts
from app.napari_plugin import parts
from app.napari_plugin.image_queue import QueueEntry, Status
from univg.errors import InputError
from univg.types import Modality
from univg.workflow.project import Project
from univg.workflow.sample import create_sample_project, sample_unseen_images

if TYPE_CHECKING:
    from napari.viewer import Viewer

NAME, STATUS, UNCERTAINTY, HELD_OUT, PATIENT = range(5)
_MARKS = {Status.UNSEEN: "○", Status.SEGMENTED: "◌", Status.CORRECTED: "◐", Status.APPROVED: "✓"}


class ProjectPanel(parts.Panel):
    """The first panel: everything else works on the project that is open here."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._stale = False
        self.title = parts.words("")
        self.open_button = self.button(texts.OPEN_BUTTON, self._ask_and_open, tip=texts.OPEN_PATH_HELP)
        self.sample_button = self.button(texts.SAMPLE_BUTTON, self._ask_and_open_sample, tip=texts.SAMPLE_HELP)
        self.body.addWidget(self.title)
        self.body.addLayout(parts.row(self.open_button, self.sample_button))
        self.body.addWidget(self._create_part())

        self.body.addWidget(parts.heading(texts.NAPARI_QUEUE))
        self.table = QTableWidget(0, 5)
        self.table.setHorizontalHeaderLabels(texts.NAPARI_QUEUE_HEAD)
        for column, tip in enumerate(texts.NAPARI_QUEUE_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setMinimumHeight(170)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(PATIENT, QHeaderView.ResizeMode.Interactive)
        header.resizeSection(PATIENT, 58)
        self.table.cellDoubleClicked.connect(self.guarded(lambda row, _column: self._open_row(row)))
        self.table.itemChanged.connect(self.guarded(self._edited))
        self.table.itemDelegate().closeEditor.connect(lambda *_: QTimer.singleShot(0, self._refresh_if_stale))
        self.body.addWidget(self.table, 1)

        self.add_button = self.button(texts.NAPARI_ADD, self._ask_and_add, tip=texts.NAPARI_ADD_TIP)
        self.take_out_button = self.button(texts.NAPARI_TAKE_OUT, self._take_out, tip=texts.NAPARI_TAKE_OUT_TIP)
        self.show_button = self.button(texts.NAPARI_SHOW, lambda: self._open_row(self.table.currentRow()))
        self.body.addLayout(parts.row(self.add_button, self.take_out_button))
        self.approve_button = self.button(texts.NAPARI_APPROVE, self.session.approve, tip=texts.NAPARI_APPROVE_TIP)
        self.next_button = self.button(texts.NAPARI_NEXT, self.session.open_next, tip=texts.NAPARI_NEXT_TIP, main=True)
        self.body.addLayout(parts.row(self.show_button, self.approve_button, self.next_button))

        self.session.project_changed.connect(self.refresh)
        self.session.queue_changed.connect(self.refresh)
        self.session.image_changed.connect(self.refresh)
        self.refresh()

    # --- what the buttons do once a folder or files are chosen

    def open_folder(self, folder: str | Path) -> None:
        self.session.use_project(Project.open(folder))

    def create(self, folder: str | Path) -> None:
        """A project with the settings of the form."""
        spacing = self.spacing.value() or None
        self.session.use_project(Project.create(folder, modality=self.modality.currentData(), pixel_spacing_mm=spacing))
        self.create_part.set_open(False)

    def open_sample(self, folder: str | Path) -> None:
        """The user's own copy of the sample, with its unseen images in the queue."""
        self.session.use_project(create_sample_project(folder))
        self.session.add_images(sample_unseen_images())

    def add(self, files: list[str]) -> None:
        self.session.add_images_in_background(files)

    # --- what is shown

    def refresh(self) -> None:
        if self.table.state() == QAbstractItemView.State.EditingState:  # new items would throw away what is being typed
            self._stale = True
            return
        self._stale = False
        project = self.session.project
        entries = self.session.queue.entries() if project else []
        current = self.session.open.name if self.session.open else ""
        self.title.setText(
            texts.NAPARI_WELCOME
            if project is None
            else texts.NAPARI_PROJECT.format(name=project.name, modality=texts.MODALITIES[project.modality])
        )
        chosen = self._name_in(self.table.currentRow())
        self.table.blockSignals(True)
        self.table.setRowCount(len(entries))
        for number, entry in enumerate(entries):
            for column, item in enumerate(_items(entry, entry.name == current)):
                self.table.setItem(number, column, item)
            if entry.name == (chosen or current):
                self.table.setCurrentCell(number, NAME)
        self.table.blockSignals(False)
        for button in (self.add_button, self.take_out_button, self.show_button, self.next_button):
            button.setEnabled(project is not None)
        self.approve_button.setEnabled(bool(current))

    def _refresh_if_stale(self) -> None:
        if self._stale:
            self.refresh()

    def _create_part(self) -> parts.Fold:
        self.modality = QComboBox()
        parts.fill(self.modality, [(name, str(key)) for key, name in texts.MODALITIES.items()], str(Modality.FUNDUS))
        self.spacing = QDoubleSpinBox()
        self.spacing.setDecimals(5)
        self.spacing.setRange(0, 10)
        self.spacing.setSingleStep(0.001)
        self.spacing.setSuffix(" mm")
        self.spacing.setSpecialValueText(texts.NAPARI_SPACING_UNKNOWN)
        self.spacing.setToolTip(texts.NAPARI_SPACING_TIP)
        fields = parts.form()
        fields.addRow(texts.CREATE_MODALITY, self.modality)
        fields.addRow(texts.NAPARI_SPACING, self.spacing)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(fields)
        column.addWidget(self.button(texts.NAPARI_CREATE_IN, self._ask_and_create, tip=texts.NAPARI_CREATE_TIP))
        self.create_part = parts.Fold(texts.CREATE_TITLE, content)
        return self.create_part

    def _open_row(self, row: int) -> None:
        self.session.open_image(self._required_name(row))

    def _take_out(self) -> None:
        self.session.take_out(self._required_name(self.table.currentRow()))

    def _edited(self, item: QTableWidgetItem) -> None:
        name = self._name_in(item.row())
        try:
            if item.column() == HELD_OUT:
                self.session.queue.hold_out(name, item.checkState() == Qt.CheckState.Checked)
            elif item.column() == PATIENT:
                self.session.queue.set_patient(name, item.text().strip())
        finally:
            self.session.queue_changed.emit()  # others count the test images; and this one is drawn anew

    def _required_name(self, row: int) -> str:
        name = self._name_in(row)
        if name is None:
            raise InputError(texts.NO_SELECTION, fix=texts.NAPARI_SELECT_FIX)
        return name

    def _name_in(self, row: int) -> str | None:
        item = self.table.item(row, NAME) if row >= 0 else None
        return None if item is None else item.data(Qt.ItemDataRole.UserRole)

    def _ask_and_open(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, texts.OPEN_TITLE):
            self.open_folder(folder)

    def _ask_and_create(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, texts.NAPARI_CREATE_TIP):
            self.create(folder)

    def _ask_and_open_sample(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, texts.NAPARI_SAMPLE_WHERE):
            self.open_sample(_unused(Path(folder)))

    def _ask_and_add(self) -> None:
        files, _ = QFileDialog.getOpenFileNames(self, texts.NAPARI_ADD_TIP)
        if files:
            self.add(files)


def _unused(parent: Path) -> Path:
    """A name for the sample that nothing in `parent` has."""
    number = 1
    while (path := parent / (texts.SAMPLE_NAME if number == 1 else f"{texts.SAMPLE_NAME} {number}")).exists():
        number += 1
    return path


def _items(entry: QueueEntry, current: bool) -> list[QTableWidgetItem]:
    fixed = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
    name = QTableWidgetItem(entry.name)
    name.setData(Qt.ItemDataRole.UserRole, entry.name)
    status = QTableWidgetItem(f"{_MARKS[entry.status]} {texts.NAPARI_STATUS[entry.status]}")
    known = entry.uncertainty is not None and entry.status is not Status.APPROVED
    uncertainty = QTableWidgetItem(f"{entry.uncertainty:.3f}" if known else texts.UNDEFINED)
    held_out = QTableWidgetItem("")
    held_out.setCheckState(Qt.CheckState.Checked if entry.held_out else Qt.CheckState.Unchecked)
    patient = QTableWidgetItem(entry.patient)
    for item in (name, status, uncertainty):
        item.setFlags(fixed)
    held_out.setFlags(fixed if entry.frozen else fixed | Qt.ItemFlag.ItemIsUserCheckable)
    held_out.setToolTip(texts.NAPARI_FROZEN if entry.frozen else texts.NAPARI_QUEUE_TIPS[HELD_OUT])
    if current:
        font = name.font()
        font.setBold(True)
        name.setFont(font)
    return [name, status, uncertainty, held_out, patient]
