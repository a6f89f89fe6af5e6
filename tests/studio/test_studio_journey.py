"""From a picture to a better style on the studio's page: by mouse, with the studio killed on the way, by keyboard."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from conftest import SOURCE, draw
from studio_process import Process

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

LATER = 60_000  # ms that a job may take on a busy machine
STEPS = 100  # its training is saved a few times on the way
DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  for (const kind of ['dragover', 'drop'])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
}"""


def expect(element: Any) -> Any:
    return api.expect(element)


@pytest.fixture(scope="module")
def studio(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A studio that runs, as ``now``; `start()` starts it again."""
    folder = tmp_path_factory.mktemp("studio")
    shared = SimpleNamespace()

    def start() -> Process:
        with pytest.MonkeyPatch.context() as patch:  # each test has a library of its own, and this is none's
            patch.setenv("PYTHONPATH", SOURCE)
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setenv("STYLEDROP_STYLES", str(folder / "library"))
            shared.now = Process(folder / "desk", "--model", tiny_model)
        return shared.now

    shared.start = start
    start()
    yield shared
    shared.now.stop()


def drop(page: Any, name: str, data: bytes, kind: str = "image/png") -> None:
    page.evaluate(DROP, [name, kind, base64.b64encode(data).decode()])


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def seen(picture: Any) -> None:
    """A picture is there, and was decoded."""
    expect(picture).to_be_visible(timeout=LATER)
    picture.evaluate("async (image) => image.decode()")


def shown(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('#grid li')].map((each) => each.dataset.id)")


def arrived(page: Any, name: str) -> Any:
    """The picture in the grid, once it has been drawn."""
    found = page.locator(f'#grid [data-id="{name}"]')
    seen(found.get_by_role("img"))
    return found


def learn(page: Any, studio: Any) -> Process:
    """Drop a picture and learn from it; the studio is killed on the way. The studio that goes on."""
    drop(page, "disc.png", png(draw(90, 60)))
    card = page.get_by_role("listitem").filter(has_text="disc.png")
    seen(card.get_by_alt_text("The part that is learnt from: disc.png"))
    seen(card.get_by_alt_text("What the network sees of disc.png"))
    crop = card.get_by_alt_text("The part that is learnt from: disc.png")
    assert crop.evaluate("(image) => image.naturalWidth === image.naturalHeight")  # of a picture that is wide
    card.get_by_label("What it shows").fill("a disc")
    page.get_by_label("The style, in a few words").fill("poster")
    page.get_by_label("A name for it").fill("poster")
    page.get_by_text("More settings").click()
    page.get_by_label("Steps", exact=True).fill(str(STEPS))
    page.get_by_role("button", name="Learn this style").click()
    training = page.locator("#learn-jobs .job")
    expect(training).to_contain_text(re.compile(r"learning\b.* [3-8]\d %"), timeout=LATER)
    studio.now.kill()
    gone = page.locator("#gone")
    expect(gone).to_contain_text("The studio has stopped. Start it again with: styledrop studio")
    page.get_by_role("button", name="Learn this style").click()
    expect(page.locator("#learn-form .error")).to_have_text("The studio did not answer. What you typed is still here.")
    again = studio.start()
    expect(gone).to_be_empty(timeout=LATER)  # the page has found it by itself
    expect(page.get_by_label("The style, in a few words")).to_have_value("poster")
    training.get_by_role("button", name="Go on").click(timeout=LATER)
    page.get_by_role("button", name="Draw in it: Learn poster").click(timeout=LATER)
    said = again.script.get("api/state")["jobs"]
    assert any("going on from step" in one for job in said if job["kind"] == "learn" for one in job["says"])
    return again


def test_from_a_dropped_picture_to_a_better_style(tabs: SimpleNamespace, studio: Any, tmp_path: Path) -> None:
    page, other = tabs.open(f"{studio.now.url}#learn"), tabs.open(f"{studio.now.url}#draw")
    desk = learn(page, studio).script
    for prompt in ("a cat", "a tree"):
        page.get_by_label("What to draw").fill(prompt)
        page.get_by_label("What to draw").press("Enter")
    page.get_by_label("Pictures of each").fill("1")
    page.get_by_text("Size, colours, files").click()
    page.get_by_label("Also as SVG").check()
    page.get_by_role("button", name="Draw 2 pictures").click()
    cat, tree = arrived(page, "poster/a-cat-0.png"), arrived(page, "poster/a-tree-0.png")
    cat.hover()
    cat.get_by_role("button", name="Heart").click()
    expect(arrived(other, "poster/a-cat-0.png").locator(".heart")).to_have_attribute("aria-pressed", "true")

    cat.locator(".shot").click()
    viewer = page.get_by_role("dialog", name="a cat")
    seen(viewer.get_by_role("img").first)
    with page.expect_download() as download:
        viewer.get_by_role("link", name="SVG").click()
    download.value.save_as(tmp_path / "cat.svg")
    assert download.value.suggested_filename == "a-cat-0.svg"
    drawing = ElementTree.parse(tmp_path / "cat.svg").getroot()
    assert drawing.tag.endswith("}svg") and list(drawing.iter("{http://www.w3.org/2000/svg}path"))
    viewer.get_by_label("How many").fill("1")
    viewer.get_by_role("button", name="Vary").click()
    viewer.get_by_role("button", name="Close").click()
    arrived(page, "poster/a-cat-0-vary-0.4-1.png")

    tree.locator(".shot").click()
    page.get_by_role("button", name="Edit a part").click()
    brush = page.get_by_role("dialog", name="Edit a part")
    place = brush.locator("canvas").bounding_box()
    page.mouse.move(place["x"] + 5, place["y"] + 5)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2, steps=4)
    page.mouse.up()
    brush.get_by_label("What it shows then").fill("a hat")
    brush.get_by_label("How many").fill("1")
    brush.get_by_role("button", name="Draw this part anew").click()
    expect(brush).to_be_hidden()
    page.get_by_role("dialog", name="a tree").get_by_role("button", name="Close").click()
    edited = arrived(page, "poster/a-tree-0-a-hat-0.png")
    edited.hover()
    edited.get_by_role("button", name="Heart").click()

    page.get_by_role("link", name="Improve").click()
    page.get_by_role("button", name="Next round from 2 hearts").click()
    rounds = page.locator("#rounds article")
    expect(rounds).to_have_count(2, timeout=LATER)
    for image in rounds.get_by_role("img").all():
        image.scroll_into_view_if_needed()
        seen(image)
    page.get_by_role("link", name="Draw", exact=True).click()
    expect(page.locator("#grid li")).to_have_count(4)
    assert shown(page) == shown(other) == [one["id"] for one in desk.get("api/pictures")["pictures"]]
    # What the browser says of a server that is not there; nothing else went wrong.
    assert [one for one in tabs.complaints if "ERR_" not in one] == []


def go(page: Any, element: Any, key: str = "Tab") -> None:
    """Get to an element with the tab key alone."""
    for _ in range(120):
        if element.evaluate("(each) => each === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"Tab does not lead to {element}")


def test_with_the_keyboard_alone(tabs: SimpleNamespace, studio: Any, tmp_path: Path) -> None:
    draw(80, 80).rotate(90).save(tmp_path / "square.png")
    page = tabs.open(studio.now.url)
    page.wait_for_selector("html[data-ready]", state="attached")
    keys, words = page.keyboard.press, page.keyboard.type
    for patience in (3_000, 15_000):  # a browser that has just opened may miss the first key
        go(page, page.locator("#files"))
        with suppress(api.TimeoutError), page.expect_file_chooser(timeout=patience) as chooser:
            keys("Space")
        if chooser.is_done():
            break
    chooser.value.set_files(tmp_path / "square.png")
    card = page.get_by_role("listitem").filter(has_text="square.png")
    seen(card.get_by_alt_text("What the network sees of square.png"))
    go(page, card.get_by_label("What it shows"))
    keys("Control+a")
    words("a square")
    go(page, page.get_by_label("The style, in a few words"))
    words("keyed")
    keys("Tab")
    words("keyed")
    go(page, page.get_by_text("More settings"))
    keys("Enter")
    keys("Tab")
    words("2")
    keys("Control+Enter")
    ready = page.get_by_role("button", name="Draw in it: Learn keyed")
    expect(ready).to_be_visible(timeout=LATER)
    go(page, ready, "Shift+Tab")
    keys("Enter")
    keys("/")
    expect(page.get_by_label("What to draw")).to_be_focused()
    words("a cat")
    keys("Enter")
    words("a tree")
    go(page, page.get_by_label("Pictures of each"))
    keys("Control+a")
    words("1")
    keys("Control+Enter")
    arrived(page, "keyed/a-cat-0.png")
    tree = arrived(page, "keyed/a-tree-0.png")
    go(page, page.locator("#grid .shot[tabindex='0']"))
    keys("End")
    keys("Home")
    if not tree.locator(".shot").evaluate("(each) => each === document.activeElement"):
        keys("ArrowRight")
    keys("h")
    expect(tree.locator(".heart")).to_have_attribute("aria-pressed", "true")

    keys("v")
    expect(page.get_by_label("Vary it: how much")).to_be_focused()
    keys("ArrowRight")
    go(page, page.get_by_label("How many").first)
    keys("Control+a")
    words("1")
    go(page, page.get_by_role("button", name="Vary"))
    keys("Enter")
    keys("Escape")
    arrived(page, "keyed/a-tree-0-vary-0.45-1.png")
    expect(tree.locator(".shot")).to_be_focused()

    keys("e")
    brush = page.get_by_role("dialog", name="Edit a part")
    expect(brush.get_by_label("What it shows then")).to_be_focused()
    words("a hat")
    go(page, brush.get_by_text("A rectangle by numbers"), "Shift+Tab")
    keys("Enter")
    for value in (8, 8, 16, 16):
        keys("Tab")
        keys("Control+a")
        words(str(value))
    keys("Tab")
    keys("Enter")
    expect(brush.get_by_text("25 % of the picture is painted.")).to_be_visible()
    go(page, brush.get_by_label("How many"))
    keys("Control+a")
    words("1")
    keys("Enter")
    arrived(page, "keyed/a-tree-0-a-hat-0.png")

    keys("3")
    expect(page.get_by_role("button", name="Next round from 1 heart")).to_be_visible()
    go(page, page.get_by_label("Save it as"))
    words("twice")
    keys("Enter")
    expect(page.locator("#rounds article")).to_have_count(2, timeout=LATER)
    keys("Tab")
    keys("4")
    expect(page.locator('.card[data-name="twice"]')).to_be_visible()
    assert tabs.complaints == []


def test_what_a_stranger_does(tabs: SimpleNamespace, studio: Any, tmp_path: Path) -> None:
    page = tabs.open(f"{studio.now.url}#learn")
    page.wait_for_selector("html[data-ready]", state="attached")
    (tmp_path / "moving.gif").write_bytes(b"GIF89a")
    (tmp_path / "notes.txt").write_text("no picture")
    page.set_input_files("#files", [tmp_path / "moving.gif", tmp_path / "notes.txt"])
    wrong = "This is not a PNG, JPEG or WebP picture. Save it as one of these."
    expect(page.locator("#drop-error")).to_have_text(f"moving.gif: {wrong} notes.txt: {wrong}")
    tabs.complaints.clear()  # the browser's word on answers that are no

    page.get_by_role("link", name="Draw", exact=True).click()
    page.get_by_label("Preview while I change things").uncheck()
    page.evaluate(
        """const data = new DataTransfer();
        data.setData('text', Array.from({ length: 300 }, (_, index) => `thing ${index}`).join('\\n'));
        const paste = new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
        document.getElementById('prompt').dispatchEvent(paste)"""
    )
    assert page.locator("#prompts").bounding_box()["height"] < 300
    page.get_by_label("Pictures of each").fill("-1")
    go_on = page.locator("#draw-form .loud")
    expect(go_on).to_have_text("Draw")
    page.get_by_label("Pictures of each").fill("1")
    expect(go_on).to_have_text("Draw 300 pictures")
    go_on.dblclick()
    cancel = page.locator("#draw-jobs").get_by_role("button", name="Cancel")
    expect(cancel).to_have_count(1)  # one job, though it was asked for twice
    first = page.locator("#grid .shot").first
    expect(first).to_be_visible(timeout=LATER)
    cancel.click()
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#prompts li")).to_have_count(0)

    first.click()
    expect(page.locator("#viewer")).to_be_visible()
    page.go_back()
    expect(page.locator("#view-learn")).to_be_visible()
    expect(page.locator("#viewer")).to_be_hidden()
    assert tabs.complaints == []
