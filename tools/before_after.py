"""Write README's picture: four references, and what is drawn after each of them with the usual settings.

    python tools/before_after.py docs/pictures/before_after.jpg

`train` and `generate` run as printed in README, each prompt once, with seed 0. Adapters stay in build/before_after and
are used again: remove it to learn anew.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from styledrop_cli.io.images import load_picture, square

ROOT = Path(__file__).parents[1]
EXAMPLES, WORK = ROOT / "examples", ROOT / "build" / "before_after"
REFERENCES = {  # what each shows, and its style in words
    "flat_illustration": ("a house", "flat illustration"),
    "watercolor": ("a bird", "watercolor"),
    "logo": ("an owl", "flat geometric logo"),
    "pointillism": ("a balloon", "pointillism painting"),
}
PROMPTS = ("a cat", "a teapot", "a rocket", "a tree", "a fish", "a guitar")
SIDE, GAP, HEAD, ARROW = 240, 14, 44, 80  # px
PAPER, INK, LINE = "#ffffff", "#333333", "#dddddd"


def run(*words: str) -> None:
    """Run a command, as in a terminal."""
    subprocess.run([sys.executable, "-m", "styledrop_cli", *words], check=True)


def drawn(name: str) -> list[Image.Image]:
    """What is drawn after a reference, a picture a prompt."""
    content, style = REFERENCES[name]
    adapter, out = WORK / f"{name}.safetensors", WORK / name
    if not adapter.exists():
        run("train", str(EXAMPLES / f"{name}.png"), "--style", style, "--content", content, "-o", str(adapter))
    run("generate", str(adapter), *PROMPTS, "--number", "1", "-o", str(out))
    return [Image.open(out / f"{prompt.replace(' ', '-')}-0.png").convert("RGB") for prompt in PROMPTS]


def main() -> None:
    """Write the picture."""
    rows = {name: drawn(name) for name in REFERENCES}
    first = GAP + SIDE + ARROW
    width, height = first + len(PROMPTS) * (SIDE + GAP), HEAD + len(rows) * (SIDE + GAP) + HEAD
    whole = Image.new("RGB", (width, height), PAPER)
    pen, large, small = ImageDraw.Draw(whole), ImageFont.load_default(26), ImageFont.load_default(22)
    pen.text((GAP, HEAD // 2), "your one picture", INK, large, anchor="lm")
    pen.text((first, HEAD // 2), "what styledrop then draws, in its style", INK, large, anchor="lm")
    for y, (name, pictures) in enumerate(rows.items()):
        top = HEAD + y * (SIDE + GAP)
        shown = [square(load_picture(EXAMPLES / f"{name}.png"), 256), *pictures]
        for x, picture in zip([GAP, *range(first, width, SIDE + GAP)], shown, strict=False):
            whole.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, top))
            pen.rectangle((x, top, x + SIDE - 1, top + SIDE - 1), outline=LINE)
        middle, tip = top + SIDE // 2, first - ARROW // 5
        pen.line((GAP + SIDE + ARROW // 5, middle, tip - 12, middle), "#999999", 4)
        pen.polygon(((tip, middle), (tip - 16, middle - 9), (tip - 16, middle + 9)), "#999999")
    for i, prompt in enumerate(PROMPTS):
        pen.text((first + i * (SIDE + GAP) + SIDE // 2, height - HEAD // 2), prompt, INK, small, anchor="mm")
    whole.save(sys.argv[1], quality=88)


if __name__ == "__main__":
    main()
