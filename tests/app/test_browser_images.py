"""From a mask to its image in a real browser: a mask of the project, one drawn by hand, and what is said of them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from univg.io import write_mask
from univg.io.write import PROVENANCE_KEY
from univg.weights import is_shipped

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not is_shipped("models", "images"), reason="the image engine's weights are not here"),
]


def picture(page, element):
    source = page.get_attribute(f"{element} img", "src")
    return Image.open(io.BytesIO(page.request.get(source, max_retries=2).body()))


def wait_for_image(page, **wanted):
    page.wait_for_selector("#image-picture img")
    found = {}
    for _ in range(80):
        found = json.loads(picture(page, "#image-picture").info[PROVENANCE_KEY])
        if all(found.get(name) == value for name, value in wanted.items()):
            return
        page.wait_for_timeout(500)
    pytest.fail(f"no image with {wanted}: {found}")


def test_image_follows_mask_conditioning_and_seed(serve, page, tmp_path):
    page.goto(serve("--sample"))
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.click("#tab-images-button")
    page.wait_for_selector("#image-real img")
    wait_for_image(page, synthetic=True, image_engine="pretrained", conditioning=1.5, strength=0.4)
    page.reload()
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.click("#tab-images-button")
    wait_for_image(page, synthetic=True)  # it is still there
    page.click("#image-advanced button")
    page.wait_for_selector("#image-strength input[type=number]")
    page.wait_for_timeout(2000)  # what an accordion has just shown still takes its values from the server
    page.fill("#image-steps input[type=number]", "4")
    page.keyboard.press("Tab")
    wait_for_image(page, steps=4)
    first = np.asarray(picture(page, "#image-picture"))
    page.fill("#image-conditioning input[type=number]", "0")
    page.keyboard.press("Tab")
    wait_for_image(page, conditioning=0.0)
    assert not np.array_equal(first, np.asarray(picture(page, "#image-picture")))
    page.click("#image-reroll")
    page.wait_for_function("document.querySelector('#image-seed input').value !== '0'")
    seed = int(page.input_value("#image-seed input"))
    wait_for_image(page, seed=seed)

    mask = np.zeros((512, 512), bool)
    mask[250:260, 60:450] = True
    write_mask(tmp_path / "line.png", mask)
    page.click("#image-draw button")
    page.set_input_files("#image-drop input[type=file]", str(tmp_path / "line.png"))
    wait_for_image(page, source="drawn")
    assert np.array_equal(np.asarray(picture(page, "#image-mask"))[..., 0] > 127, mask)
    page.click("#image-looks")
    page.wait_for_selector("#image-strip img >> nth=3", timeout=90_000)
    page.click("#image-conditions")
    page.wait_for_selector("#image-told img >> nth=1", timeout=90_000)
    page.click("#image-many button")
    assert page.locator("#image-generate").is_disabled(), "pairs need an adapted engine"
