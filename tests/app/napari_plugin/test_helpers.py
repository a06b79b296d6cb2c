"""The processes that compute for the window."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from app.napari_plugin import correction, models, tools
from app.napari_plugin.helpers import Helper
from app.napari_plugin.image_queue import ImageQueue
from app.napari_plugin.mask_writer import MaskWriter
from app.napari_plugin.models import load_model
from app.napari_plugin.wire import receive, send
from tests.app.napari_plugin.conftest import ring
from univg.errors import InputError
from univg.types import Modality

ROOT = Path(__file__).resolve().parents[3]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")


@pytest.fixture
def helper():
    found = Helper()
    yield found
    found.stop()


def test_values_travel_whole():
    pipe = io.BytesIO()
    value = {"a": np.arange(12.0).reshape(3, 4)[:, ::2], "b": np.zeros((0, 3), bool), "c": [None, "é", 2]}
    send(pipe, value)
    pipe.seek(0)
    found = receive(pipe)
    assert np.array_equal(found["a"], value["a"]) and found["b"].shape == (0, 3) and found["c"] == value["c"]
    found["a"][:] = 1  # arrays can be written to
    with pytest.raises(EOFError):
        receive(pipe)


def test_only_data_of_this_program_travel():
    for value in (object(), threading.Lock(), np.array([None]), Path, subprocess.CompletedProcess([], 0)):
        pipe = io.BytesIO()
        with pytest.raises(TypeError, match="cross"):
            send(pipe, {"a": [value]})
        assert not pipe.getvalue(), "nothing is written of what cannot be"
    for told in (["object", "os:system", {}], ["enum", "app.texts:minutes", 1], ["code", "1"]):
        text = json.dumps(told).encode()
        with pytest.raises(ValueError, match=r"class of this program|may hold|unknown kind"):
            receive(io.BytesIO(struct.pack("<QQ", len(text), 0) + text))


def test_kinds_survive_the_journey():
    ridges = correction.find_ridges(ring(64)[0], Modality.OCT)
    value = (slice(1, None, 2), Path("a b"), Modality.OCT, (1, [2.5, None]), {"k": np.float32(3)}, {2: "x"}, ridges)
    pipe = io.BytesIO()
    send(pipe, value)
    pipe.seek(0)
    *found, made = receive(pipe)
    assert found == [*value[:4], {"k": 3.0}, {2: "x"}] and found[2] is Modality.OCT
    assert type(made) is type(ridges) and np.array_equal(made.strength, ridges.strength)


def test_tools_give_what_they_give_here():
    image, mask = ring(400)
    ridges = tools.find_ridges(image, Modality.FUNDUS)
    assert np.array_equal(ridges.strength, correction.find_ridges(image, Modality.FUNDUS).strength)
    empty = np.zeros_like(mask)
    for ends in (((70, 200), (200, 330)), ((66.6, 200), (10, 20)), ((0, 0), (399, 399))):
        assert np.array_equal(tools.bridge_gap(empty, ridges, *ends), correction.bridge_gap(empty, ridges, *ends))
    stroke = np.array([[70, 200], [75, 230], [85, 260.0]])
    wide = tools.snap_stroke(mask, ridges, stroke, diameter=30)
    assert np.array_equal(wide, correction.snap_stroke(mask, ridges, stroke, diameter=30))
    point = tuple(np.argwhere(mask)[0])
    assert np.array_equal(tools.cut_branch(mask, point), correction.cut_branch(mask, point))
    assert np.array_equal(tools.set_calibre(mask, point, 9), correction.set_calibre(mask, point, 9))
    assert np.array_equal(tools.prune_spurs(mask, 5), correction.prune_spurs(mask, 5))
    assert np.array_equal(tools.remove_specks(mask, 5), correction.remove_specks(mask, 5))


def test_what_the_helper_refuses_is_refused_here_with_file_and_fix(helper, tmp_path):
    with pytest.raises(InputError) as refused:
        helper.call(load_model, tmp_path)
    assert refused.value.path == tmp_path and refused.value.fix
    with pytest.raises(RuntimeError, match="TypeError"):
        helper.call(correction.cut_branch)


def test_a_model_made_anew_in_a_folder_of_the_same_name_is_loaded_anew(tmp_path, tiny_segmenter):
    folder, found = tmp_path / "v001", []
    for _ in range(2):
        folder.mkdir()
        tiny_segmenter.save(folder)
        found.append(models._loaded(folder))
        assert models._loaded(folder) is found[-1]
        shutil.rmtree(folder)
    assert found[0] is not found[1]


@POSIX
def test_a_helper_that_was_killed_is_said_and_started_again(helper, monkeypatch):
    _, mask = ring()
    helper.call(correction.prune_spurs, mask, 5)
    first = helper.pid
    os.kill(first, signal.SIGKILL)
    helper._process.wait()
    assert helper.call(correction.prune_spurs, mask, 5).any() and helper.pid != first

    ask = helper._asked

    def ask_and_kill(request):  # once it has the whole request: one that ends before is started again
        process = ask(request)
        os.kill(process.pid, signal.SIGKILL)
        return process

    with monkeypatch.context() as patched, pytest.raises(InputError, match="ended before it was done"):
        patched.setattr(helper, "_asked", ask_and_kill)
        helper.call(correction.find_ridges, np.zeros((2000, 2000), np.uint8), Modality.FUNDUS)
    assert helper.call(correction.prune_spurs, mask, 5).any()


ORPHAN = """
import numpy as np, time
from app.napari_plugin import tools
from app.napari_plugin.helpers import TOOLS
tools.remove_specks(np.ones((5, 5), bool), 1)
print(TOOLS.pid, flush=True)
time.sleep(600)
"""


@POSIX
def test_a_helper_ends_with_the_window_that_was_killed():
    process = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_an_older_mask_never_replaces_a_newer_one(tiny):
    queue, writer = ImageQueue(tiny.project), MaskWriter()
    queue.add(tiny.files)
    old, new = np.zeros((64, 64), bool), np.ones((64, 64), bool)
    first, second = writer.ticket(), writer.ticket()
    writer.write(queue, "new-0", new, second)
    writer.write(queue, "new-0", old, first)  # was asked for earlier and comes late
    writer.write(queue, "new-1", old, first)
    assert np.array_equal(queue.mask("new-0"), new) and np.array_equal(queue.mask("new-1"), old)


@pytest.mark.gui
def test_work_that_waits_does_not_hold_up_other_work(qtbot):
    pytest.importorskip("napari")
    from app.napari_plugin.background import in_background

    go_on, results = threading.Event(), []
    for _ in range(4):  # such as a model, the scores of the queue, a measurement and a tree
        in_background(go_on.wait, 60, done=results.append, failed=results.append)
    in_background(lambda: "saved", done=results.append, failed=results.append)
    try:
        qtbot.waitUntil(lambda: results == ["saved"], timeout=90_000)
    finally:
        go_on.set()
    qtbot.waitUntil(lambda: len(results) == 5, timeout=90_000)
