"""The benchmark with ground truth: its styles, its judges, its arithmetic, and one whole run of a tiny model's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import against_truth
import tiny
import tiny_bench
from conftest import Outcome, Run
from paired import families, judges, measures, openmoji, renders, rows
from paired import run as paired_run
from paired.art import check_art, load_art, looks
from paired.comparisons import chosen_styles, combinations, read_values
from paired.likeness import ranked_first
from paired.renders import Examples
from paired.second_round import PICKERS
from styledrop_cli.adapters.diffusers_lora import published_base
from styledrop_cli.base import base as base_module
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.cli import console
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.corpus.styles.canvas import Canvas
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import RoundSettings, SampleSettings, TrainSettings


@pytest.fixture
def measure(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `benchmarks/against_truth.py ARGUMENTS` in this process."""

    def run(*arguments: str | Path) -> Outcome:
        code = console.run(against_truth.app, [str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bench.write_bench_art(tmp_path_factory.mktemp("art") / "art")


def shape(size: int = 32, batch: int = 2) -> torch.Tensor:
    """A disc of two colours, ``[batch,4,size,size]``."""
    line = torch.linspace(-1, 1, size)
    alpha = (line[:, None] ** 2 + line[None] ** 2 < 0.5).float()
    rgba = torch.stack((alpha * 0.9, (line[None] > 0).float().expand(size, size), 0.2 + 0 * alpha, alpha))
    return rgba.expand(batch, 4, size, size).clone()


# ---- styles ----


@pytest.mark.parametrize("name", ["stained glass", "risograph", "cross stitch", "gold"])
def test_a_held_out_style_is_drawn_from_its_seed(name: str) -> None:
    look = next(look for look in looks() if look.name == name)
    ground = torch.ones(2, 3, 32, 32)
    one, same, other = (look(shape(), ground, tiny.generator(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 3, 32, 32) and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    without = shape()
    without[:, 3] = 0
    assert (look(without, ground, tiny.generator(1)) - one).abs().mean() > 0.01  # the thing is seen


def test_no_held_out_style_is_a_training_style() -> None:
    words = {d for family in STYLES.values() for d in (family.name, *family.descriptions)}
    assert not words & {w for style in families.HELD_OUT.values() for w in (style.name, style.text)}
    assert len({look.name for look in looks()}) == len(looks())


def test_cells_of_glass_know_their_nearest_site() -> None:
    canvas = Canvas(shape(64), torch.ones(2, 3, 64, 64), tiny.generator())
    dx, dy, edge = families._voronoi(canvas, 40.0)
    x, y = canvas.x + dx, canvas.y + dy
    sites = torch.stack((x, y), -1)[0, 0].flatten(0, 1)
    here = torch.stack((canvas.x + 0 * canvas.y, canvas.y + 0 * canvas.x), -1)[0, 0].flatten(0, 1)
    distinct = (sites * 100).round().unique(dim=0) / 100
    assert 41 <= len(distinct) < 75  # (256 / 40)^2 cells, and those that reach in
    nearest = torch.cdist(here, distinct).amin(1)
    assert torch.allclose((sites - here).norm(dim=1), nearest, atol=0.05)
    assert edge.min() >= 0


def test_openmoji_is_rendered_in_the_same_box(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    body = '<rect width="72" height="72" fill="#f00"/>'
    (tmp_path / "icons.json").write_text(json.dumps({"width": 72, "height": 72, "icons": {"fox": {"body": body}}}))
    icons = openmoji.icons_of(tmp_path)
    openmoji.render(icons, ["fox", "owl"], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("*.png")] == ["fox.png"]
    with Image.open(tmp_path / "out" / "fox.png") as image:
        margin = openmoji.MARGIN
        assert image.size == (256, 256) and image.getbbox() == (margin, margin, 256 - margin, 256 - margin)


def test_art_is_what_all_families_draw_and_captions_name(art: Path, tmp_path: Path) -> None:
    whole = load_art(art, None, tmp_path)
    assert whole.things == [*tiny_bench.BENCH_THINGS] and whole.words["cat-face"] == "a cat"
    assert whole.rgba([("noto", "owl"), ("openmoji", "fox")], 32).shape == (2, 4, 32, 32)
    for path in ("twemoji/owl.webp", "openmoji/fox.webp"):
        (art / path).rename(tmp_path / path.replace("/", "-"))
    fewer = load_art(art, None, tmp_path)
    for path in ("twemoji/owl.webp", "openmoji/fox.webp"):
        (tmp_path / path.replace("/", "-")).rename(art / path)
    assert {*whole.things} - {*fewer.things} == {"owl", "fox"} and fewer.hash != whole.hash


def test_art_without_openmoji_needs_an_icon_package(art: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in art.iterdir():
        if path.name != "openmoji":
            (plain / path.name).symlink_to(path)
    body = '<rect width="72" height="72" fill="#f00"/>'
    icons = {name: {"body": body} for name in ("fox", "owl", "not-in-the-art")}
    (tmp_path / "icons.json").write_text(json.dumps({"width": 72, "height": 72, "icons": icons}))
    made = load_art(plain, tmp_path / "icons.json", tmp_path / "work")
    assert made.things == ["owl", "fox"] and made.folders["openmoji"] == tmp_path / "work" / "openmoji"
    assert load_art(plain, None, tmp_path / "work") == made  # it is there now
    with pytest.raises(UsageError, match="no icon package"):
        load_art(plain, plain / "art.json", tmp_path / "elsewhere")


# ---- arithmetic ----


def test_bootstrap_of_what_is_the_same_everywhere_is_a_point() -> None:
    assert measures.bootstrap(torch.full((2, 4, 5, 2), 0.25)) == pytest.approx((0.25, 0.25))


def test_bootstrap_resamples_references_and_prompts() -> None:
    S, R, P = 1, 150, 150
    reference = torch.randn(R, generator=tiny.generator(1))
    prompt = torch.randn(P, generator=tiny.generator(2))
    low, high = measures.bootstrap((reference[:, None] + prompt).view(S, R, P, 1))
    # The variances of both means add up: 2/150, whose root times 2 * 1.96 is the interval's width.
    assert high - low == pytest.approx(2 * 1.96 * (2 / 150) ** 0.5, rel=0.2)
    assert (low + high) / 2 == pytest.approx(float(reference.mean() + prompt.mean()), abs=0.02)
    alone = measures.bootstrap(prompt.expand(S, R, P)[..., None])
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * (1 / 150) ** 0.5, rel=0.2)


def test_estimates_are_differences_in_the_same_cell() -> None:
    base = {"leak": torch.tensor([[[[1.0], [0.0]]], [[[0.0], [0.0]]]]), "style": torch.zeros(2, 1, 2, 1)}
    row = {"leak": torch.tensor([[[[1.0], [1.0]]], [[[0.0], [0.0]]]]), "style": torch.ones(2, 1, 2, 1)}
    found = measures.estimates({"base": base, "row": row}, [0], "base", "base")
    assert found["base"]["leak"].mean == 0.5 and found["row"]["leak"].mean == 0.5  # 1 less the base's 0.5
    assert found["row"]["style"].difference == 1 and found["row"]["style"].low == 1
    both = measures.estimates({"base": base, "row": row}, [0, 1], "base", "base")
    assert both["row"]["leak"].mean == pytest.approx(0.25)


def test_table_is_markdown() -> None:
    estimate = measures.Estimate(0.83, 0.5, 0.4, 0.62)
    assert measures.written("style", estimate, True) == "83 (+40 … +62)"
    assert measures.written("truth", estimate, False) == "0.83"
    assert measures.markdown(["row", "a"], [["base", "1"]]) == "| row  | a |\n|------|---|\n| base | 1 |"


# ---- settings ----


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny")


def test_settings_of_a_sweep(base: Base) -> None:
    values = read_values(["steps=150,250", "lambda_b=1,1.5", "sample.steps=9", "shared=true"])
    assert values["train.steps"] == [150, 250] and values["sample.lambda_b"] == [1.0, 1.5]
    assert values["sample.steps"] == [9] and values["train.shared"] == [True]
    grid = combinations(values, base, 16, one_at_a_time=False)
    assert len(grid) == 5 and grid[0].name == "default"
    assert all(one.training.shared and one.sampling.steps == 9 for one in grid[1:])
    alone = combinations({"train.steps": [150, 250]}, base, 16, one_at_a_time=True)
    assert [one.name for one in alone] == ["default", "steps=150"]  # 250 is the default
    recommended = combinations({"train.lambda_b": [3.0]}, base, 16, one_at_a_time=False)[-1]
    assert recommended.sampling.lambda_b == 3.0 and recommended.name == "train.lambda_b=3.0"


def test_compared_settings_are_those_that_a_base_draws_with(base: Base, tmp_path: Path) -> None:
    hot = combinations(read_values(["temperature=1,4.5"]), base, 16, one_at_a_time=False)
    assert [one.sampling.order for one in hot] == ["halton", "confidence", "confidence"]
    published = published_base(str(tiny.write_published(tmp_path / "published")))
    usual = combinations({}, published, published.sizes[0], one_at_a_time=False)[0]
    assert usual.training == published.training()
    assert usual.sampling == published.sampling(lambda_a=usual.training.lambda_a, lambda_b=usual.training.lambda_b)


def test_values_are_written_as_they_are_given(base: Base) -> None:
    values = read_values(["targets=to_q+to_v", "last=true", "lambda-a=0.5"])
    assert combinations(values, base, 16, one_at_a_time=False)[-1].name == "targets=to_q+to_v last=true lambda_a=0.5"


def test_styles_are_chosen_by_group_or_name() -> None:
    def chosen(text: str | None, *given: str) -> list[str]:
        return [style.name for style in chosen_styles(text, read_values(given))]

    assert chosen(None) == chosen("all") == [*families.HELD_OUT]
    assert chosen(None, "steps=1,2") == chosen("development") == ["stained glass", "risograph"]
    assert chosen("Gold, openmoji,gold") == ["gold", "OpenMoji"]


WRONG = [
    (["--styles", "cubism"], 2, "no held-out style called 'cubism'", "Choose among all, development"),
    (["--styles", "gold,ristograph"], 2, "'ristograph'", "Did you mean 'risograph'?"),
    (["--styles", "developement"], 2, "'developement'", "Did you mean 'development'?"),
    (["--set", "colour=red"], 2, "no setting called 'colour'", "Choose among batch_size, checkpoints"),
    (["--set", "round.lamda_a=1"], 2, "'round.lamda_a'", "Did you mean 'lambda_a' or 'lambda_b'"),
    (["--set", "steps=many"], 2, "--set steps=many: steps takes values like 250", ""),
    (["--set", "steps"], 2, "--set steps: steps takes values like 250", ""),
    (["--set", "last=perhaps"], 2, "last takes values like false", ""),
    (["--set", "sample.seed=1"], 2, "the pictures' seeds are counted", "--seeds"),
    (["--set", "steps=0"], 2, "steps must be between 1", ""),
    (["--set", "steps=1,2", "--styles", "gold"], 2, "on the development styles only", "--styles development"),
    (["--set", "seed=1,2", "--set", "size=17"], 2, "of one size, one of 16, 32 px", ""),
    (["--references", "9"], 2, "--references must be between 1 and 4", ""),
    (["--art", "nowhere"], 2, "no art in nowhere: it has no fluent-emoji,", "make_corpus.py --out corpus --parts art"),
    (["--model", "nowhere"], 1, "not a model folder", ""),
    (["--work", "taken"], 2, "taken is a file", "name a folder with --work"),
    (["--families", "taken/sheet.png"], 2, "taken is a file", "name a folder with --families"),
]


@pytest.mark.parametrize(("arguments", "code", "words", "hint"), WRONG)
def test_wrong_input_is_said_in_words(
    measure: Run, tiny_model: Path, art: Path, arguments: list[str], code: int, words: str, hint: str
) -> None:
    Path("taken").write_text("precious")
    outcome = measure("styles", "--model", tiny_model, "--art", art, *arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert words in outcome.err and hint in outcome.err
    assert [path.name for path in Path().iterdir()] == ["taken"]


def test_the_art_is_asked_for_before_anything_is_loaded(measure: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    code, _, err = measure("styles")
    assert code == 2 and "there is no art in corpus/art" in err and "npm and resvg-py" in err


def test_art_without_words_is_no_art(art: Path, tmp_path: Path) -> None:
    check_art(art)
    for name in ("fluent-emoji", "fluent-emoji-flat", "noto", "twemoji"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"it has no art\.json"):
        check_art(tmp_path)


# ---- what another base was taught ----


def test_things_that_the_base_was_never_taught_are_left_out(tiny_model: Path, art: Path, tmp_path: Path) -> None:
    base, said = load_base(str(tiny_model), tiny.CPU), list[str]()
    drawn = load_art(art, None, tmp_path)
    assert paired_run.known_things(base, drawn, 2, said.append) == ["cat-face", "house"]
    assert said == []  # nothing was passed over
    assert paired_run.known_things(base, drawn, 10, said.append) == ["cat-face", "house"]
    assert said == ["Warning: tiny was never taught 'a fish': left out, 2 things are drawn"]
    by_words = replace(base, contents=[], words=frozenset({"fish", "house"}))
    assert paired_run.known_things(by_words, drawn, 2, said.append) == ["house", "fish"]
    told_nothing = replace(base, contents=[], words=frozenset())
    assert paired_run.known_things(told_nothing, drawn, 10, said.append) == ["cat-face", "house", "fish"]
    of_other_things = replace(base, contents=["a cat"], words=frozenset({"cat"}))
    with pytest.raises(UsageError, match="was taught 1 of the things .* it does not know 'a house', 'a fish'"):
        paired_run.known_things(of_other_things, drawn, 10, said.append)


# ---- the whole of it ----


@pytest.fixture
def quick(art: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command of seconds."""
    of = TrainSettings.of
    shorter = {"steps": 2, "views": 2, "checkpoints": 0}
    monkeypatch.setattr(TrainSettings, "of", lambda kind, **given: of(kind, **shorter | given))
    tiny_bench.shrink_bench(monkeypatch)
    few = ("--references", "1", "--prompts", "2", "--seeds", "2", "-o", "out")
    return ["styles", "--model", str(tiny_model), "--art", str(art), "--device", "cpu", *few]


def test_a_run_prints_its_table_and_writes_figures_and_sheets(measure: Run, quick: list[str]) -> None:
    code, out, err = measure(*quick, "--styles", "stained glass,openmoji")
    assert code == 0, err
    table = Path("out/table.md").read_text()
    assert out == table and "In brackets: 95 %" in table
    assert all(f"| {row} " in table for row in ("base", "style text", "round 1", "real", "real, tokenized"))
    assert "judge 0 is trained" in err and "table, figures and sheets: out" in err
    figures = json.loads(Path("out/figures.json").read_text())
    cells = figures["cells"]["round 1"]["style"]
    assert (len(cells), len(cells[0]), len(cells[0][0]), len(cells[0][0][0])) == (2, 1, 2, 2)
    assert figures["groups"]["OpenMoji"]["real"]["truth"]["mean"] == pytest.approx(1)
    assert figures["things"] == ["cat-face", "house"] and figures["references"]["OpenMoji"] == ["fox"]
    with Image.open("out/openmoji.png") as sheet:
        assert sheet.width / sheet.height == pytest.approx(3 / 4, rel=0.25)  # 4 rows of a reference and 2 things
    assert len(list(Path("styledrop-bench/adapters").glob("*.safetensors"))) == 2


def test_the_same_run_again_is_quick_and_prints_its_figures(measure: Run, quick: list[str]) -> None:
    first = measure(*quick, "--styles", "gold", "--json")
    again = measure(*quick, "--styles", "gold", "--json", "--quiet")
    assert first.code == again.code == 0
    assert first.out == again.out and again.err == ""
    said = json.loads(again.out)
    assert (said["what"], said["output"]) == ("styles", "out")
    assert json.loads(Path("out/figures.json").read_text()).items() <= said.items()
    assert "| base " in Path("out/table.md").read_text()


def test_the_styles_there_are(measure: Run, quick: list[str]) -> None:
    code, out, _ = measure(*quick, "--families", "sheets/styles.png")
    assert (code, out) == (0, "sheets/styles.png\n")
    with Image.open("sheets/styles.png") as sheet:
        assert 0.6 < sheet.height / sheet.width < 1.5  # nine lines of three, in stacks beside each other
    assert not Path("out").exists()


def test_a_sweep_trains_once_per_training(measure: Run, quick: list[str]) -> None:
    given = ["--styles", "risograph", "--set", "lambda_b=0.5,1", "--set", "steps=2,3"]
    assert measure(*quick, *given).code == 0
    figures = json.loads(Path("out/figures.json").read_text())
    assert len(figures["settings"]) == 5 and figures["judges"]["seed"] == 1
    assert figures["groups"]["risograph"]["default"]["style"]["difference"] == 0
    assert len(list(Path("styledrop-bench/adapters").glob("*.safetensors"))) == 2


def test_second_rounds_share_a_pool_and_differ_in_their_picks(
    measure: Run, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shrink_rounds(monkeypatch)
    given = ["--styles", "risograph", "--rounds", "--set", "round.per_prompt=3"]
    assert measure(*quick, *given).code == 0
    table = Path("out/table.md").read_text()
    first, second = table.split("**risograph, against round 1**")
    assert all(f"| round 2, {who}" in part for who in PICKERS for part in (first, second))
    assert "| base" in first and "| base" not in second
    (rounds,) = Path("styledrop-bench/rounds").iterdir()
    pools = {who: sorted((rounds / who / "round-2/pool").glob("ids-*")) for who in PICKERS}
    assert len({tuple(path.read_bytes() for path in shards) for shards in pools.values()}) == 1
    picks = {who: json.loads((rounds / who / "round-2/picks.json").read_text()) for who in PICKERS}
    assert [picks[who]["feedback"] for who in PICKERS] == ["clip", "random", "truth"]
    assert len({tuple(picked["pictures"]) for picked in picks.values()}) == 3


def test_a_sweep_of_rounds_is_of_second_rounds(measure: Run, quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_rounds(monkeypatch)
    small_rounds = ["--set", "round.per_prompt=3", "--set", "round.steps=1,2", "--one-at-a-time"]
    assert measure(*quick, "--styles", "risograph", *small_rounds).code == 0
    figures = json.loads(Path("out/figures.json").read_text())
    assert list(figures["cells"]) == [
        "base",
        "default",
        "per_prompt=3 round.steps=1",
        "per_prompt=3 round.steps=2",
    ]
    assert figures["settings"]["per_prompt=3 round.steps=2"]["round"]["steps"] == 2
    assert len(list(Path("styledrop-bench/rounds").iterdir())) == 3


def test_a_round_is_drawn_at_the_scales_that_it_recommends(
    measure: Run, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool would draw it so; what is set by hand goes first."""
    from paired.rows import Studio

    tiny.shrink_rounds(monkeypatch)
    drawn: list[float] = []
    draw = Studio.draw

    def note(
        self: Studio, style: str, things: list[str], seeds: list[int], sampling: SampleSettings, adapter: Any
    ) -> Any:
        if adapter is not None:
            drawn.append(sampling.lambda_a)
        return draw(self, style, things, seeds, sampling, adapter)

    monkeypatch.setattr(Studio, "draw", note)
    small = ["--styles", "risograph", "--set", "round.per_prompt=3", "--set", "round.lambda_a=0.1,0.7"]
    assert measure(*quick, *small).code == 0
    assert drawn == [RoundSettings.lambda_a, 0.1, 0.7]  # the default first
    drawn.clear()
    assert measure(*quick, *small, "--set", "sample.lambda_a=0.3").code == 0
    assert drawn == [RoundSettings.lambda_a, 0.3, 0.3]


# ---- how well a measure knows a style ----


def test_how_often_ours_come_first() -> None:
    ours, theirs = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert ranked_first(ours, theirs) == pytest.approx((3 + 1.5) / 8)
    assert ranked_first(ours, ours) == 0.5
    assert ranked_first(ours + 9, theirs) == 1


def test_likenesses_are_compared_by_every_eye(measure: Run, quick: list[str]) -> None:
    given = [one for one in quick if one not in ("-o", "out")]
    given[0] = "likeness"
    outcome = measure(*given, "--styles", "gold,risograph", "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    assert [one["style"] for one in said["references"]] == ["gold", "risograph"]
    assert set(said["ranked_first"]) == {"clip"}  # the tiny model has no second one
    for kinds in said["ranked_first"]["clip"].values():
        assert list(kinds) == ["held-out styles", "all styles", "the reference's thing"]
        assert all(0 <= share <= 1 for shares in kinds.values() for share in shares)
    shown = measure(*given, "--styles", "gold,risograph").out
    assert "| report-only | clip | csls " in " ".join(shown.split())
    again = measure(*given, "--styles", "risograph,gold", "--json")
    turned = json.loads(again.out)["ranked_first"]["clip"]["csls"]["all styles"]
    assert turned == said["ranked_first"]["clip"]["csls"]["all styles"][::-1]


def test_what_likeness_has_no_use_for_is_refused(measure: Run, quick: list[str]) -> None:
    code, _, err = measure("likeness", "--rounds")
    assert code == 2
    assert "leave out --rounds" in err


KINDS = ("real", "tokenized")


def test_judges_are_read_back_as_they_were(
    art: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tiny_bench.shrink_bench(monkeypatch)
    base, drawn = load_base(str(tiny_model), tiny.CPU), load_art(art, None, tmp_path)
    said: list[str] = []
    made, read = (judges.load_judges(drawn, looks(), base, tmp_path, 0, small, said.append) for _ in range(2))
    assert len(said) == 4 and {f"{a}, {b}" for a in ("style", "content") for b in KINDS} < set(made.accuracy)
    pictures = torch.rand(3, 3, 16, 16, generator=tiny.generator())
    before, after = made.see(pictures), read.see(pictures)
    assert torch.equal(before.style, after.style) and torch.equal(before.content, after.content)
    assert torch.equal(before.features, after.features) and made.style.centre.abs().sum() > 0
    judges.load_judges(drawn, looks(), base, tmp_path, 1, small, said.append)
    assert len(said) == 8  # another seed is another judge


def test_a_judge_that_was_cut_goes_on_and_is_the_same(
    art: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tiny_bench.shrink_bench(monkeypatch)
    base, drawn = load_base(str(tiny_model), tiny.CPU), load_art(art, None, tmp_path)
    whole = judges.load_judges(drawn, looks(), base, tmp_path / "whole", 0, small, lambda line: None)
    fit, of_look, looked = judges.fit, renders._of_look, []

    def cut(judge: judges.Judge, *rest: Any, hues: bool) -> None:
        if hues:  # the content judge, which comes second
            raise KeyboardInterrupt
        fit(judge, *rest, hues=hues)

    def noted(art: Any, look: Any, *rest: Any) -> Any:
        looked.append(look.name)
        if len(looked) == 5:
            raise KeyboardInterrupt
        return of_look(art, look, *rest)

    def go_on() -> judges.Judges:
        return judges.load_judges(drawn, looks(), base, tmp_path / "cut", 0, small, lambda line: None)

    monkeypatch.setattr(judges, "fit", cut)
    monkeypatch.setattr(renders, "_of_look", noted)
    for _ in range(2):  # among the renders, and between the judges
        with pytest.raises(KeyboardInterrupt):
            go_on()
    names = [look.name for look in looks()]
    assert looked == [*names[:5], *names[4:]]  # only the one that was cut is drawn again
    monkeypatch.setattr(judges, "fit", fit)
    monkeypatch.setattr(renders, "_of_look", None)
    made = go_on()
    for one, other in ((whole.style, made.style), (whole.content, made.content)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert whole.accuracy == pytest.approx(made.accuracy, nan_ok=True)
    assert not list((tmp_path / "cut" / "judges").glob("*.parts"))


def test_a_run_says_how_long_it_takes_and_draws_nothing_twice(
    measure: Run, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(*quick, "--styles", "gold")
    assert re.search(r"about .* on two idle cores .*judges \d.*, 1 adapter \d.*, 8 pictures", first.err)
    monkeypatch.setattr(rows, "drawn", None)
    monkeypatch.setattr(rows, "train_adapter", None)
    again = measure(*quick, "--styles", "gold")
    assert (again.code, again.out) == (0, first.out)
    assert "judges 0 s, 0 adapters 0 s" in again.err


def test_quick_asks_little(art: Path, tmp_path: Path) -> None:
    """Its judges know what is drawn and shown, and few things besides."""
    plan = paired_run.Plan(chosen_styles("gold", {}), {}, references=1, prompts=2, seeds=1, quick=True)
    whole = load_art(art, None, tmp_path)
    few, styles, settings = plan.judged(whole)
    assert len(styles) < len(looks()) and {*families.HELD_OUT} < {look.name for look in styles}
    needed = {"cat-face", "house", "fish", "elephant", "bicycle"}
    assert needed <= {*few.things} <= {*whole.things} and settings.renders < judges.JudgeSettings().renders
    least = whole.with_few(needed, len(needed))
    assert needed <= {*least.things} and least.hash != whole.hash and [*least.words] == least.things
    of_all, every_style, usual = replace(plan, quick=False).judged(whole)
    assert (of_all, usual) == (whole, judges.JudgeSettings())
    assert [look.name for look in every_style] == [look.name for look in looks()]


def test_a_judge_learns_what_is_there_to_learn() -> None:
    labels = torch.arange(64) % 2
    pictures = (torch.rand(64, 3, 16, 16, generator=tiny.generator()) * 60).to(torch.uint8)
    pictures[labels == 1, :, ::2] += 150  # stripes
    shown = Examples(pictures, labels, labels, labels > 2)
    torch.manual_seed(0)
    judge = judges.Judge(2, 4, 16)
    judges.fit(judge, shown, labels, passes=12, batch=16, seed=0, hues=False)
    assert judges.right(judge, shown, labels) == 1
