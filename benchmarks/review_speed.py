"""How quickly the Review tab opens and answers keys, on a project of 2,000 synthetic pairs in a real browser.

usage: python benchmarks/review_speed.py [--pairs 2000] [--size 512] [--keys 50] [--project DIR] [--json FILE]

The pairs are simple drawings, not those of the engines, which would take hours: grown trees, shifted and mirrored, dark
on grey noise. Their files have the size and the records that real ones have, and the page treats them alike.

Measured inside the page, on the clock of the browser: from the click on the tab until the grid is there with every
thumbnail on screen decoded, first with no thumbnail kept on the disk, then in a new page with them; and from a key
press until the next pair is on screen, image and mask decoded and painted, for verdicts and for arrows. Run it with
nothing beside it: the load of the machine is put down with the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from app_server import ROOT, AppServer, chromium

from univg.io import write_json_atomic
from univg.sca import generate_mask
from univg.types import ImageMaskPair, Modality
from univg.workflow.near_duplicates import update_near_duplicates
from univg.workflow.project import Project

FIRST_PAINT_SECONDS, KEY_MILLISECONDS = 1.0, 100.0  # what the page should manage
_TREES_GROWN = 24

# Waits for the pictures that are on screen, then for the frame that shows them.
_PAINTED = """
const painted = (images) => Promise.all(images.map((image) => image.decode().catch(() => null)))
  .then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
const onScreen = (image) => image.getBoundingClientRect().top < window.innerHeight;
"""
_OPEN = f"""async () => {{
  {_PAINTED}
  const started = performance.now();
  document.querySelector('#tab-review-button').click();
  let cells = [];
  while (!cells.length) {{
    await new Promise((done) => requestAnimationFrame(done));
    cells = [...document.querySelectorAll('.review-grid .cell img')];
  }}
  const grid = performance.now() - started;
  await painted(cells.filter(onScreen));
  return [grid, performance.now() - started];
}}"""
_WATCH_KEYS = f"""() => {{
  {_PAINTED}
  window.measured = [];
  window.addEventListener('keydown', (event) => {{
    const before = document.querySelector('.review-stage').dataset.name;
    const look = () => {{
      const stage = document.querySelector('.review-stage');
      if (stage.dataset.name === before) return requestAnimationFrame(look);
      painted([...stage.querySelectorAll('img')]).then(() => window.measured.push(performance.now() - event.timeStamp));
    }};
    look();
  }}, true);
}}"""


def main() -> int:
    """Build the project, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--project", type=Path, help="keep the project here and use it again")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "review_speed.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="univg-review-") as scratch:
        folder = args.project or Path(scratch) / "project"
        made = Project.open(folder) if folder.exists() else made_up_project(folder, args.pairs, args.size)
        started = time.perf_counter()
        update_near_duplicates(made)
        compared = time.perf_counter() - started
        print(f"{len(made.pair_names())} pairs compared with each other in {compared:.1f} s", flush=True)
        for name in (".thumbnails", "verdicts.jsonl"):
            kept = made.pairs_folder / name
            shutil.rmtree(kept, ignore_errors=True) if kept.is_dir() else kept.unlink(missing_ok=True)
        found = measure(folder, Path(scratch), args.keys)
    found = {"pairs": args.pairs, "size": args.size, "near_duplicates_seconds": compared, **found, **environment()}
    write_json_atomic(args.json, found)
    print(json.dumps(found, indent=2))
    return 0


def made_up_project(folder: Path, count: int, size: int) -> Project:
    """A project of `count` drawings; written without the checks of a project, which are not what is measured."""
    project = Project.create(folder, modality=Modality.CORONARY_DSA, working_size=size)
    rng = np.random.default_rng(0)
    grown = [generate_mask(Modality.CORONARY_DSA, shape=(size, size), rng=rng) for _ in range(_TREES_GROWN)]
    grounds = [0.05 * rng.standard_normal((size, size), dtype=np.float32) for _ in range(_TREES_GROWN)]
    project.add_support_pair(ImageMaskPair(_drawn(grown[0], grounds[0]), grown[0], "annotated"))
    for name in ("images", "masks"):
        (project.pairs_folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = np.roll(grown[number % _TREES_GROWN], rng.integers(-size // 2, size // 2, 2), (0, 1))
        mask = mask[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
        name = f"synthetic-{number:06d}"
        image = _drawn(mask, grounds[int(rng.integers(_TREES_GROWN))])
        cv2.imwrite(str(project.pairs_folder / "images" / f"{name}.png"), image)
        flags = [flag for flag in ("disagrees", "faint", "broken", "copied mask") if rng.random() < 0.06]
        checks = {
            "agreement": float(rng.uniform(0.3, 0.95)),
            "contrast": float(rng.uniform(0, 3)),
            "nearest_mask": float(rng.uniform(0.1, 0.9)),
            "nearest_image": float(rng.uniform(0.1, 0.9)),
            "components": int(rng.integers(1, 12)),
            "flags": flags,
        }
        record = {"name": name, "synthetic": True, "checks": checks}
        (project.pairs_folder / f"{name}.json").write_text(json.dumps(record), "utf-8")
        cv2.imwrite(str(project.pairs_folder / "masks" / f"{name}.png"), mask.astype(np.uint8) * 255)
    return project


def _drawn(mask: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(0.7 - 0.4 * mask + ground, 0, 1)).astype(np.uint8)


def measure(project: Path, scratch: Path, keys: int) -> dict:
    """Open the app on `project` in Chromium and take the times."""
    with AppServer(project, scratch) as app, chromium() as browser:
        first, cold = _opened(browser, app.address)
        first.close()
        page, warm = _opened(browser, app.address)
        page.locator(".review-stage").click()
        page.evaluate(_WATCH_KEYS)
        verdicts = _timed_keys(page, ["a", "r"], keys)
        arrows = _timed_keys(page, ["ArrowRight"], keys)
        page.wait_for_function(f"document.querySelector('.review-count b').textContent.startsWith('{keys} of')")
    return {
        "first_paint_seconds": {"no_thumbnails_kept": cold, "thumbnails_kept": warm, "wanted": FIRST_PAINT_SECONDS},
        "key_to_next_pair_ms": {"verdict": verdicts, "arrow": arrows, "wanted": KEY_MILLISECONDS},
    }


def _opened(browser, address: str):
    """A new page with the Review tab open, and the seconds from the click to the grid and to its pictures."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(address)
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.wait_for_selector("#tab-review-button")
    page.wait_for_timeout(3000)  # as if somebody looked at the first tab before
    grid, painted = page.evaluate(_OPEN)
    return page, {"grid": grid / 1000, "pictures": painted / 1000}


def _timed_keys(page, keys: list[str], count: int) -> dict:
    page.evaluate("() => { window.measured = []; }")
    for number in range(count):
        page.keyboard.press(keys[number % len(keys)])
        page.wait_for_function(f"window.measured.length > {number}")
        page.wait_for_timeout(150)  # nobody judges faster
    times = page.evaluate("window.measured")
    return {
        "n": len(times),
        "median": statistics.median(times),
        "p95": float(np.quantile(times, 0.95)),
        "largest": max(times),
    }


def environment() -> dict:
    """What the figures depend on besides the code."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cores": os.cpu_count(),
        "load_before_the_end": load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
