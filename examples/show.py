"""Learn every style in this folder and draw the same things in each: the sheet in docs/guide/learning.md.

python examples/show.py styles.png

With ``--picture``, as often as wanted, it learns from other pictures.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from styledrop_cli import StyleDrop
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import load_base
from styledrop_cli.devices import pick_device
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import load_picture, save_png, square
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.training import adapter as adapter_training

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
PROMPTS = ["a cat", "a teapot", "a rocket", "a tree", "a fish", "a guitar", "a castle", "a flower"]


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--model", default="pocket")
    parser.add_argument(
        "--picture",
        nargs=3,
        action="append",
        metavar=("FILE", "CONTENT", "STYLE"),
        help="learn from this picture instead; the sheet then shows the base beside the adapter, and no reference",
    )
    arguments = parser.parse_args()
    base = load_base(arguments.model, pick_device("auto"))
    references = arguments.picture or [(str(HERE / name), content, style) for name, content, style in REFERENCES]
    images, labels, usual = [], [], SampleSettings()
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, content, style) in enumerate(references):
            learnt = adapter_training.train_adapter(
                base,
                pictures=[Path(name)],
                style=style,
                contents=[content],
                settings=TrainSettings(),
                output=Path(folder, f"{i}.safetensors"),
                on_message=print,
            )
            print(f"{name}: step {learnt.step}, {learnt.seconds:.0f} s, tokenizer {learnt.reconstruction_psnr:.1f} dB")
            adapter = load_adapter(learnt.path)
            if not arguments.picture:
                images.append(square(load_picture(Path(name)), 256))
                labels.append(f"learnt from: {style}")
            rows = (
                [(None, f", base, in {style} style"), (adapter, ", adapted")] if arguments.picture else [(adapter, "")]
            )
            for network, who in rows:
                for picture in StyleDrop(base).stream(
                    PROMPTS, network, style=style, steps=usual.steps, size=usual.size
                ):
                    images.append(picture.image)
                    labels.append(f"{picture.prompt}{who}")
    columns = len(images) // (2 * len(references)) if arguments.picture else len(PROMPTS) + 1
    save_png(contact_sheet(images, columns=columns, labels=labels, cell=192), arguments.sheet)


if __name__ == "__main__":
    main()
