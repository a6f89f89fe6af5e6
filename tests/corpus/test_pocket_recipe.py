"""Pocket's recipe: its list of drawings, what it fetches and renders, and what is wrong with either."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import tiny
from conftest import ROOT
from paired.families import HELD_OUT
from styledrop_cli.base.folder import load_module
from styledrop_cli.corpus.cutouts import Cutout, read_art
from styledrop_cli.corpus.draw import captions_of, plan
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.tensors import read_config
from styledrop_cli.models.tokenizer import ImageTokenizer

RECIPE = ROOT / "examples" / "pocket"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(RECIPE / "make_corpus.py"))


@pytest.fixture(scope="module")
def sources(recipe: dict[str, Any]) -> Any:
    return sys.modules["sources"]


@pytest.fixture(scope="module")
def index(recipe: dict[str, Any]) -> list[Cutout]:
    cutouts: list[Cutout] = recipe["chosen"](None)
    return cutouts


def run(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["make_corpus.py", *words])
    recipe["main"]()


def packed(tar: Path, cutouts: list[Cutout]) -> None:
    """Ready cut-outs, each with another colour."""
    with tarfile.open(tar, "w") as archive:
        for number, cutout in enumerate(cutouts):
            image = Image.new("RGBA", (32, 32))
            ImageDraw.Draw(image).ellipse((4, 4, 28, 28), fill=(number * 37 % 256, 90, 160, 255))
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", lossless=True)
            member = tarfile.TarInfo(cutout.file)
            member.size = buffer.tell()
            archive.addfile(member, io.BytesIO(buffer.getvalue()))


# ---- the list ----


def test_the_list_reads_itself(recipe: dict[str, Any], sources: Any, index: list[Cutout], tmp_path: Path) -> None:
    """What the package writes it can read: all names of the list, the longest too, are those of things and files."""
    assert len(index) > 9000
    assert max(len(Path(cutout.file).stem) for cutout in index) > 40
    art = tmp_path / "art"
    for cutout in index:
        (art / cutout.file).parent.mkdir(parents=True, exist_ok=True)
        (art / cutout.file).touch()
    recipe["write_art"](index, art)
    known = read_art(art)
    assert len(known.cutouts) == len(index) + 36
    words = recipe["table"]("words.txt")
    assert set(known.things) == {*words, *(thing for thing in known.things if thing[:7] in ("letter ", "number "))}
    assert len(known.things) > 1000
    assert set(known.families) == set(sources.LOOKS)
    assert all(len(thing.outlines) == 1 and not thing.outlines[0].mono for thing in known.things.values())
    assert all(thing.zh for thing in known.things.values())
    assert known.things["dog"].zh[0] == "狗" and known.things["dog"].outlines[0].name == "dog face"
    plain = [thing.words[0] for thing in known.things.values()]
    assert len(set(plain)) == len(plain)  # a plain noun means one thing
    assert set(recipe["table"]("kinds.txt")) <= set(words)


def test_what_is_only_measured_on_is_never_drawn(recipe: dict[str, Any], tmp_path: Path) -> None:
    sets = {recipe["folder"](cutout) for cutout in recipe["chosen"](None)}
    assert not [
        name for name in sets for never in ("openmoji", "fxemoji", "emojione", "noto-v1", "blob") if never in name
    ]
    assert not {"noto-v1", "fxemoji", "emojione", "emojione-v1", "openmoji", "fluent-emoji-high-contrast"} & sets
    said = recipe["describe"](recipe["chosen"](None), {})
    assert set(said["styles"]) == set(STYLES) - {"sunset", "glitch"}
    held = set(HELD_OUT)
    assert held and not held & set(said["styles"])
    words = " ".join(word for looks in said["families"].values() for word in looks)
    assert not [never for never in ("stained", "risograph", "stitch", "gold", "openmoji") if never in words]


def test_credits_are_those_of_the_list(recipe: dict[str, Any], sources: Any, index: list[Cutout]) -> None:
    table = sources.credit_table(index)
    for page in (RECIPE / "README.md", RECIPE.parents[1] / "THIRD_PARTY_NOTICES.md"):
        assert table in page.read_text(encoding="utf-8"), f"{page.name}: print it with make_corpus.py --credits"
    assert set(sources.MAKERS) == {recipe["folder"](cutout) for cutout in index}
    assert {cutout.licence for cutout in index} == set(sources.LICENCES)


def test_captions_name_the_hand(recipe: dict[str, Any], index: list[Cutout], tmp_path: Path) -> None:
    some = [cutout for cutout in index if cutout.thing in ("dog", "house")]
    for cutout in some:
        (tmp_path / cutout.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / cutout.file).touch()
    recipe["write_art"](some, tmp_path)
    art = read_art(tmp_path)
    drawings = plan(art, recipe["RECIPES"]["train"], 0)
    own = {d.shown[0].look: captions_of(d, art)[0] for d in drawings if d.style is None and d.shown == d.shown[:1]
           and d.arrangement == "alone" and not d.colour and d.shown[0] in art.things["dog"].own}  # fmt: skip
    assert own["fluent-emoji"] == "a dog in 3d rendering style"
    assert own["noto"] == "a dog in cartoon style"
    assert own["openclipart"] == "a dog in clip art style"
    styles = {d.style for d in drawings if d.shown[0].thing == "dog" and not d.under and not d.colour}
    assert styles >= set(STYLES) - {"sunset", "glitch"}
    assert {d.shown[0] for d in drawings if d.style and d.shown[0].thing == "dog"} == set(art.things["dog"].outlines)


# ---- the command ----


def test_from_ready_cut_outs(
    recipe: dict[str, Any], index: list[Cutout], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tango = [cutout for cutout in index if cutout.file.startswith("tango/")]
    packed(Path("art.tar"), tango[1:])
    small = {"own": 1, "others": 0, "styled": 0, "mixed": 0, "coloured": 0, "placed": 0, "counted": 0, "paired": 0}
    monkeypatch.setitem(recipe["RECIPES"], "train", recipe["Recipe"](**small, pictures=12))
    given = ("--out", "corpus", "--parts", "art,train", "--sets", "tango", "--art", "art.tar", "--workers", "1")
    monkeypatch.setattr(sys.modules["sources"], "fetch_art", None)
    run(recipe, monkeypatch, *given)
    said = capsys.readouterr().err
    assert f"left out: {tango[0].file} is not in art.tar" in said and "train: 12 pictures" in said
    lines = Path("corpus/train/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12 and Path("corpus/train/things.jsonl").exists()
    run(recipe, monkeypatch, *given[:3], "art", *given[4:], "--sheet", "sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sets", "tango,tengo"), "there is no set 'tengo'"),
        (("--parts", "art,trian"), "there is no part 'trian'"),
        (("--parts", "train"), "holds none of the cut-outs"),
        (("--parts", "art", "--art", "nowhere.tar"), "nowhere.tar cannot be read"),
    ],
)
def test_wrong_options(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        run(recipe, monkeypatch, "--out", "corpus", *words)


# ---- packages ----

BOX = '<path fill="#d02020" d="M2 2h12v8H2z"/>'
CUTOUTS = {
    "plain": Cutout("box/plain.webp", "box", "box", "box", "box", source="@iconify-json/box@1.0.0"),
    "turned": Cutout("box/turned.webp", "box", "box", "box", "box", source="@iconify-json/box@1.0.0"),
    "gone": Cutout("box/gone.webp", "box", "box", "box", "box", source="@iconify-json/box@1.0.0"),
    "broken": Cutout("box/broken.webp", "box", "box", "box", "box", source="@iconify-json/box@1.0.0"),
    "empty": Cutout("box/empty.webp", "box", "box", "box", "box", source="@iconify-json/box@1.0.0"),
}


@pytest.fixture
def packages() -> Path:
    pytest.importorskip("resvg_py")
    icons = {"plain": {"body": BOX}, "broken": {"body": "<path"}, "empty": {"body": "<g/>"}}
    said = {"icons": icons, "aliases": {"turned": {"parent": "plain", "rotate": 1}}, "width": 16, "height": 16}
    Path("packages").mkdir()
    Path("packages/box-1.0.0.json").write_text(json.dumps(said))
    return Path("packages")


def fetched(sources: Any, cutouts: list[Cutout], workers: int = 1) -> list[str]:
    problems: list[str] = sources.fetch_art(cutouts, Path("packages"), Path("art"), workers, lambda share, note: None)
    return problems


@pytest.mark.usefixtures("packages")
def test_what_does_not_render_is_named_and_the_rest_made(sources: Any) -> None:
    problems = fetched(sources, list(CUTOUTS.values()))
    assert [p.partition(":")[0] for p in problems] == ["box/gone.webp", "box/broken.webp", "box/empty.webp"]
    assert "holds no gone" in problems[0] and all("does not render" in p for p in problems[1:])
    boxes = []
    for name in ("plain", "turned"):
        with Image.open(f"art/box/{name}.webp") as image:
            assert image.size == (256, 256) and image.mode == "RGBA"
            boxes.append(image.getbbox())
    (left, top, right, bottom), turned = boxes
    assert right - left > bottom - top and turned[2] - turned[0] < turned[3] - turned[1]
    before = Path("art/box/plain.webp").stat().st_mtime_ns
    assert fetched(sources, [CUTOUTS["plain"]]) == []  # what is there is kept
    assert Path("art/box/plain.webp").stat().st_mtime_ns == before


def test_a_page_of_any_size_fills_the_cut_out(sources: Any) -> None:
    pytest.importorskip("resvg_py")
    page = Path("packages/clips-1_0/x/box.svg")
    page.parent.mkdir(parents=True)
    page.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm" viewBox="0 0 210 297">'
        '<rect x="20" y="30" width="40" height="20" fill="red"/></svg>'
    )
    Image.new("RGBA", (30, 60), "red").save(page.with_suffix(".png"))
    clips = [
        Cutout(f"clips/{n}.webp", "box", "box", "c", "c", source="debian:clips=1:0", original=f"x/box.{n}")
        for n in ("svg", "png")
    ]
    assert fetched(sources, clips) == []
    for name, box in (("svg", (12, 70, 244, 186)), ("png", (70, 12, 186, 244))):
        with Image.open(f"art/clips/{name}.webp") as image:
            assert all(abs(a - b) <= 1 for a, b in zip(image.getbbox(), box, strict=True)), image.getbbox()


def test_a_package_that_cannot_be_had(sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    problems = fetched(sources, [CUTOUTS["plain"], CUTOUTS["gone"]])
    assert len(problems) == 1
    assert problems[0].startswith("2 drawings of @iconify-json/box@1.0.0, which cannot be had: there is no npm")


def program(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "npm"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_a_version_that_is_gone(sources: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The newest one is taken instead; where that fails too, the program's own words are said."""
    pytest.importorskip("resvg_py")
    with tarfile.open("box.tgz", "w:gz") as archive:
        data = json.dumps({"icons": {"plain": {"body": BOX}}, "width": 16, "height": 16}).encode()
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    text = f'case "$3" in *@1.0.0) echo "no such version" >&2; exit 1;; esac\ncp {tmp_path}/box.tgz .\n'
    npm = program(tmp_path / "bin", text)
    monkeypatch.setattr(shutil, "which", lambda name: str(npm))
    problems = fetched(sources, [CUTOUTS["plain"], CUTOUTS["gone"]])
    assert len(problems) == 1 and "box/gone.webp" in problems[0] and Path("art/box/plain.webp").exists()
    program(tmp_path / "bin", 'echo "the registry is closed" >&2; exit 1\n')
    shutil.rmtree("packages")
    shutil.rmtree("art")
    (problem,) = fetched(sources, [CUTOUTS["plain"]])
    assert "which cannot be had" in problem and "the registry is closed" in problem


