import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.errors import Cancelled, InputError
from univg.io import write_json_atomic
from univg.segmentation import SegmentationConfig, Segmenter
from univg.types import Modality, SupportSet
from univg.workflow import pipeline, start_trees
from univg.workflow.engines import run_mask_engine_job
from univg.workflow.image_engines import run_image_engine_job
from univg.workflow.job_context import JobContext
from univg.workflow.jobs import JobState, start_job, wait_for
from univg.workflow.model_versions import held_out_of
from univg.workflow.pipeline import held_out_name, run_on_project, run_pipeline, split_held_out
from univg.workflow.presets import PRESETS, Preset, preset_named
from univg.workflow.project import Project

TINY = Preset(
    "tiny",
    "For tests.",
    expected_minutes=0.1,
    pairs=3,
    hold_out=True,
    segmentation=SegmentationConfig(
        channels=(4, 8), working_size=96, patch_size=32, steps=12, warmup_steps=2, precision="float32"
    ),
)


def test_stages_come_in_order_and_each_ends(tiny_support):
    events = []
    segmenter = run_pipeline(tiny_support, preset=TINY, device="cpu", on_progress=events.append)
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["trees", "pairs", "segmenter", "check"]
    for stage in stages:
        last = [event for event in events if event.stage == stage][-1]
        assert last.step == last.total
    assert segmenter.card["preset"] == "tiny"
    assert segmenter.card["held_out"] in {pair.name for pair in tiny_support}
    assert segmenter.card["held_out"] not in segmenter.card["train"]


def test_pictures_are_saved_as_it_goes(tiny_support):
    pictures = {}

    def save(name, picture):
        pictures[name] = picture
        return f"{name}.png"

    run_pipeline(tiny_support, preset=TINY, device="cpu", save_picture=save)
    assert {"trees", "pairs"} <= set(pictures)
    held_out = [picture for name, picture in pictures.items() if name.startswith("held-out")]
    assert len(held_out) > 1
    assert all(p.dtype == np.uint8 and p.shape == (96, 96, 3) for p in held_out)


def test_one_pair_trains_without_holding_out(tiny_support):
    alone = SupportSet(tiny_support.modality, tiny_support.pairs[:1])
    segmenter = run_pipeline(alone, preset=TINY, device="cpu")
    assert segmenter.card["held_out"] is None


def test_plain_uses_all_pairs_and_no_synthetic_one(tiny_support):
    plain = PRESETS["plain"]
    tiny = replace(
        plain, segmentation=replace(plain.segmentation, channels=(4, 8), working_size=96, patch_size=32, steps=3)
    )
    segmenter = run_pipeline(tiny_support, preset=tiny, device="cpu")
    assert len(segmenter.card["train"]) == len(tiny_support)
    assert segmenter.card["synthetic_pairs"] == 0


def test_held_out_pair_follows_from_the_seed(tiny_support):
    names = {split_held_out(tiny_support, hold_out=True, rng=np.random.default_rng(s))[1].name for s in range(20)}
    assert names == {pair.name for pair in tiny_support}


@pytest.mark.parametrize("stage", ["trees", "pairs", "segmenter"])
def test_cancelling_in_any_stage_and_resuming_gives_the_same_weights(tiny_support, tmp_path, stage):
    seen = []
    with pytest.raises(Cancelled):
        run_pipeline(
            tiny_support,
            preset=TINY,
            device="cpu",
            checkpoint_folder=tmp_path,
            on_progress=seen.append,
            should_stop=lambda: any(event.stage == stage and event.step > 1 for event in seen),
        )
    resumed = run_pipeline(tiny_support, preset=TINY, device="cpu", checkpoint_folder=tmp_path)
    whole = run_pipeline(tiny_support, preset=TINY, device="cpu")
    for name, value in whole.network.state_dict().items():
        assert value.equal(resumed.network.state_dict()[name]), name


def test_job_that_was_killed_once_its_version_was_published_makes_no_other(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for pair in killed_support():
        project.add_support_pair(pair)
    preset = replace(TINY, pairs=0, segmentation=replace(TINY.segmentation, working_size=64, steps=4))
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    (tmp_path / "other" / "checkpoint").mkdir(parents=True)

    def run(job):
        with JobContext(tmp_path / job) as context:
            return run_on_project(project, preset, 0, "cpu", context)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "settle", interrupt)
        run("job")
    resumed = run("job")
    assert project.segmenter_versions() == ["v001"] and resumed["versions"]["reason"] == "first"
    assert resumed["held_out"]["dice"] == held_out_of(project.segmenters_folder / "v001").dice
    assert run("job") == resumed, "killed after that, too"
    assert run("other")["segmenter"] == "v002" and run("other")["versions"]["before"] == "v001"


