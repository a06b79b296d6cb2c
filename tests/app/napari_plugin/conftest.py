"""A real viewer, and a tiny real project with a tiny real model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.io import write_image
from univg.types import Modality
from univg.workflow.project import Project

SIDE = 64


@pytest.fixture(autouse=True)
def settings_apart(tmp_path, monkeypatch):
    """napari neither reads nor writes the settings of whoever runs the tests; jobs wait for no other program's."""
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))


def without_a_screen() -> None:
    """Offscreen there may be no OpenGL, whose limits napari asks for; nothing is drawn in any case."""
    from napari._vispy import canvas
    from napari._vispy.layers import base, image, labels
    from napari._vispy.utils.gl import get_gl_extensions

    try:
        get_gl_extensions()
    except AttributeError:
        image.get_gl_extensions = lambda: "texture_float"
        for module in (canvas, base, image, labels):
            module.get_max_texture_sizes = lambda: (16384, 2048)


@pytest.fixture
def viewer(qapp):
    pytest.importorskip("napari")
    import napari
    from napari.qt.threading import WorkerBase

    without_a_screen()
    shown = napari.Viewer(show=False)
    yield shown
    WorkerBase.await_workers(5000)
    qapp.processEvents()
    shown.close()
    qapp.processEvents()


@pytest.fixture(scope="session")
def tiny_segmenter():
    from univg.segmentation import SegmentationConfig, train_segmenter

    config = SegmentationConfig(
        channels=(8, 16), working_size=SIDE, patch_size=32, steps=60, warmup_steps=2, precision="float32"
    )
    pairs = [make_pair(f"pair-{i}", size=SIDE, seed=i) for i in range(2)]
    return train_segmenter(pairs, modality=Modality.BRAIN_DSA, config=config, device="cpu")


@dataclass
class TinyProject:
    """A project with two annotated pairs and three images that it has not seen."""

    project: Project
    files: list[Path]

    def add_model(self, segmenter) -> str:
        new = self.project.new_segmenter_folder()
        with new as folder:
            segmenter.save(folder)
        return new.version


@pytest.fixture
def tiny(tmp_path) -> TinyProject:
    project = Project.create(
        tmp_path / "project", modality=Modality.BRAIN_DSA, working_size=SIDE, pixel_spacing_mm=0.02
    )
    for number in range(2):
        project.add_support_pair(make_pair(f"pair-{number}", size=SIDE, seed=number))
    files = []
    for number in range(3):
        path = tmp_path / "new images" / f"new-{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, make_pair("x", size=SIDE, seed=10 + number).image)
        files.append(path)
    return TinyProject(project, files)


@pytest.fixture
def session(viewer, tiny):
    """With the tiny project and its images in the queue."""
    from app.napari_plugin.session import session_of

    found = session_of(viewer)
    found.use_project(tiny.project)
    found.add_images(tiny.files)
    return found


@pytest.fixture
def opened(session, qtbot, tiny):
    """With an image on screen whose mask is the true one."""
    session.queue.save_mask("new-0", make_pair("x", size=SIDE, seed=10).mask)
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.labels is not None, timeout=90_000)
    return session


@pytest.fixture
def heard(session):
    """What the session says: a list of (text, level)."""
    said: list[tuple[str, str]] = []
    session.said.connect(lambda text, level: said.append((text, level)))
    return said


def paint_square(session, row: int = 30, col: int = 30) -> None:
    """A stroke of the layer's own brush."""
    layer = session.labels
    layer.selected_label = 1
    layer.paint((row, col), 1)


def ring(side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A dark ring on a bright ground, and its mask: a vessel that no straight line follows."""
    rows, cols = np.indices((side, side))
    distance = np.hypot(rows - side / 2, cols - side / 2)
    mask = np.abs(distance - side / 3) <= 2
    rng = np.random.default_rng(0)
    image = np.clip(190 - 80 * mask + 6 * rng.standard_normal((side, side)), 0, 255).astype(np.uint8)
    return image, mask
