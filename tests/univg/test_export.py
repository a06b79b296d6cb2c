import errno
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import make_pair
from univg.cli import main
from univg.errors import Cancelled, InputError
from univg.io import match_pair_files, read_image, read_json, read_mask, read_provenance
from univg.segmentation import SegmentationConfig, Segmenter
from univg.segmentation.networks import build_network
from univg.types import ImageMaskPair, Modality
from univg.workflow.export import export_onnx, export_pairs, run_lengths
from univg.workflow.project import Project
from univg.workflow.verdicts import Verdict, judge


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    pair = make_pair("real one")
    project.add_support_pair(pair)
    for number in range(2):
        drawn = ImageMaskPair(pair.image, np.roll(pair.mask, number, 0), f"synthetic-{number}", synthetic=True)
        project.add_synthetic_pair(drawn, {"checks": {"flags": []}})
    judge(project, ["synthetic-1"], Verdict.REJECTED)
    return project


def test_plain_folder_holds_what_trains_and_says_what_is_synthetic(project, tmp_path):
    assert export_pairs(project, tmp_path / "out") == 2
    assert sorted(p.name for p in (tmp_path / "out" / "masks").iterdir()) == ["real one.png", "synthetic-0.png"]
    drawn = tmp_path / "out" / "images" / "synthetic-0.png"
    assert read_provenance(drawn)["synthetic"] is True
    assert read_provenance(tmp_path / "out" / "images" / "real one.png")["synthetic"] is False
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "real one.png"), project.support_pair("real one").mask)


def test_plain_folder_has_fields_of_view_for_all_pairs_or_none(project, tmp_path):
    export_pairs(project, tmp_path / "none")
    assert not (tmp_path / "none" / "fov").exists()
    seen, pair = np.zeros((96, 96), bool), make_pair("with field")
    seen[10:80, 20:70] = True
    project.add_support_pair(replace(pair, fov=seen))
    export_pairs(project, tmp_path / "all")
    files = match_pair_files(*(tmp_path / "all" / part for part in ("images", "masks", "fov")))
    fields = {file.name: read_mask(file.fov) for file in files}
    assert np.array_equal(fields["with field"], seen) and fields["real one"].all() and len(fields) == 3


@pytest.mark.parametrize("kind", ["folder", "nnunet"])
def test_deep_colour_is_kept_or_its_loss_is_said(project, tmp_path, capsys, kind):
    deep = np.linspace(0, 1, 96 * 96 * 3, dtype=np.float32).reshape(96, 96, 3)
    for name in project.support_names():
        project.remove_support_pair(name)
    project.add_support_pair(ImageMaskPair(deep, make_pair("x").mask, "deep"))
    command = ["export", "--project", str(project.path), "pairs", "--source", "real", "--format", kind]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert ("written with 8" in capsys.readouterr().out) == (kind == "nnunet")
    if kind == "folder":
        written = read_image(tmp_path / "out" / "images" / "deep.tif")
        assert len(np.unique(written)) > 20_000 and np.abs(written - deep).max() < 1e-4


def test_nnunet_raw_data_set(project, tmp_path):
    assert export_pairs(project, tmp_path / "Dataset001_Vessels", kind="nnunet") == 2
    card = read_json(tmp_path / "Dataset001_Vessels" / "dataset.json")
    assert card["numTraining"] == 2 and card["labels"] == {"background": 0, "vessel": 1}
    images = sorted(p.name for p in (tmp_path / "Dataset001_Vessels" / "imagesTr").iterdir())
    assert images == ["real_00000_0000.png", "synthetic_00001_0000.png"]
    assert len(card["channel_names"]) == (3 if project.support_pair("real one").image.ndim == 3 else 1)
    label = read_image(tmp_path / "Dataset001_Vessels" / "labelsTr" / "real_00000.png")
    assert set(np.unique(label)) == {0, 1}


def test_coco_gives_the_masks_back(project, tmp_path):
    assert export_pairs(project, tmp_path / "out", kind="coco", source="real") == 1
    card = json.loads((tmp_path / "out" / "annotations.json").read_text())
    (annotation,) = card["annotations"]
    counts, (height, width) = annotation["segmentation"]["counts"], annotation["segmentation"]["size"]
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
    mask = project.support_pair("real one").mask
    assert np.array_equal(flat.reshape((height, width), order="F"), mask)
    assert annotation["area"] == mask.sum() and annotation["bbox"][2] <= width
    assert annotation["iscrowd"] == 0, "readers ignore crowds"


