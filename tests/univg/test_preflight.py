"""The look at images and machine before a run."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import make_pair
from univg.cli import main
from univg.errors import InputError
from univg.io import check_pairs, match_pair_files, write_image
from univg.types import ImageMaskPair, Modality
from univg.workflow import machine
from univg.workflow.expected_time import (
    PREPARATION,
    REFERENCE_CORES,
    REFERENCE_SPEED,
    WITHOUT_BFLOAT16,
    expected_minutes,
    fitted,
    preset_of_run,
)
from univg.workflow.image_checks import likeness, local_contrast, vessel_band
from univg.workflow.machine import Machine, core_speed, look_at_machine
from univg.workflow.preflight import blocking, check_machine, check_support, preflight, refuse_impossible
from univg.workflow.presets import PRESETS
from univg.workflow.project import Project
from univg.workflow.sample import create_sample_project

DARK = Modality.CORONARY_DSA
REFERENCE = Machine(
    "cpu",
    cores=REFERENCE_CORES,
    free_memory_mb=8000,
    free_disk_mb=50_000,
    native_bfloat16=True,
    speed=REFERENCE_SPEED,
)


def five_pairs():
    return [make_pair(f"pair-{i}", seed=i) for i in range(5)]


def said(findings):
    return " ".join(f"{finding.subject}: {finding.message}" for finding in findings)


def test_nothing_is_said_of_good_pairs_on_a_good_machine(tmp_path):
    assert check_support(five_pairs(), DARK) == []
    project = create_sample_project(tmp_path / "sample")
    assert preflight(project, PRESETS["standard"], REFERENCE) == []


@pytest.mark.parametrize(("count", "words"), [(0, "no annotated"), (1, "none can be held out"), (4, "4 annotated")])
def test_too_few_pairs(count, words):
    findings = check_support(five_pairs()[:count], DARK)
    assert words in said(findings)
    assert bool(blocking(findings)) == (count == 0)


def test_masks_that_mark_almost_all_or_nothing():
    pairs = five_pairs()
    nothing, everything = np.zeros((96, 96), bool), np.ones((96, 96), bool)
    nothing[40, 40:45] = True
    everything[:10] = False
    pairs[0] = replace(pairs[0], mask=nothing)
    pairs[1] = replace(pairs[1], mask=everything)
    findings = check_support(pairs, DARK)
    assert "pair-0: Only 0.05%" in said(findings) and "pair-1: 90% of the mask" in said(findings)
    assert not blocking(findings)


def test_wrong_kind_of_image_is_one_warning_and_a_wrong_mask_one_of_its_own():
    (wrong_kind,) = check_support(five_pairs(), Modality.OCTA)
    assert "5 of 5" in wrong_kind.message and wrong_kind.level == "warning"
    pairs = five_pairs()
    pairs[2] = replace(pairs[2], image=255 - pairs[2].image)
    (inverted,) = check_support(pairs, DARK)
    assert inverted.subject == "pair-2" and "brighter" in inverted.message
    pairs[2] = replace(five_pairs()[2], mask=pairs[3].mask)
    (foreign,) = check_support(pairs, DARK)
    assert foreign.subject == "pair-2" and "hardly stands out" in foreign.message


def test_the_same_image_again_even_as_a_mirrored_jpeg():
    pairs = five_pairs()
    again = cv2.imdecode(cv2.imencode(".jpg", pairs[0].image[:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1], -1)
    pairs[4] = ImageMaskPair(again, np.ascontiguousarray(pairs[0].mask[:, ::-1]), "again")
    (finding,) = check_support(pairs, DARK)
    assert finding.subject == "pair-0" and "'again'" in finding.message
    assert likeness(vessel_band(pairs[1].image, DARK), vessel_band(pairs[2].image, DARK)) < 0.5


def test_the_rim_of_a_fundus_camera_makes_no_two_images_alike():
    rows, cols = np.mgrid[:300, :300]
    rim = (rows - 150) ** 2 + (cols - 150) ** 2 < 140**2
    images = [np.where(rim, 120 + 12 * np.random.default_rng(i).standard_normal((300, 300)), 0) for i in range(2)]
    bands = [vessel_band(np.clip(image, 0, 255).astype(np.uint8), Modality.FUNDUS) for image in images]
    assert likeness(*bands) < 0.3


def test_contrast_is_unknown_without_vessels_and_survives_large_images():
    pair = make_pair("large", seed=3)
    assert np.isnan(local_contrast(pair.image, np.zeros_like(pair.mask), DARK))
    image, mask = np.kron(pair.image, np.ones((20, 20), np.uint8)), np.kron(pair.mask, np.ones((20, 20), bool))
    assert local_contrast(image, mask, DARK) > 1


def test_unreadable_pair_is_an_error_that_names_it(tmp_path):
    project = create_sample_project(tmp_path / "sample")
    (project.support_folder / "masks" / "sample-2.png").write_bytes(b"broken")
    findings = preflight(project, PRESETS["preview"], REFERENCE)
    (error,) = blocking(findings)
    assert error.subject == "sample-2"
    with pytest.raises(InputError, match="sample-2"):
        refuse_impossible(findings)


@pytest.mark.parametrize(
    ("preset", "machine", "missing", "words", "blocks"),
    [
        ("full", REFERENCE, ["mask", "image"], "mask and the image engine", True),
        ("preview", replace(REFERENCE, device="cuda", available=False), [], "'cuda'", True),
        ("preview", replace(REFERENCE, device="cuda", available=None), [], "'cuda' device shows", False),
        ("preview", replace(REFERENCE, free_disk_mb=10), [], "10 MB of the disk", True),
        ("full", replace(REFERENCE, free_disk_mb=900), [], "may need 1500 MB", False),
        ("preview", replace(REFERENCE, free_memory_mb=1000), [], "1.0 GB of memory", False),
        ("full", replace(REFERENCE, device="cuda", free_memory_mb=4000), [], "graphics card's memory", False),
    ],
)
def test_machine_that_does_not_suit(preset, machine, missing, words, blocks):
    (finding,) = check_machine(PRESETS[preset], machine, missing=missing)
    assert words in finding.message and finding.fix
    assert bool(blocking([finding])) == blocks


def test_minutes_follow_the_machine():
    preset = PRESETS["standard"]
    assert expected_minutes(preset, REFERENCE) == preset.expected_minutes
    slow, old = replace(REFERENCE, speed=REFERENCE_SPEED / 2), replace(REFERENCE, native_bfloat16=False)
    computing = preset.expected_minutes - PREPARATION
    assert expected_minutes(preset, slow) == pytest.approx(PREPARATION + 2 * computing)
    assert expected_minutes(preset, old) == pytest.approx(PREPARATION + WITHOUT_BFLOAT16 * computing)
    assert expected_minutes(preset, replace(REFERENCE, cores=64)) >= 0.4 * preset.expected_minutes
    assert expected_minutes(preset, replace(REFERENCE, device="cuda")) < preset.expected_minutes


def test_slow_machines_train_for_fewer_steps():
    preset = PRESETS["standard"]
    assert fitted(preset, REFERENCE) is preset
    slow = replace(REFERENCE, speed=REFERENCE_SPEED / 2)
    assert expected_minutes(preset, slow) == pytest.approx(19.75)
    shorter = fitted(preset, slow)
    assert shorter.segmentation.steps == 0.7 * preset.segmentation.steps and expected_minutes(shorter, slow) < 15
    slowest = replace(REFERENCE, speed=1.0)
    assert fitted(preset, slowest).segmentation.steps == 0.4 * preset.segmentation.steps


def test_length_of_a_run_is_put_on_record(tmp_path, monkeypatch):
    preset = PRESETS["standard"]
    machines = iter([replace(REFERENCE, speed=1.0), REFERENCE])
    monkeypatch.setattr("univg.workflow.expected_time.look_at_machine", lambda *_: next(machines))
    shorter = preset_of_run(preset, {}, tmp_path)
    assert shorter.segmentation.steps < preset.segmentation.steps
    assert preset_of_run(preset, {}, tmp_path) == shorter, "a resumed run must go on as it began"
    assert preset_of_run(preset, {"full_length": True}, tmp_path) == preset
    assert preset_of_run(preset, {"segmenter_steps": 7}, tmp_path).segmentation.steps == 7


def test_length_of_a_run_follows_the_device_that_torch_finds(tmp_path, monkeypatch):
    monkeypatch.setattr("univg.training.device.resolve_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(
        "univg.workflow.expected_time.look_at_machine", lambda _, device: replace(REFERENCE, device=device, speed=1.0)
    )
    preset = PRESETS["standard"]
    assert preset_of_run(preset, {"device": "auto"}, tmp_path).segmentation.steps < preset.segmentation.steps


def test_hidden_cards_are_none_and_those_without_a_utility_are_left_to_torch(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Some card, 1000'\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine, "_torch_is_cpu_only", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda _: str(program))
    for visible, found in ((None, True), ("0,1", True), ("", False), ("-1", False)):
        machine._graphics_card.cache_clear()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert (look_at_machine(tmp_path).device == "cuda") == found
        assert look_at_machine(tmp_path, "cuda").available is found
    machine._graphics_card.cache_clear()
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert look_at_machine(tmp_path, "cuda").available is None and look_at_machine(tmp_path).device == "cpu"
    monkeypatch.setattr(machine, "_torch_is_cpu_only", lambda: True)
    assert look_at_machine(tmp_path, "cuda").available is False
    machine._graphics_card.cache_clear()


def test_this_machine_can_be_looked_at(tmp_path):
    found = look_at_machine(tmp_path, "cpu")
    assert found.available and found.cores >= 1 and found.free_disk_mb > 0 and core_speed() > 0


def test_grey_mask_that_depends_on_the_threshold(tmp_path):
    pair = make_pair("a", seed=0)
    blurred = cv2.GaussianBlur(pair.mask.astype(np.float32), (0, 0), 4)
    sharp = np.where(pair.mask, 250, 5)
    sharp[0, 0] = 100
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, mask in (("soft", 255 * blurred / blurred.max()), ("sharp", sharp)):
        write_image(tmp_path / "images" / f"{name}.png", pair.image)
        write_image(tmp_path / "masks" / f"{name}.png", mask.astype(np.uint8))
    findings = check_pairs(match_pair_files(tmp_path / "images", tmp_path / "masks"), grey_threshold=0.5)
    found = [finding.subject for finding in findings if "Cut at 0.50" in finding.message]
    assert found == ["soft"]


def test_command_line_warns_and_starts_or_says_what_is_impossible(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(
        "univg.commands.adapt.start_job",
        lambda project, kind, params: started.append(params) or SimpleNamespace(id="job"),
    )
    project = create_sample_project(tmp_path / "sample")
    project.remove_support_pair("sample-4")
    base = ["adapt", "--project", str(project.path), "--preset", "preview", "--detach"]
    assert main(base) == 0 and len(started) == 1
    out, err = capsys.readouterr()
    assert err.count("warning:") == 1 and "4 annotated images" in err and "about" in out
    (project.support_folder / "masks" / "sample-1.png").write_bytes(b"broken")
    assert main(base) == 2 and len(started) == 1
    assert "sample-1" in capsys.readouterr().err
    assert main([*base, "--review"]) == 2 and "--preset full" in capsys.readouterr().err


def test_project_without_pairs_cannot_be_adapted(tmp_path):
    project = Project.create(tmp_path / "empty", modality="octa")
    assert blocking(preflight(project, PRESETS["preview"], REFERENCE))
