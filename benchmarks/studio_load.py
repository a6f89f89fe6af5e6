"""How fast the studio's page and server are with many pictures in the folder: medians of several runs.

    python benchmarks/studio_load.py --pictures 500

Chromium, without a window, opens the Draw view of a studio whose worker does nothing:

- first paint: ms from the request for the page until something is painted;
- 60 small pictures: ms until so many are fetched and decoded, once when none has been made, and once from the folder;
- longest task: ms that the page could answer nothing while it was scrolled to its end, and again while 20 hearts came.

Then clients ask the server without a browser: requests a second of the state and of the pictures, and the server's
resident memory before and after.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chromium import chromium
from script import run_in_words
from studio_process import Script
from styledrop_cli.io.images import save_png

SERVE = """
import sys, time
from pathlib import Path
from styledrop_cli.studio.server import Studio
with Studio(Path(sys.argv[1]), [sys.executable, "-c", "import sys; [0 for _ in sys.stdin]"]) as studio:
    print(studio.url, flush=True)
    sys.stdin.read()
"""  # a studio whose worker does nothing, until its input ends
COUNT = 60  # small pictures that are waited for
WATCH = """
window.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration))).observe(
  { type: 'longtask', buffered: true });
"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
THUMBS = f"""() => {{
  const there = [...document.querySelectorAll('#grid img')].filter((each) => each.complete && each.naturalWidth);
  return there.length >= {COUNT} && performance.now();
}}"""


def write_pictures(folder: Path, count: int) -> None:
    """Pictures of 256 px, each of other colours, as `generate` writes them."""
    draws = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (8, 8, 3), np.uint8))
        about = {"prompt": f"a thing of {index}", "seed": index, "style": "ink", "steps": 12}
        image = coarse.resize((256, 256), Image.Resampling.BICUBIC)
        save_png(image, folder / f"pictures/ink/a-thing-of-{index}.png", about)


def open_page(browser: Any, url: str) -> dict[str, float]:
    """One look at the Draw view, scrolled to its end; ms by name."""
    with browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.new_page()
        page.add_init_script(WATCH)
        page.goto(f"{url}#draw")
        page.wait_for_selector("html[data-ready]", state="attached")
        page.evaluate("document.getElementById('cell').value = 96")  # so that so many are in view
        page.evaluate("document.getElementById('cell').dispatchEvent(new Event('input'))")
        filled = page.wait_for_function(THUMBS, timeout=120_000).json_value()
        found = {"first paint": page.evaluate(PAINTED), "60 small pictures": filled}
        page.evaluate("document.getElementById('cell').value = 232")
        page.evaluate("document.getElementById('cell').dispatchEvent(new Event('input'))")
        page.wait_for_timeout(300)
        page.evaluate("tasks.length = 0")
        page.mouse.move(900, 500)
        before = -1
        while (now := page.evaluate("scrollY")) != before:
            before = now
            for _ in range(8):
                page.mouse.wheel(0, 400)
                page.wait_for_timeout(30)
        found["longest task while scrolling"] = page.evaluate("Math.max(0, ...tasks)")
        found["pictures in the page then"] = page.evaluate("document.querySelectorAll('#grid li').length")
        page.evaluate("tasks.length = 0")
        hearts = page.locator("#grid .heart")
        for index in range(20):
            hearts.nth(index).evaluate("(each) => each.click()")
        page.wait_for_timeout(1500)
        found["longest task while 20 hearts come"] = page.evaluate("Math.max(0, ...tasks)")
        for index in range(20):
            hearts.nth(index).evaluate("(each) => each.click()")
        page.wait_for_timeout(500)
        return found


def per_second(script: Script, paths: list[str], clients: int, seconds: float) -> float:
    """Requests a second that so many clients are answered, each asking for the ``paths`` in turn."""

    def client(number: int) -> int:
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            answer = script.ask(paths[(number + count) % len(paths)])
            assert answer.status == 200, answer
            count += 1
        return count

    with ThreadPoolExecutor(clients) as threads:
        begun = time.monotonic()
        return sum(threads.map(client, range(clients))) / (time.monotonic() - begun)


def resident(pid: int) -> float:
    """MB of a process in memory; Linux alone says it here."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return float("nan")


def main() -> None:
    """Fill a studio with pictures, serve it, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5, help="looks at the page of which the median is taken")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0, help="that the clients ask for each thing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(folder, given.pictures)
        command = [sys.executable, "-c", SERVE, place]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            print(f"{given.pictures} pictures of 256 px, {given.runs} runs, Linux, {given.clients} clients")
            measure(given, folder, url, server.pid)
        finally:
            server.communicate("")


def measure(given: argparse.Namespace, folder: Path, url: str, pid: int) -> None:
    """Look at the page in a browser, then ask by many clients."""
    script, start = Script(url), resident(pid)
    with chromium() as browser:
        made = []
        for _ in range(given.runs):
            for path in (folder / "thumbs").glob("*"):
                path.unlink()
            made.append(open_page(browser, url)["60 small pictures"])
        print(f"{'60 small pictures, none made yet':44}{statistics.median(made):8.0f} ms")
        runs = [open_page(browser, url) for _ in range(given.runs)]
        for name in runs[0]:
            unit = "" if name.startswith("pictures") else " ms"
            print(f"{name:44}{statistics.median(run[name] for run in runs):8.0f}{unit}")
    listed = script.get("api/pictures?limit=500")["pictures"]
    asked = {
        "the state": ["api/state"],
        "a list of 60": ["api/pictures"],
        "small pictures": [f"api/pictures/{one['id']}/thumb" for one in listed],
        "whole pictures": [f"api/pictures/{one['id']}/file" for one in listed],
    }
    for name, paths in asked.items():
        print(f"{name:44}{per_second(script, paths, given.clients, given.seconds):8.0f} requests/s")
    print(f"{'memory of the server, at its start':44}{start:8.0f} MB")
    print(f"{'memory of the server, after all that':44}{resident(pid):8.0f} MB")


if __name__ == "__main__":
    run_in_words(main)
