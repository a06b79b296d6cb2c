import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from tests.conftest import make_pair
from tests.univg.test_pipeline import TINY
from univg.cli import main
from univg.commands import benchmark as command
from univg.commands.benchmark import format_table
from univg.errors import Cancelled, InputError
from univg.io import match_pair_files, read_image, read_json, write_image, write_json_atomic, write_mask
from univg.io.pairs import PairFiles
from univg.types import Modality
from univg.workflow import benchmark
from univg.workflow.benchmark import (
    BenchmarkConfig,
    choose_training_files,
    join_splits,
    load_resized,
    run_benchmark,
)
from univg.workflow.machine import forget_peak_memory, peak_memory_mb

CONFIG = BenchmarkConfig(
    Modality.CORONARY_DSA, TINY, shots=2, splits=2, size=96, device="cpu", test_time_augmentation=False
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made-up")
    for kind in ("images", "masks", "fov"):
        (folder / kind).mkdir()
    for number in range(5):
        pair = make_pair(f"case {number}", seed=number, size=120, colour=number == 0)
        write_image(folder / "images" / f"{pair.name}.png", pair.image)
        write_mask(folder / "masks" / f"{pair.name}.png", pair.mask)
        write_mask(folder / "fov" / f"{pair.name}.png", np.ones_like(pair.mask))
    return folder


def test_result_has_the_agreed_keys(dataset, tmp_path):
    file = tmp_path / "result.json"
    result = run_benchmark(dataset, config=CONFIG, json_file=file)
    assert json.loads(file.read_text())["splits"][0]["dice"] == pytest.approx(result["splits"][0]["dice"])
    assert {"dataset", "preset", "splits", "mean", "environment"} <= result.keys()
    split = result["splits"][0]
    for figure in ("dice", "cldice"):
        assert {figure, f"{figure}_sd"} <= split.keys()
    assert {"seed", "train", "iou", "nsd", "fov_dice", "adapt_seconds", "peak_rss_mb", "segment_ms"} <= split.keys()
    assert len(split["train"]) == 2 and len(split["images"]) == 3
    assert not set(split["train"]) & {row["name"] for row in split["images"]}
    assert split["dice"] == pytest.approx(np.mean([row["dice"] for row in split["images"]]))
    assert split["fov_dice"] == pytest.approx(split["dice"])
    assert [s["seed"] for s in result["splits"]] == [0, 1]


def test_results_of_one_test_image_are_read_again(dataset, tmp_path):
    file, config = tmp_path / "result.json", replace(CONFIG, shots=4, splits=1)
    first = run_benchmark(dataset, config=config, json_file=file)
    again = run_benchmark(dataset, config=config, json_file=file)
    assert np.isnan(again["splits"][0]["dice_sd"]) and again["splits"][0]["dice"] == first["splits"][0]["dice"]
    assert "nan" in format_table(again)


def test_second_run_on_the_same_results_is_refused(dataset, tmp_path, monkeypatch):
    file, refused = tmp_path / "result.json", []

    def run_split(*args):
        with pytest.raises(InputError, match="Another run is writing these results"):
            run_benchmark(dataset, config=replace(CONFIG, seed=7), json_file=file)
        refused.append(1)
        return {"seed": args[2], "train": [], "dice": 0.8, "adapt_seconds": 1.0, "segment_ms": 1.0, "images": []}

    monkeypatch.setattr(benchmark, "_run_split", run_split)
    monkeypatch.setattr(benchmark, "_mean_over_splits", lambda splits: {})
    run_benchmark(dataset, config=CONFIG, json_file=file)
    assert len(refused) == 2
    monkeypatch.setattr(benchmark, "_run_split", lambda *args: {"seed": args[2], "held_out": None})
    assert len(run_benchmark(dataset, config=replace(CONFIG, seed=7), json_file=file)["splits"]) == 4


def test_finished_splits_are_kept_and_an_interrupted_one_resumes(dataset, tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    seen = []

    def in_second_split() -> bool:
        training = [event for event in seen if event.stage == "segmenter"]
        return len(training) >= TINY.segmentation.steps + 4

    with pytest.raises(Cancelled):
        run_benchmark(dataset, config=CONFIG, json_file=file, on_progress=seen.append, should_stop=in_second_split)
    assert [s["seed"] for s in json.loads(file.read_text())["splits"]] == [0]

    seeds = []
    run_split = benchmark._run_split
    monkeypatch.setattr(benchmark, "_run_split", lambda *args: seeds.append(args[2]) or run_split(*args))
    resumed = []
    result = run_benchmark(dataset, config=CONFIG, json_file=file, on_progress=resumed.append)
    assert seeds == [1]
    assert next(event.step for event in resumed if event.stage == "segmenter") > 1
    whole = run_benchmark(dataset, config=CONFIG)
    for got, expected in zip(result["splits"], whole["splits"], strict=True):
        assert got["images"] == expected["images"]


def test_splits_measured_apart_are_joined(dataset, tmp_path):
    whole = run_benchmark(dataset, config=CONFIG)
    for seed in (1, 0):
        run_benchmark(dataset, config=replace(CONFIG, splits=1, seed=seed), json_file=tmp_path / f"{seed}.json")
    parts = [json.loads((tmp_path / f"{seed}.json").read_text()) for seed in (1, 0)]
    joined = join_splits(parts)
    assert [split["seed"] for split in joined["splits"]] == [0, 1]
    for figure in ("dice", "cldice", "dice_sd_over_splits"):
        assert joined["mean"][figure] == pytest.approx(whole["mean"][figure])
    with pytest.raises(ValueError, match="same split"):
        join_splits([parts[0], parts[0]])
    with pytest.raises(ValueError, match="other data or settings"):
        join_splits([parts[0], {**parts[1], "dataset": "another"}])


def test_results_from_before_a_setting_existed_count_as_its_default(dataset, tmp_path):
    file = tmp_path / "result.json"
    run_benchmark(dataset, config=replace(CONFIG, splits=1), json_file=file)
    old = json.loads(file.read_text())
    assert old["config"]["segmentation"].pop("augment_until") == 1.0
    file.write_text(json.dumps(old))
    again = run_benchmark(dataset, config=replace(CONFIG, splits=1), json_file=file)
    assert again["splits"] == old["splits"]
    old["config"]["segmentation"] = {"nonsense": 1}
    file.write_text(json.dumps(old))
    with pytest.raises(InputError, match="another configuration"):
        run_benchmark(dataset, config=replace(CONFIG, splits=1), json_file=file)


def test_results_of_another_configuration_are_not_mixed_in(dataset, tmp_path):
    file = tmp_path / "result.json"
    run_benchmark(dataset, config=replace(CONFIG, splits=1), json_file=file)
    with pytest.raises(InputError, match="another configuration"):
        run_benchmark(dataset, config=replace(CONFIG, shots=3), json_file=file)


def test_results_of_other_images_in_a_folder_of_that_name_are_not_mixed_in(dataset, tmp_path):
    copy, file, config = tmp_path / "x" / dataset.name, tmp_path / "result.json", replace(CONFIG, splits=1)
    copytree(dataset, copy)
    first = run_benchmark(dataset, config=config, json_file=file)
    assert run_benchmark(copy, config=config, json_file=file)["splits"] == first["splits"], "the same images elsewhere"
    write_mask(copy / "masks" / "case 0.png", make_pair("x", seed=9, size=120).mask)
    with pytest.raises(InputError, match="other images"):
        run_benchmark(copy, config=config, json_file=file)
    other = {**first, "data_sha256": "ab", "splits": [{**first["splits"][0], "seed": 1}]}
    with pytest.raises(ValueError, match="other data"):
        join_splits([first, other])
    older = {key: value for key, value in other.items() if key != "data_sha256"}
    assert "data_sha256" not in join_splits([first, older])
    old = {key: value for key, value in first.items() if key != "data_sha256"}
    write_json_atomic(file, old)
    assert "data_sha256" not in run_benchmark(copy, config=config, json_file=file), "older results do not say"
    write_json_atomic(file, [old])
    with pytest.raises(InputError, match="no results of a benchmark"):
        run_benchmark(copy, config=config, json_file=file)


def test_too_few_images_for_the_shots(dataset):
    with pytest.raises(InputError, match="more than 5"):
        run_benchmark(dataset, config=replace(CONFIG, shots=5))


def test_splits_are_random_but_fixed_by_the_seed(dataset):
    files = match_pair_files(dataset / "images", dataset / "masks")
    train, test = choose_training_files(files, 2, seed=0)
    assert train == choose_training_files(files, 2, seed=0)[0]
    assert sorted(f.name for f in [*train, *test]) == [f.name for f in files]
    assert len({tuple(f.name for f in choose_training_files(files, 2, seed)[0]) for seed in range(20)}) > 3


def test_other_eye_of_somebody_who_trains_is_not_tested():
    names = [f"{n:02d}{side}" for n in range(1, 9) for side in "LR"]
    files = [PairFiles(name, Path(f"{name}.png"), Path(f"{name}.png"), None) for name in names]
    for seed in range(10):
        train, test = choose_training_files(files, 5, seed)
        assert len(train) == 5
        assert {f.name[:2] for f in train}.isdisjoint(f.name[:2] for f in test)
        assert {f.name[:2] for f in train} | {f.name[:2] for f in test} == {name[:2] for name in names}
    with pytest.raises(InputError, match="fellow eye"):
        choose_training_files(files[:2], 1, seed=0)


def test_images_are_resized_to_the_square_of_the_protocol(dataset):
    files = match_pair_files(dataset / "images", dataset / "masks", dataset / "fov")
    pair = load_resized(files[0], 64)
    assert pair.shape == (64, 64) and pair.image.dtype == np.uint8 and pair.fov.all()
    assert load_resized(files[0], 300).shape == (300, 300)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "modality"),
    [("drive", Modality.FUNDUS), ("octa500_3m", Modality.OCTA), ("dias", Modality.BRAIN_DSA)],
)
def test_real_images_run_through_the_whole_protocol(data_folder, tmp_path, name, modality):
    """Two shots and a tiny network: every file is readable and the figures are sane, not good."""
    data = data_folder / "benchmark" / name
    few = tmp_path / name
    for kind in ("images", "masks"):
        (few / kind).mkdir(parents=True)
        for path in sorted((data / kind).iterdir())[:4]:
            (few / kind / path.name).symlink_to(path)
    preset = replace(
        TINY,
        segmentation=replace(
            TINY.segmentation, learning_rate=1e-2, channels=(8, 16), working_size=256, patch_size=64, steps=80
        ),
    )
    config = replace(CONFIG, modality=modality, preset=preset, size=256, splits=1)
    result = run_benchmark(few, config=config)
    assert 0.05 < result["mean"]["dice"] < 1
    assert result["mean"]["auc"] > 0.6


