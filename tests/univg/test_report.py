import csv

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.cli import main
from univg.commands.benchmark import _needed
from univg.commands.options import refuse_to_replace
from univg.errors import InputError
from univg.io import match_pair_files, read_image, write_image, write_json_atomic, write_mask
from univg.workflow.ablation import ROWS
from univg.workflow.benchmark import choose_training_files
from univg.workflow.report import compare_results, draw_worst_cases, plot_curve, worst_cases, write_image_table


def result_of(dices, train=("a",)):
    images = [{"name": f"i{n}", "dice": dice, "cldice": dice - 0.1} for n, dice in enumerate(dices)]
    return {"splits": [{"seed": 0, "train": list(train), "images": images}]}


def test_comparison_is_paired():
    first, second = result_of([0.5, 0.6, 0.7, 0.8]), result_of([0.52, 0.63, 0.71, 0.85])
    found = compare_results(first, second)
    assert found.count == found.wins == 4
    assert found.mean_difference == pytest.approx(2.75) and found.low < 2.75 < found.high
    assert found.p_value == pytest.approx(0.125)
    assert np.isnan(compare_results(first, first).p_value)


def test_results_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="no test image"):
        compare_results(result_of([0.5]), {"splits": []})
    with pytest.raises(InputError, match="trained on other images"):
        compare_results(result_of([0.5]), result_of([0.6], train=("b",)))


@pytest.mark.parametrize("split", [{}, [], {"seed": 0, "train": ["a"], "images": [{"name": "i0"}]}, {"seed": "x"}])
def test_what_is_no_result_is_refused(split):
    with pytest.raises(InputError, match="no results of a benchmark"):
        compare_results({"splits": [split]}, result_of([0.5]))


def test_results_that_cannot_be_compared_are_refused_before_the_work(dataset, tmp_path, capsys, monkeypatch):
    def work(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("univg.workflow.benchmark.run_benchmark", work)
    command = ["benchmark", str(dataset), "--modality", "octa", "--shots", "2", "--size", "64", "--compare"]
    train = [file.name for file in choose_training_files(match_pair_files(*both(dataset)), 2, 1)[0]]
    split = {"seed": 1, "train": train, "images": []}
    for other, words in (
        ([{}], "no results of a benchmark"),
        ([split | {"seed": 5}], "no split in common"),
        ([split | {"train": ["case 0", "case 9"]}], "Split 1 trained on other images"),
    ):
        write_json_atomic(tmp_path / "other.json", {"splits": other})
        assert main([*command, str(tmp_path / "other.json")]) == 2 and words in capsys.readouterr().err
    write_json_atomic(tmp_path / "other.json", {"splits": [split]})
    assert main([*command, str(tmp_path / "other.json")]) == 130, "the work begins"


def test_help_names_no_preset_that_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "--help"])
    assert "one of preview, standard, plain" in " ".join(capsys.readouterr().out.split())


def both(dataset):
    return dataset / "images", dataset / "masks"


