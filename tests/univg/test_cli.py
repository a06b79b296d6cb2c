"""The command line, as a user types it: exit codes, one clear line on stderr, nothing left behind."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from tests.conftest import make_pair
from tests.univg.test_io_dicom import write_dicom
from tests.univg.test_pipeline import TINY
from univg import cli
from univg.commands.segment import _listed
from univg.errors import InputError
from univg.io import read_image, read_mask, read_provenance, write_image, write_mask
from univg.segmentation import train_segmenter
from univg.types import Modality
from univg.workflow.jobs import cancel_job, start_job, wait_for
from univg.workflow.project import Project

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def folders(tmp_path):
    """Images and masks of three made-up pairs."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        pair = make_pair(f"eye {number} é", seed=number)
        write_image(tmp_path / "images" / f"{pair.name}.png", pair.image)
        write_mask(tmp_path / "masks" / f"{pair.name}.png", pair.mask)
    return tmp_path


@pytest.fixture
def adapted(tmp_path, tiny_support):
    """A project with a tiny segmenter."""
    project = Project.create(tmp_path / "project", modality=tiny_support.modality, working_size=96)
    config = replace(TINY.segmentation, steps=4)
    segmenter = train_segmenter(tiny_support.pairs, modality=tiny_support.modality, config=config, device="cpu")
    with project.new_segmenter_folder() as folder:
        segmenter.save(folder)
    return project


def assert_refused(capsys, *words):
    err = capsys.readouterr().err.strip()
    assert err.startswith("univg: ") and "\n" not in err, err
    for word in words:
        assert word in err, err


# --- sca


def test_sca_writes_masks_that_repeat(tmp_path):
    for folder in ("a", "b"):
        assert run("sca", "--modality", "octa", "--size", 96, "--seed", 3, "-n", 2, "-o", tmp_path / folder) == 0
    first, again = (read_mask(tmp_path / folder / "tree-00004.png") for folder in ("a", "b"))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (96, 96)
    assert read_provenance(tmp_path / "a" / "tree-00004.png")["seed"] == 4


def test_sca_conditions_on_a_mask_of_any_shape(folders):
    mask = np.zeros((75, 130), bool)
    mask[30:34, 10:120] = True
    write_mask(folders / "real.png", mask)
    out = folders / "trees"
    assert run("sca", "--modality", "oct", "--mask", folders / "real.png", "--root", "32,20", "-o", out) == 0
    assert read_mask(out / "tree-00000.png").shape == (75, 130)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modality", "xray"], ["xray", "brain-dsa"]),
        (["--modality", "octa", "--size", "10"], ["--size"]),
        (["--modality", "octa", "-n", "0"], ["-n"]),
        (["--modality", "octa", "--root", "900,10"], ["outside"]),
        (["--modality", "octa", "--mask", "missing.png"], ["missing.png"]),
    ],
)
def test_sca_refuses_bad_input(tmp_path, capsys, arguments, words):
    assert run("sca", *arguments, "-o", tmp_path / "out") == 2
    assert_refused(capsys, *words)
    assert not (tmp_path / "out").exists()


# --- adapt and segment


def test_adapt_then_segment(folders, monkeypatch, capsys):
    """The whole way with the preview preset cut to a few steps is in the browser test; here the job is started only."""
    project = folders / "project"
    arguments = ["--images", folders / "images", "--masks", folders / "masks", "--modality", "coronary-dsa"]
    started = []
    monkeypatch.setattr(
        "univg.commands.adapt.start_job", lambda project, kind, params: started.append(params) or Fake()
    )
    assert run("adapt", *arguments, "--project", project, "--preset", "preview", "--seed", 7, "--detach") == 0
    assert started == [{"preset": "preview", "seed": 7, "device": "auto"}]
    assert len(Project.open(project).support_names()) == 3
    assert run("adapt", *arguments, "--project", project, "--detach") == 0, "adding the same images again is harmless"


class Fake:
    id = "job"


