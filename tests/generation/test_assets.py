"""Pictures ready to be used: without their ground, as SVG, in sizes beyond the base's."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from conftest import Run
from styledrop_cli.api import StyleDrop
from styledrop_cli.generation import svg
from styledrop_cli.generation.ground import components, without_ground
from styledrop_cli.generation.pipeline import LARGEST, resampled
from styledrop_cli.generation.svg import read_svg_settings, svg_beside, traced
from styledrop_cli.io.images import checkered, load_shown, read_png_settings, save_png

SIDE = 96
BLUE = (40, 60, 190)


def thing(hole: bool = False, soft: float = 1.0) -> Image.Image:
    """A blue disc as ``L`` of its alpha, drawn larger and so with smooth edges; perhaps a ring."""
    big = Image.new("L", (SIDE * 8, SIDE * 8))
    pen = ImageDraw.Draw(big)
    pen.ellipse((160, 160, 608, 608), fill=255)
    if hole:
        pen.ellipse((288, 288, 480, 480), fill=0)
    return big.resize((SIDE, SIDE), Image.Resampling.BOX).resize((round(SIDE / soft),) * 2).resize((SIDE, SIDE))


def grounds() -> dict[str, np.ndarray]:
    """Plain and textured grounds ``[S,S,3]`` in [0,255]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1:96j, 0:1:96j]
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    wash = np.asarray(coarse, float)[..., None] / 255
    plain = np.ones((SIDE, SIDE, 3))
    return {
        "white": plain * 255,
        "yellow": plain * (240, 200, 90),
        "dark": plain * (25, 28, 30),
        "gradient": (plain * (180, 215, 190)) + (60 * (x - y))[..., None],
        "grain": plain * (238, 232, 218) + rng.normal(0, 5, (SIDE, SIDE, 1)),
        "wash": plain * (215, 220, 200) + 28 * wash + rng.normal(0, 1.5, (SIDE, SIDE, 1)),
    }