def test_table_has_a_row_for_each_image(tmp_path):
    write_image_table(result_of([0.5, 0.25]), tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [(row["name"], row["dice"]) for row in rows] == [("i0", "0.5"), ("i1", "0.25")]
    assert "auc" not in rows[0]


def test_worst_cases_come_first_and_are_drawn(tmp_path):
    assert worst_cases(result_of([0.5, 0.2, 0.9]), 2) == [(0, "i1", 0.2), (0, "i0", 0.5)]
    pair = make_pair("x", size=90)
    cases = [(f"case {n}", pair.image, np.roll(pair.mask, 1, 0), pair.mask) for n in range(5)]
    draw_worst_cases(cases, tmp_path / "w.png")
    assert read_image(tmp_path / "w.png").shape == (2 * 626, 1200, 3)
    refuse_to_replace(tmp_path / "w.png", b"UniVG")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_curves_are_drawn(tmp_path, ending):
    points = {"standard": [(0, 70, 1), (50, 75, float("nan")), (500, 74, 2)]}
    plot_curve(points, tmp_path / f"c.{ending}", label="synthetic pairs", logarithmic=True)
    assert (tmp_path / f"c.{ending}").stat().st_size > 2000
    refuse_to_replace(tmp_path / f"c.{ending}", b"UniVG")


def test_every_curve_is_drawn(tmp_path):
    points = {f"{number} shots": [(0, 70 + number, 1), (50, 75, 1)] for number in range(5)}
    plot_curve(points, tmp_path / "c.svg", label="synthetic pairs")
    assert all(f"<!-- {name} -->" in (tmp_path / "c.svg").read_text() for name in points)


@pytest.fixture
def dataset(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "made-up" / kind).mkdir(parents=True)
    for number in range(5):
        pair = make_pair(f"case {number}", seed=number, size=96)
        write_image(tmp_path / "made-up" / "images" / f"{pair.name}.png", pair.image)
        write_mask(tmp_path / "made-up" / "masks" / f"{pair.name}.png", pair.mask)
    return tmp_path / "made-up"


@pytest.mark.slow
def test_command_line_measures_several_shots_and_writes_what_was_asked_for(dataset, tmp_path, capsys):
    command = ["benchmark", str(dataset), "--modality", "coronary-dsa", "--size", "64", "--splits", "1"]
    command += ["--steps", "3", "--device", "cpu", "--preset", "plain"]
    several = [*command, "--shots", "1", "3", "--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "p.svg")]
    assert main(several) == 0
    assert (tmp_path / "r-shots-1.json").is_file() and (tmp_path / "p.svg").is_file()
    one = [*command, "--shots", "3", "--json", str(tmp_path / "r-shots-3.json"), "--csv", str(tmp_path / "t.csv")]
    compared = ["--worst", str(tmp_path / "w.png"), "--compare", str(tmp_path / "r-shots-3.json")]
    assert main([*one, *compared]) == 0
    assert "+0.00 points on 2 images" in capsys.readouterr().out
    assert read_image(tmp_path / "w.png").ndim == 3


def test_row_of_the_ablation_needs_the_engines_that_it_names():
    assert [_needed(ROWS[row]) for row in ("trees", "mask engine", "all")] == [set(), {"masks"}, {"masks", "images"}]


@pytest.mark.slow
def test_ablation_without_engines_says_what_is_left_out(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("univg.commands.benchmark.is_shipped", lambda kind, name: False)
    command = ["benchmark", str(dataset), "--modality", "coronary-dsa", "--size", "64", "--splits", "1"]
    command += ["--steps", "3", "--device", "cpu", "--preset", "standard", "--ablation", "--pairs", "2", "--shots", "3"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "masks and images are left out" in out and "trees against baseline" in out and "mask engine" not in out
    assert "no prior against baseline" in out
    file = str(tmp_path / "a.json")
    for count in ("2", "2"):
        assert main([*command[:-4], "--pairs", count, "--shots", "3", "--json", file]) == 0
    assert main([*command[:-4], "--pairs", "3", "--shots", "3", "--json", file]) == 2, (
        "another number is another result"
    )


def test_nonsense_is_refused(dataset, capsys):
    command = ["benchmark", str(dataset), "--modality", "octa"]
    several = ["--shots", "1", "3", "--csv", "t.csv"]
    listed = dataset.parent / "list.json"
    listed.write_text("[]")
    for wrong in (
        several,
        ["--compare", "none.json"],
        ["--shots", "0"],
        ["--pairs", "-1"],
        ["--worst", "x.png"],
        ["--preset", "full"],
        ["--network", "x"],
        ["--csv", "none/t.csv"],
        ["--plot", "none/p.png"],
        ["--plot", "p.doc"],
        ["--compare", str(listed)],
        ["--ablation", "--pairs", "0"],
    ):
        assert main([*command, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
