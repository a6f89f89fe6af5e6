"""The studio over real requests: the journey, kills and restarts, jobs, two clients, and what it says of itself."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny
from conftest import ROOT, SOURCE, draw
from studio_process import PATIENCE, Process, Script
from styledrop_cli.adapters import library
from styledrop_cli.adapters.header import read_header
from styledrop_cli.cli.studio import WORKER
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.studio import answers, commands, jobs, schema, server
from styledrop_cli.studio.jobs import Jobs
from styledrop_cli.studio.server import Studio

LITTLE = {"steps": 2, "checkpoints": 0}


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def desk(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    """A studio that the tests of this module share, so that torch is imported once, with a library of its own."""
    folder = tmp_path_factory.mktemp("studio")
    draw().save(folder / "ref.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCE)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("STYLEDROP_STYLES", str(folder / "library"))
        studio = Process(folder / "desk", "--model", tiny_model)
        studio.script.folder = folder / "desk"  # type: ignore[attr-defined]
        studio.script.library = folder / "library"  # type: ignore[attr-defined]
        yield studio.script
        assert studio.stop() == 130


@pytest.fixture(scope="module")
def ink(desk: Any) -> str:
    """A style that was learnt in that studio."""
    kept = desk.upload(desk.folder.parent / "ref.png").said
    desk.done("api/learn", references=[{"id": kept["id"], "content": "a cat"}], style="ink", name="ink", options=LITTLE)
    return "ink"


def mask() -> str:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste("white", (8, 8, 24, 24))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---- the journey ----


def test_from_a_reference_to_a_better_style(desk: Any, ink: str) -> None:
    (reference,) = desk.get("api/references")
    assert (reference["name"], reference["width"], reference["height"]) == ("ref.png", 96, 64)
    (style,) = [one for one in desk.get("api/styles") if one["name"] == "ink"]
    assert (style["style"], style["contents"], style["round"]) == ("ink", ["a cat"], 0)
    assert style["thumbnail"].startswith("data:image/") and style["bytes"] > 0

    drawn = desk.done("api/draw", style="ink", prompts=["a dog", "a tree"], number=2, seed=5, settings={"steps": 2})
    assert drawn["output"] == [f"ink/{thing}-{seed}.png" for thing in ("a-dog", "a-tree") for seed in (5, 6)]
    assert drawn["about"] == {"style": "ink", "prompts": ["a dog", "a tree"]} and drawn["share"] == 1
    listed = desk.get("api/pictures?style=ink")
    assert {one["id"] for one in listed["pictures"]} == set(drawn["output"])
    one = next(one for one in listed["pictures"] if one["id"] == "ink/a-dog-5.png")
    assert (one["prompt"], one["seed"], one["size"], one["width"], one["made"]) == ("a dog", 5, 32, 32, "generate")
    assert one["settings"]["steps"] == 2 and not one["hearted"]
    file = desk.ask("api/pictures/ink/a-dog-5.png/file?download=1")
    assert file.body == (desk.folder / "pictures/ink/a-dog-5.png").read_bytes()
    assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''a-dog-5.png"
    thumb = desk.ask(f"api/pictures/ink/a-dog-5.png/thumb?tag={one['tag']}")
    assert Image.open(io.BytesIO(thumb.body)).size == (32, 32) and "immutable" in thumb.headers["cache-control"]

    for name in drawn["output"][:2]:
        desk.tell(f"api/pictures/{name}/heart", on=True)
    assert desk.get("api/state")["hearts"] == drawn["output"][:2]
    better = desk.done("api/improve", style="ink", name="better", steps=2)
    assert better["about"]["pictures"] == drawn["output"][:2] and better["about"]["verdict"]
    start, round_ = desk.get("api/rounds?style=ink")
    assert (start["name"], start["current"], round_["name"]) == ("start", True, "round 1") and round_["verdict"]
    assert [one["prompt"] for one in start["pictures"]] == [one["prompt"] for one in round_["pictures"]] != []
    assert Image.open(io.BytesIO(desk.ask(round_["pictures"][0]["url"]).body)).size == (16, 16)
    made = read_header(desk.library / "better.safetensors")
    assert made.number == (2 if round_["best"] else 1)
    desk.tell("api/rounds/keep", style="ink", round=1)
    assert [one["current"] for one in desk.get("api/rounds?style=ink")] == [False, True]
    assert read_header(desk.library / "ink.safetensors").feedback == "liked"
    desk.tell("api/rounds/keep", style="ink", round=0)
    desk.tell("api/styles/better/remove")


def test_what_a_command_line_shows_does_the_same(desk: Any, ink: str, styledrop: Any, monkeypatch: Any) -> None:
    started = desk.tell("api/draw", style="ink", prompts=["a house"], number=1, settings={"steps": 2, "lambda_b": 1.25})
    assert desk.until(started["job"])["state"] == "done"
    drawn = (desk.folder / "pictures/ink/a-house-0.png").read_bytes()
    monkeypatch.setenv("STYLEDROP_STYLES", str(desk.library))
    program, *argv = shlex.split(started["command"])
    assert program == "styledrop" and styledrop(*argv).code == 0
    assert Path("pictures/ink/a-house-0.png").read_bytes() == drawn
    (told,) = [one for one in desk.get("api/pictures?style=ink")["pictures"] if one["id"] == "ink/a-house-0.png"]
    assert told["svg"] is False
    program, *argv = shlex.split(told["command"])  # by the file alone
    assert styledrop(*argv).code == 0
    one, other = (
        read_png_settings(path)
        for path in (Path("styledrop-out/a-house-0.png"), desk.folder / "pictures/ink/a-house-0.png")
    )
    assert one == other, told["command"]
    assert Path("styledrop-out/a-house-0.png").read_bytes() == drawn


def test_previews_edits_mixes_and_other_styles(desk: Any, ink: str) -> None:
    desk.done("api/draw", style="ink", prompts=["a cat"], number=1, settings={"steps": 2})
    preview = desk.done("api/preview", style="ink", prompts=["a dog", "not this"], number=9, settings={"steps": 50})
    png = desk.ask(f"api/preview/{preview['id']}/file")
    assert Image.open(io.BytesIO(png.body)).size == (16, 16) and not preview["output"]
    edited = desk.done("api/edit", picture="ink/a-cat-0.png", prompt="a tree", mask=mask(), number=2)
    assert len(edited["output"]) == 2 and all(name.startswith("ink/a-cat-0-a-tree-") for name in edited["output"])
    shown = {one["id"]: one for one in desk.get("api/pictures?style=ink&limit=500")["pictures"]}
    assert shown[edited["output"][0]]["made"] == "edit" and not [name for name in shown if "sheet" in name]
    varied = desk.done("api/vary", picture="ink/a-cat-0.png", much=0.4, number=2)
    shown = {one["id"]: one for one in desk.get("api/pictures?style=ink&limit=500")["pictures"]}
    assert len(varied["output"]) == 2 and {shown[name]["made"] for name in varied["output"]} == {"vary"}
    desk.done("api/styles/ink/mix", **{"with": "ink", "share": 0.25, "name": "two"})
    assert [part["weight"] for part in read_header(desk.library / "two.safetensors").merged] == [0.75, 0.25]
    again = desk.done("api/again", picture="ink/a-cat-0.png", style="two")
    assert again["output"] == ["two/a-cat-0.png"]
    assert read_png_settings(desk.folder / "pictures/two/a-cat-0.png")["steps"] == 2  # type: ignore[index]
    mixed = [{"name": "ink", "share": 0.5}, {"name": "two", "share": 0.5}]
    assert desk.done("api/draw", mix=mixed, prompts=["a cat"], number=1)["output"] == ["mix/a-cat-0.png"]
    assert desk.done("api/draw", prompts=["a cat"], number=1)["output"] == ["no-style/a-cat-0.png"]
    desk.tell("api/pictures/two/a-cat-0.png/heart", on=True)
    desk.tell("api/styles/two/rename", name="both")
    assert {"ink", "both"} <= {one["name"] for one in desk.get("api/styles")}
    assert "both/a-cat-0.png" in desk.get("api/state")["hearts"]  # its pictures go with it
    assert desk.ask("api/pictures/both/a-cat-0.png/file").status == 200
    desk.tell("api/styles/both/remove")
    assert not (desk.library / "both.safetensors").exists()


def test_assets_and_weighed_references(desk: Any, ink: str) -> None:
    made = desk.done("api/draw", style="ink", prompts=["a dog"], number=1, seed=40, size=48, transparent=True, svg=True,
                     palette="#cc2222, gold", settings={"steps": 2, "guard": 0.5})  # fmt: skip
    (one,) = [one for one in desk.get("api/pictures?style=ink&limit=500")["pictures"] if one["id"] in made["output"]]
    assert one["svg"] and one["width"] == 48 and one["settings"]["palette"] == "#cc2222,#ffd700"
    assert desk.ask(f"api/pictures/{one['id']}/svg").body.startswith(b"<")
    draw(64, 64).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(desk.folder.parent / "other.png")
    (first,), second = desk.get("api/references"), desk.upload(desk.folder.parent / "other.png").said
    both = [{"id": first["id"], "content": "a cat", "weight": 2}, {"id": second["id"], "content": "a dog"}]
    job = desk.done("api/learn", references=both, style="ink", name="weighed", options=LITTLE | {"layers": "1-2"})
    assert f"references/{first['id']}.png:2 references/{second['id']}.png:1" in job["command"]
    assert read_header(desk.library / "weighed.safetensors").contents == ["a cat", "a dog"]
    desk.tell("api/styles/weighed/remove")
    desk.tell(f"api/references/{second['id']}/delete")
    assert len(desk.get("api/references")) == 1


def test_a_style_goes_out_and_comes_back(desk: Any, ink: str) -> None:
    file = desk.ask("api/styles/ink/file")
    assert file.body == (desk.library / "ink.safetensors").read_bytes()
    kind = {"Content-Type": "application/octet-stream", "X-Name": "came-back.safetensors"}
    assert desk.ask("api/styles/import", file.body, kind).said == {"name": "came-back"}
    assert (desk.library / "came-back.safetensors").read_bytes() == file.body
    assert desk.ask("api/styles/import", file.body, kind).status == 400  # the name is taken
    assert desk.ask("api/styles/import", b"no adapter", kind | {"X-Name": "none"}).status == 400
    assert not (desk.library / "none.safetensors").exists() and not list((desk.folder / "imports").iterdir())
    desk.tell("api/styles/came-back/remove")


def test_what_the_base_makes_of_a_reference(desk: Any, ink: str) -> None:
    (reference,) = desk.get("api/references")
    while not (about := desk.get(f"api/references/{reference['id']}/about"))["ready"]:
        time.sleep(0.05)
    assert about["edges_kept"] is not None and set(about["guess"]) == {"content", "sure"}
    assert Image.open(io.BytesIO(desk.ask(f"api/references/{reference['id']}/seen").body)).size == (32, 32)
    crop = Image.open(io.BytesIO(desk.ask(f"api/references/{reference['id']}/crop").body))
    assert crop.width == crop.height
    whole = desk.ask(f"api/references/{reference['id']}/file")
    assert whole.body == (desk.folder.parent / "ref.png").read_bytes()
    assert desk.upload(desk.folder.parent / "ref.png").said["id"] == reference["id"]
    assert len(desk.get("api/references")) == 1  # the same picture is one


def test_test_pictures_of_a_training(desk: Any, ink: str) -> None:
    (reference,) = desk.get("api/references")
    job = desk.done(
        "api/learn", references=[{"id": reference["id"], "content": "a cat"}], style="ink", name="seen",
        options={"steps": 4, "checkpoints": 2},
    )  # fmt: skip
    sheets = desk.get(f"api/learn/{job['id']}/samples")
    assert [one["step"] for one in sheets] == [2, 4]
    assert Image.open(io.BytesIO(desk.ask(sheets[1]["url"]).body)).width > 32
    assert desk.ask(f"api/learn/{job['id']}/samples/3").status == 404
    desk.tell("api/styles/seen/remove")


# ---- pictures ----


def test_pages_of_pictures_hearts_and_the_trash(desk: Any, ink: str) -> None:
    desk.done("api/draw", style="ink", prompts=["a fish"], number=5, settings={"steps": 2})
    total, seen, after = desk.get("api/pictures?style=ink")["total"], [], ""
    while after is not None:
        page = desk.get(f"api/pictures?style=ink&limit=2&after={after}")
        seen += [one["id"] for one in page["pictures"]]
        after = page["next"]
    assert len(seen) == len(set(seen)) == total
    desk.tell("api/pictures/ink/a-fish-3.png/heart", on=True)
    assert "ink/a-fish-3.png" in {one["id"] for one in desk.get("api/pictures?hearted=1")["pictures"]}
    tag = desk.get("api/state")["pictures"]["stamp"]
    desk.tell("api/pictures/ink/a-fish-3.png/delete")
    assert desk.get("api/state")["pictures"]["stamp"] != tag
    assert desk.ask("api/pictures/ink/a-fish-3.png/file").status == 404
    assert "ink/a-fish-3.png" not in desk.get("api/state")["hearts"]
    desk.tell("api/pictures/ink/a-fish-3.png/restore")
    assert "ink/a-fish-3.png" in desk.get("api/state")["hearts"]
    assert "not in the trash" in desk.refused("api/pictures/ink/a-fish-3.png/restore", 404)
    desk.tell("api/pictures/ink/a-fish-3.png/heart", on=False)


def test_two_clients_see_the_same_and_soon(desk: Any, ink: str) -> None:
    other = Script(f"http://{desk.parts.netloc}{desk.parts.path}")
    tag = other.get("api/state")["tag"]
    while (state := other.get(f"api/state?after={tag}"))["tag"] != tag and any(
        job["state"] in ("running", "waiting") for job in state["jobs"]
    ):
        tag = state["tag"]
    (desk.folder / "pictures/ink").mkdir(exist_ok=True)
    draw(40, 40).save(desk.folder / "pictures/ink/from-elsewhere.png")  # somebody else's program
    while not any(one["id"] == "ink/from-elsewhere.png" for one in other.get("api/pictures")["pictures"]):
        tag = other.get(f"api/state?after={tag}")["tag"]
    desk.tell("api/pictures/ink/from-elsewhere.png/heart", on=True)
    assert "ink/from-elsewhere.png" in other.get("api/state")["hearts"]
    (desk.folder / "pictures/ink/from-elsewhere.png").unlink()


# ---- jobs ----


def test_a_job_that_is_cancelled_goes_on_to_the_same_weights(desk: Any, ink: str) -> None:
    (reference,) = desk.get("api/references")
    asked = {"references": [{"id": reference["id"], "content": "a cat"}], "style": "ink"}
    options = {"steps": 400, "checkpoints": 0}
    started = desk.tell("api/learn", **asked, name="halted", options=options)["job"]
    tag = ""
    while not (job := desk.job(started))["share"]:
        tag = desk.get(f"api/state?after={tag}")["tag"]
    assert job["state"] == "running" and "loss" in job["note"]
    desk.tell(f"api/jobs/{started}/cancel")
    assert desk.until(started)["state"] == "cancelled"
    assert not (desk.library / "halted.safetensors").exists()
    desk.tell(f"api/jobs/{started}/resume")
    resumed = desk.until(started)
    assert resumed["state"] == "done" and any("going on from step" in said for said in resumed["says"])
    desk.done("api/learn", **asked, name="whole", options=options)
    whole, halted = (tiny.read_tensors(desk.library / f"{name}.safetensors")[0] for name in ("whole", "halted"))
    assert all((whole[name] == halted[name]).all() for name in whole)
    for name in ("whole", "halted"):
        desk.tell(f"api/styles/{name}/remove")


def test_what_waits_can_be_cancelled_and_a_preview_goes_first(desk: Any, ink: str) -> None:
    long = desk.tell("api/draw", style="ink", prompts=["a cat"], number=60, seed=1000, settings={"steps": 60})["job"]
    desk.until(long, "running")
    waiting = desk.tell("api/draw", style="ink", prompts=["a dog"], number=1, seed=77)["job"]
    gone = desk.tell("api/preview", style="ink", prompts=["a dog"])["job"]
    first = desk.tell("api/preview", style="ink", prompts=["a tree"])["job"]
    assert desk.job(gone) is None  # the newer one takes its place
    cancelled = desk.tell("api/draw", style="ink", prompts=["a dog"], number=1, seed=78)["job"]
    desk.tell(f"api/jobs/{cancelled}/cancel")
    desk.tell(f"api/jobs/{long}/cancel")
    assert desk.until(long)["state"] in ("cancelled", "done")
    assert desk.until(first)["started"] < desk.until(waiting)["started"]
    assert desk.job(cancelled)["state"] == "cancelled" and desk.job(cancelled)["started"] is None
    assert "is over" in desk.refused(f"api/jobs/{waiting}/cancel", 400)
    desk.tell(f"api/jobs/{waiting}/forget")
    assert desk.job(waiting) is None and not list((desk.folder / "jobs").glob(f"{waiting}.*"))


def test_a_job_that_fails_says_why(desk: Any, ink: str) -> None:
    shares = [{"name": "ink", "share": 0.5}, {"name": "ink", "share": 0.9}]
    job = desk.until(desk.tell("api/draw", mix=shares, prompts=["a cat"])["job"])
    assert job["state"] == "failed" and "1.4" in job["error"] and job["hint"]
    assert job["error"] in " ".join(desk.ask(f"api/jobs/{job['id']}/log").body.decode().split())


# ---- killed, and started again ----


def test_a_killed_studio_goes_on(tmp_path: Path, tiny_model: Path, picture: Path) -> None:
    folder, model = tmp_path / "desk", ("--model", tiny_model)
    studio = Process(folder, *model)
    kept = studio.script.upload(picture).said
    asked = {"references": [{"id": kept["id"], "content": "a cat"}], "style": "ink", "name": "ink"}
    job = studio.script.tell("api/learn", **asked, options={"steps": 3000, "checkpoints": 0})["job"]
    later = studio.script.tell("api/draw", prompts=["a cat"], number=1)["job"]
    while not studio.script.job(job)["share"]:
        time.sleep(0.05)
    studio.kill()
    again = Process(folder, *model)
    try:
        assert again.url == studio.url  # a tab that was left open goes on
        assert again.script.job(job)["state"] == "stopped"
        assert again.script.until(later)["state"] == "done"  # it waited for the worker of the killed one
        again.script.tell(f"api/jobs/{job}/resume")
        again.script.until(job, "running")
        while "going on from step" not in " ".join(again.script.job(job)["says"]):
            assert again.script.job(job)["state"] == "running"
            time.sleep(0.05)
    finally:
        assert again.stop() == 130
    about = json.loads((folder / f"jobs/{job}.json").read_text())
    assert about["state"] == "stopped"  # and can go on another time
    assert not (folder / "trash").exists()


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, tiny_model: Path) -> None:
    pids: list[int] = []

    class Watched(jobs.Worker):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            pids.append(self._process.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "Worker", Watched)
        with Studio(tmp_path / "desk", WORKER, str(tiny_model)) as studio:
            script = Script(studio.url)
            job = script.tell("api/draw", prompts=["a cat"], number=90, settings={"steps": 200})["job"]
            script.until(job, "running")
            os.kill(pids[-1], signal.SIGKILL)
            failed = script.until(job)
            assert failed["state"] == "failed" and "signal 9" in failed["error"] and "memory" in failed["hint"]
            assert script.done("api/draw", prompts=["a dog"], number=1)["output"] == ["no-style/a-dog-0.png"]
            assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_studio_a_folder(tmp_path: Path, tiny_model: Path, styledrop: Any) -> None:
    studio = Process(tmp_path / "desk", "--model", tiny_model)
    try:
        code, _, err = styledrop("studio", tmp_path / "desk", "--headless")
        assert code == 2 and f"PID {studio.process.pid}" in err
        code, _, err = styledrop("studio", tmp_path / "other", "--headless", "--port", str(studio.script.parts.port))
        assert code == 2 and "cannot be served on" in err
    finally:
        studio.stop()


def test_a_thousand_jobs(tmp_path: Path) -> None:
    nobody = [sys.executable, "-c", "import sys; [0 for _ in sys.stdin]"]  # answers nothing
    (tmp_path / "jobs").mkdir()
    for number in range(1, 1501):
        job = jobs.Job(f"{number:06}", "draw", ["generate"], "Draw", state="done")
        (tmp_path / f"jobs/{job.id}.json").write_text(json.dumps(vars(job)))
    (tmp_path / "jobs/000003.json").write_text("[" * 5000)
    (tmp_path / "jobs/000004.json").write_text('{"id": "../../x", "kind": 3}')
    queue = Jobs(tmp_path, nobody, "pocket", lambda: None, lambda job, result: None)
    started = time.monotonic()
    for number in range(300):
        queue.add("draw", ["generate", str(number)], "Draw")
    listed = queue.listed()
    assert [job.id for job in listed[:2]] == ["001800", "001799"] and len(listed) == 300  # all that wait, the newest
    assert time.monotonic() - started < 30
    queue._drop_oldest()
    assert len(list((tmp_path / "jobs").glob("*.json"))) <= jobs.KEPT + 302


# ---- what it says of itself ----


def test_every_endpoint_is_answered_and_described() -> None:
    kinds = (server.Studio, commands.Commands, answers.JobAnswers, answers.PictureAnswers, answers.ReferenceAnswers,
             answers.StyleAnswers)  # fmt: skip
    said = schema.openapi()
    for one in schema.ENDPOINTS:
        assert sum(hasattr(kind, one.handler) for kind in kinds) == 1, one
        about = said["paths"][one.path][one.method.lower()]
        assert about["summary"] and ("requestBody" in about) == (one.method == "POST")
    assert len({(one.method, one.path) for one in schema.ENDPOINTS}) == len(schema.ENDPOINTS)
    json.dumps(said, allow_nan=False)


def test_the_server_does_without_torch(desk: Any) -> None:
    maps = Path(f"/proc/{_pid(desk)}/maps")
    if not maps.exists():
        pytest.skip("this system does not show what a process has loaded")
    assert "libtorch" not in maps.read_text()


def _pid(desk: Any) -> int:
    return int((desk.folder / ".lock").read_text().split()[0])


def test_the_library_is_the_one_of_the_commands(desk: Any, ink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEDROP_STYLES", str(desk.library))
    assert library.names() == sorted(one["name"] for one in desk.get("api/styles"))


# ---- a script ----


def test_the_example_of_a_script(tmp_path: Path, tiny_model: Path) -> None:
    command = [sys.executable, ROOT / "examples/studio_client.py", "--model", tiny_model, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    names = [f"{thing}-{seed}.png" for thing in ("a-cat", "a-teapot") for seed in (0, 1)]
    assert (done.returncode, done.stdout.split()) == (0, ["done", *names]), done.stderr
    assert all(read_png_settings(tmp_path / name)["style"] == "watercolor" for name in names)  # type: ignore[index]
    assert library.names() == ["by-script"]
