"""Alphabets and kits: lists of assets, shapes, the best of several pictures, and going on where one stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from conftest import ROOT, Run, draw
from styledrop_cli.base import base as base_module
from styledrop_cli.base import folder, registry
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import UsageError
from styledrop_cli.generation import collection, inks, output_folder
from styledrop_cli.generation.collection import Chooser, sees_pictures
from styledrop_cli.generation.extend import shaped
from styledrop_cli.generation.inks import inked, inks_of
from styledrop_cli.generation.lists.kit_file import FITS, Asset, read_kit
from styledrop_cli.generation.lists.letters import LETTERS, glyphs_of
from styledrop_cli.io.images import read_png_settings, save_png
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter

EXAMPLE = ROOT / "examples" / "brand.toml"


# ---- inks ----


def test_the_inks_of_a_picture_are_its_colours_but_for_the_ground() -> None:
    picture = torch.full((3, 40, 40), 0.95)
    picture[:, 8:30, 8:20] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    picture[:, 8:20, 22:32] = torch.tensor([0.1, 0.2, 0.7])[:, None, None]
    picture[:, 2, 2] = 0.0  # a speck is none
    red, blue = inks_of([picture])
    assert torch.allclose(red, torch.tensor([0.8, 0.1, 0.1])) and torch.allclose(blue, torch.tensor([0.1, 0.2, 0.7]))
    assert inks_of([torch.full((3, 40, 40), 0.4)]) == [] == inks_of([])


def test_a_letter_is_painted_and_its_ground_stays() -> None:
    image = Image.new("RGB", (64, 64), (240, 238, 230))
    image.paste((30, 60, 200), (20, 10, 44, 54))
    image.putpixel((32, 32), (80, 110, 250))  # texture
    made = np.asarray(inked(image, torch.tensor([0.8, 0.2, 0.2])), dtype=int)
    assert (made[:8] == (240, 238, 230)).all()
    assert np.abs(made[20, 30] - (204, 51, 51)).max() <= 2
    assert (made[32, 32] > made[20, 30]).all()  # the lighter spot is lighter still
    plain = Image.new("RGB", (64, 64), (240, 238, 230))
    assert inked(plain, torch.zeros(3)) is plain


# ---- lists of assets ----


def kit(text: str) -> list[Asset]:
    Path("brand.toml").write_text(text, encoding="utf-8")
    return read_kit(Path("brand.toml"))


def test_the_example() -> None:
    assets = {asset.name: asset for asset in read_kit(EXAMPLE)}
    assert list(assets) == ["hero", "icon", "avatar", "banner", "story", "sticker"]
    assert all(asset.best == 4 for asset in assets.values())
    assert assets["hero"].size == (1024, 512)
    assert assets["icon"].stems == ["icon-1", "icon-2", "icon-3"]
    assert assets["avatar"].size is None
    assert assets["banner"].fit == "cover"
    assert assets["sticker"].options == {"seed": 7, "lambda_b": 2.5}
    base = load_base("pocket", tiny.CPU)
    assert {asset.prompt for asset in assets.values()} <= set(base.contents)


def test_what_stands_above_holds_for_all_that_do_not_say_otherwise() -> None:
    head = 'style = "gold"\nsize = 64\nlambda-b = 3\nbest = 2\n'
    one, other = kit(
        head + '[[asset]]\nname = "a.png"\nprompt = " a\tcat "\n'
        '[[asset]]\nname = "b"\nprompt = "a dog"\nstyle = ""\nsize = "32 x 48"\nlambda_b = 1.5\nbest = 1\nnumber = 1\n'
    )
    assert one == Asset("a", "a cat", "brand.toml, line 5", (64, 64), None, 2, "contain", "gold", {"lambda_b": 3.0})
    assert other == Asset("b", "a dog", "brand.toml, line 8", (32, 48), 1, 1, "contain", "", {"lambda_b": 1.5})
    assert other.stems == ["b-1"]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("512", (512, 512)),
        ('"512"', (512, 512)),
        ('"1024x512"', (1024, 512)),
        ('"1024 X 512 px"', (1024, 512)),
        ('"1024 × 512"', (1024, 512)),
        ("[16, 4096]", (16, 4096)),
    ],
)
def test_ways_to_write_a_size(written: str, size: tuple[int, int]) -> None:
    (asset,) = kit(f'[[asset]]\nname = "a"\nprompt = "a cat"\nsize = {written}\n')
    assert asset.size == size


def with_line(line: str) -> str:
    return f'[[asset]]\nname = "hero"\nprompt = "a cat"\n{line}\n'


def named(*names: str) -> str:
    return "\n".join(f'[[asset]]\nname = "{name}"\nprompt = "a cat"' for name in names)


IN_LINE_4 = "brand.toml, line 4, column 1: asset 'hero': "
BAD_KITS: dict[str, tuple[str, str]] = {
    "nothing": ("", "brand.toml holds no assets"),
    "only what is above": ('style = "x"', "brand.toml holds no assets"),
    "no TOML": ("[[asset]\nname = 3", "brand.toml, line 1, column 8: expected"),
    "cut short": ('[[asset]]\nname = "her', "brand.toml, line 2, column 12: "),
    "deep": ("a = " + "[" * 5000, "brackets too deep"),
    "long number": ("a = " + "9" * 5000, "a number of thousands of digits"),
    "a single table": ('[asset]\nname = "x"', "brand.toml, line 1, column 2: asset is no list"),
    "a text for an asset": ('asset = ["hero"]', "brand.toml, asset 1: this is no asset"),
    "another word for it": ('[[assets]]\nname = "x"', "there is no key 'assets'; did you mean 'asset'?"),
    "above: a name": ('name = "x"\n' + named("hero"), "brand.toml, line 1, column 1: there is no key 'name'"),
    "above: a value": ("best = 0\n" + named("hero"), "line 1, column 1: best must be between 1 and 100, not 0"),
    "a key": (with_line("sise = 3"), IN_LINE_4 + "there is no key 'sise'; did you mean 'size'?"),
    "a key twice": (with_line("lambda-a = 1\nlambda_a = 1"), "line 5, column 1: asset 'hero': lambda_a is given twice"),
    "no prompt": ('[[asset]]\nname = "hero"', "brand.toml, line 1: asset 'hero': there is no prompt"),
    "no name": ('[[asset]]\nprompt = "a cat"', "brand.toml, line 1: this asset: there is no name"),
    "an empty prompt": ('[[asset]]\nname = "hero"\nprompt = " "', "line 3, column 1: asset 'hero': prompt is empty"),
    "a prompt of signs": ('[[asset]]\nname = "hero"\nprompt = "?!"', "asset 'hero': prompt says nothing: '?!'"),
    "a prompt of numbers": ('[[asset]]\nname = "hero"\nprompt = 3', "prompt must be text, in quotes, not 3"),
    "a path": (named("../x"), "line 2, column 1: asset '../x': name cannot be the name of a file: '../x'; 'x' can"),
    "another path": (named("/etc/x"), "name cannot be the name of a file: '/etc/x'; 'etc-x' can"),
    "a hidden file": (named(".hidden"), "cannot be the name of a file: '.hidden'; 'hidden' can"),
    "a device": (named("con"), "cannot be the name of a file: 'con'; '_con' can"),
    "a name of signs": (named("???"), "cannot be the name of a file: '???'"),
    "a long name": (named("x" * 200), "cannot be the name of a file"),
    "an empty name": (named(""), "line 2, column 1: this asset: name is empty"),
    "twins": (named("hero", "Hero"), "line 4: asset 'Hero': Hero.png is also a file of asset 'hero', line 1"),
    "a variant's twin": (with_line("number = 2") + named("hero-2"), "hero-2.png is also a file of asset 'hero'"),
    "size 0": (with_line("size = 0"), IN_LINE_4 + "size must be between 16 and 4,096 px on each side, not 0"),
    "a huge size": (with_line('size = "64x100000"'), "between 16 and 4,096 px on each side, not 64x100000"),
    "a negative size": (with_line("size = -5"), "between 16 and 4,096 px"),
    "a size of words": (with_line('size = "large"'), "as in \"1024x512\", 512 or [1024, 512], not 'large'"),
    "a size of parts": (with_line("size = 51.2"), "size must be as in"),
    "a size of three": (with_line("size = [1, 2, 3]"), "size must be as in"),
    "a size of truths": (with_line("size = true"), "size must be as in"),
    "a fit": (with_line('fit = "stretch"'), IN_LINE_4 + "fit must be 'contain' or 'cover', not 'stretch'"),
    "a number": (with_line("number = 1.5"), IN_LINE_4 + "number must be a whole number, not '1.5'"),
    "a number that is no number": (with_line("lambda_b = nan"), "lambda_b must be between 0 and 50, not nan"),
    "a seed": (with_line("seed = -1"), "seed must be between 0 and"),
    "a style": (with_line("style = [1]"), "style must be text"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_KITS)
def test_bad_kits(styledrop: Run, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(base_module, "load_base", None)  # said before the base is loaded
    text, words = BAD_KITS[what]
    Path("brand.toml").write_text(text, encoding="utf-8")
    code, out, err = styledrop("kit", "adapter.safetensors", "brand.toml")
    assert (code, out) == (2, "")
    assert words in err
    assert "Hint: " in err
    assert "Traceback" not in err and "unexpected" not in err
    assert [path.name for path in Path().iterdir()] == ["brand.toml"]


def test_files_that_are_no_text() -> None:
    for name, data, words in (
        ("nowhere.toml", None, "nowhere.toml cannot be read: No such file"),
        (".", None, "cannot be read: Is a directory"),
        ("b.toml", b'style = "x"\nprompt = "\xff"', "b.toml, line 2, column 11: these bytes are no text in UTF-8"),
        ("c.toml", b"#" * 5_000_001, "c.toml is too large"),
    ):
        if data is not None:
            Path(name).write_bytes(data)
        with pytest.raises(UsageError, match=words):
            read_kit(Path(name))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        kit("seed = -1\n" + "".join(f'[[asset]]\nname = "a{i}"\nsize = 3\n' for i in range(4)))
    lines = caught.value.message.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("brand.toml, line 1, column 1: seed must be")
    assert lines[1] == "brand.toml, line 2: asset 'a0': there is no prompt"
    assert lines[2].startswith("brand.toml, line 4, column 1: asset 'a0': size must be")
    assert lines[-1] == "and 4 more"


def test_a_head_inside_a_text_confuses_no_place() -> None:
    text = '[[asset]]\nname = "a"\nprompt = """a cat\n[[asset]]\n"""\n[[asset]]\nname = "b"\nprompt = "x"\nfit = "y"\n'
    with pytest.raises(UsageError, match="brand.toml, asset 2: asset 'b': fit must be"):
        kit(text)


def test_ten_thousand_assets_are_read_in_no_time() -> None:
    started = time.monotonic()
    assets = kit("\n".join(f'[[asset]]\nname = "a{i}"\nprompt = "a cat"\nsize = 64' for i in range(10_000)))
    assert len(assets) == 10_000
    assert assets[-1].where == "brand.toml, line 39997"
    with pytest.raises(UsageError, match="and 9,995 more"):
        kit("\n".join(f'[[asset]]\nname = "a{i}"\nprompt = "a cat"\nsise = 64' for i in range(10_000)))
    assert time.monotonic() - started < 10


# ---- shapes ----


def square(side: int = 64) -> Image.Image:
    """A disc on a ground with a little noise in it."""
    pixels = np.array(draw(side, side))
    return Image.fromarray(pixels + np.random.default_rng(0).integers(0, 9, pixels.shape, dtype=np.uint8))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (16, 16), (128, 64), (65, 64), (64, 65), (16, 500), (501, 17), (300, 299), (33, 128), (2000, 16)],
)
def test_a_picture_has_just_the_size_that_was_asked_for(width: int, height: int, fit: str) -> None:
    made = shaped(square(), width, height, fit)
    assert made.size == (width, height)
    assert made.mode == "RGB"
    assert made.tobytes() == shaped(square(), width, height, fit).tobytes()
    turned = square().transpose(Image.Transpose.TRANSPOSE)
    there = np.asarray(shaped(turned, height, width, fit).transpose(Image.Transpose.TRANSPOSE), dtype=int)
    assert np.abs(there - np.asarray(made, dtype=int)).max() <= 4  # scaled the other way first, it is rounded otherwise


@pytest.mark.parametrize(("width", "height"), [(128, 64), (97, 64), (32, 200), (300, 128)])
def test_contain_keeps_the_whole_picture_as_it_was(width: int, height: int) -> None:
    side = min(width, height)
    made = shaped(square(), width, height)
    left, top = (width - side) // 2, (height - side) // 2
    middle = made.crop((left, top, left + side, top + side))
    assert middle.tobytes() == square().resize((side, side), Image.Resampling.LANCZOS).tobytes()


def test_cover_takes_the_middle() -> None:
    made = shaped(square(64), 64, 32, "cover")
    assert made.tobytes() == square(64).crop((0, 16, 64, 48)).tobytes()


def test_a_ground_of_one_colour_goes_on_as_it_is() -> None:
    plain = Image.new("RGB", (64, 64), (200, 180, 90))
    plain.paste((10, 20, 30), (20, 20, 44, 44))
    pixels = np.asarray(shaped(plain, 300, 64), dtype=int)
    pixels[:, 138:162][20:44] = (200, 180, 90)
    assert np.abs(pixels - (200, 180, 90)).max() <= 1


def test_a_sky_stays_above_its_meadow_and_a_spot_at_the_edge_is_soon_gone() -> None:
    scene = Image.new("RGB", (128, 128), (150, 200, 250))
    scene.paste((40, 120, 40), (0, 64, 128, 128))
    scene.paste((250, 0, 0), (122, 28, 128, 36))
    pixels = np.asarray(shaped(scene, 512, 128), dtype=int)
    for x in (10, 100, 420, 500):
        assert np.abs(pixels[4, x] - (150, 200, 250)).max() < 12
        assert np.abs(pixels[123, x] - (40, 120, 40)).max() < 12
    assert (np.abs(np.diff(pixels[:, 320:], axis=1)).max(axis=(0, 2)) < 30).all()  # no seam but where the spot ends
    assert np.abs(pixels[32, 420] - (150, 200, 250)).max() < 12


# ---- the best of several ----


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model, one step old."""
    folder = tmp_path_factory.mktemp("adapter")
    draw().save(folder / "ref.png")
    train_adapter(
        load_base(str(tiny_model), tiny.CPU),
        pictures=[folder / "ref.png"],
        style="watercolor",
        contents=["a cat"],
        settings=TrainSettings(steps=1, views=2, checkpoints=0),
        output=folder / "good.safetensors",
    )
    return folder / "good.safetensors"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_rounds(monkeypatch)  # two steps a picture


