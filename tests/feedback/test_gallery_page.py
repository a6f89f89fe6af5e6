"""The picking page in a real browser: by mouse, by keyboard, in a small window, and when the program dies."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from conftest import ROOT, SEARCH
from styledrop_cli.feedback.page import Candidate, Choices, Gallery

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

PROMPTS = {"a cat": 8, "a bus": 3, "an owl": 8, "a chair": 5}  # pictures of each; the second row is short


def plain(hue: int, width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("HSV", (width, height), (hue % 256, 120, 200)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


CANDIDATES = [
    Candidate(prompt, plain(31 * i + 7 * len(prompt)), {"total": 1 + i / 10, "leak": -0.25}, "empty" if i == 2 else "")
    for prompt, count in PROMPTS.items()
    for i in range(count)
]
SHEET = plain(40, 1200, 300)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery(tmp_path / "page", [plain(200)], "watercolor", lambda url: None) as gallery:
        yield gallery


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    return Choices(len(CANDIDATES), tmp_path / "choices.json")


@pytest.fixture
def picking(gallery: Gallery, choices: Choices) -> Iterator[list[int]]:
    """`pick` on its way; its answer is put into the list."""
    with background(lambda: gallery.pick(CANDIDATES, choices, 1, 10)) as answers:
        yield answers
        if not choices.done:
            choices.mark(0, "pick")
            choices.finish()


@contextmanager
def background(work: Callable[[], Any]) -> Iterator[list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    try:
        yield answers
    finally:
        thread.join(20)
        assert not thread.is_alive()


def picture(page: Any, index: int) -> Any:
    return page.locator(".picture").nth(index)


def expect(element: Any) -> Any:
    return api.expect(element)


def pressed(page: Any) -> list[int]:
    return page.evaluate(
        "[...document.querySelectorAll('.picture')].flatMap((e, i) => e.ariaPressed === 'true' ? [i] : [])"
    )


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")


def saved(page: Any, choices: Choices) -> list[int]:
    """What is on disk once the page has sent what it shows already."""
    page.evaluate("queue.then(() => true)")
    return Choices(choices.count, choices.path).picked


def test_by_mouse_from_the_first_picture_to_done(
    tabs: SimpleNamespace, gallery: Gallery, choices: Choices, picking: list[Any]
) -> None:
    page = tabs.open(gallery.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Round 1: pick the good ones")
    assert focused(page) == "heading" and page.title() == "Pick · styledrop"
    assert page.get_by_role("heading", level=2).all_inner_texts() == list(PROMPTS)
    expect(page.locator(".picture")).to_have_count(len(CANDIDATES))
    expect(page.get_by_alt_text("Reference, enlarge")).to_be_in_viewport()
    done, counter = page.get_by_role("button", name="Done"), page.locator("#counter")
    expect(done).to_be_disabled()
    expect(counter).to_have_text("0 picked · pick at least one")
    expect(done).to_have_accessible_description("0 picked · pick at least one")

    page.get_by_role("button", name="a cat, picture 3 of 8").first.click()
    expect(page.get_by_role("button", name="a cat, picture 3 of 8, picked", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(counter).to_have_text("1 picked · 10 is plenty")
    picture(page, 9).click()
    expect(counter).to_have_text("2 picked · 10 is plenty")
    assert saved(page, choices) == [2, 9]
    picture(page, 9).click()
    expect(counter).to_have_text("1 picked · 10 is plenty")
    page.locator(".tile").nth(1).hover()
    page.get_by_role("button", name="Reject a cat, picture 2 of 8").click()
    expect(page.get_by_role("button", name="a cat, picture 2 of 8, rejected", exact=True)).to_be_visible()
    expect(page.locator(".tile").nth(1).locator(".cross")).to_be_visible()
    assert (saved(page, choices), choices.rejected) == ([2], [1])
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".tile").nth(1).locator(".cross")).to_be_hidden()
    for index in range(3, 12):
        picture(page, index).click()
    expect(counter).to_have_text("10 picked · that is plenty")
    page.get_by_role("button", name="Scores").click()
    expect(page.locator("#scores-2")).to_contain_text("total1.20leak−0.25empty")
    expect(picture(page, 2)).to_have_accessible_description(re.compile("picture\\s*3.*empty"))

    expect(done).to_be_in_viewport()
    done.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Learning from your 10 picks")
    assert picking == [list(range(2, 12))] or not picking
    assert all(url.startswith((gallery.url, "data:")) for url in tabs.asked) and tabs.complaints == []


def test_a_reload_and_a_second_tab_show_the_same(
    tabs: SimpleNamespace, gallery: Gallery, choices: Choices, picking: list[Any]
) -> None:
    one, two = tabs.open(gallery.url), tabs.open(gallery.url)
    picture(one, 4).click()
    expect(picture(two, 4)).to_have_attribute("aria-pressed", "true")
    picture(two, 20).click()
    expect(picture(one, 20)).to_have_attribute("aria-pressed", "true")
    two.reload()
    expect(two.locator("#counter")).to_have_text("2 picked · 10 is plenty")
    assert pressed(two) == [4, 20]
    expect(picture(two, 20)).to_be_in_viewport()  # where it was left
    two.keyboard.press("z")
    two.keyboard.press("z")
    expect(one.locator("#counter")).to_have_text("0 picked · pick at least one")
    picture(one, 5).click()
    expect(two.locator(".tile.picked")).to_have_count(1)
    two.get_by_role("button", name="Done").click()
    expect(one.get_by_role("heading", level=1)).to_have_text("Learning from your pick")
    assert tabs.complaints == []


def test_by_keyboard_alone(tabs: SimpleNamespace, gallery: Gallery, choices: Choices, picking: list[Any]) -> None:
    page = tabs.open(gallery.url)
    expect(picture(page, 0)).to_be_visible()
    keys = page.keyboard.press

    def stands_on(name: str) -> None:
        expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile(f"^{name}"))

    assert focused(page) == "heading"
    keys("ArrowDown")
    stands_on("a cat, picture 1 of 8")
    keys("ArrowRight")
    keys("Space")
    stands_on("a cat, picture 2 of 8, picked")
    for key, name in [
        ("ArrowDown", "a cat, picture 6"), ("ArrowRight", "a cat, picture 7"), ("ArrowRight", "a cat, picture 8"),
        ("ArrowDown", "a bus, picture 3"), ("ArrowDown", "an owl, picture 3"), ("ArrowUp", "a bus, picture 3"),
        ("ArrowUp", "a cat, picture 7"), ("End", "a cat, picture 8"), ("ArrowRight", "a bus, picture 1"),
        ("ArrowLeft", "a cat, picture 8"), ("Home", "a cat, picture 1"), ("ArrowUp", "a cat, picture 1"),
        ("PageDown", "a bus, picture 1"), ("PageDown", "an owl, picture 1"), ("PageUp", "a bus, picture 1"),
    ]:  # fmt: skip
        keys(key)
        stands_on(name)
        expect(page.locator(":focus")).to_be_in_viewport(ratio=1)
    keys("Enter")
    stands_on("a bus, picture 1 of 3, picked")
    keys("3")
    stands_on("a bus, picture 3 of 3, picked")
    keys("9")  # there are but three
    keys("x")
    stands_on("a bus, picture 3 of 3, rejected")
    keys("Backspace")
    keys("p")
    stands_on("a bus, picture 3 of 3, picked")
    expect(page.locator("#counter")).to_have_text("3 picked · 10 is plenty")
    assert pressed(page) == saved(page, choices) == [1, 8, 10]
    keys("z")
    expect(page.locator("#counter")).to_have_text("2 picked · 10 is plenty")
    stands_on("a bus, picture 3 of 3")

    keys("f")
    expect(page.get_by_role("dialog")).to_contain_text("a bus · 3 of 3")
    expect(page.get_by_role("dialog").get_by_alt_text("Reference")).to_be_visible()
    keys("ArrowLeft")
    keys("Space")
    expect(page.get_by_role("dialog").get_by_role("button", name="Pick", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    keys("ArrowDown")
    keys("x")
    expect(page.get_by_role("dialog").get_by_role("button", name="Reject")).to_have_attribute("aria-pressed", "true")
    keys("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    stands_on("a bus, picture 3 of 3, rejected")
    keys("s")
    expect(page.locator("#scores-10")).to_be_visible()
    keys("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    keys("Escape")
    stands_on("a bus, picture 3 of 3, rejected")
    assert saved(page, choices) == [1, 8, 9]

    seen = []
    for _ in range(12):  # to enlarge and reject, and on to the bar: one stop for all the pictures
        keys("Tab")
        seen.append(focused(page))
        if seen[-1] == "done":
            break
    assert seen[-1] == "done" and len(seen) < 9, seen
    keys("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Learning from your 3 picks")
    assert focused(page) == "heading" and tabs.complaints == []


def test_the_pictures_are_as_large_as_one_likes(tabs: SimpleNamespace, gallery: Gallery, picking: list[Any]) -> None:
    page = tabs.open(gallery.url)
    slider, width = page.get_by_label("Size of the pictures"), "document.querySelector('.tile').offsetWidth"
    expect(slider).to_have_attribute("aria-valuetext", "4 in a row")
    usual = page.evaluate(width)
    slider.fill("96")
    small = page.evaluate(width)
    assert 96 <= small < usual and page.evaluate("document.documentElement.scrollWidth") <= 1280
    slider.focus()
    slider.press("End")  # the keys of the slider are its own
    assert page.evaluate(width) > usual and focused(page) != "a cat, picture 8 of 8"
    slider.fill("96")
    page.reload()
    expect(picture(page, 0)).to_be_visible()
    assert page.evaluate(width) == small  # it stays as it was set
    expect(slider).to_have_js_property("value", "96")
    assert tabs.complaints == []


def test_it_says_where_the_reference_is_not_the_picture_itself(tabs: SimpleNamespace, tmp_path: Path) -> None:
    with Gallery(tmp_path / "page", [plain(200)], "watercolor", lambda url: None, "as pocket sees it") as gallery:
        expect(tabs.open(gallery.url).get_by_text("as pocket sees it")).to_be_visible()


def test_two_clicks_enlarge_and_leave_no_mark(
    tabs: SimpleNamespace, gallery: Gallery, choices: Choices, picking: list[Any]
) -> None:
    page = tabs.open(gallery.url)
    picture(page, 3).click()
    picture(page, 6).dblclick()
    expect(page.get_by_role("dialog")).to_contain_text("a cat · 7 of 8")
    expect(page.locator("#counter")).to_have_text("1 picked · 10 is plenty")
    assert (saved(page, choices), choices.version) == ([3], 3)
    page.keyboard.press("Escape")
    assert focused(page) == "a cat, picture 7 of 8"


def test_a_phone(tabs: SimpleNamespace, gallery: Gallery, choices: Choices, picking: list[Any]) -> None:
    page = tabs.open(gallery.url, has_touch=True, is_mobile=True)
    page.set_viewport_size({"width": 360, "height": 740})
    expect(picture(page, 0)).to_be_visible()

    def fits() -> bool:
        return page.evaluate(
            "document.documentElement.scrollWidth <= 360 && document.documentElement.clientWidth === 360"
        )

    columns = {round(picture(page, i).bounding_box()["x"]) for i in range(8)}
    assert len(columns) in (2, 3) and fits()
    small = page.evaluate(
        """[...document.querySelectorAll('button')].filter((b) => b.checkVisibility())
        .filter((b) => Math.min(b.offsetWidth, b.offsetHeight) < 40).map((b) => b.outerHTML)"""
    )
    assert small == []
    page.locator(".tile").nth(15).locator(".no").tap()
    picture(page, 16).tap()
    expect(page.locator("#counter")).to_have_text(re.compile("^1 picked"))
    expect(page.get_by_alt_text("Reference, enlarge")).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("button", name="Done")).to_be_in_viewport(ratio=1)
    page.locator(".tile").nth(16).locator(".more").tap()
    for name in ("Close", "Reject", "Pick", "Next picture"):
        expect(page.get_by_role("dialog").get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Close").tap()
    page.get_by_role("button", name="Scores").tap()
    assert fits() and (saved(page, choices), choices.rejected) == ([16], [15])
    page.get_by_role("button", name="Done").tap()
    expect(page.get_by_role("heading", level=1)).to_have_text("Learning from your pick")
    assert fits() and tabs.complaints == []


def test_progress_the_sheet_another_round_and_the_end(tabs: SimpleNamespace, gallery: Gallery) -> None:
    page = tabs.open(gallery.url)
    title, bar = page.get_by_role("heading", level=1), page.get_by_role("progressbar")
    expect(title).to_have_text("Getting ready")
    gallery.drawing(0.3, "to choose from 72/240")
    expect(title).to_have_text("Drawing pictures")
    expect(page.locator("#note")).to_have_text("30 % · to choose from 72/240")
    expect(bar).to_have_js_property("value", 0.3)
    gallery.training(0.45, "45/100  loss 3.90")
    expect(title).to_have_text("Learning from the picks")
    expect(bar).to_have_js_property("value", 0.45)
    expect(page).to_have_title("Learning 45 % · styledrop")
    gallery.training(0.5, "50/100  loss 3.70")
    expect(page).to_have_title("Learning 50 % · styledrop")
    assert focused(page) == "heading"

    assert gallery.another(SHEET, "Round 1 is better: <b>0.71</b>, then 0.83.", planned=True)
    gallery.drawing(0.1, "for round 2")
    sheet = page.get_by_alt_text("Sheet of pictures before and after the training")
    expect(title).to_have_text("Drawing pictures")
    expect(sheet).to_have_js_property("naturalWidth", 1200)
    for button, wanted in (("Another round", True), ("Finish", False)):
        with background(lambda: gallery.another(SHEET, "Round 2 is <b>worse</b>.", planned=False)) as answers:
            expect(title).to_have_text("Another round?")
            assert page.title() == "Another round? · styledrop"
            expect(page.get_by_text("Round 2 is <b>worse</b>.")).to_be_visible()
            page.get_by_role("button", name="Before and after: enlarge").click()
            expect(page.get_by_role("dialog", name="Before and after")).to_be_visible()
            page.keyboard.press("Escape")
            page.get_by_role("button", name=button, exact=True).click()
        assert answers == [wanted]
        expect(bar).to_be_visible()
    gallery.over("The best is round 1:\nrounds/best.safetensors", SHEET)
    gallery.__exit__(None, None, None)
    expect(title).to_have_text("Finished")
    expect(page.get_by_text("rounds/best.safetensors")).to_be_visible()
    expect(sheet).to_have_js_property("naturalWidth", 1200)
    page.get_by_role("button", name="Before and after: enlarge").click()
    expect(page.get_by_role("dialog").get_by_role("img")).to_have_js_property("naturalWidth", 1200)
    expect(page.locator("#away")).to_be_empty()
    assert tabs.complaints == []  # it has all it needs, and does not look for the program


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_gallery_page import CANDIDATES, Choices, Gallery, plain
folder = Path({folder!r})
with Gallery(folder / "page", [plain(200)], "watercolor", lambda url: None) as gallery:
    print(gallery.url, flush=True)
    print(gallery.pick(CANDIDATES, Choices(len(CANDIDATES), folder / "choices.json"), 1, 10), flush=True)
    gallery.over("that was it")
"""


