"""Many clients of a studio at a time: each is answered, and rightly."""

from __future__ import annotations

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from conftest import draw
from studio_process import Script
from styledrop_cli.io.images import save_png
from styledrop_cli.studio.server import Studio

NOBODY = [sys.executable, "-c", "import sys; [0 for _ in sys.stdin]"]  # a worker that does nothing
CLIENTS, REQUESTS, PICTURES = 20, 20, 40


def test_many_clients_are_answered_rightly(tmp_path: Path) -> None:
    names = [f"ink/a-cat-{seed}.png" for seed in range(PICTURES)]
    for seed, name in enumerate(names):
        save_png(draw(), tmp_path / "pictures" / name, {"prompt": "a cat", "seed": seed})
    with Studio(tmp_path, NOBODY) as studio:
        script = Script(studio.url)

        def client(number: int) -> list[Any]:
            """All ask for the same small pictures, none of which has been made; each gives hearts of its own."""
            wrong = []
            for request in range(REQUESTS):
                name = names[(request // 4 + number % 2) % PICTURES]
                if request % 4 == 0:
                    answer = script.ask(f"api/pictures/{name}/thumb")
                    with Image.open(io.BytesIO(answer.body)) as image:
                        right = image.format == "WEBP" and image.size == draw().size
                elif request % 4 == 1:
                    answer = script.ask("api/pictures?limit=500")
                    right = {one["id"] for one in answer.said["pictures"]} == set(names)
                elif request % 4 == 2:
                    answer = script.ask(f"api/pictures/{name}/file")
                    right = answer.body == (tmp_path / "pictures" / name).read_bytes()
                else:
                    answer = script.ask(f"api/pictures/{names[number]}/heart", json.dumps({"on": True}).encode())
                    right = names[number] in script.get("api/state")["hearts"]
                if answer.status != 200 or not right:
                    wrong.append(answer)
            return wrong

        with ThreadPoolExecutor(CLIENTS) as clients:
            assert [one for wrong in clients.map(client, range(CLIENTS)) for one in wrong] == []
        state = script.get("api/state")
        assert set(state["hearts"]) == set(names[:CLIENTS]) and state["pictures"]["count"] == PICTURES
    assert not list(tmp_path.rglob("*.part"))
