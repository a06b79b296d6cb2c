import json

import numpy as np
import pytest
from PIL import Image

from app.napari_plugin.image_queue import ImageQueue, Status, TakenIn, patient_of
from tests.conftest import make_pair
from tests.univg.test_io_dicom import write_dicom
from univg.errors import InputError
from univg.io import read_image, write_image


@pytest.fixture
def queue(tiny):
    found = ImageQueue(tiny.project)
    found.add(tiny.files)
    return found


def test_added_images_come_first_and_annotated_pairs_are_approved(queue):
    states = [(entry.name, entry.status) for entry in queue.entries()]
    assert states[:3] == [(f"new-{i}", Status.UNSEEN) for i in range(3)]
    assert states[3:] == [("pair-0", Status.APPROVED), ("pair-1", Status.APPROVED)]


def test_adding_again_changes_nothing_and_another_file_of_the_name_is_refused(queue, tiny, tmp_path):
    assert queue.add(tiny.files) == []
    other = tmp_path / "new-0.png"
    other.write_bytes(tiny.files[1].read_bytes())
    with pytest.raises(InputError, match="new-0"):
        queue.add([other])


def test_a_folder_adds_its_images(tiny):
    assert len(ImageQueue(tiny.project).add([tiny.files[0].parent])) == 3


def test_a_file_of_several_frames_is_refused_with_what_to_do(queue, tmp_path):
    frames = [Image.fromarray(np.full((64, 64), value, np.uint8)) for value in range(3)]
    file = tmp_path / "run.tif"
    frames[0].save(file, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"3 frames or pages.*Export the frame you need as a PNG"):
        queue.add([file])


def moved(file, folder):
    folder.mkdir(exist_ok=True)
    return file.rename(folder / file.name)


