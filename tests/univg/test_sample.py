import numpy as np
import pytest

from univg.errors import InputError
from univg.io import read_image, read_mask, read_provenance
from univg.types import Modality
from univg.workflow.sample import create_sample_project, sample_folder, sample_unseen_images


def test_sample_project_holds_five_sound_pairs(tmp_path):
    project = create_sample_project(tmp_path / "sample")
    assert project.modality is Modality.FUNDUS
    support = project.load_support()
    assert len(support) == 5
    for pair in support:
        assert pair.image.shape == (512, 512, 3) and pair.image.dtype == np.uint8
        assert 0.02 < pair.mask.mean() < 0.2
        dark = pair.image[..., 1][pair.mask].mean() < pair.image[..., 1][~pair.mask & (pair.image[..., 1] > 20)].mean()
        assert dark


def test_sample_project_is_made_in_an_empty_folder_only(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError):
        create_sample_project(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_unseen_images_have_references_and_are_not_in_the_project():
    unseen = sample_unseen_images()
    assert len(unseen) == 2
    for path in unseen:
        assert read_image(path).shape[:2] == read_mask(path.parents[1] / "masks" / path.name).shape
        assert not (sample_folder() / "images" / path.name).exists()


def test_sample_pictures_say_that_they_are_synthetic():
    for path in sorted(sample_folder().rglob("*.png")):
        assert read_provenance(path)["synthetic"] is True
