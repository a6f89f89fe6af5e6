"""What a small base learns first: every thing by one outline, alone and in the middle, in all styles.

    python first_lesson.py corpus

makes ``corpus/first`` of ``corpus/train``, the same pictures by hard links. From there the base goes on with all of
``train`` (``styledrop pretrain base corpus/train -o second --init-from first``): several outlines, places and pairs
come once shapes stand. Learning all at once it draws blobs for hours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

from styledrop_cli.base.known_things import THINGS
from styledrop_cli.corpus.cutouts import read_art
from styledrop_cli.corpus.folder import METADATA
from styledrop_cli.corpus.styles import STYLES

# In a caption these tell of another size or place, or of more than one thing.
PLACED = re.compile(r"\b(?:small|tiny|two|three|pair)\b(?!-| tiles)|\b(?:on|at) the (?:left|right|top|bottom)\b")
TOGETHER = re.compile(r" and an? | next to ")
SAME_DRAWING = {"fluent-emoji-flat": "fluent-emoji"}  # by one hand, in two finishes


def main() -> None:
    """Link the pictures and write their metadata."""
    corpus = Path(sys.argv[1])
    source, target = corpus / "train", corpus / "first"
    outline_of = {name: thing.outlines[0].file.split("/")[0] for name, thing in read_art(corpus / "art").things.items()}
    kept = []
    for line in (source / METADATA).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        family = outline_of.get(entry["thing"], "")
        if entry["style"] not in {*STYLES, family, SAME_DRAWING.get(family, family)}:
            continue
        if any(PLACED.search(text) or TOGETHER.search(text.partition(" on ")[0]) for text in entry["text"]):
            continue
        place = target / entry["file_name"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            os.link(source / entry["file_name"], place)
        kept.append(line)
    shutil.copyfile(source / THINGS, target / THINGS)
    (target / METADATA).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    print(f"{len(kept)} pictures in {target}")


if __name__ == "__main__":
    main()
