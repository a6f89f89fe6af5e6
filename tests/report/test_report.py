"""`styledrop report`: what it says, what it refuses, and how the page behaves in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from PIL import Image

import tiny
from conftest import Outcome, Run, draw
from person import Watcher
from styledrop_cli.adapters.file import new_adapter, tensors_of
from styledrop_cli.adapters.header import load_adapter, read_header, write_recommended
from styledrop_cli.base.base import load_base
from styledrop_cli.cli.app import app
from styledrop_cli.feedback.outcome import called
from styledrop_cli.feedback.pool import PLAN
from styledrop_cli.judging.csls import Calibration
from styledrop_cli.judging.evaluate import References, judge_of
from styledrop_cli.judging.prompts import CHOOSING, GRADED, PROBES, REPORT, SUBJECTS
from styledrop_cli.report import grade
from styledrop_cli.report.commands import commands
from styledrop_cli.report.grade import TOLD, Estimate, Graded, also_chose, free_prompts
from styledrop_cli.report.history import read_story
from styledrop_cli.report.page import _verdict
from styledrop_cli.settings import SUPERRES_STEPS, RoundSettings, TrainSettings
from styledrop_cli.training.adapter import losses_of_each, train_adapter

Report = Callable[..., Outcome]
MEASURES = [name for name, *_ in grade.MEASURES]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_rounds(monkeypatch)


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, its training, and one round of feedback after it."""
    folder = tmp_path_factory.mktemp("made")
    draw().save(folder / "ref.png")
    base = load_base(str(tiny_model), tiny.CPU)
    train_adapter(
        base,
        pictures=[folder / "ref.png"],
        style="watercolor",
        contents=["a cat"],
        settings=TrainSettings(steps=4, views=2, checkpoints=2),
        output=folder / "adapter.safetensors",
    )
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink_rounds(patch)

        from styledrop_cli.feedback.pickers import BestPicker
        from styledrop_cli.feedback.rounds import iterate

        iterate(
            base,
            folder / "adapter.safetensors",
            folder=folder / "adapter.rounds",
            settings=RoundSettings(per_prompt=3, steps=2),
            pickers=[BestPicker()],
            watcher=Watcher(),
            grader=base,
            prompts=["a dog", "a house"],
        )
    return folder


@pytest.fixture
def report(styledrop: Run, tiny_model: Path, made: Path) -> Report:
    """The command, beside a copy of all that there is to report on."""
    shutil.copytree(made, ".", dirs_exist_ok=True)
    Path("prompts.txt").write_text("a red cat\na tree\n", encoding="utf-8")

    def run(*arguments: str | Path, model: Path = tiny_model) -> Outcome:
        return styledrop("report", *arguments, "--prompts", "prompts.txt", "-n", "2", "--model", model)

    return run