def test_adapt_adds_nothing_while_a_job_works_on_the_project(folders, capsys):
    project = Project.create(folders / "project", modality="fundus")
    arguments = ["--images", folders / "images", "--masks", folders / "masks", "--project", project.path]
    job = start_job(project, "selftest", {"steps": 2000, "seconds_per_step": 0.02})
    try:
        assert run("adapt", *arguments) == 2
        assert_refused(capsys, job.id)
        assert project.support_names() == []
    finally:
        cancel_job(job)
        wait_for(job, 20)


def test_adapt_adds_all_pairs_or_none(folders, capsys):
    arguments = ["--images", folders / "images", "--masks", folders / "masks", "--project"]
    project = Project.create(folders / "project", modality="fundus")
    project.add_support_pair(make_pair("eye 1 é", seed=7))
    assert run("adapt", *arguments, project.path) == 2
    assert_refused(capsys, "another pair called 'eye 1 é'")
    assert project.support_names() == ["eye 1 é"]
    for kind in ("images", "masks"):
        (folders / kind / "EYE 0 é.png").write_bytes((folders / kind / "eye 0 é.png").read_bytes())
    assert run("adapt", *arguments, folders / "new", "--modality", "fundus") == 2
    assert_refused(capsys, "case only")
    assert not (folders / "new").exists()
    assert run("adapt", "--project", project.path, "--grey-threshold", 0.5) == 2
    assert_refused(capsys, "--grey-threshold")


def test_a_new_project_needs_a_modality(folders, capsys):
    arguments = ["--images", folders / "images", "--masks", folders / "masks", "--project", folders / "new"]
    assert run("adapt", *arguments) == 2
    assert_refused(capsys, "Give --modality to make a new project", "fundus")
    assert not (folders / "new").exists()


def test_retrain_takes_the_network_in_use_or_one_that_is_named(adapted, capsys, monkeypatch):
    adapted.add_support_pair(make_pair("a"))
    started = []
    monkeypatch.setattr(
        "univg.commands.retrain.start_job", lambda project, kind, params: started.append(params) or Fake()
    )
    monkeypatch.setattr("univg.commands.retrain.network_in_use", lambda project: "dynunet")
    for arguments in ([], ["--network", "unet"]):
        assert run("retrain", "--project", adapted.path, "--detach", *arguments) == 0
    assert [params["network"] for params in started] == ["dynunet", "unet"]
    assert run("retrain", "--project", adapted.path, "--network", "net") == 2
    assert_refused(capsys, "'net'", "swin-unetr")


def test_adapt_takes_over_the_size_of_a_pixel(folders, monkeypatch):
    monkeypatch.setattr("univg.commands.adapt.start_job", lambda *_: Fake())
    (folders / "scans").mkdir()
    for number in range(3):
        image = make_pair(f"eye {number} é", seed=number).image
        write_dicom(folders / "scans" / f"eye {number} é.dcm", image, PixelSpacing=[0.25, 0.25])
    command = ["adapt", "--images", folders / "scans", "--masks", folders / "masks", "--modality", "fundus", "--detach"]
    assert run(*command, "--project", folders / "new") == 0
    assert Project.open(folders / "new").pixel_spacing_mm == 0.25
    old = Project.create(folders / "old", modality="fundus")
    assert run(*command, "--project", old.path) == 0, "a project that does not know it stays usable"


@pytest.mark.parametrize("trouble", ["no mask", "sizes", "grey mask", "empty mask", "truncated", "zero bytes", "text"])
def test_adapt_refuses_bad_pairs_and_makes_no_project(folders, capsys, trouble):
    image, mask = sorted((folders / "images").iterdir())[1], sorted((folders / "masks").iterdir())[1]
    if trouble == "no mask":
        mask.unlink()
    elif trouble == "sizes":
        write_mask(mask, np.eye(50, dtype=bool))
    elif trouble == "grey mask":
        Image.fromarray(np.arange(96 * 96, dtype=np.uint8).reshape(96, 96)).save(mask)
    elif trouble == "empty mask":
        write_mask(mask, np.zeros((96, 96), bool))
    elif trouble == "truncated":
        image.write_bytes(image.read_bytes()[:300])
    elif trouble == "zero bytes":
        image.write_bytes(b"")
    else:
        image.write_text("not an image")
    arguments = ["--images", folders / "images", "--masks", folders / "masks", "--modality", "fundus"]
    assert run("adapt", *arguments, "--project", folders / "project") == 2
    assert_refused(capsys, "eye 1")
    assert not (folders / "project").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "fast"], ["fast", "preview"]),
        (["--device", "quantum"], ["quantum"]),
        (["--images", "."], ["belong together"]),
        (["--engine", "masks", "--preset", "full"], ["--preset", "--engine"]),
        ([], ["no such folder"]),
    ],
)
def test_adapt_refuses_bad_options(tmp_path, capsys, arguments, words):
    assert run("adapt", "--project", tmp_path / "none", *arguments) == 2
    assert_refused(capsys, *words)