def on(ground: np.ndarray, alpha: Image.Image) -> Image.Image:
    share = np.asarray(alpha, float)[..., None] / 255
    return Image.fromarray((share * BLUE + (1 - share) * ground).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("soft", [1.0, 2.0])
@pytest.mark.parametrize("name", grounds())
def test_the_ground_is_taken_out_and_leaves_no_seam(name: str, soft: float) -> None:
    true = thing(soft=soft)
    made = without_ground(on(grounds()[name], true))
    assert made is not None and made.mode == "RGBA"
    pixels, share = np.asarray(made, float), np.asarray(true, float)
    assert np.abs(pixels[..., 3] - share).mean() < 255 * 0.02
    assert ((pixels[..., 3] > 127) == (share > 127)).mean() > 0.985
    assert (pixels[:8, :, 3] == 0).all()
    # Its own colour reaches into the edge: what is seen on red has no more of the old ground than a tenth.
    seen = pixels[..., 3] > 40
    assert np.abs(pixels[seen][:, :3] - BLUE).mean() < 14


@pytest.mark.parametrize(("name", "holes", "open_"), [
    ("yellow", "safe", True), ("grain", "safe", True), ("yellow", "none", False),
    ("white", "safe", False), ("white", "all", True),
])  # fmt: skip
def test_a_hole_is_taken_out_where_that_is_safe(name: str, holes: str, open_: bool) -> None:
    made = without_ground(on(grounds()[name], thing(hole=True)), holes)
    assert made is not None
    assert (made.getpixel((48, 48))[3] == 0) == open_  # type: ignore[index]
    assert made.getpixel((28, 48))[3] == 255  # type: ignore[index]


def test_an_eye_is_no_hole() -> None:
    picture = on(grounds()["yellow"], thing(hole=True))
    ImageDraw.Draw(picture).ellipse((44, 44, 52, 52), fill=BLUE)
    made = without_ground(picture)
    assert made is not None and made.getpixel((40, 48))[3] == 255  # type: ignore[index]


def test_without_a_clear_ground_nothing_is_taken_out() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    assert without_ground(Image.fromarray(noise)) is None
    assert without_ground(Image.new("RGB", (SIDE, SIDE), (200, 180, 90))) is None
    patches = np.random.default_rng(3).integers(0, 255, (6, 6, 3), np.uint8)
    assert without_ground(Image.fromarray(patches).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) is None


def test_a_large_picture_is_cut_out_as_a_small_one() -> None:
    small, large = (without_ground(on(grounds()["yellow"], thing()).resize((side, side))) for side in (96, 1000))
    assert small is not None and large is not None and large.size == (1000, 1000)
    again = np.asarray(large.resize((96, 96), Image.Resampling.BOX), float)[..., 3]
    assert np.abs(again - np.asarray(small, float)[..., 3]).mean() < 3


def test_parts_of_a_mask_are_numbered_as_they_are_connected() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        mask = rng.random((13, 17)) < 0.55
        labels = components(mask)
        assert ((labels > 0) == mask).all()
        for axis in (0, 1):
            one, other = (np.moveaxis(labels, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
            assert (one == other)[(one > 0) & (other > 0)].all()
        for number in range(1, labels.max() + 1):  # and each is one: filled from any of its pixels
            reached = np.zeros(mask.shape, bool)
            reached[tuple(np.argwhere(labels == number)[0])] = True
            for _ in range(mask.size):
                grown = reached.copy()
                grown[1:] |= reached[:-1]
                grown[:-1] |= reached[1:]
                grown[:, 1:] |= reached[:, :-1]
                grown[:, :-1] |= reached[:, 1:]
                grown &= mask
                if (grown == reached).all():
                    break
                reached = grown
            assert (reached == (labels == number)).all()


def test_a_checkerboard_shows_what_is_transparent(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    assert len(set(checkered(clear).get_flattened_data())) == 2
    save_png(clear, tmp_path / "clear.png")
    assert load_shown(tmp_path / "clear.png").tobytes() == checkered(clear).tobytes()
    plain = Image.new("RGB", (64, 64), BLUE)
    assert checkered(plain) is plain


# ---- SVG ----

needs_vtracer = pytest.mark.skipif(svg.find_spec("vtracer") is None, reason="vtracer is not installed")


def badge() -> Image.Image:
    """Three flat colours and a transparent ring, ``RGBA``."""
    made = Image.new("RGBA", (SIDE * 4, SIDE * 4))
    pen = ImageDraw.Draw(made)
    pen.ellipse((40, 40, 340, 340), fill=BLUE)
    pen.rectangle((150, 60, 230, 160), fill=(250, 120, 60))
    pen.ellipse((160, 200, 260, 300), fill=(255, 255, 255))
    pen.ellipse((80, 170, 120, 210), fill=(0, 0, 0, 0))
    return made.resize((SIDE, SIDE), Image.Resampling.BOX)


@needs_vtracer
def test_an_svg_shows_the_picture_in_its_main_colours() -> None:
    made = traced(badge(), 'a <cat> & "dog"\x00', {"prompt": "a <cat> & dog", "seed": 3})
    root = ET.fromstring(made.text)
    name = "{http://www.w3.org/2000/svg}"
    assert (root.get("viewBox"), root.get("width"), root.get("height")) == ("0 0 96 96", "96", "96")
    assert root.findtext(f"{name}title") == 'a <cat> & "dog" '
    assert json.loads(root.findtext(f"{name}metadata") or "")["seed"] == 3
    fills = {one.get("fill") for one in root.iter(f"{name}g")} - {None}
    assert fills == {"#283cbe", "#fa783c", "#ffffff"} and made.colours == 3
    assert made.outlines == 3 and len(made.text) < 20_000 and made.lost < svg.SHADES


@needs_vtracer
def test_an_svg_has_no_other_colours_than_its_palette_and_no_more_than_said() -> None:
    palette = [(0, 0, 0), (200, 200, 200), (20, 60, 220)]
    text = traced(badge(), "x", {}, palette=palette).text
    assert {part[:6] for part in text.split('fill="#')[1:]} <= {bytes(one).hex() for one in palette}
    assert traced(badge(), "x", {}, most=2).colours == 2
    assert traced(Image.new("RGBA", (32, 32)), "x", {}).outlines == 0  # transparent all over


@needs_vtracer
def test_an_svg_drawn_again_is_near_the_picture_and_as_transparent() -> None:
    resvg = pytest.importorskip("resvg_py", reason="draws SVG; it comes with the extra 'pocket'")
    drawn = bytes(resvg.svg_to_bytes(svg_string=traced(badge(), "x", {}).text))
    again, true = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGBA"), float), np.asarray(badge(), float)
    assert again.shape == true.shape
    assert np.abs(again[..., 3] - true[..., 3]).mean() < 4
    both = (again[..., 3] > 250) & (true[..., 3] > 250)
    assert np.abs(again[both][:, :3] - true[both][:, :3]).mean() < 6
    assert again[48, 25, 3] == 0  # the hole
    # No seam between two areas lets the ground through.
    inside = np.asarray(Image.fromarray(np.uint8(true[..., 3])).resize((SIDE, SIDE)), float)
    assert (again[..., 3][20:36, 34:62] > 250).all() and inside.max() == 255


@needs_vtracer
def test_an_svg_beside_its_picture_is_made_once_and_nothing_of_others_is_replaced(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    save_png(badge(), picture, {"prompt": "a badge", "seed": 1})
    path, flat = svg_beside(picture)
    assert path == tmp_path / "a.svg" and flat
    said = read_svg_settings(path)
    assert said is not None and said["prompt"] == "a badge" and said["svg"]["colours"] == 3
    before = path.stat().st_mtime_ns
    assert svg_beside(picture) == (path, True) and path.stat().st_mtime_ns == before
    svg_beside(picture, most=2)
    again = read_svg_settings(path)
    assert again is not None and again["svg_colours"] == 2
    path.write_text("<svg/>")
    with pytest.raises(svg.StyledropError, match="was not written by styledrop"):
        svg_beside(picture)
    assert path.read_text() == "<svg/>" and read_svg_settings(path) is None


def test_without_vtracer_it_is_said_how_to_get_it(styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "find_spec", lambda name: None)
    done = styledrop("generate", "--base-only", "a cat", "--svg")
    assert done.code == 1 and 'pip install "styledrop[svg]"' in done.err


# ---- commands ----


@pytest.fixture(scope="module")
def cuts(tiny_model: Path) -> StyleDrop:
    return StyleDrop.load(str(tiny_model), "cpu")


def test_what_stands_alone_is_refused(styledrop: Run) -> None:
    for wrong, words in (
        (("--holes", "all"), "--holes all says nothing without --transparent"),
        (("--svg-colours", "4"), "--svg-colours 4 says nothing without --svg"),
        (("--transparent", "--holes", "some"), "no holes called 'some'"),
        (("--svg", "--svg-colours", "1"), "svg-colours"),
    ):
        done = styledrop("generate", "--base-only", "a cat", *wrong)
        assert done.code == 2 and words in done.err, done.err


@needs_vtracer
def test_pictures_are_cut_out_traced_and_not_drawn_again(
    styledrop: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tiny base draws noise: what it draws is given a ground, as a trained one gives it.
    from styledrop_cli.generation import pipeline

    monkeypatch.setattr(pipeline, "to_image", lambda tensor: on(grounds()["yellow"], thing()).resize((32, 32)))
    command = ("generate", "--base-only", "a cat", "-n", "2", "--steps", "1", "--model", tiny_model, "-o", "out")
    plain = json.loads(styledrop(*command, "--json").out)
    cut = json.loads(styledrop(*command, "--transparent", "--svg", "--size", "64", "--json").out)
    assert cut["drawn"] == 2
    paths = [Path(one["path"]) for one in cut["pictures"]]
    assert not {str(path) for path in paths} & {one["path"] for one in plain["pictures"]}
    for path in paths:
        with Image.open(path) as image:
            assert image.mode == "RGBA" and image.size == (64, 64) and image.getpixel((0, 0))[3] == 0  # type: ignore[index]
        said = read_png_settings(path) or {}
        assert (said["transparent"], said["size"]) == (True, 64)
        assert said["resampled"] == "drawn at 32 px, resampled to 64" and "ground" not in said
        shown = json.loads(styledrop("inspect", path.with_suffix(".svg"), "--json").out)
        assert shown["seed"] == said["seed"] and shown["svg"]["outlines"] >= 1
    paths[0].with_suffix(".svg").unlink()
    again = json.loads(styledrop(*command, "--transparent", "--svg", "--size", "64", "--json").out)
    assert again["drawn"] == 0 and [Path(one["svg"]) for one in again["pictures"]] == [
        path.with_suffix(".svg") for path in paths
    ]
    assert paths[0].with_suffix(".svg").exists()


def test_a_picture_without_a_clear_ground_is_left_opaque_and_that_is_said(
    styledrop: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from styledrop_cli.generation import pipeline

    monkeypatch.setattr(pipeline, "without_ground", lambda image, holes: None)
    command = ("generate", "--base-only", "a cat", "-n", "1", "--steps", "1", "--model", tiny_model, "--transparent")
    done = styledrop(*command)
    assert done.code == 0 and "no clear ground was found in 'a-cat-0.png'" in done.err
    said = read_png_settings(Path("styledrop-out/a-cat-0.png")) or {}
    assert said["ground"].startswith("none found")
    assert "1 of 1 pictures were there already" in styledrop(*command).err


def test_larger_than_the_base_draws_is_its_largest_resampled(styledrop: Run, tiny_model: Path, cuts: StyleDrop) -> None:
    command = ("generate", "--base-only", "a cat", "-n", "1", "--steps", "1", "--model", tiny_model, "-o")
    assert styledrop(*command, "small").code == 0
    done = styledrop(*command, "large", "--size", "100")
    assert done.code == 0 and "draws 32 px; 100 px are resampled from that" in done.err
    with Image.open("small/a-cat-0.png") as small, Image.open("large/a-cat-0.png") as large:
        assert large.tobytes() == resampled(small, 100).tobytes()
        kept = large.tobytes()
    # What a picture says of itself draws it again.
    said: dict[str, Any] = read_png_settings(Path("large/a-cat-0.png")) or {}
    settings = {name: said[name] for name in ("steps", "size", "transparent", "holes", "lambda_b")}
    made = cuts.generate(said["prompt"], seed=said["seed"], **settings)[0]
    assert made.image.tobytes() == kept and made.about["resampled"] == said["resampled"]
    too_large = styledrop(*command, "x", "--size", str(LARGEST + 1))
    assert too_large.code == 2 and "16 or 32 px, not 4097" in too_large.err


@needs_vtracer
def test_kits_and_alphabets_are_cut_out_after_they_are_chosen_and_shaped(
    styledrop: Run, tiny_model: Path, cuts: StyleDrop, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from styledrop_cli.generation import pipeline

    quick: dict[str, Any] = {"steps": 1, "checkpoints": 0, "views": 1, "batch_size": 1}
    cuts.train(picture, "ink", contents="a cat", output="a.safetensors", **quick)
    monkeypatch.setattr(pipeline, "to_image", lambda tensor: on(grounds()["white"], thing(hole=True)).resize((32, 32)))
    asset = '[[asset]]\nname = "{}"\nprompt = "a cat"\n'
    Path("kit.toml").write_text(
        "steps = 1\n" + asset.format("wide") + 'size = "64x32"\n' + asset.format("own") + "transparent = false\n"
    )
    made = json.loads(
        styledrop("kit", "a.safetensors", "kit.toml", "--model", tiny_model, "-o", "kit", "--transparent", "--svg",
                  "--size", "48", "--json").out
    )  # fmt: skip
    wide, own = made["pictures"]
    assert (wide["size"], own["size"], wide["svg"], own["svg"]) == ([64, 32], [48, 48], "wide.svg", "own.svg")
    with Image.open("kit/wide.png") as one, Image.open("kit/own.png") as other:
        assert (one.mode, one.size, other.mode, other.size) == ("RGBA", (64, 32), "RGB", (48, 48))
    letters = ("alphabet", "a.safetensors", "--letters", "O", "--model", tiny_model, "--steps", "1", "--transparent")
    first = json.loads(styledrop(*letters, "--svg", "-o", "letters", "--json").out)
    with Image.open(first["pictures"][0]["path"]) as letter:
        assert letter.mode == "RGBA" and letter.getpixel((16, 16))[3] < 60  # type: ignore[index]
    assert Path(first["pictures"][0]["svg"]).exists()
    assert json.loads(styledrop(*letters, "-o", "letters", "--json").out)["drawn"] == 0


def test_a_seed_draws_the_same_with_and_without_its_ground(cuts: StyleDrop) -> None:
    plain, cut = (cuts.generate("a cat", steps=2, seed=4, transparent=one)[0] for one in (False, True))
    expected = without_ground(plain.image) or plain.image
    assert cut.image.tobytes() == expected.tobytes()
    assert cut.about["transparent"] is True


def test_an_svg_of_a_picture_in_a_palette_has_only_its_colours(tmp_path: Path) -> None:
    said = {"prompt": "a badge", "palette": "#000000,#c8c8c8,#143cdc", "palette_strength": 1.0}
    save_png(badge(), tmp_path / "badge.png", said)
    path, _ = svg_beside(tmp_path / "badge.png")
    used = {part[:6] for part in path.read_text().split('fill="#')[1:]}
    assert used and used <= {"000000", "c8c8c8", "143cdc"}
    save_png(badge(), tmp_path / "badge.png", said | {"palette_strength": 0.5})
    svg_beside(tmp_path / "badge.png")
    assert not {part[:6] for part in path.read_text().split('fill="#')[1:]} <= {"000000", "c8c8c8", "143cdc"}