def test_a_file_that_was_moved_is_found_again_with_the_work_on_it(queue, tiny, tmp_path):
    mask = make_pair("x", size=64, seed=10).mask
    queue.hold_out("new-0", True)
    queue.save_mask("new-0", mask)
    queue.update("new-0", status=Status.APPROVED, uncertainty=0.1, scored_by="v001")
    file = moved(tiny.files[0], tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not there any more"):
        queue.image("new-0")
    assert queue.add([file]) == ["new-0"]
    entry = queue.entry("new-0")
    assert entry.file == str(file) and entry.held_out and entry.status is Status.APPROVED
    assert entry.scored_by == "", "the model looks at it again"
    assert np.array_equal(queue.mask("new-0"), mask) and queue.image("new-0").shape[:2] == mask.shape
    assert [e.name for e in queue.entries()][:3] == ["new-0", "new-1", "new-2"], "in its place"


def test_another_picture_does_not_take_the_place_of_one_that_was_corrected(queue, tiny, tmp_path):
    queue.save_mask("new-0", make_pair("x", size=64, seed=10).mask)
    tiny.files[0].unlink()
    other = tmp_path / "new-0.png"
    other.write_bytes(tiny.files[1].read_bytes())
    with pytest.raises(InputError, match="another picture"):
        queue.add([other])
    note = queue.folder / "masks" / "new-0.json"
    note.write_text(json.dumps({"replaces": ""}))  # as written before images were noted: their sizes tell
    write_image(other, np.zeros((32, 64), np.uint8))
    with pytest.raises(InputError, match="another picture"):
        queue.add([other])
    other.write_bytes(tiny.files[1].read_bytes())
    assert queue.add([other]) == ["new-0"]


def test_the_moved_file_of_a_pair_is_known_by_the_record_of_the_pair(queue, tiny, tmp_path):
    queue.project.add_support_pair(make_pair("new-0", size=64, seed=40), source={"image": tiny.files[0]})
    file = moved(tiny.files[0], tmp_path / "elsewhere")
    other = tmp_path / "new-0.png"
    other.write_bytes(tiny.files[1].read_bytes())
    with pytest.raises(InputError, match="another picture"):
        queue.add([other])
    assert queue.add([file]) == ["new-0"]


def test_an_image_taken_out_comes_back_as_it_was(queue, tiny):
    mask = make_pair("x", size=64, seed=10).mask
    queue.hold_out("new-0", True)
    queue.save_mask("new-0", mask)
    queue.update("new-0", status=Status.APPROVED)
    queue.freeze()
    queue.take_out("new-0")
    assert "new-0" not in [entry.name for entry in queue.entries()] and queue.next_name() == "new-1"
    assert queue.freeze() == [] and queue.held_out_pairs() == [] and queue.approved_into_support() == TakenIn()
    with pytest.raises(InputError, match="no image"):
        queue.entry("new-0")
    queue.set_patient("new-1", "new-0")
    assert queue.entry("new-1").held_out, "of a patient whose other image is a test image"
    assert queue.add(tiny.files) == ["new-0"]
    entry = queue.entry("new-0")
    assert entry.held_out and entry.frozen and entry.status is Status.APPROVED
    assert np.array_equal(queue.mask("new-0"), mask)


def test_after_an_image_was_taken_out_another_may_have_its_name_unless_it_was_worked_on(queue, tiny, tmp_path):
    others = [tmp_path / file.name for file in tiny.files[:2]]
    for other in others:
        other.write_bytes(tiny.files[2].read_bytes())
    queue.save_mask("new-1", np.ones((64, 64), bool))
    for name in ("new-0", "new-1"):
        queue.take_out(name)
    assert queue.add(others[:1]) == ["new-0"] and queue.entry("new-0").file == str(others[0])
    with pytest.raises(InputError, match="another picture"):
        queue.add(others[1:])


def test_a_pair_of_the_project_is_not_taken_out(queue):
    with pytest.raises(InputError, match="annotated image of the project"):
        queue.take_out("pair-0")


def test_a_pair_with_the_name_of_an_image_taken_out_is_in_the_list(queue):
    queue.take_out("new-0")
    queue.project.add_support_pair(make_pair("new-0", size=64, seed=10))
    assert [entry.name for entry in queue.entries()].count("new-0") == 1
    assert queue.entry("new-0").status is Status.APPROVED


def test_a_list_from_before_images_could_be_taken_out_is_read(queue):
    file = queue.folder / "queue.json"
    data = json.loads(file.read_text())
    for image in data["images"]:
        del image["taken_out"]
    file.write_text(json.dumps({**data, "schema": 1}))
    assert [entry.name for entry in queue.entries()][:3] == ["new-0", "new-1", "new-2"]


def test_a_broken_file_adds_nothing(tiny, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    queue = ImageQueue(tiny.project)
    with pytest.raises(InputError):
        queue.add([*tiny.files, broken])
    assert all(entry.annotated for entry in queue.entries())


def test_the_pixel_size_in_a_file_counts_before_that_of_the_project(queue, tmp_path):
    image = make_pair("x", size=64, seed=5).image
    queue.add([write_dicom(tmp_path / "own.dcm", image, PixelSpacing=[0.05, 0.05])])
    assert queue.spacing_mm("own") == 0.05
    assert queue.spacing_mm("new-0") == queue.spacing_mm("pair-0") == queue.project.pixel_spacing_mm == 0.02


def test_next_is_the_most_uncertain_that_is_not_approved(queue):
    queue.update("new-0", uncertainty=0.1)
    queue.update("new-1", uncertainty=0.3)
    assert queue.next_name() == "new-1"
    assert queue.next_name("new-1") == "new-0"
    for entry in queue.entries()[:3]:
        queue.save_mask(entry.name, np.zeros((64, 64), bool))
    queue.update("new-1", status=Status.APPROVED)
    queue.update("new-0", status=Status.APPROVED)
    assert queue.next_name() == "new-2"
    queue.update("new-2", status=Status.APPROVED)
    assert queue.next_name() is None


def test_masks_come_back_pixel_for_pixel(queue):
    mask = make_pair("x", size=64, seed=5).mask
    queue.save_mask("new-0", mask)
    assert np.array_equal(queue.mask("new-0"), mask)
    assert queue.mask("new-1") is None
    assert np.array_equal(queue.mask("pair-0"), queue.project.support_pair("pair-0").mask)


def test_approved_images_become_pairs_and_corrections_replace_masks(queue):
    new, better = (make_pair("x", size=64, seed=seed).mask for seed in (10, 20))
    queue.save_mask("new-0", new)
    queue.save_mask("new-1", new)
    queue.save_mask("pair-1", better)
    for name in ("new-0", "pair-1"):
        queue.update(name, status=Status.APPROVED)
    assert sorted(queue.approved_into_support().changed) == ["new-0", "pair-1"]
    assert queue.approved_into_support() == TakenIn()
    project = queue.project
    assert project.support_names() == ["new-0", "pair-0", "pair-1"]
    assert np.array_equal(project.support_pair("new-0").mask, new)
    assert np.array_equal(project.support_pair("pair-1").mask, better)


def test_taking_in_again_undoes_nothing_that_the_browser_did(queue):
    first, better, newer = (make_pair("x", size=64, seed=seed).mask for seed in (10, 20, 30))
    project = queue.project
    for name, mask in (("new-0", first), ("pair-1", better)):
        queue.save_mask(name, mask)
        queue.update(name, status=Status.APPROVED)
    queue.approved_into_support()
    project.replace_support_mask("pair-1", newer)
    assert queue.approved_into_support() == TakenIn()
    assert np.array_equal(project.support_pair("pair-1").mask, newer)
    assert np.array_equal(queue.mask("pair-1"), newer), "what is opened is the newer one, too"
    for name in ("new-0", "pair-1"):
        project.remove_support_pair(name)
    assert queue.approved_into_support() == TakenIn() and project.support_names() == ["pair-0"]
    assert "pair-1" not in [entry.name for entry in queue.entries()], "there is nothing left to show"
    assert queue.entry("new-0").status is Status.UNSEEN and queue.next_name() is not None


def test_a_mask_that_the_browser_painted_since_is_kept_until_the_correction_is_approved_again(queue):
    ours, theirs = (make_pair("x", size=64, seed=seed).mask for seed in (20, 30))
    queue.save_mask("pair-1", ours)
    queue.update("pair-1", status=Status.APPROVED)
    queue.project.replace_support_mask("pair-1", theirs)
    assert queue.approved_into_support() == TakenIn(painted_since=["pair-1"])
    assert np.array_equal(queue.project.support_pair("pair-1").mask, theirs)
    assert np.array_equal(queue.mask("pair-1"), ours) and queue.entry("pair-1").status is Status.CORRECTED
    queue.update("pair-1", status=Status.APPROVED)
    assert queue.approved_into_support() == TakenIn(changed=["pair-1"])
    assert np.array_equal(queue.project.support_pair("pair-1").mask, ours)


def test_what_is_painted_on_after_the_taking_in_is_a_correction_like_any_other(queue):
    first, better, late = (make_pair("x", size=64, seed=seed).mask for seed in (10, 20, 30))
    for mask, known in ((first, np.zeros_like(first)), (better, first)):
        queue.save_mask("new-0", mask, known)
        queue.update("new-0", status=Status.APPROVED)
        assert queue.approved_into_support() == TakenIn(changed=["new-0"])
    queue.project.replace_support_mask("new-0", late)
    queue.save_mask("new-0", first, better)  # on screen since before
    queue.update("new-0", status=Status.APPROVED)
    assert queue.approved_into_support() == TakenIn(painted_since=["new-0"])


@pytest.mark.parametrize("with_source", [True, False])
def test_another_image_of_the_name_keeps_its_mask_and_its_pixels_apart(queue, tiny, tmp_path, with_source):
    """As when the browser adds a pair called like an image of the queue."""
    theirs, ours = make_pair("new-0", size=64, seed=40), make_pair("new-0", size=64, seed=10)
    source = tmp_path / "theirs.png"
    write_image(source, theirs.image)
    queue.project.add_support_pair(theirs, source={"image": source} if with_source else None)
    assert queue.entry("new-0").status is Status.UNSEEN
    assert queue.mask("new-0") is None
    assert np.array_equal(queue.image("new-0"), read_image(tiny.files[0]))
    queue.save_mask("new-0", ours.mask)
    queue.update("new-0", status=Status.APPROVED)
    assert queue.approved_into_support() == TakenIn(other_image=["new-0"])
    assert np.array_equal(queue.project.support_pair("new-0").mask, theirs.mask)
    assert np.array_equal(queue.mask("new-0"), ours.mask), "the work on it is not lost"


def test_the_file_that_a_pair_came_from_is_its_image(queue, tiny):
    pair = make_pair("new-0", size=64, seed=40)  # of which the hash of the file says otherwise
    queue.project.add_support_pair(pair, source={"image": tiny.files[0]})
    assert queue.entry("new-0").status is Status.APPROVED
    assert np.array_equal(queue.mask("new-0"), pair.mask)


def test_images_annotated_elsewhere_are_not_offered_to_the_model(queue):
    pair = make_pair("new-1", size=64, seed=11)
    queue.project.add_support_pair(pair)
    assert queue.entry("new-1").status is Status.APPROVED
    assert queue.next_name("new-0") == "new-2"
    assert np.array_equal(queue.mask("new-1"), pair.mask)


def test_naming_the_patient_of_a_held_out_image_keeps_it_and_the_other_eye_held_out(queue):
    queue.hold_out("new-0", True)
    queue.set_patient("new-0", "Anna")
    assert queue.entry("new-0").held_out
    queue.set_patient("new-1", "Berta")
    queue.set_patient("new-0", "Berta")
    assert queue.entry("new-0").held_out and queue.entry("new-1").held_out
    with pytest.raises(InputError, match="trains already"):
        queue.set_patient("new-0", "pair-0")


@pytest.mark.parametrize("added", ["new-0", "new-0_left"])
def test_a_held_out_image_that_trains_after_all_is_no_test_image(queue, added):
    pair = make_pair(added, size=64, seed=10)
    queue.set_patient("new-0", "new-0")
    queue.hold_out("new-0", True)
    queue.save_mask("new-0", pair.mask)
    queue.update("new-0", status=Status.APPROVED)
    assert len(queue.held_out_pairs()) == 1
    queue.project.add_support_pair(pair)  # as in the browser, which knows nothing of it
    assert queue.held_out_pairs() == []


def test_held_out_images_never_train(queue):
    queue.save_mask("new-0", make_pair("x", size=64, seed=10).mask)
    queue.hold_out("new-0", True)
    queue.update("new-0", status=Status.APPROVED)
    assert queue.approved_into_support() == TakenIn()
    assert [pair.name for pair in queue.held_out_pairs()] == ["new-0"]


def test_images_of_a_patient_are_held_out_together(queue, tiny):
    for name in ("21_left", "21_right"):
        (tiny.files[0].parent / f"{name}.png").write_bytes(tiny.files[0].read_bytes())
    queue.add([tiny.files[0].parent / "21_left.png"])
    queue.hold_out("21_left", True)
    queue.add([tiny.files[0].parent / "21_right.png"])
    assert queue.entry("21_right").held_out
    queue.hold_out("21_right", False)
    assert not queue.entry("21_left").held_out


def test_a_patient_who_trains_cannot_be_held_out(queue):
    with pytest.raises(InputError, match="trains already"):
        queue.hold_out("pair-0", True)
    queue.set_patient("new-0", "pair-0")
    with pytest.raises(InputError, match="trains already"):
        queue.hold_out("new-0", True)


def test_held_out_is_fixed_once_a_model_relied_on_it(queue):
    queue.hold_out("new-2", True)
    assert queue.freeze() == ["new-2"]
    with pytest.raises(InputError, match="stays a test image"):
        queue.hold_out("new-2", False)
    with pytest.raises(InputError, match="stays a test image"):
        queue.set_patient("new-2", "other")


def test_sides_are_one_patient():
    assert patient_of("p7_left") == patient_of("p7-OD") == patient_of("p7 R") == "p7"
    assert patient_of("sample-1") == "sample-1"


def test_a_damaged_list_says_so_and_is_not_overwritten(queue):
    file = queue.folder / "queue.json"
    file.write_text('{"schema": 1, "images": [{"nonsense": 1}]}')
    with pytest.raises(InputError, match="damaged"):
        queue.entries()
    file.write_text(json.dumps({"schema": 99, "images": []}))
    with pytest.raises(InputError, match="newer"):
        queue.entries()


def test_entries_survive_the_disk(queue):
    before = queue.update("new-1", status=Status.CORRECTED, uncertainty=0.25, scored_by="v003")
    assert ImageQueue(queue.project).entry("new-1") == before