def test_segment_writes_mask_overlay_and_probability(adapted, tmp_path):
    image = make_pair("new", seed=9, size=120).image
    write_image(tmp_path / "new one.png", image)
    out = tmp_path / "out"
    code = run(
        "segment", "--project", adapted.path, tmp_path / "new one.png", "-o", out, "--overlay", "--probability", "--tta"
    )
    assert code == 0
    assert read_mask(out / "new one.png").shape == (120, 120)
    assert read_image(out / "new one-overlay.png").shape == (120, 120, 3)
    probability = read_image(out / "new one-probability.png")
    assert probability.dtype == np.float32
    assert ((probability >= 0.5) == read_mask(out / "new one.png")).mean() > 0.999
    assert read_provenance(out / "new one.png")["segmenter"] == "v001"


def test_segment_never_replaces_an_image_or_a_corrected_mask(adapted, tmp_path, capsys):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in ("eye", "eye-overlay"):
        write_image(scans / f"{name}.png", make_pair(name).image)
    before = (scans / "eye.png").read_bytes()
    assert run("segment", "--project", adapted.path, scans / "eye.png", "-o", scans) == 2
    assert_refused(capsys, "replace the image")
    assert (scans / "eye.png").read_bytes() == before
    both = [scans / "eye.png", scans / "eye-overlay.png"]
    assert run("segment", "--project", adapted.path, *both, "-o", out, "--overlay") == 2
    assert_refused(capsys, "eye-overlay.png", "two folders")
    assert run("segment", "--project", adapted.path, *both, "-o", out) == 0
    assert run("segment", "--project", adapted.path, *both, "-o", out) == 0, "its own results are in nobody's way"
    corrected = ~read_mask(out / "eye.png")
    write_mask(out / "eye.png", corrected)
    capsys.readouterr()
    assert run("segment", "--project", adapted.path, *both, "-o", out) == 2
    assert_refused(capsys, "did not make")
    assert np.array_equal(read_mask(out / "eye.png"), corrected)


def test_segment_never_replaces_the_mask_of_another_image_or_frame(adapted, tmp_path, capsys):
    pages = [Image.fromarray(make_pair("run", seed=seed).image) for seed in range(3)]
    pages[0].save(tmp_path / "run.tif", save_all=True, append_images=pages[1:])
    out = tmp_path / "out"
    command = ["segment", "--project", adapted.path, "-o", out]
    assert run(*command, tmp_path / "run.tif", "--frame", 1) == 0
    before = (out / "run.png").read_bytes()
    assert run(*command, tmp_path / "run.tif", "--frame", 1) == 0, "its own result is in nobody's way"
    write_image(tmp_path / "run.png", np.asarray(pages[2]))
    capsys.readouterr()
    for other in ([tmp_path / "run.tif", "--frame", 2], [tmp_path / "run.png"]):
        assert run(*command, *other) == 2
        assert_refused(capsys, "another image or frame")
    assert (out / "run.png").read_bytes() == before