@pytest.mark.usefixtures("packages")
def test_a_disk_that_is_full_while_cut_outs_are_rendered(sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StyledropError(f"cannot write {path}: the disk is full", "make room on it")

    job = sources._Job(
        "box/plain.webp", Path("art"), svg=sources.icon_svg({"icons": {"plain": {"body": BOX}}}, "plain")
    )
    with monkeypatch.context() as patch:
        patch.setattr(sources, "atomic_write", full)
        with pytest.raises(StyledropError, match="the disk is full"):
            sources._render(job)
    assert not Path("art/box/plain.webp").exists()
    assert sources._render(job) is None


def test_a_line_of_the_list_that_is_wrong(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(RECIPE / "index.jsonl", tmp_path / "index.jsonl")
    with (tmp_path / "index.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"file": "tux/dog.webp", "thing": "dog", "licence": "GPL-2.0"}) + "\n")
    monkeypatch.setitem(recipe["chosen"].__globals__, "HERE", tmp_path)
    with pytest.raises(UsageError, match=r"index\.jsonl, line 9720: 'licence' is 'GPL-2.0', and none of public-domain"):
        recipe["chosen"](None)


def test_the_first_lesson_is_one_outline_alone_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_art(Path("corpus/art"))
    lines = [
        ("flat", ["a box in flat design style", "a box on a white and blue background in flat design style"]),
        ("watercolor", ["a box in watercolor painting style"]),
        ("mosaic", ["a box in mosaic of small tiles style"]),
        ("other", ["a box in clip art style"]),
        ("flat", ["a small box", "a tiny box"]),
        ("flat", ["a box on the left in flat design style"]),
        ("flat", ["two boxes"]),
        ("flat", ["a box and a cat in flat design style", "a box next to a cat"]),
    ]
    Path("corpus/train").mkdir()
    entries = []
    for number, (style, texts) in enumerate(lines):
        Path(f"corpus/train/{number}.jpg").write_bytes(b"%d" % number)
        entries.append({"file_name": f"{number}.jpg", "text": texts, "thing": "box", "style": style})
    Path("corpus/train/metadata.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    Path("corpus/train/things.jsonl").write_text('{"thing": "box", "words": ["a box"]}\n')
    monkeypatch.setattr(sys, "argv", ["first_lesson.py", "corpus"])
    runpy.run_path(str(RECIPE / "first_lesson.py"), run_name="__main__")
    kept = [json.loads(line)["file_name"] for line in Path("corpus/first/metadata.jsonl").read_text().splitlines()]
    assert kept == ["0.jpg", "1.jpg", "2.jpg"]
    assert {path.name for path in Path("corpus/first").iterdir()} == {*kept, "metadata.jsonl", "things.jsonl"}


def test_what_was_begun_can_be_gone_on_with() -> None:
    for part in read_config(RECIPE / "begun")["parts"]:
        load_module(RECIPE / "begun", part)


def test_a_table_is_carried_over_to_other_codes() -> None:
    """Where the new codes say the same as the old, in another order, each gets what its old one had."""
    script = runpy.run_path(str(RECIPE / "carry_over.py"))
    old, new = ImageTokenizer(tiny.TOKENIZER), ImageTokenizer(tiny.TOKENIZER)
    tiny.randomise(old)
    new.load_state_dict(old.state_dict())
    order = torch.randperm(24, generator=tiny.generator())  # the new id of each old one
    encode = new.encode
    new.encode = lambda pictures: order[encode(pictures)]  # type: ignore[method-assign]
    pictures = torch.rand(400, 3, 16, 16, generator=tiny.generator(1)) * torch.linspace(0, 2, 400)[:, None, None, None]
    with torch.no_grad():
        codes = script["Codes"](old, new, pictures)
    table = torch.randn(24, 5, generator=tiny.generator(2))
    carried = codes.carried(table)
    met = torch.bincount(codes.new, minlength=24)
    often = met > 20 * script["SHRINK"]
    assert int(often.sum()) >= 5
    wanted = table[order.argsort()]
    assert float((carried - wanted)[often].abs().max()) < 0.15
    assert carried.shape == (24, 5)


def test_a_table_of_the_same_codes_stays() -> None:
    table = torch.randn(24, 5, generator=tiny.generator())
    same = runpy.run_path(str(RECIPE / "carry_over.py"))["SameCodes"]()
    assert same.carried(table) is table


def test_the_matrix_of_least_squares_is_found_again() -> None:
    solve = runpy.run_path(str(RECIPE / "carry_over.py"))["solve"]
    inputs, matrix = torch.randn(200, 6, generator=tiny.generator()), torch.randn(6, 3, generator=tiny.generator(1))
    torch.testing.assert_close(solve(inputs, inputs @ matrix), matrix, atol=1e-2, rtol=1e-2)
