"""Cut the font for Chinese words on sheets (``src/styledrop_cli/io/chinese.woff``) from the whole one.

    npm pack @fontsource/noto-sans-sc@5.3.0 && tar xzf fontsource-noto-sans-sc-5.3.0.tgz
    python tools/font.py package/files examples/pocket/index.jsonl src/styledrop_cli/io/chinese.woff

It keeps the 3,755 commonest signs (the first level of GB 2312), those in the Chinese names of things in the recipe of
the corpus, and the letters of western languages, so that a caption of both is written in one font. Needs fonttools,
which comes with matplotlib.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fontTools.merge import Merger
from fontTools.subset import Options, Subsetter, load_font, save_font

PARTS = ("chinese-simplified", "latin", "latin-ext")
SIGNS = "，。、；：？！（）《》「」·“”‘’…—"


def commonest() -> set[str]:
    """The first level of GB 2312: rows 16 to 55, in the order of their sounds."""
    cells = (bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return set("".join(cell.decode("gb2312", errors="ignore") for cell in cells))


def main() -> None:
    """Cut, merge and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=Path, help="the folder of the package that holds its .woff files")
    parser.add_argument("names", type=Path, help="a text whose Chinese signs are kept too")
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    named = {letter for letter in given.names.read_text(encoding="utf-8") if "\u3400" <= letter <= "\u9fff"}
    kept = commonest() | named | set(SIGNS) | set(map(chr, range(0x20, 0x250)))
    options = Options()
    options.layout_features, options.hinting, options.drop_tables = [], False, ["vhea", "vmtx", "BASE", "STAT", "GDEF"]
    options.notdef_outline = True
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for name in PARTS:
            font = load_font(str(given.files / f"noto-sans-sc-{name}-400-normal.woff"), options)
            subsetter = Subsetter(options)
            subsetter.populate(text="".join(kept))
            subsetter.subset(font)
            font.flavor = None
            parts.append(str(Path(folder) / f"{name}.ttf"))
            save_font(font, parts[-1], options)
        whole = Merger().merge(parts)
    whole.flavor = "woff"
    whole.save(given.output)
    letters = len(whole.getBestCmap())
    print(f"{given.output}: {letters:,} letters and signs, {given.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