def test_image_is_decoded_once(dataset, monkeypatch):
    files, decoded = match_pair_files(dataset / "images", dataset / "masks"), []
    monkeypatch.setattr(benchmark, "read_image", lambda path: decoded.append(path) or read_image(path))
    load_resized(files[0], 64)
    assert len(decoded) == 1


def test_time_of_a_killed_attempt_is_on_record(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_SECONDS_BETWEEN_RECORDS", 0.0)
    file, seen = tmp_path / "result.json", []
    record = benchmark.work_folder(file, 0) / "elapsed.json"

    def look(event):
        seen.append(read_json(record)["wall"] if record.exists() else 0.0)

    result = run_benchmark(dataset, config=replace(CONFIG, splits=1), json_file=file, on_progress=look)
    assert 0 < seen[0] < seen[5] <= result["splits"][0]["adapt_seconds"] == read_json(record)["wall"]


def test_each_split_says_where_it_was_measured(dataset, tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    for number, config in enumerate((replace(CONFIG, splits=1), CONFIG)):
        monkeypatch.setattr(benchmark, "describe_environment", lambda number=number: {"cpu_count": number})
        result = run_benchmark(dataset, config=config, json_file=file)
    assert [split["environment"]["cpu_count"] for split in result["splits"]] == [0, 1]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone forgets a peak")
def test_memory_of_a_split_is_its_own():
    before = peak_memory_mb()
    np.ones(400 << 17).sum()  # 400 MB for a moment
    high = peak_memory_mb()
    forget_peak_memory()
    assert high > before + 100 and peak_memory_mb() < high - 100


def test_rows_of_an_ablation_share_the_engines_of_a_split(dataset, monkeypatch):
    done = []

    def measured(data, *, config, synthetic, **_):
        done.append((config.seed, synthetic.args[0]))
        figures = dict.fromkeys(("dice", "dice_sd", "cldice", "cldice_sd", "adapt_seconds", "segment_ms"), 0.5)
        result = {"dataset": "x", "preset": "y", "config": config.key() | {"shots": 2}, "data_sha256": "ab"}
        return result | {"splits": [{"seed": config.seed, **figures}], "mean": {}}

    monkeypatch.setattr(benchmark, "run_benchmark", measured)
    reported = []
    monkeypatch.setattr(command, "_write_reports", lambda args, data, results, other: reported.append(results))
    assert main(["benchmark", str(dataset), "--modality", "oct", "--ablation", "--splits", "2", "--shots", "2"]) == 0
    assert [seed for seed, _ in done] == sorted(seed for seed, _ in done) and done[0][1] != done[1][1]
    assert all([split["seed"] for split in result["splits"]] == [0, 1] for result in reported[0].values())


def test_size_suits_the_network_or_is_refused():
    assert command._preset_at(100, "standard", "swin-unetr").segmentation.patch_size == 128
    assert command._preset_at(100, "standard", "unet").segmentation.patch_size == 112
    with pytest.raises(InputError, match="--size 32 is too small for swin-unetr"):
        command._preset_at(32, "standard", "swin-unetr")
