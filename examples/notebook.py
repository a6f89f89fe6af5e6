"""styledrop from Python, cell by cell: learn two styles, draw in each, mix them, pick settings.

python examples/notebook.py notebook      # everything goes into the folder notebook/; about three minutes

Editors that know ``# %%`` (VS Code, Spyder, Jupytext) run it as a notebook. Nothing is fetched.
"""

# %% A base model in memory. "amused-256" takes the published weights in place of the bundled ones.
import sys
from pathlib import Path

from styledrop_cli import StyleDrop

HERE = Path(__file__).parent
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "notebook")
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 250
styledrop = StyleDrop.load("pocket")

# %% Learn two styles, a file each. Stopped, the same call goes on; run again, it learns again.
watercolor = styledrop.train(
    HERE / "watercolor.png",
    style="watercolor",
    contents="a bird",
    output=folder / "watercolor.safetensors",
    steps=steps,
    on_message=print,
)
flat = styledrop.train(
    HERE / "flat_illustration.png",
    style="flat illustration",
    contents="a house",
    output=folder / "flat.safetensors",
    steps=steps,
    on_message=print,
)
print("learnt", watercolor.header.style, "and", flat.header.style)

# %% Draw. Each picture is given as soon as it is done, and knows how it was drawn.
for picture in styledrop.stream(["a cat", "a teapot"], watercolor, number=2):
    print(picture.save(folder), "lambda_b", picture.about["lambda_b"])

# %% More of the words, less of the adapter, other seeds.
for picture in styledrop.generate("a rocket", flat, seed=7, lambda_b=3, strength=0.8):
    picture.save(folder, name="careful-{prompt}-{seed}")

# %% Two styles in one picture, by their shares.
both = {watercolor.path: 0.6, flat.path: 0.4}
mixed = styledrop.generate(["a house", "a tree"], both)
for picture in mixed:
    print(picture.save(folder, name="mixed-{prompt}-{seed}"), "in", picture.about["style"])

# %% What is wrong is said, with what to do about it.
from styledrop_cli import StyledropError  # noqa: E402

try:
    styledrop.generate("a cat", {watercolor.path: 0.9, flat.path: 0.9})
except StyledropError as error:
    print(error.message, "-", error.hint)