def test_segment_goes_on_after_a_file_that_cannot_be_read(adapted, tmp_path, capsys):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in "abc":
        write_image(scans / f"{name}.png", make_pair(name).image)
    whole = (scans / "b.png").read_bytes()
    (scans / "b.png").write_bytes(whole[: len(whole) // 2])  # the header is fine
    (scans / "d.png").write_bytes(b"no image")
    (scans / "notes.txt").touch()
    command = ["segment", "--project", adapted.path, scans, "-o", out]
    assert run(*command) == 2
    said = capsys.readouterr()
    assert "2 masks in" in said.out and sorted(file.name for file in out.iterdir()) == ["a.png", "c.png"]
    assert "2 of 4 images could not be segmented" in said.err and "b.png" in said.err and "d.png" in said.err
    (scans / "b.png").write_bytes(whole)
    (scans / "d.png").unlink()
    assert run(*command) == 0
    assert "3 masks in" in (said := capsys.readouterr().out) and "2 of them from before" in said


def test_segment_keeps_what_is_there_already(adapted, tmp_path, capsys, monkeypatch):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in "ab":
        Image.fromarray(make_pair(name).image).save(scans / f"{name}.bmp")
    command = ["segment", "--project", adapted.path, scans, "-o", scans, "--overlay"]
    assert run(*command) == 0
    made = {file.name: file.stat().st_mtime_ns for file in scans.glob("*.png")}
    assert len(made) == 4
    monkeypatch.setattr("univg.commands.segment.read_image", pytest.fail)
    assert run(*command) == 0, "results in the folder of the images are not taken for images"
    assert "2 of them from before" in capsys.readouterr().out
    assert {file.name: file.stat().st_mtime_ns for file in scans.glob("*.png")} == made
    monkeypatch.undo()
    (scans / "a-overlay.png").unlink()
    for options, before in (([], 1), (["--tta"], 0), (["--tta", "--threshold", "0.3"], 0)):
        assert run(*command, *options) == 0
        assert ("1 of them from before" in capsys.readouterr().out) == bool(before)
    again = train_again(adapted)
    assert run(*command, "--segmenter", again, "--tta", "--threshold", "0.3") == 0
    assert "from before" not in capsys.readouterr().out


def train_again(project):
    """Another version with other weights under the same number, as that of another project has."""
    weights = project.segmenters_folder / "v001" / "model.safetensors"
    state = safetensors.torch.load(weights.read_bytes())
    weights.write_bytes(safetensors.torch.save({name: value * 0 for name, value in state.items()}))
    return "v001"


def test_segment_refuses_names_that_leave_no_room_before_the_work(adapted, tmp_path, capsys):
    image = tmp_path / f"{'é' * 117}.png"  # 238 bytes
    write_image(image, make_pair("x").image)
    command = ["segment", "--project", adapted.path, image, "-o", tmp_path / "out"]
    assert run(*command, "--probability") == 2
    assert_refused(capsys, "too long")
    assert not (tmp_path / "out").exists()
    assert run(*command) == 0


def test_segment_expands_patterns_where_the_shell_does_not(tmp_path, monkeypatch):
    for name in ("b [1].png", "a.png", "c.txt"):
        (tmp_path / name).touch()
    assert _listed([str(tmp_path / "*.png")]) == [tmp_path / "*.png"]
    monkeypatch.setattr("sys.platform", "win32")
    assert _listed([str(tmp_path / "*.png")]) == [tmp_path / "a.png", tmp_path / "b [1].png"]
    assert _listed([str(tmp_path / "b [?].png")]) == [tmp_path / "b [1].png"]
    with pytest.raises(InputError, match="no image here"):
        _listed([str(tmp_path / "*.dcm")])


def test_segment_looks_for_the_frame_in_every_file_first(adapted, tmp_path, capsys):
    pages = [Image.fromarray(make_pair("run", seed=seed).image) for seed in range(3)]
    for name, count in (("a", 3), ("b", 2)):
        pages[0].save(tmp_path / f"{name}.tif", save_all=True, append_images=pages[1:count])
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert run("segment", "--project", adapted.path, *files, "--frame", 2, "-o", tmp_path / "out") == 2
    assert "no frame 2" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]
    assert run("segment", "--project", adapted.path, *files, "--frame", 3, "-o", tmp_path / "none") == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["adapt", "retrain", "benchmark", "pretrain prior"])
@pytest.mark.parametrize("seed", ["-1", "1.5", str(2**70)])
def test_seeds_that_start_no_generator_are_refused(command, seed, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*command.split(), "--seed", seed)
    assert ended.value.code == 2 and "whole number from 0" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["missing", "no segmenter", "corrupt", "version", "threshold", "frames", "twice"])
