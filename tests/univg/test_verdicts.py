import json
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.cli import main
from univg.errors import InputError
from univg.types import ImageMaskPair, Modality
from univg.workflow.export import export_pairs
from univg.workflow.model_versions import image_kept_apart
from univg.workflow.project import Project
from univg.workflow.verdicts import (
    VERDICTS_FILE,
    JudgementLog,
    Verdict,
    barred_by_held_out,
    draw_from,
    hashes_of_image,
    judge,
    pairs_that_train,
    read_judgements,
    training_choice,
    training_weights,
)


@pytest.fixture
def project(tmp_path):
    """Four synthetic pairs, the last of them flagged."""
    project = Project.create(tmp_path / "p", modality=Modality.OCTA, working_size=64)
    for number in range(4):
        mask = np.zeros((64, 64), bool)
        mask[10 + number] = True
        pair = ImageMaskPair(np.full((64, 64), number, np.uint8), mask, f"s{number}", synthetic=True)
        project.add_synthetic_pair(pair, {"checks": {"flags": ["faint"] if number == 3 else []}})
    return project


def test_policy_for_undecided_pairs(project):
    assert pairs_that_train(project) == ["s0", "s1", "s2"]


def test_verdicts_decide_and_the_last_one_counts(project):
    judge(project, ["s0", "s1"], Verdict.REJECTED, note="broken tree")
    judge(project, ["s3"], "accepted")
    assert pairs_that_train(project) == ["s2", "s3"]
    judge(project, ["s0"], Verdict.UNDECIDED)
    assert pairs_that_train(project) == ["s0", "s2", "s3"]
    found = read_judgements(project)
    assert found["s1"].note == "broken tree" and found["s1"].time
    assert len((project.pairs_folder / VERDICTS_FILE).read_text().splitlines()) == 4, "nothing is ever overwritten"


def test_torn_line_costs_only_itself(project):
    judge(project, ["s0"], Verdict.REJECTED)
    file = project.pairs_folder / VERDICTS_FILE
    file.write_bytes(file.read_bytes() + b'{"name": "s1", "verd')
    judge(project, ["s2"], Verdict.REJECTED)
    assert pairs_that_train(project) == ["s1"]
    assert [json.loads(line)["name"] for line in file.read_text().splitlines() if line.endswith("}")] == ["s0", "s2"]


def test_log_is_read_on_from_where_it_was_left(project):
    log = JudgementLog(project)
    assert log.latest() == {}
    judge(project, ["s0"], Verdict.REJECTED)
    assert set(log.latest()) == {"s0"}
    file = project.pairs_folder / VERDICTS_FILE
    whole = file.read_bytes()
    line = json.dumps({"name": "s1", "verdict": "accepted"}).encode()
    for cut in range(1, len(line) + 1):  # killed after any byte of a line: what was there before is still there
        file.write_bytes(whole + line[:cut])
        found = log.latest()
        assert found["s0"].verdict is Verdict.REJECTED and ("s1" in found) == (cut == len(line))
        assert found == read_judgements(project)
    judge(project, ["s2"], Verdict.ACCEPTED)
    assert set(log.latest()) == set(read_judgements(project)) == {"s0", "s1", "s2"}
    file.write_bytes(whole)  # an older copy was put back
    assert set(log.latest()) == {"s0"}
    file.write_bytes((line + b"\n") * 10)  # the log of a project that was made anew in the same place
    assert set(log.latest()) == {"s1"}


def test_undecided_pairs_are_weighed_by_how_well_image_and_mask_agree(tmp_path):
    project = Project.create(tmp_path / "w", modality=Modality.OCTA, working_size=64)
    for name, agreement in (("a", 0.8), ("b", 0.4), ("c", None), ("d", float("nan")), ("e", 0.0)):
        mask = np.zeros((64, 64), bool)
        mask[5 + ord(name) % 16] = True
        pair = ImageMaskPair(np.full((64, 64), ord(name), np.uint8), mask, name, synthetic=True)
        project.add_synthetic_pair(pair, {"checks": {"agreement": agreement, "flags": []}})
    judge(project, ["b"], Verdict.ACCEPTED)
    assert training_weights(project) == {"a": 0.8, "b": 1.0, "c": 0.5, "d": 0.5, "e": 0.05}
    judge(project, ["a"], Verdict.REJECTED)
    assert training_choice(project) == {"pairs": ["b", "c", "d", "e"], "weights": [1.0, 0.5, 0.5, 0.05]}


def test_review_export_and_retrain_agree_on_pairs_made_from_the_image_kept_apart(project, tmp_path):
    everywhere = np.ones((64, 64), bool)
    for seed in range(3):
        project.add_support_pair(replace(make_pair(f"real {seed}", seed=seed, size=64), fov=everywhere))
    apart, sha256 = image_kept_apart(project), project.support_hashes()
    others = sorted({f"real {seed}" for seed in range(3)} - {apart})
    for name, source in (("from-apart", apart), ("from-other", others[0])):
        seen = [sha256[f"{kind}/{source}.png"] for kind in ("images", "masks", "fov")]
        drawn = replace(make_pair(name, seed=len(name), size=64), synthetic=True)
        project.add_synthetic_pair(drawn, {"checks": {"flags": []}, "support_sha256": seen})
    judge(project, ["from-apart"], Verdict.ACCEPTED)
    assert len({sha256[f"fov/{name}.png"] for name in (apart, *others)}) == 1, "equal fields are equal files"
    trained = ["from-other", "s0", "s1", "s2"]
    assert pairs_that_train(project) == training_choice(project)["pairs"] == trained
    assert barred_by_held_out(project, project.pair_names()) == ["from-apart"]
    judge(project, ["from-apart"], Verdict.REJECTED)
    assert barred_by_held_out(project, project.pair_names()) == []
    assert export_pairs(project, tmp_path / "out", source="synthetic") == len(trained)
    assert hashes_of_image(sha256, apart) == {sha256[f"{kind}/{apart}.png"] for kind in ("images", "masks")}
    assert hashes_of_image(sha256, None) == set()


def test_nonsense_is_refused(project):
    with pytest.raises(InputError, match="nobody"):
        judge(project, ["nobody"], Verdict.ACCEPTED)
    with pytest.raises(ValueError, match="maybe"):
        judge(project, ["s0"], "maybe")
    with pytest.raises(InputError, match="characters"):
        judge(project, ["s0"], Verdict.ACCEPTED, note="x" * 3000)
    assert read_judgements(project) == {}


def test_command_line_refuses_what_cannot_be_trained(project, capsys):
    assert main(["retrain", "--project", str(project.path)]) == 2
    assert "no annotated image" in capsys.readouterr().err
    assert main(["retrain", "--project", str(project.path), "--preset", "full"]) == 2


def test_a_training_loads_no_more_pairs_than_it_draws_and_the_same_again():
    weights = {f"p{i}": 1.0 if i % 2 else 0.05 for i in range(50)}
    assert draw_from(weights, 50, seed=0) == weights
    chosen = draw_from(weights, 10, seed=0)
    assert len(chosen) == 10 and set(chosen.values()) == {1.0} and list(chosen) == [n for n in weights if n in chosen]
    assert chosen == draw_from(weights, 10, seed=0) != draw_from(weights, 10, seed=1)
    assert sum(weights[name] for name in chosen) > 7, "by their weights"
