"""Drawing a corpus from cut-outs: what is drawn, what the captions say, and what is wrong with an art folder."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

import tiny
from styledrop_cli.corpus import draw as drawings_module
from styledrop_cli.corpus.cutouts import Art, read_art, read_index
from styledrop_cli.corpus.draw import COLOURS, PALETTES, Drawing, Recipe, captions_of, draw, plan, write_corpus
from styledrop_cli.corpus.folder import in_unknown_style, plain_contents, read_corpus, vocabulary
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.corpus.styles.canvas import Canvas
from styledrop_cli.errors import PictureError, StyledropError, UsageError
from styledrop_cli.training.loop import Budget, Loop
from styledrop_cli.training.pretrain import run as pretraining

ART = Path("art")
THINGS = {"disc": ["a disc", "a plate"], "box": ["a red box", "a box"], "letter-a": ["the letter A"]}


def cutout(path: Path, name: str, color: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (64, 64))
    shape = ImageDraw.Draw(image)
    (shape.ellipse if name == "disc" else shape.rectangle)((12, 16, 52, 40), fill=color)
    image.save(path)


@pytest.fixture
def art() -> Art:
    for family, color in (("flat", "#d02020"), ("glossy", "#30b040")):
        for name in THINGS:
            cutout(ART / family / f"{name}.png", name, color)
    write(outlines=["flat"], styles=["watercolor", "neon", "mosaic"])
    return read_art(ART)


def write(**changes: Any) -> None:
    said = {
        "families": {"flat": ["flat design"], "glossy": ["3d rendering"]},
        "outlines": ["flat"],
        "things": THINGS,
        "kinds": {"disc": ["a frisbee"]},
    }
    ART.mkdir(exist_ok=True)
    (ART / "art.json").write_text(json.dumps(said | changes), encoding="utf-8")


def one(art: Art, **changes: Any) -> tuple[torch.Tensor, list[str]]:
    """One drawing on white, and its captions."""
    about: dict[str, Any] = {"style": None, "seed": 1, "white": 1.0} | changes
    shown = tuple(art.things[name].own[0] for name in about.pop("names", ("disc",)))
    drawing = Drawing("x.jpg", shown, **about)
    return draw([drawing], art, tiny.CPU)[0].float() / 255, captions_of(drawing, art)


def inked(picture: torch.Tensor) -> torch.Tensor:
    """Where it is not white."""
    return (picture < 0.9).any(0)


def test_a_plan_is_its_seed_and_gives_every_thing_its_share(art: Art) -> None:
    recipe = Recipe(own=2, styled=3, mixed=2, coloured=4, placed=1, counted=1, paired=1)
    drawings = plan(art, recipe, 5)
    assert drawings == plan(art, recipe, 5)
    assert [d.seed for d in drawings] != [d.seed for d in plan(art, recipe, 6)]
    assert len({d.path for d in drawings}) == len(drawings)
    for name in THINGS:
        own = [d for d in drawings if d.shown[0].thing == name]
        styled = Counter(d.style for d in own if d.arrangement == "alone" and not d.colour and not d.under)
        assert styled == {None: 2 * 2, "watercolor": 3, "neon": 3, "mosaic": 3}
        assert all(d.shown[0].look == "flat" for d in own if d.style)
        assert sum(d.under is not None and d.under != d.style for d in own) == 2
        assert sum(d.colour is not None for d in own) == 4
        assert sum(d.arrangement in ("two", "three") for d in own) == (0 if name == "letter-a" else 1)  # there is one A
        # Neon has colours of its own: no caption may promise another.
        assert not [d for d in own if d.colour and d.style == "neon"]
    few = plan(art, Recipe(pictures=7), 5)
    assert len(few) == 7


def test_captions_say_what_is_drawn(art: Art) -> None:
    _, plain = one(art)
    assert plain[0] == "a disc in flat design style"
    assert "a disc" in plain or "a plate" in plain
    assert any("a frisbee" in c for c in plain)
    _, styled = one(art, style="watercolor")
    assert styled[0] == "a disc in watercolor painting style"
    assert all(c.endswith(" style") for c in styled)  # a caption without a style means the plain look
    _, toned = one(art, style="watercolor", palette="shades of blue")
    assert toned[0] == "a disc in watercolor painting style, shades of blue"
    _, mixed = one(art, style="mosaic", under="watercolor")
    assert mixed[0] == "a disc in watercolor painting and mosaic style"
    assert one(art, colour="orange")[1][0] == "an orange disc in flat design style"
    assert one(art, names=("box",), colour="blue")[1][0] == "a blue box in flat design style"  # not a blue red one
    assert one(art, arrangement="two")[1][0] == "two discs in flat design style"
    assert one(art, names=("disc", "box"), arrangement="pair")[1][0] == "a disc and a red box in flat design style"
    assert one(art, arrangement="left")[1][0] == "a disc on the left in flat design style"
    assert any("background" in c for c in one(art, white=0.0)[1])


def test_pictures_show_what_captions_say(art: Art) -> None:
    alone, _ = one(art)
    assert alone.shape == (3, 256, 256)
    ink = inked(alone)
    assert 0.1 < float(ink.float().mean()) < 0.5
    small, _ = one(art, arrangement="small")
    assert float(inked(small).float().mean()) < 0.4 * float(ink.float().mean())
    left, _ = one(art, arrangement="left")
    assert not inked(left)[:, 140:].any()
    two, _ = one(art, arrangement="two")
    assert not inked(two)[:, 126:130].any() and inked(two)[:, :120].any() and inked(two)[:, 136:].any()
    pair, _ = one(art, names=("disc", "box"), arrangement="pair")
    assert not torch.equal(pair, two)
    blue, _ = one(art, colour="blue")
    middle = blue[:, 112, 128]
    assert torch.allclose(middle, torch.tensor(COLOURS["blue"]), atol=0.1)
    over, _ = one(art, style="mosaic", under="neon")
    assert not torch.equal(over, one(art, style="mosaic")[0])
    for palette in PALETTES:
        toned, _ = one(art, style="watercolor", palette=palette)
        assert toned.isfinite().all()
        if PALETTES[palette][2] == 0 and palette != "black and white":
            hue = palette.rpartition(" ")[2]
            if hue in ("red", "green", "blue"):
                assert int(toned.mean((1, 2)).argmax()) == ("red", "green", "blue").index(hue)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_style_draws_the_thing(art: Art, style: str) -> None:
    picture, captions = one(art, style=style)
    assert float(picture.std()) > 0.01
    assert captions[0].endswith(f"{STYLES[style].descriptions[0]} style")


def test_a_corpus_is_the_same_however_many_draw_it(art: Art) -> None:
    recipe = Recipe(own=1, styled=1, mixed=0, coloured=1, placed=0, counted=0, paired=0)
    number = write_corpus(ART, Path("one"), recipe, device=tiny.CPU)
    assert write_corpus(ART, Path("two"), recipe, device=tiny.CPU, workers=2) == number
    assert (Path("one") / "metadata.jsonl").read_bytes() == (Path("two") / "metadata.jsonl").read_bytes()
    records = read_corpus(Path("one"))
    assert len(records) == number == 3 * (2 + 3 + 1)
    for record in records:
        assert record.path.read_bytes() == (Path("two") / record.path.relative_to("one")).read_bytes()
    assert plain_contents(records) == ["a disc", "a red box", "the letter A"]
    assert {"frisbee", "watercolor", "3d"} <= set(vocabulary(records))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("art")
def test_a_cutout_whose_colours_cannot_be_told_is_named_once(workers: int) -> None:
    path, said = ART / "flat/disc.png", []  # type: tuple[Path, list[str]]
    with Image.open(path) as image:
        image.load()
    image.save(path, icc_profile=b"none")
    recipe = Recipe(own=2, styled=1, mixed=0, coloured=1, placed=0, counted=0, paired=0)
    write_corpus(ART, Path("out"), recipe, device=tiny.CPU, workers=workers, on_message=said.append)
    assert len(set(said)) == len(said) == 1
    assert said[0].startswith(f"Warning: the colour profile in {path} is damaged")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"styles": ["watercolor", "crayons"]}, "unknown styles crayons"),
        ({"things": {"dragon": ["a dragon"]}}, "no family draws dragon"),
        ({"things": {}}, "no family draws anything"),
        ({"families": ["flat"]}, "not as it should be"),
        ({"things": {"disc": 3}}, "not as it should be"),
    ],
)
@pytest.mark.usefixtures("art")
def test_art_folders_that_cannot_be_drawn_from(changes: dict[str, Any], words: str) -> None:
    write(**changes)
    with pytest.raises(UsageError, match=words):
        read_art(ART)


@pytest.mark.usefixtures("art")
def test_no_art_and_broken_art() -> None:
    with pytest.raises(UsageError, match=r"holds no art\.json"):
        read_art(Path())
    (ART / "art.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="not as it should be"):
        read_art(ART)
    write()
    broken = ART / "flat/disc.png"
    broken.write_bytes(b"\x89PNG not a picture")
    with pytest.raises(PictureError, match="disc.png"):
        write_corpus(ART, Path("out"), Recipe(), device=tiny.CPU)
    assert not Path("out/metadata.jsonl").exists()  # half a corpus is none
    Image.new("RGBA", (40, 30)).save(broken)
    with pytest.raises(PictureError, match="40 x 30"):
        write_corpus(ART, Path("out"), Recipe(), device=tiny.CPU)


def test_unknown_styles_keep_the_content() -> None:
    draws, strange = tiny.generator(), ["gravel", "summer"]
    said = {in_unknown_style("a cat on a red background in ink style", strange, draws) for _ in range(40)}
    assert all(s.startswith("a cat on a red background in ") and s.endswith(" style") for s in said)
    assert {w for s in said for w in s.split()} >= set(strange)
    assert not any("ink" in s.split() for s in said)
    for caption in ("a cat", "a cat in ink style, shades of blue", ""):
        assert in_unknown_style(caption, strange, draws) == caption


def test_out_of_memory_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_pretraining(monkeypatch)
    corpus = tiny.write_corpus(Path("corpus"))

    def full(self: Loop, on_step: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Loop, "run", full)
    with pytest.raises(StyledropError, match="ran out of memory with 4 pictures a step") as error:
        pretraining.run("tokenizer", corpus, Path("model"), budget=Budget(steps=1), device=tiny.CPU, batch_size=4)
    assert "--batch-size" in str(error.value.hint)


def test_randomness_of_one_drawing_leaves_the_others_alone(art: Art) -> None:
    random.seed(3)
    before = random.getstate()
    plan(art, Recipe(), 0)
    one(art, white=0.0, smallest=0.5)
    assert random.getstate() == before


# ---- an index ----


def index(*lines: dict[str, Any] | str) -> Path:
    """An index of cut-outs in ``ART``; each is drawn."""
    path = ART / "index.jsonl"
    for line in lines:
        if isinstance(line, dict) and len(line.get("file", "").split("/")) == 2:
            cutout(ART / line["file"], line.get("name", "disc"), "#4060d0")
    said = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(said) + "\n", encoding="utf-8")
    return path


DOGS: tuple[dict[str, Any], ...] = (
    {"file": "flat/dog-face.png", "thing": "dog", "name": "dog face", "zh": "狗; 狗脸", "outline": True},
    {"file": "flat/dog.png", "thing": "dog", "name": "whole dog", "zh": "狗"},
    {"file": "noto/dog.png", "thing": "dog", "name": "dog", "hand": "google", "zh": "小狗"},
    {"file": "noto/guide-dog.png", "thing": "dog", "name": "guide dog", "zh": "导盲犬"},
    {"file": "old/dog.png", "thing": "dog", "mono": True},
    {"file": "noto/person-in-motorized-wheelchair-facing-right.png", "thing": "person in motorized wheelchair"},
)


def test_an_index_as_it_comes_from_elsewhere() -> None:
    index({"file": "flat/dog.png", "thing": "dog"}, {"file": "flat/cat.png", "thing": "cat"})
    (ART / "flat/cat.png").rename(ART / "flat/cat.PNG")
    lines = (r'{"file": "flat\\dog.png", "thing": "dog"}', '{"file": "flat/cat.PNG", "thing": "cat"}',
             '{"file": "flat/owl.png", "thing": "owl"}')  # fmt: skip
    (ART / "index.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (ART / "art.json").write_bytes(b'\xef\xbb\xbf{"families": {"flat": ["flat design"]}}')
    said: list[str] = []
    assert [c.file for c in read_art(ART, said.append).cutouts] == ["flat/dog.png", "flat/cat.PNG"]
    assert said == ["Warning: left out of art: 1 named in index.jsonl and not there ('owl.png')"]


def test_an_index_says_what_each_cut_out_is() -> None:
    index(*DOGS)
    (ART / "art.json").write_text(json.dumps({"families": {"flat": ["flat design"]}, "outlines": ["flat"]}))
    known = read_art(ART)
    dog = known.things["dog"]
    assert [c.file for c in dog.outlines] == ["flat/dog-face.png"]
    assert [c.file for c in dog.own] == ["flat/dog-face.png", "noto/dog.png"]
    assert [known.words(c) for c in dog.own] == [["a dog"], ["a dog"]]
    assert [known.words(c)[0] for c in dog.others] == ["a whole dog", "a guide dog"]
    assert dog.zh == ["狗", "狗脸", "小狗"]  # and not the one of another name
    assert known.families["noto"] == ("noto",)
    recipe = Recipe(own=2, others=1, styled=1, mixed=0, coloured=0, placed=0, counted=0, paired=0)
    drawings = [d for d in plan(known, recipe, 0) if d.shown[0].thing == "dog"]
    assert all(d.shown == tuple(dog.outlines) for d in drawings if d.style)
    assert sum(d.style is None for d in drawings) == 2 * 2 + 2 * 1
    assert not any(d.shown[0].mono for d in plan(known, recipe, 0))  # but the tokenizer sees it
    wide = plan(known, Recipe(own=1, styled=1, wide=True, dense=3), 0)
    assert Counter(c.file for d in wide[:-3] for c in d.shown) == {line["file"]: 2 for line in DOGS}
    picture = draw(wide[-1:], known, tiny.CPU)[0].float()
    assert len(wide[-1].shown) > 5 and float(picture.std((1, 2)).min()) > 5
    assert captions_of(wide[-1], known)
    (ART / "noto/dog.png").unlink()  # a package may hold it no longer
    assert next(c.file for c in read_art(ART).things["dog"].own) == "flat/dog-face.png"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: Expecting"),
        ("[1]", "line 2: it is no JSON object"),
        ({"file": "noto/cat.png"}, "line 2: it has no 'thing'"),
        ({"thing": "cat"}, "line 2: it has no 'file'"),
        ({"file": "noto/cat.png", "thing": ""}, "line 2: 'thing' is '', and should be a text"),
        ({"file": "noto/cat.png", "thing": ["cat"]}, "'thing' is .*should be a text"),
        ({"file": "../cat.png", "thing": "cat"}, "line 2: 'file' is '../cat.png', and should be like"),
        ({"file": "/etc/cat.png", "thing": "cat"}, "line 2: 'file' is '/etc/cat.png'"),
        ({"file": "cat.png", "thing": "cat"}, "'file' is 'cat.png'"),
        ({"file": "noto/cat.svg", "thing": "cat"}, "'file' is 'noto/cat.svg'"),
        ({"file": "noto/cat.png", "thing": "c" * 101}, "line 2: 'thing' is .*may have 100 characters"),
        ({"file": "noto/cat.png", "thing": "cat", "mono": "no"}, "'mono' is 'no', and should be true or false"),
        ({"file": "noto/cat.png", "thing": "cat", "licence": "GPL-3.0"}, "line 2: 'licence' is 'GPL-3.0', and none of"),
        ({"file": "noto/dog.png", "thing": "dog", "licence": "MIT"}, "line 2: noto/dog.png is named a second time"),
    ],
)
def test_lines_of_an_index_that_are_wrong(line: dict[str, Any] | str, words: str) -> None:
    ART.mkdir()
    first = {"file": "noto/dog.png", "thing": "dog", "licence": "MIT"}
    said = line if isinstance(line, str) else json.dumps(({"licence": "MIT"} if "licence" not in line else {}) | line)
    (ART / "index.jsonl").write_text(json.dumps(first) + "\n" + said + "\n")
    with pytest.raises(UsageError, match=words) as error:
        read_index(ART / "index.jsonl", ("MIT", "CC-BY-4.0"))
    assert "index.jsonl, line 2" in error.value.message


@pytest.mark.usefixtures("art")
def test_a_corpus_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a full disk: what is drawn is kept, half a corpus is none, and the end is the same."""
    recipe = Recipe(own=1, styled=2, mixed=0, coloured=1, placed=0, counted=0, paired=0)
    total = write_corpus(ART, Path("one"), recipe, device=tiny.CPU)
    write, drawn = drawings_module.atomic_write, []

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".jpg":
            if len(drawn) == total // 2:
                raise StyledropError(f"cannot write {path}: the disk is full", "make room on it")
            drawn.append(path)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(drawings_module, "atomic_write", full)
        with pytest.raises(StyledropError, match="the disk is full"):
            write_corpus(ART, Path("two"), recipe, device=tiny.CPU)
    assert not (Path("two") / "metadata.jsonl").exists()
    kept = {path: path.stat().st_mtime_ns for path in drawn}
    seen: list[int] = []
    write_corpus(ART, Path("two"), recipe, device=tiny.CPU, on_picture=lambda done, _: seen.append(done))
    assert 0 < seen[0] < total and seen[-1] == total
    assert sum(path.stat().st_mtime_ns == when for path, when in kept.items()) >= seen[0]
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in map(Path, ("one", "two"))
    )
    assert one == two
    # Another seed is another corpus: nothing of the first is taken for it.
    write_corpus(ART, Path("two"), recipe, seed=1, device=tiny.CPU, on_picture=lambda done, _: seen.append(done))
    write_corpus(ART, Path("three"), recipe, seed=1, device=tiny.CPU)
    assert (Path("two/metadata.jsonl")).read_bytes() == Path("three/metadata.jsonl").read_bytes()
    assert all(
        (Path("two") / p.relative_to("three")).read_bytes() == p.read_bytes() for p in Path("three").rglob("*.jpg")
    )