def test_segment_refuses_bad_input(adapted, tmp_path, capsys, trouble):
    image = tmp_path / "image.png"
    write_image(image, make_pair("new").image)
    images, options = [image], []
    if trouble == "missing":
        images = [tmp_path / "none.png"]
    elif trouble == "no segmenter":
        adapted = Project.create(tmp_path / "fresh", modality="octa")
    elif trouble == "corrupt":
        (adapted.segmenters_folder / "v001" / "model.safetensors").write_bytes(b"broken")
    elif trouble == "version":
        options = ["--segmenter", "v009"]
    elif trouble == "threshold":
        options = ["--threshold", "2"]
    elif trouble == "frames":
        pages = [Image.fromarray(np.full((64, 64), v, np.uint8)) for v in (10, 200)]
        images = [tmp_path / "pages.tif"]
        pages[0].save(images[0], save_all=True, append_images=pages[1:])
    elif trouble == "twice":
        images = [image, image]
    assert run("segment", "--project", adapted.path, *images, "-o", tmp_path / "out", *options) == 2
    assert_refused(capsys)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_adapt_in_full_takes_both_engines_from_a_checkpoint(adapted, folders, capsys, monkeypatch):
    started = {}

    def start(project, kind, params):
        started.update(params)
        raise InputError("stopped")

    monkeypatch.setattr("univg.commands.adapt.start_job", start)
    (folders / "sd15").mkdir()
    pairs = ["--images", folders / "images", "--masks", folders / "masks"]
    command = ["adapt", "--project", adapted.path, *pairs, "--backbone", folders / "sd15"]
    assert run(*command) == 2
    assert_refused(capsys, "--backbone", "--preset full")
    assert run(*command, "--preset", "full") == 2 and "stopped" in capsys.readouterr().err
    assert started["mask_backbone"] == started["image_backbone"] == str(folders / "sd15")


# --- evaluate and benchmark


def test_evaluate_scores_masks_and_writes_json(folders, capsys):
    assert run("evaluate", "--pred", folders / "masks", "--masks", folders / "masks", "--json", folders / "s.json") == 0
    assert "dice           1.0000" in capsys.readouterr().out
    written = json.loads((folders / "s.json").read_text())
    assert written["mean"]["dice"]["mean"] == 1 and len(written["images"]) == 3


def test_results_replace_only_what_the_same_command_made(folders, capsys):
    reference = folders / "masks" / "eye 0 é.png"
    before = reference.read_bytes()
    command = ["evaluate", "--pred", folders / "masks", "--masks", folders / "masks", "--json"]
    assert run(*command, reference) == 2
    assert_refused(capsys, "did not make", "eye 0 é.png")
    for option in ("--csv", "--plot", "--worst"):
        extra = ["--json", folders / "r.json"] if option == "--worst" else []
        assert run("benchmark", folders, "--modality", "fundus", "--shots", 1, *extra, option, reference) == 2
        assert_refused(capsys, "did not make", "eye 0 é.png")
    assert reference.read_bytes() == before
    assert run(*command, folders / "s.json") == run(*command, folders / "s.json") == 0


def test_evaluate_definitions_differ_on_empty_masks(tmp_path, capsys):
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        write_mask(tmp_path / kind / "x.png", np.zeros((64, 64), bool))
    for definitions, expected in (("standard", 1), ("authors", 0)):
        file = tmp_path / f"{definitions}.json"
        arguments = ["--pred", tmp_path / "a", "--masks", tmp_path / "b", "--json", file]
        assert run("evaluate", *arguments, "--definitions", definitions) == 0
        assert json.loads(file.read_text())["images"][0]["cldice"] == expected


def test_evaluate_does_not_drop_references_silently(folders, capsys):
    (folders / "found").mkdir()
    write_mask(folders / "found" / "eye 1 é.png", read_mask(folders / "masks" / "eye 1 é.png"))
    command = ["evaluate", "--pred", folders / "found", "--masks", folders / "masks"]
    assert run(*command) == 2
    assert_refused(capsys, "2 of 3 references", "'eye 0 é'", "--partial")
    assert run(*command, "--partial") == 0
    assert "1 images" in capsys.readouterr().out


