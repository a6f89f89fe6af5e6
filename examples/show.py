"""Learn every style in this folder and draw the same things in each: the sheet at the top of the project's README.

python examples/show.py docs/styles.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from styledrop_cli import pipeline, tuning
from styledrop_cli.base import load_base
from styledrop_cli.checkpoints import load_adapter
from styledrop_cli.devices import pick_device
from styledrop_cli.images import contact_sheet, load_picture, save_png, square
from styledrop_cli.settings import SampleSettings, TrainSettings

HERE = Path(__file__).parent
# Picture, what it shows, and its style in words.
REFERENCES = (
    ("flat_illustration.png", "a house", "flat illustration"),
    ("watercolor.png", "a bird", "watercolor"),
    ("3d_rendering.png", "a snail", "3d rendering"),
    ("logo.png", "an owl", "flat geometric logo"),
    ("pointillism.png", "a balloon", "pointillism painting"),
    ("delft_tile.png", "a boat", "blue and white delft tile"),
)
PROMPTS = ("a cat", "a teapot", "a rocket", "a tree", "a fish", "a guitar")


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--model", default="pocket")
    sheet = parser.parse_args().sheet
    base = load_base(parser.parse_args().model, pick_device("auto"))
    images, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, content, style in REFERENCES:
            learnt = tuning.train_adapter(
                base,
                pictures=[HERE / name],
                style=style,
                contents=[content],
                settings=TrainSettings(),
                output=Path(folder, name).with_suffix(".safetensors"),
                on_message=print,
            )
            print(f"{name}: step {learnt.step}, {learnt.seconds:.0f} s, tokenizer {learnt.reconstruction_psnr:.1f} dB")
            images.append(square(load_picture(HERE / name), 256))
            labels.append(f"learnt from: {style}")
            drawn = pipeline.generate(
                base, load_adapter(learnt.path), prompts=list(PROMPTS), count=1, settings=SampleSettings()
            )
            for prompt, _, image in drawn:
                images.append(image)
                labels.append(prompt)
    save_png(contact_sheet(images, columns=len(PROMPTS) + 1, labels=labels, cell=192), sheet)


if __name__ == "__main__":
    main()