@pytest.mark.usefixtures("art")
def test_the_table_of_things() -> None:
    recipe = Recipe(own=1, styled=0, mixed=0, coloured=0, placed=0, counted=0, paired=0)
    write_corpus(ART, Path("one"), recipe, device=tiny.CPU)
    lines = [json.loads(line) for line in Path("one/things.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"thing": "disc", "words": ["a disc", "a plate"], "zh": []}
    assert [line["thing"] for line in lines] == list(THINGS)


@pytest.mark.parametrize(
    ("one_of_it", "many"),
    [
        ("a cat", "cats"), ("a bus", "buses"), ("an octopus", "octopuses"), ("a cup of coffee", "cups of coffee"),
        ("a fish", "fish"), ("a cherry", "cherries"), ("a toy", "toys"), ("a leaf", "leaves"), ("a fox", "foxes"),
        ("a glass of wine", "glasses of wine"), ("an old man", "old men"), ("a computer mouse", "computer mice"),
        ("a hand pointing up", "hands pointing up") ,
    ],
)  # fmt: skip
def test_several(one_of_it: str, many: str) -> None:
    assert drawings_module._several(one_of_it) == many


@pytest.mark.parametrize("sigma", [0.5, 1.7, 2.9, 40.0])
def test_a_blur_is_a_convolution(sigma: float) -> None:
    picture = torch.rand(2, 3, 64, 64, generator=tiny.generator())
    canvas = Canvas(torch.cat((picture, picture[:, :1]), 1), torch.ones(2, 3, 64, 64), tiny.generator())
    assert torch.allclose(canvas.blur(torch.full_like(picture, 0.4), sigma), torch.tensor(0.4), atol=1e-5)
    width = sigma * canvas.unit
    if not 0.3 <= width <= 3:
        return  # done on a smaller picture
    radius = math.ceil(2.5 * width)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / width) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    around = F.pad(picture, (radius,) * 4, mode="replicate")
    expected = F.conv2d(F.conv2d(around, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    assert torch.allclose(canvas.blur(picture, sigma), expected, atol=1e-5)