@pytest.mark.parametrize(
    ("run", "folder", "key"),
    [
        (run_mask_engine_job, "adapters_folder", "mask_engine"),
        (run_image_engine_job, "image_engines_folder", "image_engine"),
    ],
)
def test_engine_that_its_job_published_is_not_adapted_again(tmp_path, run, folder, key):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)  # without any image
    card = {"figures": {"agreement": 0.5}, "job": "job"}
    for number, made in enumerate(({"figures": {}}, card, {"figures": {}, "job": "other"})):
        version = getattr(project, folder) / f"v00{number + 1}"
        version.mkdir(parents=True)
        write_json_atomic(version / "engine.json", {"card": made})
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    with JobContext(tmp_path / "job") as context:
        assert run(project, {}, context.within(key)) == {key: "v002", "agreement": 0.5}


def interrupt(*args):
    raise KeyboardInterrupt


def test_resuming_without_the_image_that_is_kept_apart_says_so(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for pair in killed_support():
        project.add_support_pair(pair)
    folder = tmp_path / "job" / "checkpoint"
    folder.mkdir(parents=True)
    with JobContext(tmp_path / "job") as context:
        support = project.load_support()
        kept = held_out_name(project, support, TINY, 0, folder)
        project.remove_support_pair(kept)
        with pytest.raises(InputError, match="no longer in the project") as refused:
            run_on_project(project, TINY, 0, "cpu", context)
    assert kept not in str(refused.value)


def test_large_images_are_drawn_at_working_size(tiny_support, monkeypatch):
    seen = []

    def train(real, synthetic, **options):
        seen.append((real, synthetic))
        raise Cancelled

    monkeypatch.setattr(pipeline, "train_segmenter", train)
    half = replace(TINY, segmentation=replace(TINY.segmentation, working_size=max(tiny_support.pairs[0].shape) // 2))
    with pytest.raises(Cancelled):
        run_pipeline(tiny_support, preset=half, device="cpu")
    ((real, synthetic),) = seen
    assert {max(pair.shape) for pair in synthetic} == {half.segmentation.working_size}
    assert {pair.shape for pair in real} == {pair.shape for pair in tiny_support}


def test_trees_ask_for_the_hub_of_their_own_mask_only(tiny_support, monkeypatch):
    asked = []
    monkeypatch.setattr(start_trees, "find_hub", lambda modality, mask, image: asked.append(mask))
    start_trees.grow_starts(tiny_support, 1, seed=1)
    assert len(asked) == 1 and asked[0] is tiny_support.pairs[1 % len(tiny_support)].mask


def test_unknown_preset_names_the_choices():
    with pytest.raises(InputError, match="preview, standard, full, plain"):
        preset_named("fast")


KILLED_RUN = """
import sys
from univg.segmentation import train as training
training._SECONDS_BETWEEN_CHECKPOINTS = 0.0
from tests.univg.test_pipeline import killed_support, long_preset
from univg.workflow.pipeline import run_pipeline
run_pipeline(killed_support(), preset=long_preset(), device="cpu", checkpoint_folder=sys.argv[1]).save(sys.argv[2])
"""


def long_preset():
    return replace(TINY, pairs=2, segmentation=replace(TINY.segmentation, steps=150))


def killed_support():
    pairs = tuple(make_pair(f"pair-{i}", seed=i) for i in range(3))
    return SupportSet(Modality.CORONARY_DSA, pairs)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_ten_times_at_random_and_resumed_ends_bit_for_bit_the_same(tmp_path):
    """kill -9 loses nothing: the weights equal those of a run that nobody touched."""
    root = Path(__file__).resolve().parents[2]
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "output"
    checkpoint.mkdir()
    output.mkdir()
    command = [sys.executable, "-c", KILLED_RUN, str(checkpoint), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    rng = np.random.default_rng(0)
    state = checkpoint / "state.safetensors"
    kills = 0
    while kills < 10:
        process = subprocess.Popen(command, env=environment, cwd=root)
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.01)  # let each attempt make some progress, so that ten kills end
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 5, "the run was over before it could be killed"
    assert subprocess.run(command, env=environment, cwd=root, check=False).returncode == 0

    whole = run_pipeline(killed_support(), preset=long_preset(), device="cpu")
    resumed = Segmenter.load(output)
    for name, value in whole.network.state_dict().items():
        assert value.equal(resumed.network.state_dict()[name]), name


@pytest.mark.slow
def test_adapt_job_from_start_to_segmenter(tmp_path, tiny_support):
    """In a process of its own, with the preview preset on tiny images."""
    project = Project.create(tmp_path / "project", modality=tiny_support.modality, working_size=96)
    for pair in tiny_support:
        project.add_support_pair(pair, source=None)
    job = wait_for(start_job(project, "adapt", {"preset": "preview", "seed": 0, "device": "cpu"}), timeout=250)
    assert job.state is JobState.DONE, job.error
    version = job.result()["segmenter"]
    assert project.segmenter_versions() == [version]
    card = Segmenter.load(project.segmenters_folder / version).card
    assert card["preset"] == "preview" and len(card["support_sha256"]) == 6
    events = job.events()
    assert {event.stage for event in events} == {"trees", "pairs", "segmenter", "check"}
    for event in events:
        assert event.picture is None or (job.folder / event.picture).is_file()