def words_of(page: Path) -> str:
    """What a person reads."""
    import html

    text = re.sub(r"<(style|script).*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


# ---- what it reports on ----


def test_an_adapter(report: Report) -> None:
    code, out, err = report("adapter.safetensors", "-q")
    assert (code, out) == (0, "report.html\n"), err
    said = words_of(Path("report.html"))
    for part in (
        "watercolor",
        "a cat · ref.png",
        "the picture itself",
        "a red cat",
        "a tree",
        TOLD,
        "Against the style in words",
    ):
        assert part in said
    assert "Training" in said and "Picks" not in said
    assert list(Path().glob("report.html.run*")) == []
    page = Path("report.html").read_text()
    assert page.count("data:image/jpeg") == 1 + 3 * 2 * 2  # the reference, and three rows of two prompts and seeds
    assert page.count("data:image/svg+xml;base64") == 3 * 2  # plane, losses, checkpoints; each for phones, too


def test_rounds(report: Report) -> None:
    found = json.loads(report("adapter.rounds", "--json").out)
    assert list(found["rows"]) == ["base", TOLD, "start", "round 1"]
    assert set(found["rows"]["round 1"]) == set(MEASURES)
    said = words_of(Path("report.html"))
    assert "For round 1, picked by clip: 2" in said
    assert "made from start" in said
    table = json.loads(Path("adapter.rounds/table.json").read_text())
    assert " ".join(table["verdict"].split()) in " ".join(said.split())
    assert f"{called(table['best'])}, kept" in said and said.count(", kept") == 1
    assert "styledrop iterate adapter.safetensors --rounds 1" in said
    story = read_story(Path("adapter.rounds"))
    assert [len(stage.curve.losses) for stage in story.stages if stage.curve] == [4, 2]
    assert [len(stage.curve.checkpoints) for stage in story.stages if stage.curve] == [2, 0]
    # The training before the rounds is found under the name that they took over.
    assert Path("report.html").read_text().count("data:image/svg+xml;base64") >= 3 * 2


def test_more_style_is_no_gain_where_the_thing_is_gone() -> None:
    """As a new user had it: "more style" stood over confetti."""

    def verdict(subject: float) -> str:
        found = {name: Estimate(0.5, 0.4, 0.6, 0.3, 0.2, 0.4) for name in ("csls", "text", "leak", "seen", "way")}
        apart = subject - 0.8
        thing = Estimate(subject, subject - 0.1, subject + 0.1, apart, apart - 0.05, apart + 0.05)
        return _verdict("round 2", found | {"object": thing})

    said = "round 2: not seen, much style. Against the style in words: "
    assert verdict(0.2).startswith(f"{said}what was asked for is mostly lost; more style")
    assert verdict(0.6).startswith(f"{said}more style")


def test_a_training_is_its_adapter(report: Report) -> None:
    assert report("adapter.safetensors.run", "-q").code == 0
    Path("adapter.safetensors").unlink()
    code, _, err = report("adapter.safetensors.run", "--overwrite")
    assert code == 2
    assert "has not written adapter.safetensors" in err


def test_the_curve_of_another_training_is_not_its_own(report: Report) -> None:
    shutil.copy("adapter.rounds/round-2/adapter.safetensors", "adapter.safetensors")
    for place in ("adapter.safetensors", "adapter.safetensors.run"):
        assert read_story(Path(place)).stages[0].curve is None
    assert [stage.curve is None for stage in read_story(Path("adapter.rounds")).stages] == [False, False]


def test_without_the_folders_beside_it(report: Report) -> None:
    """A lone file still says whose picks it learnt from, and shows the reference as tokens."""
    shutil.copy("adapter.rounds/round-2/adapter.safetensors", "lone.safetensors")
    shutil.rmtree("adapter.rounds")
    Path("ref.png").unlink()
    assert report("lone.safetensors", "-q").code == 0
    said = words_of(Path("report.html"))
    assert "as the base model's tokens show it" in said
    assert "an adapter that is not here" in said
    assert "picked by clip: 2" in said


def test_another_picture_of_that_name_is_not_shown(report: Report) -> None:
    draw(50, 50).save("ref.png")
    assert report("adapter.safetensors", "-q").code == 0
    assert "as the base model's tokens show it" in words_of(Path("report.html"))


# ---- what is counted ----


def test_the_same_command_counts_the_same(report: Report) -> None:
    first = json.loads(report("adapter.safetensors", "--json").out)["rows"]
    page = Path("report.html").read_bytes()
    Path("prompts.txt").write_text("a tree\na red cat\n", encoding="utf-8")  # order is nothing
    second = json.loads(report("adapter.safetensors", "--json", "--overwrite").out)["rows"]
    for row, values in first.items():
        for name, estimate in values.items():
            assert estimate["mean"] == pytest.approx(second[row][name]["mean"], abs=1e-5), (row, name)
    Path("prompts.txt").write_text("a red cat\na tree\n", encoding="utf-8")
    report("adapter.safetensors", "--json", "--overwrite")
    assert Path("report.html").read_bytes() == page


def test_an_adapter_is_graded_as_it_draws(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_model), tiny.CPU)
    adapter = tmp_path / "adapter.safetensors"
    shutil.copy(made / "adapter.safetensors", adapter)
    write_recommended(adapter, {"temperature": 3.0})
    story = read_story(adapter)
    grade.grade(base, story, base, Calibration(base), prompts=["a tree"], number=1, seed=5, folder=tmp_path / "drawn")
    plan = json.loads((tmp_path / "drawn" / "row-2" / PLAN).read_text())
    assert plan["sampling"] == asdict(base.sampling(**read_header(adapter).recommended))
    assert plan["sampling"]["order"] == "confidence"  # the only one in which a temperature has a say