def test_coco_has_no_annotation_of_an_empty_mask(project, tmp_path):
    pair = make_pair("no vessel")
    project.add_support_pair(replace(pair, mask=np.zeros_like(pair.mask)))
    assert export_pairs(project, tmp_path / "out", kind="coco", source="real") == 2
    card = json.loads((tmp_path / "out" / "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in card["images"]}
    assert sorted(names.values()) == ["no vessel.png", "real one.png"]
    assert [names[annotation["image_id"]] for annotation in card["annotations"]] == ["real one.png"]


@pytest.mark.parametrize("mask", [np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(4, dtype=bool)])
def test_run_lengths_begin_with_background(mask):
    lengths = run_lengths(mask)
    assert sum(lengths) == mask.size and sum(lengths[1::2]) == mask.sum()


@pytest.mark.parametrize("kind", ["folder", "nnunet", "coco"])
@pytest.mark.parametrize("hashes", [{"images/Miller 1950.png": "ab12"}, ["ab12"]])
def test_synthetic_pairs_name_no_file_of_a_patient(project, tmp_path, kind, hashes):
    drawn = ImageMaskPair(make_pair("x").image, make_pair("x").mask, "synthetic-7", synthetic=True)
    project.add_synthetic_pair(drawn, {"checks": {"flags": []}, "support_sha256": hashes})
    export_pairs(project, tmp_path / "out", kind=kind, source="synthetic")
    contents = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not any(b"Miller" in content for content in contents) and any(b"ab12" in content for content in contents)


def test_nothing_is_left_of_an_export_that_was_stopped(project, tmp_path):
    with pytest.raises(Cancelled):
        export_pairs(project, tmp_path / "x" / "out", should_stop=lambda: True)
    assert list((tmp_path / "x").iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        export_pairs(project, tmp_path / "full")


def test_an_empty_folder_that_cannot_be_replaced_is_filled(project, tmp_path, monkeypatch):
    (tmp_path / "mounted").mkdir()
    before = (tmp_path / "mounted").stat().st_ino
    monkeypatch.chdir(tmp_path / "mounted")
    with pytest.raises(Cancelled):
        export_pairs(project, ".", should_stop=lambda: True)
    assert export_pairs(project, ".", source="real") == 1
    assert sorted(path.name for path in (tmp_path / "mounted").iterdir()) == ["images", "masks"]
    assert (tmp_path / "mounted").stat().st_ino == before


def test_an_export_that_was_killed_is_not_in_the_way_of_the_next(project, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "out" / f".out.partial-{gone.pid}-0a1b" / "images").mkdir(parents=True)
    assert export_pairs(project, tmp_path / "out") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "masks"]


@pytest.mark.parametrize("kinds", [["loha"], ["lora", "loha"], []])
def test_adapter_is_exported_whole_or_not_at_all(project, tmp_path, capsys, kinds):
    with project.new_mask_engine_folder() as folder:
        for kind in kinds:
            (folder / f"{kind}.safetensors").write_text(kind)
    command = ["export", "adapter", "--project", str(project.path), "-o", str(tmp_path / "a.safetensors")]
    assert main(command) == (0 if kinds else 2)
    found = {file.name: file.read_text() for file in tmp_path.glob("*.safetensors")}
    if len(kinds) == 2:
        assert found == {"a-loha.safetensors": "loha", "a-lora.safetensors": "lora"}
    else:
        assert found == ({"a.safetensors": "loha"} if kinds else {})
    assert bool(capsys.readouterr().err) == (not kinds)
    assert main(command) == 2, "nothing is replaced"


def test_nothing_is_left_of_an_adapter_when_the_disk_gets_full(project, tmp_path, monkeypatch, capsys):
    with project.new_mask_engine_folder() as folder:
        for kind in ("lora", "loha"):
            (folder / f"{kind}.safetensors").write_text(kind)
    written = []

    def fill_up(descriptor):
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    command = ["export", "adapter", "--project", str(project.path), "-o", str(tmp_path / "a.safetensors")]
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fill_up)
        assert main(command) == 2 and "full" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))
    assert main(command) == 0, "nothing is in the way of the next try"


@pytest.mark.parametrize("network", ["unet", pytest.param("dynunet", marks=pytest.mark.slow)])
def test_onnx_computes_the_same(tmp_path, network):
    torch.manual_seed(0)
    if network == "dynunet":
        pytest.importorskip("monai")
    config = SegmentationConfig(network=network, channels=(4, 8, 16), working_size=64, patch_size=32)
    (tmp_path / "v001").mkdir()
    Segmenter(build_network(config).eval(), config, Modality.OCTA, 0.4).save(tmp_path / "v001")
    pytest.importorskip("onnxscript")
    assert export_onnx(tmp_path / "v001", tmp_path / "model.onnx") < 1e-3
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert metadata["modality"] == "octa" and metadata["threshold"] == "0.4"


def test_network_that_onnx_cannot_hold_is_refused_at_once(tmp_path, monkeypatch):
    pytest.importorskip("monai")
    monkeypatch.setitem(sys.modules, "onnx", None)
    config = SegmentationConfig(network="swin-unetr", working_size=64, patch_size=64)
    Segmenter(build_network(config).eval(), config, Modality.OCTA).save(tmp_path)
    with pytest.raises(InputError, match=r"swin-unetr cannot be written as ONNX.*unet"):
        export_onnx(tmp_path, tmp_path / "model.onnx")


@pytest.mark.parametrize("part", ["torch.onnx.export", "onnxruntime.InferenceSession"])
def test_what_onnx_refuses_is_one_line(tmp_path, monkeypatch, part):
    pytest.importorskip("onnxscript")
    from onnx import TensorProto, helper, save

    def refuse(*args, **kwargs):
        raise RuntimeError("Reshape failed\nat node 7")

    def write_anything(network, inputs, file, **options):
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("image", "logit")]
        node = helper.make_node("Identity", ["image"], ["logit"])
        save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])), file)

    monkeypatch.setattr("torch.onnx.export", write_anything)
    config = SegmentationConfig(channels=(4, 8), working_size=64, patch_size=32)
    Segmenter(build_network(config).eval(), config, Modality.OCTA).save(tmp_path)
    monkeypatch.setattr(part, refuse)
    with pytest.raises(InputError, match=r"written as ONNX: Reshape failed \("):
        export_onnx(tmp_path, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_command_line(project, tmp_path, capsys):
    command = ["export", "--project", str(project.path)]
    assert main([*command, "pairs", "-o", str(tmp_path / "a"), "--source", "synthetic"]) == 0
    assert capsys.readouterr().out.startswith("1 pairs")
    assert main([*command, "segmenter", "-o", str(tmp_path / "m.onnx")]) == 2
    assert main([*command, "adapter", "-o", str(tmp_path / "l.safetensors")]) == 2
    assert main([*command, "pairs", "-o", str(tmp_path / "a")]) == 2
    assert subprocess.run([sys.executable, "-m", "univg", "export", "--help"], check=False).returncode == 0
