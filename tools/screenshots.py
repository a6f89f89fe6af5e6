"""Write the pictures of docs/guide/studio.md: a studio works with pocket, and Chromium shows its views.

    PYTHONPATH=benchmarks python tools/screenshots.py docs/pictures

`make screenshots` does it. The studio lies in build/screenshots and is used again: remove it to learn anew, which takes
a few minutes.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from chromium import chromium
from script import run_in_words
from studio_process import Process, Script
from styledrop_cli.io.files import atomic_write

ROOT = Path(__file__).parents[1]
STYLES = {"watercolor": "a bird", "delft_tile": "a boat", "logo": "an owl"}  # pictures of examples/, and what they show
NAMES = {"delft_tile": "blue and white delft tile", "logo": "flat geometric logo"}
DRAWN = {"logo": ["a fox", "a rocket"], "delft_tile": ["a house", "a fish", "a tree"],
         "watercolor": ["a cat", "a teapot", "a rocket", "a house"]}  # fmt: skip
LIKED = ("a-cat-0", "a-teapot-1", "a-house-0", "a-rocket-2")
LARGEST = 150_000  # bytes of a file
SHOWN = """() => [...document.images].every((each) => {
  const { top, width } = each.getBoundingClientRect();
  return each.complete || !width || top > innerHeight;
})"""  # every picture that is in view
WINDOW = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


def work(desk: Script) -> None:
    """Learn, draw, like and improve, as far as that has not been done."""
    known = {one["name"] for one in desk.get("api/styles")}
    for file, content in STYLES.items():
        name = file.replace("_", "-")
        kept = desk.upload(ROOT / "examples" / f"{file}.png").said
        if name not in known:
            learnt = [{"id": kept["id"], "content": content}]
            print(f"learning {name}", flush=True)
            desk.done("api/learn", references=learnt, style=NAMES.get(file, file), name=name)
    for file, prompts in DRAWN.items():
        style = file.replace("_", "-")
        if not desk.get(f"api/pictures?style={style}")["total"]:
            desk.done("api/draw", style=style, prompts=prompts, number=4)
    there = [one["id"] for one in desk.get("api/pictures?style=watercolor")["pictures"]]
    for one in there:
        if one.endswith(tuple(f"{name}.png" for name in LIKED)):
            desk.tell(f"api/pictures/{one}/heart", on=True)
    if not desk.get("api/rounds?style=watercolor"):
        print("improving watercolor", flush=True)
        desk.done("api/improve", style="watercolor")


def learn(page: Any) -> None:
    """A reference dropped, and its words written."""
    page.set_input_files("#files", [str(ROOT / "examples/pointillism.png")])
    page.get_by_alt_text("What the network sees of pointillism.png").wait_for()
    page.get_by_label("The style, in a few words").fill("pointillism painting")
    page.get_by_label("A name for it").fill("dots")
    page.get_by_label("A name for it").blur()


def draw(page: Any) -> None:
    """Two prompts, with their preview."""
    page.locator("#draw-styles input[value=watercolor]").check()
    words = page.get_by_label("What to draw")
    for prompt in ("a cat", "a teapot"):
        words.fill(prompt)
        words.press("Enter")
    words.blur()
    page.wait_for_function("document.querySelector('#preview img').naturalWidth", timeout=60_000)


def large(page: Any) -> None:
    """A picture opened."""
    page.locator('[data-id="watercolor/a-rocket-2.png"] .shot').click()


def edit(page: Any) -> None:
    """A part of a picture painted over with the brush."""
    page.locator('[data-id="watercolor/a-house-0.png"] .shot').click()
    page.keyboard.press("e")
    page.get_by_label("What it shows then").fill("a round window")
    place = page.locator("#brush canvas").bounding_box()
    for index, (x, y) in enumerate(((0.56, 0.5), (0.74, 0.5), (0.74, 0.64), (0.56, 0.64), (0.56, 0.56), (0.74, 0.57))):
        page.mouse.move(place["x"] + x * place["width"], place["y"] + y * place["height"], steps=8)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def nothing(page: Any) -> None:
    """The view as it opens."""


# Each picture's name, its view, what is done there first, and the window that it is seen in.
SHOTS: dict[str, tuple[str, Callable[[Any], None], dict[str, Any]]] = {
    "learn": ("learn", learn, {}),
    "draw": ("draw", draw, {}),
    "edit": ("draw", edit, {}),
    "improve": ("improve", nothing, {}),
    "library": ("library", nothing, {"color_scheme": "dark"}),
    "phone": ("draw", large, {"viewport": PHONE, "device_scale_factor": 2, "has_touch": True}),
}


def shoot(url: str, browser: Any, name: str, folder: Path) -> None:
    """Write one picture, of the best quality that is not too large."""
    view, act, window = SHOTS[name]
    with browser.new_context(bypass_csp=True, **{"viewport": WINDOW} | window) as tab:
        page = tab.new_page()
        page.goto(f"{url}#{view}")
        page.wait_for_selector("html[data-ready]", state="attached")
        act(page)
        page.wait_for_timeout(1500)  # what the view asks for
        page.wait_for_function(SHOWN)
        seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for quality in range(92, 40, -4):
        data = io.BytesIO()
        seen.save(data, "JPEG", quality=quality, optimize=True, progressive=True)
        if data.tell() <= LARGEST:
            break
    atomic_write(folder / f"studio_{name}.jpg", data.getvalue())
    print(f"studio_{name}.jpg: {seen.width}x{seen.height}, {data.tell() // 1000} kB", flush=True)


def main() -> None:
    """Fill a studio with what is shown, and look at each of its views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", type=Path, default=ROOT / "build/screenshots", help="the studio's folder")
    parser.add_argument("--only", choices=SHOTS, nargs="*", default=list(SHOTS))
    given = parser.parse_args()
    os.environ["STYLEDROP_STYLES"] = str(given.at / "library")
    given.folder.mkdir(parents=True, exist_ok=True)
    studio = Process(given.at / "studio")
    try:
        work(studio.script)
        with chromium() as browser:
            for name in given.only:
                shoot(studio.url, browser, name, given.folder)
    finally:
        studio.stop()


if __name__ == "__main__":
    run_in_words(main)