def test_differences_are_paired() -> None:
    cells = {
        row: {name: torch.randn(4, 3, generator=tiny.generator(i)) for name in MEASURES}
        for i, row in enumerate(("base", TOLD))
    }
    cells["adapter"] = {name: value + 0.125 for name, value in cells[TOLD].items()}
    found = Graded(["p"] * 4, [0, 1, 2], cells, {}).estimates()
    for name in MEASURES:
        one = found["adapter"][name]
        assert one.difference == pytest.approx(0.125, abs=1e-6)
        assert (one.difference_low, one.difference_high) == pytest.approx((0.125, 0.125), abs=1e-6)
        assert one.sure
        assert not found[TOLD][name].sure
        assert one.low < one.mean < one.high


def test_a_stopped_report_goes_on(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    from styledrop_cli.base.base import Base

    sample, drawn = Base.sample, []

    def count(self: Base, prompts: list[str], *rest: Any, **options: Any) -> Any:
        drawn.append(len(prompts))
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return sample(self, prompts, *rest, **options)

    monkeypatch.setattr(Base, "sample", count)
    assert report("adapter.safetensors").code == 130
    assert not Path("report.html").exists()
    before = len(drawn)
    assert report("adapter.safetensors", "-q").code == 0
    assert len(drawn) - before == 2  # of four drawings two were there


# ---- what chose does not grade ----


def test_the_prompts_choose_nothing_elsewhere() -> None:
    lists = (PROBES, SUBJECTS, GRADED, REPORT)
    assert len({*CHOOSING, *REPORT}) == sum(map(len, lists)), "a prompt stands in two of them"
    known = set(load_base("pocket", tiny.CPU).contents)
    assert set(REPORT) <= known


def test_what_was_learnt_from_is_left_out(tiny_model: Path, made: Path) -> None:
    base = load_base(str(tiny_model), tiny.CPU)
    story = read_story(made / "adapter.rounds")
    assert {"a cat", "a dog", "a house"} <= set(story.used)
    assert set(free_prompts(base, story)) == {"a red cat"}  # a teapot and a tree are test pictures
    assert also_chose(story, ["a tree", "a red cat", "a dog"]) == ["a tree", "a dog"]


def test_it_says_when_what_chose_grades(report: Report) -> None:
    report("adapter.safetensors", "-q")  # the tiny model has no second CLIP
    said = words_of(Path("report.html"))
    assert "There is no second CLIP here" in said
    assert "Something was chosen or learnt by some of these prompts, too: a tree." in said


def test_it_says_who_graded(report: Report, tiny_model: Path) -> None:
    model = Path(shutil.copytree(tiny_model, "model"))
    shutil.copy(model / "clip.safetensors", model / "scorer.safetensors")
    config = json.loads((model / "config.json").read_text())
    config["parts"]["scorer"] = config["parts"]["clip"]
    (model / "config.json").write_text(json.dumps(config))
    Path("prompts.txt").write_text("a red cat\n", encoding="utf-8")
    assert report("adapter.safetensors", "-q", model=model).code == 0
    said = words_of(Path("report.html"))
    assert "“scorer” graded. It is not the CLIP by which checkpoints and picks are chosen." in said
    assert "No checkpoint, pick or round was chosen by any of these prompts or seeds." in said


# ---- the commands that it prints ----


def test_the_commands_exist(made: Path) -> None:
    story = read_story(made / "adapter.rounds")
    lines = commands(story, ["a tree"], ["a bird"], "my model", "-o report.html")
    group = typer.main.get_group(app)
    for line in lines:
        if line.startswith("#"):
            continue
        program, name, *words = shlex.split(line)
        assert program == "styledrop"
        group.commands[name].make_context(name, words)  # raises for an option or a value that there is not
    text = "\n".join(lines)
    assert "--style watercolor --content 'a cat' --steps 4 --checkpoints 2" in text
    assert "# views was 2, for which there is no option" in text
    assert "--rounds 1 --prompts subjects.txt --per-prompt 3 --steps 2 --model 'my model' -o adapter.rounds" in text
    assert "# subjects.txt holds, a line each: a dog / a house" in text
    assert lines[-1] == "styledrop report adapter.rounds --prompts prompts.txt --model 'my model' -o report.html"


@pytest.mark.parametrize(("steps", "words"), [(SUPERRES_STEPS, "--superres"), (7, "# superres_steps was 7")])
def test_super_resolution_has_an_option_of_another_name(made: Path, steps: int, words: str) -> None:
    story = read_story(made / "adapter.rounds")
    header = story.stages[0].header
    header = header.with_values(settings={**header.settings, "superres_steps": steps})
    story = replace(story, stages=[replace(story.stages[0], header=header)])
    text = "\n".join(commands(story, [], [], "pocket", ""))
    assert words in text and ("superres_steps" in text) == (steps != SUPERRES_STEPS)


# ---- what is refused, and what is left out ----


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere.safetensors",), 1, ("there is no adapter file nowhere.safetensors",)),
        (("ref.png",), 1, ("ref.png is not a safetensors file: it is a picture",)),
        (("empty",), 2, ("empty holds no rounds and no training", "styledrop iterate")),
        (("adapter.safetensors", "--scorer", "scorrer"), 2, ("no scorer called 'scorrer'", "Did you mean 'scorer'?")),
        (("adapter.safetensors", "-o", "empty"), 2, ("empty is a folder",)),
        (("adapter.safetensors", "-o", "there.html"), 2, ("there.html is already there", "--overwrite")),
        (("adapter.safetensors", "-o", "ref.png/report.html"), 2, ("ref.png is a file",)),
    ],
)
def test_refused(report: Report, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    Path("empty").mkdir()
    Path("there.html").write_text("mine")
    before = sorted(Path().rglob("*"))
    outcome = report(*arguments)
    assert outcome.code == code, outcome.err
    assert all(word in outcome.err for word in words), outcome.err
    assert "Traceback" not in outcome.err and outcome.out == ""
    assert sorted(Path().rglob("*")) == before
    assert Path("there.html").read_text() == "mine"


def test_prompts_that_say_nothing(report: Report) -> None:
    Path("prompts.txt").write_text("# nothing\n", encoding="utf-8")
    code, _, err = report("adapter.safetensors")
    assert code == 2
    assert "prompts.txt holds no prompts" in err


def test_far_too_many_pictures(report: Report) -> None:
    Path("prompts.txt").write_text("\n".join(f"a cat {i}" for i in range(9000)), encoding="utf-8")
    code, _, err = report("adapter.safetensors")
    assert code == 2
    assert "are 54,000 pictures" in err


def test_an_adapter_without_its_references(report: Report) -> None:
    file = load_adapter(Path("adapter.safetensors"))
    tensors = {n: t for n, t in file.tensors.items() if not n.startswith("views.")}
    tiny.write_adapter(Path("bare.safetensors"), tensors, file.header.to_json())
    code, _, err = report("bare.safetensors")
    assert code == 1
    assert "does not hold the pictures that it was trained on" in err


def test_picks_that_cannot_be_read_are_named_and_left_out(report: Report) -> None:
    first, *_ = sorted(Path("adapter.rounds/round-2/picks").iterdir())
    first.write_text("these are words")
    code, out, err = report("adapter.rounds", "-q")
    assert (code, out) == (1, "report.html\n")
    assert f"Warning: left out: {first} is not a picture" in err
    said = words_of(Path("report.html"))
    assert f"Left out: {first}" in said
    assert "picked by clip: 1" in said


def test_damaged_neighbours_do_no_harm(report: Report) -> None:
    for name, text in (
        ("adapter.safetensors.run/curve.json", '{"losses": [1, 2], "checkpoints": null}'),
        ("adapter.rounds/run.json", "[]"),
        ("adapter.rounds/round-2/picks.json", '{"pictures": ["x"]}'),
    ):
        Path(name).write_text(text)
    assert report("adapter.rounds", "-q").code == 0


def test_words_that_look_like_html_are_words(report: Report) -> None:
    """Style, contents and prompts come from a file that anyone may have made."""
    file = load_adapter(Path("adapter.safetensors"))
    evil = "<script>alert(1)</script>\" onload=alert(2) '"
    header = file.header.to_json() | {"style": evil, "contents": [evil], "feedback": evil, "created": evil}
    header["picks"] = [{"prompt": evil, "seed": evil}]
    header["pictures"] = [{"name": evil, "sha256": evil}]
    header["settings"] = dict(header["settings"]) | {evil: evil}
    tiny.write_adapter(Path("evil.safetensors"), file.tensors, header)
    assert report("evil.safetensors", "-q").code == 0
    page = Path("report.html").read_text()
    assert page.count("<script") == 1 and "alert(1)</script" not in page  # ours alone
    assert evil in words_of(Path("report.html")).replace("  ", " ")


# ---- in a browser ----


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(report: Report, tabs: SimpleNamespace, width: int) -> None:
    """It needs nothing, complains of nothing, and never scrolls sideways; its switches work without a script."""
    report("adapter.rounds", "-q")
    place = Path("report.html").resolve().as_uri()
    page = tabs.open(place, viewport={"width": width, "height": 800}, offline=True)
    assert tabs.complaints == []
    assert [url for url in tabs.asked if not url.startswith("data:")] == [place]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(f"document.images.length > 10 && {broken}") == 0
    assert page.locator(".plot img").count() >= 3
    scores = page.locator(".tiles dl").first
    assert not scores.is_visible()
    page.get_by_label("With scores").check()
    assert scores.is_visible()
    before = page.locator(".tiles img").first.bounding_box()["width"]
    page.get_by_label("Larger").check()
    assert page.locator(".tiles img").first.bounding_box()["width"] >= before
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.locator("img").count() == page.locator("img[alt]:not([alt=''])").count()
    # A phone is shown the narrow drawings, in which the words are as large.
    plot = page.locator(".plot img").first
    assert ("srcset" in plot.evaluate("i => i.parentNode.innerHTML")) and page.evaluate(
        "[...document.querySelectorAll('.plot img')].every(i => i.clientWidth > 0.75 * i.naturalWidth)"
    )


def test_plots_are_dark_where_the_page_is(report: Report, tabs: SimpleNamespace) -> None:
    """The words on a plot are light on a dark screen, and nothing but its greys has changed."""
    report("adapter.safetensors", "-q")
    place = Path("report.html").resolve().as_uri()

    def brightest(scheme: str) -> int:
        page = tabs.open(place, color_scheme=scheme)
        shot = page.locator(".plot img").first.screenshot()
        with Image.open(io.BytesIO(shot)) as image:
            grey = image.convert("L")
            return grey.getextrema()[1 if scheme == "dark" else 0]

    assert brightest("light") < 60 and brightest("dark") > 200


def test_favourites_are_kept_and_saved(report: Report, tabs: SimpleNamespace, tmp_path: Path) -> None:
    report("adapter.rounds", "-q")
    page = tabs.open(Path("report.html").resolve().as_uri())
    stars = page.locator(".star")
    assert stars.count() == 4 * 2 * 2 and not page.locator("#favourites").is_visible()
    for place in (1, 6):
        stars.nth(place).click()
    names = [stars.nth(place).get_attribute("aria-label").removeprefix("Favourite: ") for place in (1, 6)]
    page.reload()
    assert page.locator(".star[aria-pressed=true]").count() == 2
    assert page.get_by_text("2 favourites", exact=True).is_visible()
    page.get_by_label("Only favourites").check()
    assert [one.is_visible() for one in stars.all()].count(True) == 2
    saved: list[Any] = []
    page.on("download", lambda one: saved.append(one))
    with page.expect_download() as listed:
        page.get_by_role("button", name="Save a list").click()
    assert Path(listed.value.path()).read_text(encoding="utf-8").splitlines() == names
    saved.clear()
    page.get_by_role("button", name="Save pictures").click()
    page.wait_for_timeout(1000)
    assert [one.suggested_filename for one in saved] == [re.sub(r"\W+", "-", n.lower()) + ".jpg" for n in names]
    shown = [page.locator(".tile.starred img").nth(i).get_attribute("src").partition(",")[2] for i in range(2)]
    assert [base64.b64encode(Path(one.path()).read_bytes()).decode() for one in saved] == shown
    for place in (1, 6):
        stars.nth(place).click()
    assert all(one.is_visible() for one in stars.all())  # without favourites all are shown


# ---- several references -------------------------------------------------------------------------


@pytest.fixture
def several(tiny_model: Path) -> Path:
    """An adapter that learnt from a picture three times as often as from another."""
    for number, name in enumerate(("a.png", "b.png")):
        draw(64, 64).rotate(120 * number).save(name)
    train_adapter(
        load_base(str(tiny_model), tiny.CPU),
        pictures=[Path("a.png"), Path("b.png")],
        style="watercolor",
        contents=["a cat", "a dog"],
        weights=[3, 1],
        settings=TrainSettings(steps=30, views=4, checkpoints=0, lr=0.05),
        output=Path("two.safetensors"),
    )
    return Path("two.safetensors")


def test_what_each_reference_brought(report: Report, several: Path) -> None:
    code, out, err = report(several, "--json", "-q")
    assert code == 0, err
    first, second = json.loads(out)["references"]["adapter"]
    assert [(one["name"], one["content"], one["weight"], one["share"]) for one in (first, second)] == [
        ("a.png", "a cat", 3.0, 0.75),
        ("b.png", "a dog", 1.0, 0.25),
    ]
    for one in (first, second):
        assert 0 < one["after"] < one["before"]
        assert -4 <= one["near"]["low"] <= one["near"]["mean"] <= one["near"]["high"] <= 4
        apart = one["near"]["mean"] - one["told"]["mean"]
        assert one["near"]["difference"] == pytest.approx(apart, abs=1e-4)
    said = words_of(Path("report.html"))
    assert "What each reference brought" in said and "75.0 %" in said and "25.0 %" in said
    assert "train a.png:3 b.png:1 --style watercolor" in said
    assert report("adapter.safetensors", "--overwrite", "-q").code == 0
    assert "What each reference brought" not in words_of(Path("report.html"))


def test_the_loss_before_is_that_of_an_adapter_that_has_learnt_nothing(tiny_model: Path, several: Path) -> None:
    base = load_base(str(tiny_model), tiny.CPU)
    fresh = new_adapter(base.transformer, TrainSettings())
    file = load_adapter(several)
    blank = replace(file, tensors=file.tensors | tensors_of(fresh))
    for (before, after), (same, none) in zip(losses_of_each(base, blank), losses_of_each(base, file), strict=True):
        assert before == same == pytest.approx(after, abs=1e-6)
        assert none < before - 0.01


def test_the_nearest_reference_is_what_the_likeness_goes_by(tiny_model: Path, several: Path) -> None:
    base = load_base(str(tiny_model), tiny.CPU)
    references = References.of_adapter(base, load_adapter(several))
    judge = judge_of(base, base, references, ["a house"], Calibration(base))
    pictures = torch.rand(5, 3, 16, 16, generator=tiny.generator())
    near = judge.near(pictures)
    assert near.shape == (5, 2)
    csls = judge.measure(pictures, torch.zeros(5, 4, 4, dtype=torch.long), ["a house"] * 5).csls
    assert torch.allclose(near.amax(-1), csls)
