"""The picture of the playground, for the README, for pages' heads and for where nothing moves: a
real one, after some training in Chromium. PYTHONPATH=site:tests:tools python tools/picture.py"""

import sys
import tempfile
from pathlib import Path

import labs
import numpy as np
import pages
from PIL import Image

from vae_lesson import explore
from vae_lesson.explore.explorer import FRONT
from vae_lesson.explore.playground import Playground

STEPS = 3000
PICTURE = FRONT / "playground.png"
EDGE = 2  # pixels around it


def main() -> None:
    """Train the playground's VAE as it starts, with the plane in view, and take its picture."""
    if labs.CHROMIUM is None:
        sys.exit("no chromium here: apt-get install chromium")
    if not PICTURE.exists():  # the page's own still picture, until there is one
        Playground._still = lambda self: np.full((8, 8, 3), 255, np.uint8)
    with tempfile.TemporaryDirectory() as folder, labs.chromium() as browser:
        path = Path(folder) / "playground.html"
        body = pages.figure(explore.playground())
        path.write_text(pages.page("playground", body, "", {}), encoding="utf-8")
        page = browser.new_page(viewport={"width": 900, "height": 1000})
        page.goto(path.as_uri())
        page.get_by_role("button", name="Start").click()
        page.wait_for_function(
            f"parseInt(document.querySelector('.vae-buttons small').textContent.slice(5)) > {STEPS}"
        )
        page.get_by_role("button", name="Pause").click()
        box = page.locator(".vae-columns").bounding_box()
        around = {"x": box["x"] - EDGE, "y": box["y"] - EDGE}
        around |= {"width": box["width"] + 2 * EDGE, "height": box["height"] + 2 * EDGE}
        page.screenshot(path=PICTURE, clip=around, full_page=True)
    picture = Image.open(PICTURE).convert("RGB")
    picture.save(PICTURE, optimize=True)
    print(PICTURE, f"{PICTURE.stat().st_size / 1000:.0f} kB", picture.size)


if __name__ == "__main__":
    main()
