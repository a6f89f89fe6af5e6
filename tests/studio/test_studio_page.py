"""The studio's page in a real browser: by mouse and by keyboard, in two tabs, with many pictures, and read aloud."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import SOURCE, draw
from studio_process import Process, Script

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

PICTURES = 150  # more than two answers of the server hold


@pytest.fixture(scope="module")
def desk(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    """A studio with one style, "ink", and a few pictures in it."""
    folder = tmp_path_factory.mktemp("studio")
    draw().save(folder / "ref.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCE)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("STYLEDROP_STYLES", str(folder / "library"))
        studio = Process(folder / "desk", "--model", tiny_model)
        desk = studio.script
        desk.folder = folder / "desk"  # type: ignore[attr-defined]
        kept = desk.upload(folder / "ref.png").said
        little = {"steps": 2, "checkpoints": 0}
        learnt = [{"id": kept["id"], "content": "a cat"}]
        desk.done("api/learn", references=learnt, style="ink", name="ink", options=little)
        desk.done("api/draw", style="ink", prompts=["a dog", "a tree"], number=3, settings={"steps": 2})
        yield desk
        studio.stop()


@pytest.fixture
def show(tabs: SimpleNamespace, desk: Any) -> Any:
    """`show(view)` opens a view in a tab of its own; nothing may go wrong in it, or be asked of anybody else."""

    def opened(view: str, **options: Any) -> Any:
        page = tabs.open(f"{desk.parts.geturl()}#{view}", **options)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield opened
    assert tabs.complaints == []
    assert all(url.startswith((desk.parts.geturl(), "data:")) for url in tabs.asked)


def expect(element: Any) -> Any:
    return api.expect(element)


def shown(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('#grid li')].map((each) => each.dataset.id)")


def stands_on(page: Any) -> str:
    return page.evaluate("document.activeElement.closest('#grid li')?.dataset.id ?? document.activeElement.id")


def test_from_a_picture_to_a_style_and_what_is_drawn_in_it(show: Any, desk: Any, tmp_path: Path) -> None:
    page = show("learn")
    draw(80, 80).save(tmp_path / "disc.png")
    page.set_input_files("#files", [str(tmp_path / "disc.png")])
    card = page.get_by_role("listitem").filter(has_text="disc.png")
    expect(card.get_by_alt_text("What the network sees of disc.png")).to_have_js_property("complete", True)
    page.keyboard.press("Control+Enter")
    error = page.locator("#learn-form .error")
    expect(error).to_have_text("Say what the style is, in a few words: watercolor painting.")
    expect(page.get_by_label("The style, in a few words")).to_be_focused()
    page.keyboard.type("poster")
    page.get_by_label("A name for it").fill("ink")
    card.get_by_label("What it shows").fill("a disc")
    page.get_by_text("More settings").click()
    page.get_by_label("Steps", exact=True).fill("2")
    page.get_by_role("button", name="Learn this style").click()
    expect(error).to_have_text("There is a style called ink. Choose another name, or replace it.")
    page.get_by_label("A name for it").fill("poster")
    page.reload()  # loses nothing of it
    expect(card.get_by_label("What it shows")).to_have_value("a disc")
    page.get_by_role("button", name="Learn this style").click()
    page.get_by_role("button", name="Draw in it: Learn poster").click(timeout=120_000)

    expect(page.get_by_role("radio", name="poster")).to_be_checked()
    words = page.get_by_label("What to draw")
    words.fill("a cat")
    words.press("Enter")
    page.evaluate(
        """const data = new DataTransfer(); data.setData('text', 'a bus\\n\\na cat\\n an owl');
        const paste = new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
        document.getElementById('prompt').dispatchEvent(paste)"""
    )
    chips = page.get_by_role("list", name="What will be drawn").get_by_role("listitem")
    assert chips.all_inner_texts() == ["a cat", "a bus", "an owl"]
    words.press("Backspace")
    expect(words).to_have_value("an owl")
    expect(chips).to_have_count(2)
    words.fill("")
    page.get_by_label("Pictures of each").fill("1")
    page.get_by_role("button", name="Draw 2 pictures").click()
    expect(page.locator('#grid [data-id="poster/a-bus-0.png"]')).to_be_visible(timeout=120_000)
    assert set(shown(page)[:2]) == {"poster/a-bus-0.png", "poster/a-cat-0.png"}
    desk.tell("api/styles/poster/remove")


def test_by_keyboard_and_in_two_tabs(show: Any, desk: Any) -> None:
    page, other = show("draw"), show("draw")
    keys = page.keyboard.press
    page.locator("#grid .shot").first.focus()
    first, second, third, fourth = shown(page)[:4]
    keys("ArrowRight")
    assert stands_on(page) == second
    keys("h")
    heart = other.locator(f'[data-id="{second}"]').get_by_role("button", name="Heart")
    expect(heart).to_have_attribute("aria-pressed", "true")
    assert desk.get("api/state")["hearts"] == [second]
    heart.focus()
    other.keyboard.press("Enter")
    expect(page.locator(f'[data-id="{second}"] .heart')).to_have_attribute("aria-pressed", "false")
    assert stands_on(page) == second  # what another tab does moves nobody

    keys("Enter")
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text(re.compile("a (dog|tree|bus|cat)"))
    keys("ArrowRight")
    expect(viewer.get_by_role("img").first).to_have_attribute("src", re.compile(re.escape(third.split("/")[1])))
    keys("Delete")
    expect(other.locator(f'[data-id="{third}"]')).to_have_count(0)
    keys("z")
    expect(other.locator(f'[data-id="{third}"]')).to_have_count(1)
    keys("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#grid li:has(:focus)")).to_have_attribute("data-id", fourth)  # which was seen last
    keys("Home")
    assert stands_on(page) == first
    keys("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    keys("Escape")
    keys("4")
    expect(page.get_by_role("heading", name="Library")).to_be_focused()
    keys("/")
    expect(page.get_by_label("What to draw")).to_be_focused()
    keys("4")  # is typed here
    expect(page.get_by_label("What to draw")).to_have_value("4")


def test_a_part_is_drawn_anew_where_a_rectangle_says(show: Any, desk: Any) -> None:
    page = show("draw")
    page.locator("#grid .shot").first.focus()
    page.keyboard.press("e")
    dialog = page.get_by_role("dialog", name="Edit a part")
    dialog.get_by_label("What it shows then").fill("a hat")
    go = dialog.get_by_role("button", name="Draw this part anew")
    go.click()
    expect(dialog.get_by_role("alert")).to_have_text("Paint over what is to change first, or add a rectangle.")
    dialog.get_by_text("A rectangle by numbers").click()
    for name, value in {"Left": 8, "Top": 0, "Width": 16, "Height": 16}.items():
        dialog.get_by_label(name, exact=True).fill(str(value))
    for _ in range(2):
        dialog.get_by_role("button", name="Add the rectangle").click()
    expect(dialog.get_by_text("25 % of the picture is painted.")).to_be_visible()
    dialog.get_by_role("button", name="Clear").click()
    expect(dialog.get_by_text("Nothing is painted yet.")).to_be_visible()
    dialog.get_by_role("button", name="Undo").click()
    place = dialog.locator("canvas").bounding_box()
    page.mouse.move(place["x"] + 5, place["y"] + place["height"] - 5)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] - 5, place["y"] + place["height"] - 5, steps=4)
    page.mouse.up()
    expect(dialog.get_by_text("25 % of the picture is painted.")).to_be_hidden()
    page.keyboard.press("z")
    expect(dialog.get_by_text("25 % of the picture is painted.")).to_be_visible()
    dialog.get_by_label("How many").fill("1")
    with page.expect_request("**/api/edit") as asked:
        go.click()
    sent = json.loads(asked.value.post_data)
    expect(page.locator(f'#grid [data-id^="{sent["picture"][:-4]}-a-hat"]')).to_be_visible(timeout=120_000)


def test_the_library_by_hand(show: Any, desk: Any, tabs: SimpleNamespace) -> None:
    page = show("library")
    page.get_by_role("button", name="Mix ink").click()
    expect(page.get_by_text("A mix takes two styles: learn another one first.").first).to_be_visible()
    desk.done("api/styles/ink/mix", **{"with": "ink", "share": 0.5, "name": "twin"})
    card = page.locator(".card").filter(has_text="twin")
    card.get_by_role("img").or_(card.locator("img, .blank")).first.drag_to(
        page.locator('.card[data-name="ink"] > *').first
    )
    mix = page.get_by_role("dialog", name="Mix two styles")
    expect(mix.get_by_label("Share")).to_have_attribute("aria-valuetext", "50 % twin, 50 % ink")
    mix.get_by_label("Share").press("ArrowLeft")
    expect(mix.get_by_label("Share")).to_have_attribute("aria-valuetext", "55 % twin, 45 % ink")
    expect(mix.get_by_alt_text("Preview of the mix")).to_be_visible(timeout=60_000)
    mix.get_by_label("Name of the mix").fill("both")
    mix.get_by_role("button", name="Save the mix").click()
    expect(page.locator('.card[data-name="both"]')).to_be_visible(timeout=60_000)
    desk.tell("api/styles/both/remove")
    card.get_by_text("More").click()
    card.get_by_role("button", name="Rename twin").click()
    page.get_by_label("New name").fill("ink")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).not_to_be_empty()
    assert "status of 4" in tabs.complaints.pop()  # the browser's word on an answer that is no
    page.get_by_label("New name").fill("pair")
    page.keyboard.press("Enter")
    card = page.locator('.card[data-name="pair"]')
    card.get_by_text("More").click()
    card.get_by_role("button", name="Remove pair").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    page.get_by_role("dialog").get_by_role("button", name="Remove pair").click()
    expect(card).to_have_count(0)
    assert [style["name"] for style in desk.get("api/styles")] == ["ink"]


def test_many_pictures_come_as_one_scrolls_and_stay_the_same_elements(
    show: Any, desk: Any, tabs: SimpleNamespace
) -> None:
    source = next((desk.folder / "pictures/ink").glob("a-dog-*.png"))
    many = desk.folder / "pictures/many"
    many.mkdir()
    for index in range(PICTURES):
        shutil.copy(source, many / f"a-dog-{index}.png")
    page = show("draw")
    page.locator("#grid .shot").first.focus()
    page.evaluate("window.first = document.querySelector('#grid li')")
    few = len(shown(page))
    for _ in range(100):
        page.keyboard.press("End")
        page.wait_for_timeout(100)
        if len(shown(page)) >= PICTURES:
            break
    assert few < PICTURES <= len(shown(page)) == len(set(shown(page)))
    assert page.evaluate("window.first.isConnected")
    unseen = "[...document.querySelectorAll('#grid img')].filter((each) => !each.complete || !each.naturalWidth).length"
    assert page.evaluate(unseen) > 0  # what was never in view was not fetched
    shutil.rmtree(many)
    expect(page.locator("#grid li")).to_have_count(int(desk.get("api/pictures")["total"]))
    # What was being fetched when its file went is not there: the browser says so, and nothing else went wrong.
    tabs.complaints[:] = [one for one in tabs.complaints if "status of 40" not in one]


# Names of what can be operated, alternatives of pictures, contrast of words, ids that stand twice, an only h1.
FAULTS = """() => {
  const faults = [];
  const seen = (each) => each.checkVisibility() && each.getClientRects().length;
  const labels = (each) => [...(each.labels ?? [])].map((label) => label.textContent).join('');
  const alts = (each) => [...each.querySelectorAll('img')].map((image) => image.alt).join('');
  for (const each of document.querySelectorAll('button, a, input, select, summary, progress'))
    if (seen(each) && !(each.ariaLabel || labels(each) || each.textContent.trim() || alts(each)))
      faults.push('name ' + each.outerHTML);
  for (const image of document.images) if (seen(image) && !image.hasAttribute('alt')) faults.push('alt ' + image.src);
  const ids = [...document.querySelectorAll('[id]')].map((each) => each.id);
  faults.push(...ids.filter((id, place) => ids.indexOf(id) !== place));
  if ([...document.querySelectorAll('h1')].filter(seen).length !== 1) faults.push('h1');
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = (colour) =>
    parts(colour).slice(0, 3).reduce((sum, c, place) => sum + linear(c) * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((parts(colour)[3] ?? 1) === 1) return colour;
    }
    return 'rgb(255 255 255)';
  };
  const walk = document.createTreeWalker(document.querySelector('dialog[open]') ?? document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const each = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !seen(each) || each.closest('.unseen, option, script')) continue;
    const [one, other] = [light(getComputedStyle(each).color), light(ground(each))];
    if ((Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5)
      faults.push('contrast ' + each.outerHTML.slice(0, 90));
  }
  return faults;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(show: Any, scheme: str) -> None:
    page = show("learn", color_scheme=scheme)
    for view in ("learn", "draw", "improve", "library"):
        page.evaluate(f"location.hash = '#{view}'")
        expect(page.locator(f"#view-{view}")).to_be_visible()
        page.wait_for_timeout(300)
        assert page.evaluate(FAULTS) == [], view
    page.evaluate("location.hash = '#draw'")
    page.locator("#grid .shot").first.click()
    assert page.evaluate(FAULTS) == []
    page.keyboard.press("e")
    assert page.evaluate(FAULTS) == []


@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_nothing_hangs_over_the_side(show: Any, width: int) -> None:
    page = show("learn", viewport={"width": width, "height": 800})
    for view in ("learn", "draw", "improve", "library"):
        page.evaluate(f"location.hash = '#{view}'")
        expect(page.locator(f"#view-{view}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    seen = set()
    for _ in range(200):  # Tab goes all the way round: it is caught nowhere
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement === document.body ? '' : document.activeElement.outerHTML")
        if not at and seen:
            break
        seen.add(at)
    else:
        raise AssertionError("Tab never leaves the page")