def judge(monkeypatch: pytest.MonkeyPatch, *likes: int) -> list[int]:
    """Let CLIP like one of the candidates most, another at each call; how many it saw at each call."""
    seen: list[int] = []

    def chances(self: Base, pictures: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        made = torch.full((len(pictures), len(texts)), 0.1)
        made[min(likes[len(seen) % len(likes)], len(pictures) - 1), 0] = 0.5
        seen.append(len(pictures))
        return made

    monkeypatch.setattr(Base, "chances", chances)
    return seen


def test_what_only_says_less_is_no_other_answer(tiny_model: Path) -> None:
    base = load_base(str(tiny_model), tiny.CPU)
    pictures = [square(), draw()]
    assert Chooser(base, ["a cat"]).chances(pictures[:1], "a red cat").tolist() == [1.0]
    assert Chooser(base, ["a red cat"]).chances(pictures[:1], "a cat")[0] < 1
    assert Chooser(base, []).chances(pictures[:1], "a cat").tolist() == [1.0]
    every = Chooser(base, base.contents)
    one = every.chances([square()], "a cat")
    assert torch.allclose(every.chances([square(), square()], "a cat"), one.expand(2))
    places = [base.contents.index("a cat"), *(i for i, text in enumerate(base.contents) if text not in ("a cat",))]
    whole = base.chances(
        base.picture_embeds(torch.from_numpy(np.array(square())).permute(2, 0, 1)[None] / 255), base.content_embeds
    )
    assert torch.allclose(one, whole[0, places][:1], atol=1e-5)


def test_without_colours_they_do_not_count(tiny_model: Path) -> None:
    base = load_base(str(tiny_model), tiny.CPU)
    red, blue = Image.new("RGB", (32, 32), (90, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 90))
    chances = Chooser(base, base.contents, colours=False).chances([red, blue], "a cat")
    assert chances[0] == chances[1]
    chances = Chooser(base, base.contents).chances([red, blue], "a cat")
    assert chances[0] != chances[1]


def test_a_published_clip_cannot_choose(tiny_model: Path) -> None:
    published = tiny.write_published(Path("published"))
    assert not sees_pictures(load_base(str(published), tiny.CPU))
    assert sees_pictures(load_base(str(tiny_model), tiny.CPU))


# ---- alphabets ----


def test_glyphs() -> None:
    every = glyphs_of(LETTERS)
    assert len(every) == 36
    assert (every[0].prompt, every[-1].prompt) == ("the letter A", "the number 9")  # as pocket's captions have it
    assert set(load_base("pocket", tiny.CPU).contents) > {glyph.prompt for glyph in every}
    assert [glyph.stem for glyph in every] == list(LETTERS)
    some = glyphs_of("a, A\t?é\u0301&ß/é")
    assert [glyph.sign for glyph in some] == ["A", ",", "?", "É", "&", "ß", "/"]
    assert [glyph.stem for glyph in some] == ["A", "comma", "question-mark", "É", "ampersand", "ß", "solidus"]
    assert some[2].prompt == "the question mark"
    many = "".join(map(chr, range(0x4E00, 0x5200)))
    for text, words in (("", "that can be drawn"), (" \t\0\u0301", "that can be drawn"), (many, "1,024 letters")):
        with pytest.raises(UsageError, match=words):
            glyphs_of(text)


def test_an_alphabet_is_painted_in_the_inks_of_the_reference(
    styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the base was taught letters in colours of their own; and left as they are drawn where that is asked for."""
    monkeypatch.setattr(folder, "row_of_ours", lambda name: registry.POCKET_SPEC)
    command = ("alphabet", adapter, "--letters", "AB", "--best-of", "1", "--model", tiny_model)
    monkeypatch.setattr(inks, "inks_of", lambda pictures: [torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])])
    assert styledrop(*command).code == styledrop(*command, "--own-colours", "-o", "own").code == 0
    said = [read_png_settings(Path(place) / f"{sign}.png") or {} for place in ("good-alphabet", "own") for sign in "AB"]
    assert [one.get("ink") for one in said] == ["#ff0000", "#0000ff", None, None]
    for sign in "AB":
        pair = [np.asarray(Image.open(Path(place) / f"{sign}.png")) for place in ("good-alphabet", "own")]
        assert not np.array_equal(*pair)
    assert json.loads(styledrop(*command, "--json").out)["drawn"] == 0  # the ink is part of what it is


def test_an_alphabet(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    command = ("alphabet", adapter, "--letters", "A7", "--model", tiny_model)
    code, out, err = styledrop(*command)
    assert code == 0, err
    assert out.split() == [f"good-alphabet/{name}.png" for name in ("A", "7", "alphabet")]
    assert err.count("Warning: ") == 1
    assert "tiny was never taught 'A', '7'; it may draw something else" in err
    said = read_png_settings(Path("good-alphabet/A.png"))
    assert said is not None
    assert (said["prompt"], said["best_of"], said["lambda_b"], said["size"]) == ("the letter A", 4, 2.5, 32)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("good-alphabet").iterdir()}

    code, out, err = styledrop(*command, "--json")
    result = json.loads(out)
    assert "2 of 2 pictures were there already" in err
    assert result["drawn"] == 0
    assert [one["letter"] for one in result["pictures"]] == ["A", "7"]
    assert result["pictures"][0]["path"] == "good-alphabet/A.png"
    assert result["sheets"] == ["good-alphabet/alphabet.png"]
    assert result["settings"]["style"] == "watercolor"
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("good-alphabet").iterdir()} == before

    Path("good-alphabet/7.png").unlink()  # as if it had been stopped
    assert json.loads(styledrop(*command, "--json").out)["drawn"] == 1
    assert {path: path.read_bytes() for path in Path("good-alphabet").iterdir()} == {
        path: data for path, (data, _) in before.items()
    }
    # Other settings are other pictures, and none is written over.
    other = json.loads(styledrop(*command, "--json", "--lambda-b", "1").out)
    assert [one["path"] for one in other["pictures"]] == [
        "good-alphabet/A-lambda-b-1.png",
        "good-alphabet/7-lambda-b-1.png",
    ]
    assert other["sheets"] == ["good-alphabet/alphabet-lambda-b-1.png"]
    assert other["settings"]["lambda_b"] == 1
    assert json.loads(styledrop(*command, "--json", "--lambda-b", "1").out) | {"seconds": 0} == other | {
        "seconds": 0,
        "drawn": 0,
    }
    assert {path: path.read_bytes() for path in before} == {path: data for path, (data, _) in before.items()}


def test_the_picture_that_clip_is_surest_of_is_kept(
    styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = judge(monkeypatch, 2, 0)
    command = ("alphabet", adapter, "--letters", "AB", "-n", "3", "--seed", "10", "--model", tiny_model, "--json")
    result = json.loads(styledrop(*command, "-o", "out").out)
    assert seen == [3, 3]
    assert [one["seed"] for one in result["pictures"]] == [12, 10]
    for one in result["pictures"]:  # what is written down draws the same picture again
        said = read_png_settings(Path(one["path"]))
        assert said is not None
        assert said["seed"] == one["seed"]
        alone = ("generate", adapter, one["prompt"], "-n", "1", "--seed", str(said["seed"]), "--lambda-b", "2.5")
        again = json.loads(styledrop(*alone, "--model", tiny_model, "--json").out)["pictures"][0]["path"]
        with Image.open(again) as first, Image.open(one["path"]) as second:
            assert first.tobytes() == second.tobytes()
    judge(monkeypatch, 1)
    again = json.loads(styledrop(*command, "-o", "out").out)
    assert again["drawn"] == 0  # whichever was chosen, it is there
    assert again["pictures"] == result["pictures"]


def test_small_letters_are_capitals(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    code, out, err = styledrop("alphabet", adapter, "--letters", "aA", "-n", "1", "--model", tiny_model)
    assert code == 0
    assert "small letters are drawn as capitals" in err
    assert out.split() == ["good-alphabet/A.png", "good-alphabet/alphabet.png"]


def test_letters_that_a_base_was_taught(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    contents = (tiny_model / "contents.txt").read_text(encoding="utf-8")
    try:
        (tiny_model / "contents.txt").write_text(contents + "\na letter a", encoding="utf-8")
        err = styledrop("alphabet", adapter, "--letters", "AÄ!", "-n", "1", "--model", tiny_model).err
    finally:
        (tiny_model / "contents.txt").write_text(contents, encoding="utf-8")
    assert "tiny was never taught 'Ä', '!'; it may draw something else" in err
    assert err.count("Warning: ") == 1


def test_where_nobody_can_choose_one_is_drawn(
    styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "sees_pictures", lambda base: False)
    code, _, err = styledrop("alphabet", adapter, "--letters", "A", "--model", tiny_model)
    assert code == 0, err
    assert "the CLIP of tiny reads no pictures: one is drawn of each prompt" in err
    assert "best_of" not in (read_png_settings(Path("good-alphabet/A.png")) or {})
    assert "reads" not in styledrop("alphabet", adapter, "--letters", "A", "-n", "1", "--model", tiny_model).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alphabet", "ref.png"), "'ref.png' is no adapter file"),
        (("alphabet", "a.safetensors", "--letters", " "), "--letters holds nothing"),
        (("alphabet", "a.safetensors", "--style", "?"), "--style says nothing"),
        (("alphabet", "a.safetensors", "--preset", "slow"), "no preset called 'slow'"),
        (("alphabet", "a.safetensors", "-n", "101"), "--best-of must be between 1 and 100"),
        (("alphabet", "a.safetensors", "-o", "ref.png"), "ref.png is a file"),
        (("kit", "brand.toml", "brand.toml"), "'brand.toml' is no adapter file"),
        (("kit", "a.safetensors", "brand.toml", "-o", "ref.png"), "ref.png is a file"),
        (("kit", "a.safetensors", "nowhere.toml"), "nowhere.toml cannot be read"),
        (("kit", "a.safetensors", "brand.toml", "-o", "taken"), "taken/kit.json is there already, and was not written"),
        (("kit", "a.safetensors", "many.toml"), "many.toml asks for 500,000 pictures: at most 200,000"),
    ],
)  # fmt: skip
def test_usage_errors(
    styledrop: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    Path("brand.toml").write_text(named("hero"))
    Path("many.toml").write_text("best = 100\nnumber = 1000\n" + named("a", "b", "c", "d", "e"))
    Path("taken").mkdir()
    Path("taken/kit.json").write_text("[1]")
    before = sorted(Path().rglob("*"))
    code, out, err = styledrop(*arguments)
    assert (code, out) == (2, ""), err
    assert words in err
    assert "Traceback" not in err
    assert sorted(Path().rglob("*")) == before
    assert Path("taken/kit.json").read_text() == "[1]"


# ---- kits ----

BRAND = """
best = 2
[[asset]]
name = "hero"
prompt = "a cat"
size = "96x48"
[[asset]]
name = "icon"
prompt = "a dog"
size = 16
number = 2
seed = 5
lambda_b = 3
negative = "red"
[[asset]]
name = "plain"
prompt = "a red cat"
best = 1
style = "gold"
[[asset]]
name = "tall"
prompt = "a house"
size = [20, 32]
fit = "cover"
"""


def test_a_kit(styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = judge(monkeypatch, 1)
    Path("brand.toml").write_text(BRAND)
    command = ("kit", adapter, "brand.toml", "-o", "out", "--model", tiny_model)
    code, out, err = styledrop(*command)
    assert code == 0, err
    names = ["hero", "icon-1", "icon-2", "plain", "tall"]
    assert out.split() == [f"out/{name}" for name in (*(f"{name}.png" for name in names), "kit.png", "kit.json")]
    assert err.count("tiny draws 32 px; larger pictures are enlarged, and no sharper: 'hero'\n") == 1
    assert seen == [2, 2, 2, 2] + [1] * 5  # the best of two, and whether what was kept is clear
    assert "hard to recognise" not in err
    sizes = {"hero": (96, 48), "icon-1": (16, 16), "icon-2": (16, 16), "plain": (32, 32), "tall": (20, 32)}
    manifest = json.loads(Path("out/kit.json").read_text())
    assert (manifest["adapter"], manifest["model"]) == ("good.safetensors", "tiny")
    for one, name, seed in zip(manifest["assets"], names, (1, 6, 8, 0, 1), strict=True):
        with Image.open(Path("out") / one["file"]) as image:
            assert image.size == sizes[name] == tuple(one["size"])
        assert (one["name"], one["file"], one["seed"]) == (name, f"{name}.png", seed)
        said = read_png_settings(Path("out") / one["file"]) or {}
        assert (said["seed"], said["prompt"]) == (seed, one["prompt"])
        assert said.items() >= one["settings"].items()
    icon, plain, tall = (manifest["assets"][place]["settings"] for place in (1, 3, 4))
    assert (icon["lambda_b"], icon["negative"], icon["best_of"]) == (3, "red", 2)
    assert (plain["style"], "best_of" in plain, "fit" in plain) == ("gold", False, False)
    assert tall["fit"] == "cover"

    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("out").glob("*.png")}
    code, out, err = styledrop(*command, "--json")
    result = json.loads(out)
    assert result["drawn"] == 0
    assert result["pictures"][0]["path"] == "out/hero.png"
    assert (result["sheets"], result["manifest"]) == (["out/kit.png"], "out/kit.json")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("out").glob("*.png")} == before
    assert json.loads(Path("out/kit.json").read_text()) == manifest

    # What the CLIP takes for something else is said, and marked; nothing is drawn anew for it.
    monkeypatch.setattr(
        Chooser, "chances", lambda self, pictures, prompt: torch.tensor([0.1 + 0.8 * ("cat" in prompt)])
    )
    code, out, err = styledrop(*command)
    weak = [one["name"] for one in json.loads(Path("out/kit.json").read_text())["assets"] if one["weak"]]
    unclear = [one["name"] for one in manifest["assets"] if "cat" not in one["prompt"]]
    assert code == 0 and weak == unclear != [] and f"hard to recognise: {', '.join(map(repr, weak))}" in err
    assert not any(one["weak"] for one in manifest["assets"])

    # A changed asset is drawn beside the old one; the manifest leads to the new one.
    Path("brand.toml").write_text(BRAND.replace("96x48", "48x96"))
    assert json.loads(styledrop(*command, "--json").out)["drawn"] == 1
    changed = json.loads(Path("out/kit.json").read_text())["assets"]
    assert [one["file"] for one in changed] == ["hero-2.png", *(f"{name}.png" for name in names[1:])]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_a_second_file_of_a_name_is_nobody_elses(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    Path("out").mkdir()
    save_png(draw(), Path("out/hero.png"), {"prompt": "somebody else's"})
    Path("brand.toml").write_text(named("hero") + "\nseed = 1\n" + named("hero-2"))
    command = ("kit", adapter, "brand.toml", "-o", "out", "--model", tiny_model, "--json")
    for drawn in (2, 0):
        result = json.loads(styledrop(*command).out)
        assert result["drawn"] == drawn
        assert [one["path"] for one in result["pictures"]] == ["out/hero-2.png", "out/hero-2-2.png"]


def test_a_kit_of_many_has_several_sheets(
    styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_folder, "PAGE", 2)
    Path("brand.toml").write_text(named("a", "b", "c"))
    result: dict[str, Any] = json.loads(
        styledrop("kit", adapter, "brand.toml", "--model", tiny_model, "--json", "-q").out
    )
    assert result["sheets"] == ["brand-kit/kit-1-of-2.png", "brand-kit/kit-2-of-2.png"]


def test_a_command_says_what_its_base_does_only_roughly(
    styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pocket's row has the sentences; each command says its own, once, and says none of a base without them."""
    said = registry.POCKET_SPEC.roughly
    assert load_base("pocket", tiny.CPU).spec is registry.POCKET_SPEC
    draw().save("picture.png")
    Path("brand.toml").write_text(named("a"))
    learn = (
        "train",
        "picture.png",
        "--learn",
        "object",
        "--content",
        "my cat",
        "--steps",
        "1",
        "-o",
        "cat.safetensors",
    )
    commands = {
        learn: "object",
        ("generate", adapter, "my cat", "--object", "cat.safetensors", "-n", "1"): "object",
        ("edit", "picture.png", "background", "--outpaint", "left=16", "-n", "1"): "outpaint",
        ("edit", "picture.png", "a cat", "--restyle", "0.5", "-n", "1"): "",
        ("kit", adapter, "brand.toml"): "kit",
    }
    for row in (registry.POCKET_SPEC, registry.OURS):
        monkeypatch.setattr(folder, "row_of_ours", lambda name, row=row: row)
        for command, task in commands.items():
            code, _, err = styledrop(*command, "--model", tiny_model, *(["--overwrite"] if command is learn else []))
            assert code == 0, err
            found = [name for name, sentence in said.items() if sentence in err]
            assert found == ([task] if task and row is registry.POCKET_SPEC else []), (command, err)


def test_a_kit_that_asks_for_what_the_base_does_not_know(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    Path("brand.toml").write_text(named("a").replace("a cat", "a zeppelin"))
    err = styledrop("kit", adapter, "brand.toml", "--model", tiny_model).err
    assert "tiny does not know 'zeppelin'; it may draw something else" in err