def test_evaluate_refuses_an_empty_field_of_view(folders, capsys):
    (folders / "fov").mkdir()
    for number in range(3):
        write_mask(folders / "fov" / f"eye {number} é.png", np.full((96, 96), number != 1))
    assert run("evaluate", "--pred", folders / "masks", "--masks", folders / "masks", "--fov", folders / "fov") == 2
    assert_refused(capsys, "field of view is empty", "eye 1")


def test_evaluate_scores_what_segment_wrote(adapted, folders, capsys):
    out = folders / "out"
    images = sorted((folders / "images").iterdir())
    assert run("segment", "--project", adapted.path, *images, "-o", out, "--overlay", "--probability") == 0
    assert run("evaluate", "--pred", out, "--masks", folders / "masks") == 0
    assert "3 images" in capsys.readouterr().out
    (out / "eye 0 é.png").unlink()  # an overlay without its mask is nothing to score
    assert run("evaluate", "--pred", out, "--masks", folders / "masks") == 2
    assert_refused(capsys, "no reference", "eye 0 é-overlay")


def test_evaluate_refuses_masks_of_different_size(folders, capsys):
    write_mask(folders / "masks" / "eye 0 é.png", np.eye(40, dtype=bool))
    assert run("evaluate", "--pred", folders / "images", "--masks", folders / "masks", "--grey-threshold", 0.5) == 2
    assert_refused(capsys, "differ in size")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shots", "9"], ["9 shots"]),
        ([], ["modality"]),
        (["--steps", "0"], ["--steps"]),
        (["--size", "0"], ["--size"]),
        (["--size", "16"], ["--size", "32"]),
        (["--size", "32", "--network", "swin-unetr"], ["--size 32", "swin-unetr"]),
    ],
)
def test_benchmark_refuses_bad_input(folders, capsys, arguments, words):
    if words != ["modality"]:
        arguments = [*arguments, "--modality", "fundus"]
    assert run("benchmark", folders, *arguments) == 2
    assert_refused(capsys, *words)


def test_a_project_of_another_modality_is_refused(adapted, capsys):
    other = next(m for m in Modality if m is not adapted.modality)
    assert run("adapt", "--project", adapted.path, "--modality", other) == 2
    assert_refused(capsys, f"of the modality {adapted.modality}, not {other}")


def test_options_that_would_be_ignored_are_refused(adapted, folders, capsys):
    mask = folders / "masks" / "eye 0 é.png"
    for command in (
        ["export", "segmenter", "--project", adapted.path, "--format", "coco", "-o", folders / "x.onnx"],
        ["export", "pairs", "--project", adapted.path, "--version", "v001", "-o", folders / "x"],
        ["sca", "--modality", "oct", "--mask", mask, "--preset", "oct", "-o", folders / "x"],
        ["sca", "--modality", "oct", "--grey-threshold", "0.5", "-o", folders / "x"],
    ):
        assert run(*command) == 2
        assert_refused(capsys, "--")


def test_what_the_system_refuses_is_one_line(adapted, tmp_path, capsys):
    name = "a" * 300
    assert run("export", "segmenter", "--project", adapted.path, "-o", tmp_path / name) == 2
    assert_refused(capsys, "name too long", name)


# --- as a process


def test_grey_threshold_out_of_range_is_refused(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        run("evaluate", "--pred", folders, "--masks", folders, "--grey-threshold", "7")
    assert stop.value.code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break in another way there")
def test_whoever_reads_the_output_may_stop_at_any_time(adapted):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "univg", "jobs", "list", "--project", str(adapted.path)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_import_is_fast_and_loads_no_torch():
    code = "import sys, time; t = time.perf_counter(); import univg; print(time.perf_counter() - t, *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    seconds, *modules = out.split()
    assert float(seconds) < 0.3 and "torch" not in modules


def test_every_public_name_exists():
    import univg

    for name in univg.__all__:
        assert getattr(univg, name) is not None
    with pytest.raises(AttributeError):
        univg.nonsense  # noqa: B018


def test_the_module_is_the_command_line():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "univg", "evaluate", "--pred", "none", "--masks", "none"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
