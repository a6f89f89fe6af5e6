"""Pictures in the colours of a palette: what moves, what stays, and who takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from conftest import Run, draw
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.adapters.palette import main_colours, palette_of
from styledrop_cli.api import StyleDrop
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.palette import coloured, moved, palette_in
from styledrop_cli.io.colour import cielab, delta_e
from styledrop_cli.io.images import load_picture, read_png_settings, to_image, to_tensor
from styledrop_cli.io.palette import KEEP, Palette
from styledrop_cli.judging.palette import fit
from styledrop_cli.models.tokenizer import edges_kept
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter

BRAND = Palette.read("#0b3d91,#f2c14e")
FOUR = Palette.read("#1d3557,#457b9d,#f1faee,#e63946")


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb)[:, None, None]


def scene() -> Tensor:
    """A white ground with a dark, a red and a pale part, [3,96,96], with soft edges as drawn ones are."""
    picture = colour(0.96, 0.95, 0.92).expand(3, 192, 192).clone()
    picture[:, 20:100, 20:90] = colour(0.15, 0.15, 0.35)
    picture[:, 20:100, 100:170] = colour(0.75, 0.15, 0.12)
    picture[:, 110:180, 30:160] = colour(0.45, 0.6, 0.75)
    return F.interpolate(picture[None], scale_factor=0.5, mode="bilinear", antialias=True)[0]


def to_palette(picture: Tensor, palette: Palette) -> Tensor:
    """CIEDE2000 from each pixel to the nearest colour, [H,W]."""
    colours = cielab(torch.tensor(palette.colours) / 255)
    return delta_e(cielab(picture.permute(1, 2, 0))[:, :, None], colours).amin(-1)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    draw().save(folder / "ref.png")
    train_adapter(
        base,
        pictures=[folder / "ref.png"],
        style="red",
        contents=["a cat"],
        settings=TrainSettings(steps=2, views=2, checkpoints=0),
        output=folder / "style.safetensors",
    )
    return folder / "style.safetensors"


# ---- pictures ----


def test_no_strength_changes_nothing_and_half_goes_half_of_the_way() -> None:
    picture = scene()
    assert moved(picture, FOUR, 0.0) is picture
    for settings in (SampleSettings(), SampleSettings(palette=str(FOUR), palette_strength=0.0)):
        assert palette_in(settings) is None and coloured(picture, settings) is picture
    assert palette_in(SampleSettings(palette=str(FOUR))) == FOUR
    far = [float(to_palette(moved(picture, FOUR, strength), FOUR).mean()) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert far == sorted(far, reverse=True) and far[-1] < far[0] / 4


@pytest.mark.parametrize("palette", [BRAND, FOUR])
def test_at_full_strength_flat_areas_have_colours_of_the_palette(palette: Palette) -> None:
    far = to_palette(to_tensor(to_image(moved(scene(), palette, 1.0))), palette)
    for rows, columns in ((slice(16, 44), slice(16, 38)), (slice(16, 44), slice(56, 78)), (slice(0, 5), slice(None))):
        assert float(far[rows, columns].max()) < 2
    assert float(far[62:82, 25:70].max()) < 2


def test_edges_stay_and_are_blends_of_the_colours_on_both_sides() -> None:
    picture = scene()
    made = moved(picture, FOUR, 1.0)
    assert edges_kept(made[None], picture[None]) > 0.9
    # From the ground into the dark part, in one line: no third colour, and no way back.
    ground, dark = made[:, 30, 2], made[:, 30, 20]
    line = made[:, 30, 2:20].T
    along = dark - ground
    share = ((line - ground) @ along) / (along @ along)
    assert (share.diff() > -0.03).all() and 0.05 < float(share[7:10].mean()) < 0.95
    off = (line - ground - share[:, None] * along).norm(dim=1)
    assert float(off.max()) < 0.12  # a blend in OKLab is nearly one in sRGB


def test_what_is_lighter_stays_lighter_and_parts_stay_apart() -> None:
    """A pale picture between whose colours the nearest of the palette makes no difference."""
    picture = colour(0.97, 0.95, 0.9).expand(3, 64, 64).clone()
    picture[:, 20:44, 20:44] = colour(0.9, 0.8, 0.6)
    assert (to_palette(picture, BRAND) > 0).all()
    nearest = delta_e(cielab(picture.permute(1, 2, 0))[:, :, None], cielab(torch.tensor(BRAND.colours) / 255)).argmin(
        -1
    )
    assert len(nearest.unique()) == 1
    made = moved(picture, BRAND, 1.0)
    assert float(made[:, 32, 32].mean()) < float(made[:, 4, 4].mean()) - 0.2


def test_fine_texture_survives_and_a_picture_of_one_colour_becomes_one() -> None:
    picture = scene()
    noise = 0.02 * torch.randn(1, 96, 96, generator=tiny.generator())
    made, plain = moved((picture + noise).clamp(0, 1), FOUR, 1.0), moved(picture, FOUR, 1.0)
    inside = (made - plain)[:, 16:44, 16:38].mean(0)
    both = torch.stack([inside.flatten(), noise[0, 16:44, 16:38].flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.5
    flat = moved(colour(0.2, 0.3, 0.8).expand(3, 32, 32), BRAND, 1.0)
    assert torch.allclose(flat, (torch.tensor(BRAND.colours[0]) / 255)[:, None, None].expand(3, 32, 32), atol=0.01)


def test_the_same_comes_of_the_same() -> None:
    assert torch.equal(moved(scene(), FOUR, 0.7), moved(scene(), FOUR, 0.7))


def test_how_near_a_picture_is_to_a_palette() -> None:
    picture = (torch.tensor(BRAND.colours[0]) / 255)[:, None, None].expand(3, 40, 40).clone()
    assert fit(picture, BRAND) == pytest.approx((0.0, 1.0), abs=1e-3)
    picture[:, :10] = colour(0.0, 0.6, 0.2)
    far, share = fit(picture, BRAND)
    assert share == 0.75 and far == pytest.approx(float(to_palette(picture, BRAND)[0, 0]) / 4, rel=1e-4)
    large = picture.repeat_interleave(30, 1).repeat_interleave(30, 2)
    assert fit(large, BRAND) == pytest.approx((far, share), abs=0.3)


# ---- where a palette comes from ----


def test_a_palette_of_a_picture_and_of_what_a_style_learnt_from(base: Base, adapter: Path, tmp_path: Path) -> None:
    to_image(scene()).save(tmp_path / "brand.png")
    found = palette_of(str(tmp_path / "brand.png"), base, [])
    assert to_palette(scene(), found)[20:40, 20:36].max() < 5 and 3 <= len(found.colours) <= 6
    kept = palette_of(KEEP, base, [load_adapter(adapter)])
    assert fit(to_tensor(draw()), kept)[0] < 6
    with pytest.raises(UsageError, match="no style whose colours"):
        palette_of(KEEP, base, [])
    with pytest.raises(UsageError, match="grey.png has one colour alone"):
        main_colours([colour(0.5, 0.5, 0.5).expand(3, 8, 8)], "grey.png")


# ---- commands ----


def generate(styledrop: Run, adapter: Path, model: Path, folder: str, *more: str) -> list[Path]:
    done = styledrop("generate", adapter, "a cat", "-n", "2", "--model", model, "-o", folder, "--no-sheet", *more)
    assert done.code == 0, done.err
    return sorted(Path(folder).glob("*.png"))


def test_pictures_say_their_palette_and_are_the_plain_ones_moved(
    styledrop: Run, adapter: Path, tiny_model: Path
) -> None:
    plain = generate(styledrop, adapter, tiny_model, "plain")
    unmoved = generate(
        styledrop, adapter, tiny_model, "zero", "--palette", "#0b3d91,#f2c14e", "--palette-strength", "0"
    )
    made = generate(styledrop, adapter, tiny_model, "brand", "--palette", "0b3d91 F2C14E")
    for before, zero, after in zip(plain, unmoved, made, strict=True):
        assert load_picture(zero).tobytes() == load_picture(before).tobytes()
        assert load_picture(after).tobytes() == to_image(moved(to_tensor(load_picture(before)), BRAND, 1.0)).tobytes()
        said = read_png_settings(after) or {}
        assert (said["palette"], said["palette_strength"]) == ("#0b3d91,#f2c14e", 1.0)
        assert (read_png_settings(before) or {})["palette"] == ""
    kept = generate(styledrop, adapter, tiny_model, "kept", "--palette", KEEP)
    assert (
        len(Palette.read((read_png_settings(kept[0]) or {})["palette"]).colours) > 1
    )  # colours: the file needs no other


def test_a_picture_without_a_palette_is_not_drawn_again_for_being_older(
    styledrop: Run, adapter: Path, tiny_model: Path
) -> None:
    from styledrop_cli.io.images import save_png

    (first, _) = generate(styledrop, adapter, tiny_model, "old")
    said = {k: v for k, v in (read_png_settings(first) or {}).items() if not k.startswith("palette")}
    save_png(load_picture(first), first, said)
    before = first.read_bytes()
    generate(styledrop, adapter, tiny_model, "old")
    assert first.read_bytes() == before and len(list(Path("old").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--palette", "#0b3d9g,#fff"], "'#0b3d9g' is no colour"),
        (["--palette", "missing.png"], "no picture missing.png"),
        (["--palette-strength", "0.5"], "--palette-strength belongs to --palette"),
        (["--palette", "#000,#fff", "--palette-strength", "2"], "palette_strength must be between 0 and 1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(styledrop: Run, options: list[str], words: str) -> None:
    for command in (
        ["generate", "none.safetensors", "a cat"],
        ["alphabet", "none.safetensors"],
        ["kit", "none.safetensors", "none.toml"],
        ["edit", "none.png", "a cat", "--restyle", "0.5"],
    ):
        done = styledrop(*command, *options)
        assert done.code == 2 and words in " ".join(done.err.split())


def test_lists_have_palettes_of_their_own(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    Path("brand.toml").write_text(
        'palette = ["#0b3d91", "#f2c14e"]\n[[asset]]\nname = "one"\nprompt = "a cat"\n'
        '[[asset]]\nname = "two"\nprompt = "a cat"\npalette = "#f00,#ff0"\npalette-strength = 0.5\n'
    )
    done = styledrop("kit", adapter, "brand.toml", "--model", tiny_model, "-o", "kit", "--palette", "black,white")
    assert done.code == 0, done.err
    one, two = (read_png_settings(Path("kit") / f"{name}.png") or {} for name in ("one", "two"))
    assert (one["palette"], two["palette"], two["palette_strength"]) == ("#0b3d91,#f2c14e", "#ff0000,#ffff00", 0.5)
    Path("prompts.txt").write_text('a cat --palette "#f00,#ff0"\na dog\n')
    done = styledrop(
        "generate", adapter, "--prompts", "prompts.txt", "-n", "1", "--model", tiny_model, "-o", "lines",
        "--palette", "black,white",
    )  # fmt: skip
    assert done.code == 0, done.err
    said = [(read_png_settings(Path("lines") / f"a-{name}-0.png") or {})["palette"] for name in ("cat", "dog")]
    assert said == ["#ff0000,#ffff00", "#000000,#ffffff"]
    Path("wrong.txt").write_text('a cat --palette "#f00,#zz0"\n')
    done = styledrop("generate", adapter, "--prompts", "wrong.txt", "--model", tiny_model)
    assert done.code == 2 and "'#zz0' is no colour" in " ".join(done.err.split()) and "line 1" in done.err


def test_letters_and_edits_have_the_palette(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    brand: list[Any] = ["--palette", "#0b3d91,#f2c14e", "--model", tiny_model]
    done = styledrop("alphabet", adapter, "--letters", "A", "-n", "1", "-o", "letters", *brand)
    assert done.code == 0, done.err
    said = read_png_settings(Path("letters/A.png")) or {}
    assert said["palette"] == "#0b3d91,#f2c14e" and "ink" not in said
    draw(64, 64).save("given.png")
    edits = {}
    for folder, options in (("plain", brand[2:]), ("edits", brand)):
        done = styledrop("edit", "given.png", "a cat", "--outpaint", "right=32", "-n", "1", "-o", folder, *options)
        assert done.code == 0, done.err
        (edits[folder],) = (to_tensor(load_picture(path)) for path in Path(folder).glob("given-*.png"))
        assert torch.equal(edits[folder][:, :, :64], to_tensor(draw(64, 64)))  # what was there keeps its colours
    assert fit(edits["edits"][:, :, 80:], BRAND)[0] < 0.7 * fit(edits["plain"][:, :, 80:], BRAND)[0]


def test_score_says_how_near_pictures_are(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    generate(styledrop, adapter, tiny_model, "brand", "--palette", "#0b3d91,#f2c14e")
    generate(styledrop, adapter, tiny_model, "plain")

    def scored(*more: str) -> dict[str, Any]:
        done = styledrop("score", *more, "--reference", adapter, "--model", tiny_model, "--json")
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    own = scored("brand")  # what the files say
    assert own["mean"]["delta_e"] < 8 and 0 < own["mean"]["on_palette"] <= 1
    first = Path(own["pictures"][0]["picture"])
    assert own["pictures"][0]["delta_e"] == pytest.approx(fit(to_tensor(load_picture(first)), BRAND)[0], abs=1e-3)
    other = scored("plain", "--palette", "#0b3d91,#f2c14e")
    assert other["mean"]["delta_e"] > own["mean"]["delta_e"]
    assert "delta_e" not in scored("plain")["mean"]
    assert scored("plain", "--palette", KEEP)["mean"]["delta_e"] > 0
    done = styledrop("score", "brand", "plain", "--reference", adapter, "--model", tiny_model, "--csv")
    assert ",delta_e,on_palette," in done.out.splitlines()[0]


def test_from_python(base: Base, adapter: Path) -> None:
    python = StyleDrop(base)
    (plain,) = python.generate("a cat", adapter)
    (made,) = python.generate("a cat", adapter, palette=["#0b3d91", "#f2c14e"], palette_strength=0.5)
    assert made.about["palette"] == "#0b3d91,#f2c14e"
    assert made.image.tobytes() == to_image(moved(to_tensor(plain.image), BRAND, 0.5)).tobytes()
    with pytest.raises(UsageError, match="one colour"):
        python.generate("a cat", adapter, palette="#0b3d91")
