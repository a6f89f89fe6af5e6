"""The benchmark with ground truth: its styles, its judges, its arithmetic, and one whole run of a tiny model's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import tiny
from styledrop_cli.errors import UsageError
from styledrop_cli.styles import STYLES

FOLDER = Path(__file__).parents[1] / "benchmarks" / "paired_styles"
MODULES = ("families", "art", "judges", "measures", "rows", "second_round", "bars")
TAUGHT = ("cat-face", "house", "fish", "owl", "sailboat", "dog-face", "fox", "bear")


class Benchmark:
    """Its modules, by name; ``command`` is what the folder runs as."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {name: __import__(name) for name in MODULES}
        self.command = self._main()

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["modules"][name]

    def _main(self) -> ModuleType:
        import importlib.util

        spec = importlib.util.spec_from_file_location("paired_styles_main", FOLDER / "__main__.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # a dataclass asks for its module
        spec.loader.exec_module(module)
        return module


@pytest.fixture(scope="module")
def bench() -> Iterator[Benchmark]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield Benchmark()
    finally:
        sys.path.remove(str(FOLDER))
        for name in (*MODULES, "paired_styles_main"):
            sys.modules.pop(name, None)


def icon(number: int, family: int) -> Image.Image:
    """A made-up thing: a shape that tells the thing, in colours that tell the family."""
    image = Image.new("RGBA", (64, 64))
    pen = ImageDraw.Draw(image)
    colour = (40 + 50 * family, 230 - 45 * family, 60 + 20 * number, 255)
    pen.regular_polygon((32, 32, 26), 3 + number, rotation=15 * number, fill=colour, outline=(0, 0, 0, 255))
    return image


@pytest.fixture(scope="module")
def raw(bench: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for i, family in enumerate((*bench.art.FAMILIES, bench.art.OPENMOJI)):
        (folder / family).mkdir()
        for j, thing in enumerate(TAUGHT):
            icon(j, i).save(folder / family / f"{thing}.webp", lossless=True)
    return folder


def shape(size: int = 32, batch: int = 2) -> torch.Tensor:
    """A disc of two colours, ``[batch,4,size,size]``."""
    line = torch.linspace(-1, 1, size)
    alpha = (line[:, None] ** 2 + line[None] ** 2 < 0.5).float()
    rgba = torch.stack((alpha * 0.9, (line[None] > 0).float().expand(size, size), 0.2 + 0 * alpha, alpha))
    return rgba.expand(batch, 4, size, size).clone()


# ---- styles ----


@pytest.mark.parametrize("name", ["stained glass", "risograph", "cross stitch", "gold"])
def test_a_held_out_style_is_drawn_from_its_seed(bench: Benchmark, name: str) -> None:
    look = next(look for look in bench.art.looks() if look.name == name)
    ground = torch.ones(2, 3, 32, 32)
    one, same, other = (look(shape(), ground, tiny.generator(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 3, 32, 32) and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    without = shape()
    without[:, 3] = 0
    assert (look(without, ground, tiny.generator(1)) - one).abs().mean() > 0.01  # the thing is seen


def test_no_held_out_style_is_a_training_style(bench: Benchmark) -> None:
    words = {d for family in STYLES.values() for d in (family.name, *family.descriptions)}
    assert not words & {w for style in bench.families.HELD_OUT.values() for w in (style.name, style.text)}
    assert len({look.name for look in bench.art.looks()}) == len(bench.art.looks())


def test_cells_of_glass_know_their_nearest_site(bench: Benchmark) -> None:
    canvas = bench.families.Canvas(shape(64), torch.ones(2, 3, 64, 64), tiny.generator())
    dx, dy, edge = bench.families._voronoi(canvas, 40.0)
    x, y = canvas.x + dx, canvas.y + dy
    sites = torch.stack((x, y), -1)[0, 0].flatten(0, 1)
    here = torch.stack((canvas.x + 0 * canvas.y, canvas.y + 0 * canvas.x), -1)[0, 0].flatten(0, 1)
    distinct = (sites * 100).round().unique(dim=0) / 100
    assert 41 <= len(distinct) < 75  # (256 / 40)^2 cells, and those that reach in
    nearest = torch.cdist(here, distinct).amin(1)
    assert torch.allclose((sites - here).norm(dim=1), nearest, atol=0.05)
    assert edge.min() >= 0


def test_openmoji_is_rendered_in_the_same_box(bench: Benchmark, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    body = '<rect width="72" height="72" fill="#f00"/>'
    (tmp_path / "icons.json").write_text(json.dumps({"width": 72, "height": 72, "icons": {"fox": {"body": body}}}))
    icons = bench.art.icons_of(tmp_path)
    bench.art.render(icons, ["fox", "owl"], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("*.webp")] == ["fox.webp"]
    with Image.open(tmp_path / "out" / "fox.webp") as image:
        margin = bench.art.MARGIN
        assert image.size == (256, 256) and image.getbbox() == (margin, margin, 256 - margin, 256 - margin)


def test_things_are_called_as_captions_call_them(bench: Benchmark) -> None:
    called = bench.art.called
    assert (called("cat-face"), called("ear-of-corn"), called("odd-thing")) == ("a cat", "corn", "an odd thing")


# ---- arithmetic ----


def test_bootstrap_of_what_is_the_same_everywhere_is_a_point(bench: Benchmark) -> None:
    assert bench.measures.bootstrap(torch.full((2, 4, 5, 2), 0.25)) == pytest.approx((0.25, 0.25))


def test_bootstrap_resamples_references_and_prompts(bench: Benchmark) -> None:
    S, R, P = 1, 150, 150
    reference = torch.randn(R, generator=tiny.generator(1))
    prompt = torch.randn(P, generator=tiny.generator(2))
    low, high = bench.measures.bootstrap((reference[:, None] + prompt).view(S, R, P, 1))
    # The variances of both means add up: 2/150, whose root times 2 * 1.96 is the interval's width.
    assert high - low == pytest.approx(2 * 1.96 * (2 / 150) ** 0.5, rel=0.2)
    assert (low + high) / 2 == pytest.approx(float(reference.mean() + prompt.mean()), abs=0.02)
    alone = bench.measures.bootstrap(prompt.expand(S, R, P)[..., None])
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * (1 / 150) ** 0.5, rel=0.2)


def test_estimates_are_differences_in_the_same_cell(bench: Benchmark) -> None:
    base = {"leak": torch.tensor([[[[1.0], [0.0]]], [[[0.0], [0.0]]]]), "style": torch.zeros(2, 1, 2, 1)}
    row = {"leak": torch.tensor([[[[1.0], [1.0]]], [[[0.0], [0.0]]]]), "style": torch.ones(2, 1, 2, 1)}
    found = bench.measures.estimates({"base": base, "row": row}, [0], "base", "base")
    assert found["base"]["leak"].mean == 0.5 and found["row"]["leak"].mean == 0.5  # 1 less the base's 0.5
    assert found["row"]["style"].difference == 1 and found["row"]["style"].low == 1
    both = bench.measures.estimates({"base": base, "row": row}, [0, 1], "base", "base")
    assert both["row"]["leak"].mean == pytest.approx(0.25)


def test_table_is_markdown(bench: Benchmark) -> None:
    estimate = bench.measures.Estimate(0.83, 0.5, 0.4, 0.62)
    assert bench.measures.written("style", estimate, True) == "83 (+40 … +62)"
    assert bench.measures.written("truth", estimate, False) == "0.83"
    assert bench.measures.markdown(["row", "a"], [["base", "1"]]) == "| row  | a |\n|------|---|\n| base | 1 |"


# ---- settings ----


def test_settings_of_a_sweep(bench: Benchmark) -> None:
    values = bench.command.read_values(["steps=150,250", "lambda_b=1,1.5", "sample.steps=9", "shared=true"])
    assert values["train.steps"] == [150, 250] and values["sample.lambda_b"] == [1.0, 1.5]
    assert values["sample.steps"] == [9] and values["train.shared"] == [True]
    grid = bench.command.combinations(values, 16, one_at_a_time=False)
    assert len(grid) == 5 and grid[0].name == "default"
    assert all(one.training.shared and one.sampling.steps == 9 for one in grid[1:])
    alone = bench.command.combinations({"train.steps": [150, 250]}, 16, one_at_a_time=True)
    assert [one.name for one in alone] == ["default", "steps=150"]  # 250 is the default
    recommended = bench.command.combinations({"train.lambda_b": [3.0]}, 16, one_at_a_time=False)[-1]
    assert recommended.sampling.lambda_b == 3.0 and recommended.name == "train.lambda_b=3.0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--styles", "cubism"], "cubism"),
        (["--set", "colour=red"], "colour"),
        (["--set", "steps=many"], "250"),
        (["--set", "steps=0"], "between 1"),
        (["--set", "steps=1,2", "--styles", "gold"], "development"),
        (["--set", "seed=1,2", "--set", "size=17"], "one size"),
        (["--references", "9"], "between 1 and 4"),
        (["--raw", "nowhere"], "no rendered art"),
        (["--model", "nowhere"], "not a model folder"),
    ],
)
def test_wrong_input_is_said_in_words(
    bench: Benchmark,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    given = [] if "--model" in arguments else ["--model", str(tiny_model)]
    monkeypatch.setattr(sys, "argv", ["paired_styles", *given, *arguments])
    with pytest.raises(SystemExit) as stopped:
        bench.command.main()
    assert stopped.value.code == (1 if "--model" in arguments else 2)
    assert words in capsys.readouterr().err


# ---- the whole of it ----


@pytest.fixture
def small(bench: Benchmark) -> Any:
    sizes = {"style_side": 16, "content_side": 8, "style_width": 4, "content_width": 4}
    return bench.judges.JudgeSettings(renders=80, style_passes=1, content_passes=1, batch=16, held_out=0.3, **sizes)


@pytest.fixture
def quick(bench: Benchmark, raw: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a run of seconds, and the few things there are."""
    of = bench.command.TrainSettings.of
    shorter = {"steps": 2, "views": 2, "checkpoints": 0}
    monkeypatch.setattr(bench.command.TrainSettings, "of", lambda kind, **given: of(kind, **shorter | given))
    monkeypatch.setattr(bench.rows, "REFERENCE_SIZE", 64)
    monkeypatch.setattr(bench.command, "REFERENCE_SIZE", 64)
    return ["--model", str(tiny_model), "--raw", str(raw), "--references", "1", "--prompts", "2", "--seeds", "2"]


def test_a_run_writes_its_table_figures_and_sheets(
    bench: Benchmark, small: Any, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bench.command.run([*quick, "--styles", "stained glass,openmoji", "-o", "out"], small)
    table = Path("out/table.md").read_text()
    assert table in capsys.readouterr().out
    assert all(f"| {row} " in table for row in ("base", "style text", "round 1", "real", "real, tokenized"))
    figures = json.loads(Path("out/figures.json").read_text())
    cells = figures["cells"]["round 1"]["style"]
    assert (len(cells), len(cells[0]), len(cells[0][0]), len(cells[0][0][0])) == (2, 1, 2, 2)
    assert figures["groups"]["OpenMoji"]["real"]["truth"]["mean"] == pytest.approx(1)
    assert figures["things"] == ["cat-face", "house"] and figures["references"]["OpenMoji"] == ["fox"]
    with Image.open("out/openmoji.png") as sheet:
        assert sheet.width / sheet.height == pytest.approx(3 / 4, rel=0.25)  # 4 rows of a reference and 2 things
    assert len(list(Path("build/paired_styles/adapters").glob("*.safetensors"))) == 2


def test_a_sweep_trains_once_per_training(bench: Benchmark, small: Any, quick: list[str]) -> None:
    given = ["--styles", "risograph", "--set", "lambda_b=0.5,1", "--set", "steps=2,3", "-o", "out"]
    bench.command.run([*quick, *given], small)
    figures = json.loads(Path("out/figures.json").read_text())
    assert len(figures["settings"]) == 5 and figures["judges"]["seed"] == 1
    assert figures["groups"]["risograph"]["default"]["style"]["difference"] == 0
    assert len(list(Path("build/paired_styles/adapters").glob("*.safetensors"))) == 2


def test_second_rounds_share_a_pool_and_differ_in_their_picks(
    bench: Benchmark, small: Any, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shrink_rounds(monkeypatch)
    given = ["--styles", "risograph", "--rounds", "--set", "round.per_prompt=3", "--set", "round.steps=2", "-o", "out"]
    bench.command.run([*quick, *given], small)
    table = Path("out/table.md").read_text()
    first, second = table.split("**risograph, against round 1**")
    assert all(f"| round 2, {who}" in part for who in bench.second_round.PICKERS for part in (first, second))
    assert "| base" in first and "| base" not in second
    (rounds,) = Path("build/paired_styles/rounds").iterdir()
    pools = {who: sorted((rounds / who / "round-2/pool").glob("ids-*")) for who in bench.second_round.PICKERS}
    assert len({tuple(path.read_bytes() for path in shards) for shards in pools.values()}) == 1
    picks = {who: json.loads((rounds / who / "round-2/picks.json").read_text()) for who in bench.second_round.PICKERS}
    assert [picks[who]["feedback"] for who in bench.second_round.PICKERS] == ["clip", "random", "truth"]
    assert len({tuple(picked["pictures"]) for picked in picks.values()}) == 3


def test_a_sweep_of_rounds_is_of_second_rounds(
    bench: Benchmark, small: Any, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shrink_rounds(monkeypatch)
    small_rounds = ["--set", "round.per_prompt=2", "--set", "round.steps=1,2", "--one-at-a-time"]
    bench.command.run([*quick, "--styles", "risograph", *small_rounds, "-o", "out"], small)
    figures = json.loads(Path("out/figures.json").read_text())
    assert list(figures["cells"]) == [
        "base",
        "default",
        "per_prompt=2 round.steps=1",
        "per_prompt=2 round.steps=2",
    ]
    assert len(list(Path("build/paired_styles/rounds").iterdir())) == 3


def test_judges_are_read_back_as_they_were(
    bench: Benchmark, small: Any, raw: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base, art = tiny.load_base(str(tiny_model), tiny.CPU), bench.art.load_art(raw, None, tmp_path)
    said: list[str] = []
    looks = bench.art.looks()
    made, read = (bench.judges.load_judges(art, looks, base, tmp_path, 0, small, said.append) for _ in range(2))
    assert len(said) == 3 and {f"{a}, {b}" for a in ("style", "content") for b in KINDS} < set(made.accuracy)
    pictures = torch.rand(3, 3, 16, 16, generator=tiny.generator())
    before, after = made.see(pictures), read.see(pictures)
    assert torch.equal(before.style, after.style) and torch.equal(before.content, after.content)
    assert torch.equal(before.features, after.features) and made.style.centre.abs().sum() > 0
    bench.judges.load_judges(art, looks, base, tmp_path, 1, small, said.append)
    assert len(said) == 6  # another seed is another judge


KINDS = ("real", "tokenized")


def test_a_judge_learns_what_is_there_to_learn(bench: Benchmark) -> None:
    labels = torch.arange(64) % 2
    pictures = (torch.rand(64, 3, 16, 16, generator=tiny.generator()) * 60).to(torch.uint8)
    pictures[labels == 1, :, ::2] += 150  # stripes
    shown = bench.judges.Examples(pictures, labels, labels, labels > 2)
    torch.manual_seed(0)
    judge = bench.judges.Judge(2, 4, 16)
    bench.judges.fit(judge, shown, labels, passes=12, batch=16, seed=0, hues=False)
    assert bench.judges.right(judge, shown, labels) == 1


def test_bars(
    bench: Benchmark, small: Any, quick: list[str], picture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    picture.rename(tmp_path / "pictures" / "one.png")
    bench.bars.run([*quick[:4], "--pictures", "pictures", "--every", "4", "--seeds", "1", "-o", "out"], small)
    figures = json.loads(Path("out/bars.json").read_text())["figures"]
    # 64x64 ids of 24 codes: this tokenizer makes 4 px an id.
    assert figures["bytes of a picture's ids at 256 px"] == int(64 * 64 * 4.58496 / 8)
    assert figures["WebP at equal bytes, dB"] > figures["tokenizer, pictures at 256 px, dB"]  # of an untrained one
    assert "WebP" in capsys.readouterr().out and Path("out/outside-words.png").exists()


def test_webp_keeps_to_its_bytes(bench: Benchmark) -> None:
    noise = (torch.rand(256, 256, 3, generator=tiny.generator()) * 255).byte().numpy()
    image = Image.fromarray(noise)
    assert bench.bars.best_webp(image, 400) < bench.bars.best_webp(image, 4000) < bench.bars.best_webp(image, 60000)


def test_words_outside_are_outside(bench: Benchmark) -> None:
    asked = bench.bars.read_outside(bench.bars.WORDS)
    assert len(asked) == 60 == len(dict(asked))
    known = {phrase for phrases in bench.art._phrases().values() for phrase in phrases[:1]}
    taught = set(bench.art._listed("taught.txt"))
    assert not known & {words for words, _ in asked}
    assert {thing for _, things in asked for thing in things} <= taught


def test_pictures_that_are_not_there(bench: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        bench.bars.pictures_in(tmp_path)