def program(folder: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    code = PROGRAM.format(tests=[str(Path(__file__).parent), str(ROOT / "tests")], folder=str(folder))
    environment = os.environ | {"PYTHONPATH": SEARCH}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_program_loses_nothing_and_the_tab_goes_on(tabs: SimpleNamespace, tmp_path: Path) -> None:
    with program(tmp_path) as first:
        url = first.stdout.readline().strip()
        page = tabs.open(url)
        picture(page, 2).click()
        picture(page, 5).click()
        page.evaluate("queue.then(() => true)")
        first.send_signal(signal.SIGKILL)
    away = page.get_by_text("The program has stopped. Start the same command again: nothing is lost.")
    expect(away).to_be_visible()
    expect(page).to_have_title("Stopped · styledrop")
    assert pressed(page) == [2, 5]
    picture(page, 7).click()  # nobody hears it, and the page says so
    expect(page.get_by_role("alert")).to_have_text("That did not reach the program and is not saved.")
    expect(page.locator("#counter")).to_have_text("2 picked · 10 is plenty")
    with program(tmp_path) as second:
        assert second.stdout.readline().strip() == url
        expect(away).to_have_count(0)
        expect(page).to_have_title("Pick · styledrop")
        assert pressed(page) == [2, 5]
        picture(page, 6).click()
        expect(page.locator("#counter")).to_have_text("3 picked · 10 is plenty")
        page.get_by_role("button", name="Done").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Finished")
        assert second.stdout.readline().strip() == "[2, 5, 6]"
        assert second.wait(20) == 0
    # A connection is lost in many ways, some of them in the middle of an answer; nothing else went wrong.
    assert [one for one in tabs.complaints if "net::ERR_" not in one] == []
