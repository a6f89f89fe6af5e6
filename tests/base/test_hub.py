"""Published weights from the hub: a server on this machine speaks its language, the cache is a folder of the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import typer
from huggingface_hub import constants, file_download

from conftest import SOURCE, Run, nobody
from hub_server import COMMIT, NEWER, REPO, Hub, go_offline, noise, point_to, published
from styledrop_cli.base import base as base_module
from styledrop_cli.base import download, hub, registry
from styledrop_cli.base.cache import placed
from styledrop_cli.base.registry import PUBLISHED
from styledrop_cli.cli import console, load
from styledrop_cli.errors import ModelError, StyledropError, UsageError

PACKAGE = Path(SOURCE) / "styledrop_cli"
HALF = sorted(name for name in published() if ".fp16." in name)
SMALL = sorted(name for name in published() if name.endswith((".json", ".txt")))
TRANSFORMER = "transformer/diffusion_pytorch_model.fp16.safetensors"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def storage() -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{REPO.replace('/', '--')}"


# ---- fetching ----


def test_only_what_is_needed_is_fetched(remote: Hub) -> None:
    shares: list[float] = []
    notes: list[str] = []
    folder = download.fetch(REPO, on_progress=lambda share, note: (shares.append(share), notes.append(note)))  # type: ignore
    assert files(folder) == sorted(HALF + SMALL)
    assert all((folder / name).read_bytes() == remote.files[name] for name in HALF + SMALL)
    assert folder.name == COMMIT
    assert folder.parent.parent == storage().resolve()
    assert shares == sorted(shares) and shares[-1] == 1
    assert notes[-1] == "58.1 of 58.1 kB"
    assert len(set(shares)) > 40  # the transformer alone comes in 40 pieces
    assert not list(storage().rglob("*.incomplete"))
    remote.asked.clear()
    assert download.locate(REPO) == hub.find(REPO) == folder
    assert remote.asked == []
    assert download.fetch(REPO) == folder
    assert remote.downloads() == []


def test_the_other_precision_comes_beside_the_first(remote: Hub) -> None:
    folder = download.fetch(REPO)
    assert download.fetch(REPO, precision="fp32") == folder
    assert [name for name in files(folder) if name.endswith(".safetensors")] == sorted(
        name for name in remote.files if name.endswith(".safetensors")
    )
    assert [one.precisions for one in hub.cached()] == [("fp16", "fp32")]


def test_nothing_of_the_library_s_own_is_shown(remote: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    remote.cut[TRANSFORMER] = 5500
    download.fetch(REPO)
    assert capfd.readouterr() == ("", "")


def test_a_connection_that_is_cut_is_taken_up_again(remote: Hub) -> None:
    remote.cut[TRANSFORMER] = 5500
    folder = download.fetch(REPO)
    assert (folder / TRANSFORMER).read_bytes() == remote.files[TRANSFORMER]
    assert remote.ranges() == ["bytes=5000-"]


def test_a_run_that_is_stopped_is_taken_up_again(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(share: float, note: str) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch(REPO, on_progress=stop)
    assert hub.find(REPO) is None
    assert [(one.name, one.whole) for one in hub.cached()] == [(REPO, False)]
    (part,) = storage().rglob("*.incomplete")
    length = part.stat().st_size
    assert 0 < length < 40000
    usage = namedtuple("usage", "free")
    needed = sum(len(remote.files[name]) for name in (TRANSFORMER, "vqvae/" + TRANSFORMER.partition("/")[2])) - length
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed))
    shares: list[float] = []
    folder = download.fetch(REPO, on_progress=lambda share, note: shares.append(share))
    assert shares[0] == 0 and shares == sorted(shares)
    assert remote.ranges() == [f"bytes={length}-"]
    assert (folder / TRANSFORMER).read_bytes() == remote.files[TRANSFORMER]
    assert hub.verify(folder) == []


def test_a_newer_commit_replaces_the_older_only_when_it_is_whole(remote: Hub) -> None:
    older = download.fetch(REPO)
    remote.commit, remote.files[TRANSFORMER] = NEWER, noise("newer", 40000)

    def stop(share: float, note: str) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch(REPO, on_progress=stop)
    assert hub.find(REPO) == older
    newer = download.fetch(REPO)
    assert (newer.name, hub.find(REPO)) == (NEWER, newer)
    assert remote.downloads().count(TRANSFORMER) == 3  # the other weights are the same, and are not fetched again
    assert remote.downloads().count(HALF[0]) == 1


def test_shards(remote: Hub) -> None:
    stem = "transformer/diffusion_pytorch_model"
    del remote.files[TRANSFORMER], remote.files[f"{stem}.safetensors"]
    shards = [f"{stem}.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = f"{stem}.safetensors.index.fp16.json"
    remote.files |= {name: noise(name, 5000) for name in shards}
    assert "no safetensors" in refusal(remote) or "pickle" in refusal(remote)  # shards without an index
    remote.files[index] = b"{}"
    folder = download.fetch(REPO)
    assert {*shards, index} < set(files(folder))
    assert hub.find(REPO) == folder
    (folder / shards[0]).unlink()
    assert hub.find(REPO) is None


def test_a_part_that_is_there_in_one_precision_only(remote: Hub) -> None:
    del remote.files["text_encoder/model.fp16.safetensors"]
    said: list[str] = []
    folder = download.fetch(REPO, on_message=said.append)
    assert said == [f"{REPO} has no fp16 weights of its text_encoder: taking those in fp32"]
    assert (folder / "text_encoder/model.safetensors").exists()
    assert hub.find(REPO) == folder


def refusal(remote: Hub) -> str:
    with pytest.raises(ModelError) as error:
        download.fetch(REPO)
    assert error.value.hint
    assert remote.downloads() == []
    return error.value.message


def test_pickles_are_refused(remote: Hub) -> None:
    remote.files = {name: data for name, data in remote.files.items() if not name.startswith("transformer/diff")}
    remote.files["transformer/diffusion_pytorch_model.bin"] = noise("pickle", 5000)
    message = refusal(remote)
    assert "as a pickle only (transformer/diffusion_pytorch_model.bin), which can run code of its own" in message
    assert not storage().exists()
    del remote.files["transformer/diffusion_pytorch_model.bin"]
    assert "has no safetensors with the weights of its transformer" in refusal(remote)


def test_other_models_are_refused(remote: Hub) -> None:
    remote.files["model_index.json"] = b'{"_class_name": "FluxPipeline"}'
    assert refusal(remote) == f"{REPO} is a FluxPipeline, which cannot be run here"
    assert hub.cached() == []
    del remote.files["vqvae/config.json"]
    assert "it has no vqvae/config.json" in refusal(remote)


# ---- sums ----


def test_what_comes_over_damaged_is_deleted(remote: Hub) -> None:
    remote.spoilt.add(TRANSFORMER)
    with pytest.raises(StyledropError, match=f"{TRANSFORMER} of {REPO} came over damaged") as error:
        download.fetch(REPO)
    assert "fetches it again" in str(error.value.hint)
    assert hub.find(REPO) is None
    assert not list(storage().rglob("*.incomplete"))
    remote.spoilt.clear()
    assert hub.verify(download.fetch(REPO)) == []


def test_what_is_damaged_in_the_cache_is_found_and_fetched_anew(remote: Hub) -> None:
    folder = download.fetch(REPO)
    (folder / TRANSFORMER).write_bytes(noise("rot", 40000))
    shares: list[float] = []
    (problem,) = hub.verify(folder, lambda share, note: shares.append(share))
    assert problem.startswith(f"{TRANSFORMER} is damaged: its sha256 is ")
    assert shares[-1] == 1
    remote.asked.clear()
    said: list[str] = []
    assert download.fetch(REPO, on_message=said.append) == folder
    assert said == [f"Warning: {TRANSFORMER} in the cache is damaged: it is fetched again"]
    assert remote.downloads() == [TRANSFORMER]
    assert hub.verify(folder) == []
    (folder / TRANSFORMER).resolve().unlink()
    assert hub.verify(folder) == [f"{TRANSFORMER} is no longer there"]
    assert hub.find(REPO) is None
    assert download.locate(REPO) == folder


def test_where_no_links_can_be_made_nothing_lies_there_twice(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda cache_dir=None: False)
    folder = download.fetch(REPO)
    assert files(folder) == sorted(HALF + SMALL)
    assert files(storage() / "blobs") == []
    assert hub.find(REPO) == folder and hub.verify(folder) == []
    (folder / TRANSFORMER).write_bytes(b"rot")
    download.fetch(REPO)
    assert remote.downloads().count(TRANSFORMER) == 2 and len(remote.downloads()) == 4
    assert (folder / TRANSFORMER).read_bytes() == remote.files[TRANSFORMER]


def test_a_folder_of_one_s_own_has_no_sums(tiny_model: Path) -> None:
    assert hub.verify(tiny_model) == []


# ---- what goes wrong on the way ----


def test_the_token_is_sent_to_the_hub_alone(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    download.fetch(REPO)
    sent: dict[bool, set[str | None]] = {False: set(), True: set()}
    for _, path, headers in remote.asked:
        if REPO in path or path.startswith("/cdn/"):
            sent[path.startswith("/cdn/")].add(headers.get("authorization"))
    assert sent == {False: {"Bearer hf_mine"}, True: {None}}


NOT_FOUND = "no model of that name on the hub, or it is private"
BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}
REFUSALS = {
    "unknown": (404, {"X-Error-Code": "RepoNotFound"}, NOT_FOUND, "set HF_TOKEN"),
    "private": (401, {"X-Error-Code": "RepoNotFound"}, NOT_FOUND, "set HF_TOKEN"),
    "token": (401, BAD_TOKEN, f"{REPO} may not be read with the token that was sent", "unset one that is old"),
    "forbidden": (403, {}, f"{REPO} may not be read with the token that was sent", "set HF_TOKEN"),
    "busy": (503, {}, f"the hub answers 503 when asked for {REPO}", "try again later"),
}


@pytest.mark.parametrize(("status", "headers", "words", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(
    remote: Hub, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], words: str, hint: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    remote.refusal = (status, headers)
    with pytest.raises(StyledropError) as error:
        download.locate(REPO)
    assert words in error.value.message
    assert hint in str(error.value.hint)


def test_a_misspelt_owner_and_name(remote: Hub) -> None:
    with pytest.raises(ModelError, match="there is no folder amused/amused256 here, and no model") as error:
        download.locate("amused/amused256")
    assert error.value.hint == "did you mean amused/amused-256?"


def test_gated(remote: Hub) -> None:
    remote.locked = True
    with pytest.raises(ModelError, match=f"{REPO} is gated") as error:
        download.fetch(REPO)
    assert f"{remote.url}/{REPO}, then set HF_TOKEN" in str(error.value.hint)


def test_no_network(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    there = remote.url
    point_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(StyledropError, match=r"cannot be fetched from http://127\.0\.0\.1:9: .") as error:
        download.locate(REPO)
    assert "check the network" in str(error.value.hint)
    point_to(monkeypatch, there)
    folder = download.fetch(REPO)
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert download.locate(REPO) == folder
    said: list[str] = []
    assert download.fetch(REPO, on_message=said.append) == folder
    assert said[0].startswith("Warning: ") and said[0].endswith("; taking what was fetched before")


@pytest.mark.parametrize("where", ["/", "/resolve/", "/cdn/", "config.json", "merges.txt", "fp16"])
def test_a_page_to_log_in_at_instead_of_an_answer(remote: Hub, styledrop: Run, where: str) -> None:
    remote.portal = where
    code, _, err = styledrop("models", "fetch", REPO)
    assert code == 1, err
    assert "unexpected" not in err and "Hint:  " in err
    assert (f"{REPO} cannot be fetched" in err) and (where not in ("/", "/cdn/") or "a web page comes instead" in err)
    remote.portal = ""
    assert hub.verify(download.fetch(REPO)) == []  # and nothing of the page is kept


@pytest.mark.parametrize("name", ["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"])
def test_a_variable_that_the_library_cannot_read(name: str) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "styledrop_cli", *arguments],
            env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), name: "soon"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, err = said("models", "fetch", "amused-256")
    assert code == 2 and f"Error: {name} is 'soon', which huggingface_hub cannot read" in err
    assert said("--version") == said("inspect", "--help") == (0, "")


@pytest.mark.parametrize("arguments", [("models", "list"), ("models", "fetch", REPO)])
def test_a_user_without_a_home(
    remote: Hub, styledrop: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    nobody(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))
    code, _, err = styledrop(*arguments)
    assert code == 2 and "~/.cache/huggingface/hub is in the home folder, and this user has none" in err
    assert "HF_HOME=FOLDER" in err


def test_offline(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    download.fetch(REPO)
    remote.asked.clear()
    go_offline(monkeypatch)
    assert download.locate(REPO) == download.fetch(REPO)
    for fetching in (lambda: download.locate("amused-256"), lambda: download.fetch(REPO, precision="fp32")):
        with pytest.raises(StyledropError, match="in the cache, and HF_HUB_OFFLINE forbids to fetch it") as error:
            fetching()
        assert "without HF_HUB_OFFLINE: styledrop models fetch" in str(error.value.hint)
    assert remote.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    go_offline(monkeypatch)


def test_too_little_room(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(50_000))
    with pytest.raises(StyledropError, match=r"needs 58\.1 kB, and 50\.0 kB are free in /") as error:
        download.fetch(REPO)
    assert "HF_HOME=FOLDER" in str(error.value.hint)
    assert remote.downloads() == []


# ---- names ----


def test_what_is_local_needs_no_hub(tiny_model: Path, tmp_path: Path) -> None:
    assert download.locate("pocket") == PACKAGE / "pocket"
    assert download.locate(str(tiny_model)) == tiny_model
    Path("artists/tiny-amused").mkdir(parents=True)
    assert download.locate(REPO) == Path(REPO)
    program = (
        "import sys\nfrom styledrop_cli.cli import console, load\n"
        f"names = [load.located(console.Screen(), name) for name in ('pocket', {str(tiny_model)!r})]\n"
        "heavy = {'torch', 'huggingface_hub'} & set(sys.modules)\n"
        "print(names)\nsys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout.strip()) == (0, str(["pocket", str(tiny_model)])), done.stderr


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nowhere", None),
        ("amused256", "amused-256"),
        ("Amused-512", "amused-512"),
        ("pokcet", "pocket"),
        ("./my-model", None),
        ("a/b/c", None),
        ("models/", None),
        ("a/b..c", None),
        ("https://huggingface.co/amused/amused-256", None),
    ],
)
def test_names_that_are_no_model_s(name: str, meant: str | None) -> None:
    with pytest.raises(ModelError) as error:
        hub.find(name)
    assert error.value.message == f"{name} is not a model folder (no config.json in it)"
    hint = f"Use --model pocket, {', '.join(PUBLISHED)}, a folder, or owner/name on the hub."
    assert error.value.hint == (f"Did you mean {meant}? {hint}" if meant else hint)


def test_a_file_is_no_model() -> None:
    Path("some").mkdir()
    Path("some/file").touch()
    with pytest.raises(ModelError, match="some/file is not a model folder"):
        download.locate("some/file")


# ---- the commands ----


def test_models_list_fetch_check_and_remove(remote: Hub, styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> dict[str, str]:
        code, out, _ = styledrop("models", "list", "--json")
        assert code == 0
        return {row["name"]: row["state"] for row in json.loads(out)["models"]}

    fresh = {"pocket": "bundled"} | dict.fromkeys(PUBLISHED, "not fetched")
    assert states() == fresh
    code, out, err = styledrop("models", "check", REPO)
    assert (code, out) == (1, "")
    assert f"{REPO} is not, or not wholly, in the cache" in err and f"styledrop models fetch {REPO}" in err

    code, out, err = styledrop("models", "fetch", REPO)
    folder = Path(out.strip())
    assert (code, folder) == (0, hub.find(REPO))
    assert f"fetching {REPO}: 58.1 of 58.1 kB" in err
    assert states() == fresh | {REPO: "fetched"}
    monkeypatch.setenv("COLUMNS", "400")
    listed = styledrop("models", "list").out
    assert re.search(rf"{REPO} +fetched +58.1 kB +fp16 +{folder}\n", listed)

    refused = styledrop("models", "check", REPO)  # whole, but noise: no base model
    assert refused.code == 1
    assert "is missing, and UVit2DModel is wanted" in refused.out
    monkeypatch.setattr("styledrop_cli.cli.models._acceptance", lambda *given: [])
    code, out, _ = styledrop("models", "check", REPO)
    assert (code, out.split(":")[0]) == (0, f"{REPO} is sound")
    (folder / TRANSFORMER).write_bytes(b"rot")
    code, out, err = styledrop("models", "check", REPO, "--json")
    assert code == 1
    assert [line.split(":")[0] for line in json.loads(out)["problems"]] == [f"{TRANSFORMER} is damaged"]
    assert f"styledrop models fetch {REPO}" in err
    code, out, err = styledrop("models", "fetch", REPO, "--precision", "fp32", "--json", "--quiet")
    assert (code, err) == (0, "")
    about = {"repository": REPO, "commit": COMMIT, "precision": "fp32"}
    assert json.loads(out) == {"model": REPO, "folder": str(folder), **about}

    code, out, err = styledrop("models", "remove", REPO)
    assert (code, out) == (2, "")
    assert "is to be removed" in err and "--yes" in err
    assert hub.find(REPO)
    code, out, _ = styledrop("models", "remove", REPO, "--yes", "--json")
    assert code == 0
    assert json.loads(out)["freed"] > 58_000
    assert not storage().exists()
    assert states() == fresh


def test_remove_asks(remote: Hub, styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    download.fetch(REPO)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, code in ((False, 1), (True, 0)):
        monkeypatch.setattr(typer, "confirm", lambda question, err, answer=answer: answer)
        assert styledrop("models", "remove", REPO).code == code
        assert bool(hub.find(REPO)) is not answer


def test_remove_takes_what_was_cut_and_leaves_the_rest(remote: Hub) -> None:
    def stop(share: float, note: str) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch(REPO, on_progress=stop)
    other = storage().with_name("models--other--model") / "snapshots" / COMMIT
    other.mkdir(parents=True)
    (other / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    held = sum(path.stat().st_size for path in storage().glob("blobs/*"))
    assert hub.remove(REPO) == held
    with pytest.raises(ModelError, match="other/model is not in the cache"):
        hub.remove("other/model")
    assert other.is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fetch",), "models fetch needs a name"),
        (("list", "pocket"), "list shows all models"),
        (("list", "--yes"), "--yes for remove"),
        (("remove", "pocket", "--precision", "fp16"), "--precision is for fetch"),
        (("remove", "pocket"), "pocket comes with the program"),
        (("remove", "."), ". is a folder of your own"),
        (("fetch", "pocket", "--precision", "int4"), "--precision"),
        (("burn",), "burn"),
    ],
)
def test_models_is_used_wrongly(remote: Hub, styledrop: Run, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = styledrop("models", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_what_is_bundled_is_not_fetched(remote: Hub, styledrop: Run) -> None:
    code, out, err = styledrop("models", "fetch", "pocket")
    assert (code, out.strip()) == (0, str(PACKAGE / "pocket"))
    assert "here already" in err
    assert styledrop("models", "check", "pocket").code == 0
    assert remote.asked == []


def test_removing_what_is_not_there(remote: Hub) -> None:
    with pytest.raises(ModelError, match="amused-256 is not in the cache"):
        hub.remove("amused-256")
    with pytest.raises(UsageError):
        hub.remove("pocket")


def test_a_command_fetches_the_model_that_it_names(
    remote: Hub, styledrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(model: str, device: object) -> None:
        asked.append(model)
        raise ModelError("enough")

    monkeypatch.setattr(base_module, "load_base", load)
    draw_one = ("generate", "--base-only", "a cat", "--model")
    first, again = styledrop(*draw_one, REPO), styledrop(*draw_one, REPO)
    assert asked == [str(hub.find(REPO))] * 2
    assert f"fetching {REPO}: 58.1 of 58.1 kB" in first.err
    assert "fetching" not in again.err
    assert styledrop(*draw_one, "pocket").code == 1
    assert asked[2:] == ["pocket"]
    outcome = styledrop(*draw_one, "amused256")
    assert (outcome.code, len(asked)) == (1, 3)
    assert "Did you mean amused-256?" in outcome.err


def test_a_folder_goes_through_unchanged(tiny_model: Path) -> None:
    assert load.located(console.Screen(), str(tiny_model)) == str(tiny_model)


def test_the_environment_says_where_things_are(remote: Hub, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    env |= {"PYTHONPATH": str(PACKAGE.parent), "HF_ENDPOINT": remote.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "styledrop_cli", "models", "fetch", REPO]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False, env=env | {"HF_TOKEN": "hf_mine"})
    assert fetched.returncode == 0, fetched.stderr
    assert Path(fetched.stdout.strip()).is_relative_to(tmp_path / "home" / "hub")
    told = [headers.get("authorization") for _, path, headers in remote.asked if path == f"/api/models/{REPO}"]
    assert told == ["Bearer hf_mine"]
    remote.asked.clear()
    offline = env | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "empty")}
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "HF_HUB_OFFLINE forbids to fetch it" in refused.stderr
    assert remote.asked == []


# ---- parts from other repositories ----


MEISSONIC, LAION, MUDDIT = "MeissonFlow/Meissonic", registry.ENCODERS["laion"], "MeissonFlow/Muddit"
HPS = "zghhui/Meissonic_MaskFocus_HPS"
LONE = {"_class_name": "Transformer2DModel", "axes_dims_rope": [16, 56, 56]}
VQVAE = "vqvae/diffusion_pytorch_model.fp16.safetensors"


def family() -> dict[str, dict[str, bytes]]:
    """Meissonic, its relatives and laion's CLIP as they lie on the hub, with noise for weights."""
    pipeline = {"_class_name": "Pipeline", "transformer": ["transformer", "Transformer2DModel"]}
    whole = published() | {"model_index.json": json.dumps(pipeline).encode()}
    alone = {"config.json": json.dumps(LONE).encode(), "README.md": b"# Tuned"}
    stem = "diffusion_pytorch_model.safetensors"
    symmetric = json.dumps(LONE | {"_class_name": "SymmetricTransformer2DModel"}).encode()
    muddit = {f"{side}/transformer/config.json": symmetric for side in (512, 1024)}
    muddit |= {f"{side}/transformer/{stem}": noise(f"muddit {side}", 20000) for side in (512, 1024)}
    clip = {"config.json": b'{"text_config": {}}', "model.safetensors": noise("clip", 9000), "tokenizer.json": b"{}"}
    clip |= {"open_clip_pytorch_model.bin": noise("open clip", 9000), "vocab.json": b"{}"}
    return {
        MEISSONIC: {name: data for name, data in whole.items() if not name.endswith(".bin")},
        LAION: clip,
        MUDDIT: muddit | {"1024/mask_token_embedding.pth": noise("pickle", 4000)},
        HPS: alone | {stem: noise("hps", 30000)},
        "me/tuned": alone | {stem: noise("mine", 30000)},
    }


@pytest.fixture
def kin(remote: Hub) -> Hub:
    remote.others = family()
    return remote


def test_parts_of_other_repositories_are_fetched_and_nothing_twice(kin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    folder = download.fetch("maskfocus-hps", on_message=said.append)
    assert folder == hub.find("maskfocus-hps") == hub.find(HPS)
    weights = [f"{HPS}:diffusion_pytorch_model.safetensors", f"{MEISSONIC}:{VQVAE}", f"{LAION}:model.safetensors"]
    assert sorted(kin.downloads()) == sorted(weights)
    assert files(folder) == ["config.json", "diffusion_pytorch_model.safetensors"]
    lent = {part: path for part, path in placed(folder).found.items() if part != "transformer"}
    assert files(lent["tokenizer"].parent)[-2:] == ["vqvae/config.json", VQVAE]
    assert files(lent["text_encoder"]) == ["config.json", "model.safetensors"]
    assert f"also taking the text_encoder of {LAION}" in said
    assert f"also taking the scheduler, tokenizer, vqvae of {MEISSONIC}" in said
    kin.asked.clear()
    assert download.fetch("muddit-512").name == "512" and download.fetch("maskfocus-hps") == folder
    fetched = [f"{MUDDIT}:512/transformer/diffusion_pytorch_model.safetensors"]
    assert kin.downloads() == [*fetched, f"{MEISSONIC}:text_encoder/model.fp16.safetensors"]
    assert hub.find("meissonic") is None
    kin.asked.clear()
    download.fetch("meissonic")  # its transformer is all that it lacks
    assert kin.downloads() == [f"{MEISSONIC}:{TRANSFORMER}"]
    assert hub.find("meissonic") and hub.find("meissonic+bundled")
    kin.asked.clear()
    download.fetch("muddit-1024")
    assert kin.downloads() == [f"{MUDDIT}:1024/transformer/diffusion_pytorch_model.safetensors"]
    go_offline(monkeypatch)
    kin.asked.clear()
    for name in ("meissonic", "meissonic+bundled", "muddit-512", "muddit-1024", "maskfocus-hps"):
        assert download.fetch(name) == download.locate(name)
    assert kin.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    go_offline(monkeypatch)


def test_what_two_models_of_a_repository_share_stays(kin: Hub, styledrop: Run) -> None:
    small, large = download.fetch("muddit-512"), download.fetch("muddit-1024")
    config = "transformer/config.json"
    assert (small / config).resolve() == (large / config).resolve()  # the cache has one for both
    weights = (small / "transformer/diffusion_pytorch_model.safetensors").resolve()
    assert styledrop("models", "remove", "muddit-512", "--yes").code == 0
    assert not small.exists() and not weights.exists()
    assert hub.find("muddit-1024") == large and hub.verify(large) == []


def test_the_text_encoder_that_is_asked_for_comes_alone(kin: Hub) -> None:
    folder = download.fetch("meissonic+bundled")
    assert f"{LAION}:model.safetensors" not in kin.downloads() and hub.find("meissonic+bundled") == folder
    assert hub.find("meissonic") is None
    shutil.rmtree(folder.parents[1])
    kin.asked.clear()
    download.fetch("meissonic")
    assert not any("text_encoder" in name for name in kin.downloads())
    assert hub.find("meissonic") and hub.find("meissonic+bundled") is None


def test_a_lone_transformer_without_a_row(kin: Hub) -> None:
    folder = download.fetch("me/tuned")
    assert hub.find("me/tuned") == folder and placed(folder).text_encoder == "laion"
    kin.others["me/pixart"] = {**kin.others["me/tuned"], "config.json": b'{"_class_name": "Transformer2DModel"}'}
    kin.asked.clear()
    with pytest.raises(ModelError, match="me/pixart does not have the files of a model that can be run here"):
        download.fetch("me/pixart")
    assert kin.downloads() == []


def test_a_folder_of_one_s_own_gets_what_it_lacks(kin: Hub, styledrop: Run) -> None:
    Path("mine").mkdir()
    for name, data in kin.others["me/tuned"].items():
        (Path("mine") / name).write_bytes(data)
    assert hub.find("mine") is None
    done = styledrop("models", "fetch", "mine")
    assert done.code == 0 and done.out.strip() == "mine", done.err
    assert sorted(kin.downloads()) == sorted([f"{MEISSONIC}:{VQVAE}", f"{LAION}:model.safetensors"])
    assert hub.find("mine") == Path("mine")
    assert "mine is here already" in styledrop("models", "fetch", "mine").err
    assert files(Path("mine")) == ["README.md", "config.json", "diffusion_pytorch_model.safetensors"]


def test_room_is_needed_for_the_parts_of_others_too(kin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(50_000))
    with pytest.raises(StyledropError, match=r"needs 51\.\d kB, and 50\.0 kB are free") as error:
        download.fetch("maskfocus-hps")
    assert error.value.message.startswith(f"maskfocus-hps, with its parts from {MEISSONIC} and {LAION}, needs")
    assert kin.downloads() == [] and "HF_HOME=FOLDER" in str(error.value.hint)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(51_500))
    download.fetch("maskfocus-hps")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0))
    download.fetch("maskfocus-hps")  # all is here


def test_a_part_of_another_that_was_cut(kin: Hub, styledrop: Run) -> None:
    def stop(share: float, note: str) -> None:
        if share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch("maskfocus-hps", on_progress=stop)
    assert hub.find("maskfocus-hps") is None
    listed = json.loads(styledrop("models", "list", "--json").out)["models"]
    assert {row["name"]: row["state"] for row in listed}["maskfocus-hps"] == "in part"
    download.fetch("maskfocus-hps")
    assert hub.find("maskfocus-hps")
    vqvae = placed(download.fetch("maskfocus-hps")).found["vqvae"] / "diffusion_pytorch_model.fp16.safetensors"
    vqvae.write_bytes(b"rot")
    checked = styledrop("models", "check", "maskfocus-hps")
    assert checked.code == 1 and f"{VQVAE} is damaged" in checked.out
    kin.asked.clear()
    download.fetch("maskfocus-hps")
    assert kin.downloads() == [f"{MEISSONIC}:{VQVAE}"]
    (placed(hub.find("maskfocus-hps") or Path()).found["text_encoder"] / "model.safetensors").write_bytes(b"rot")
    assert "\nmodel.safetensors is damaged" in "\n" + styledrop("models", "check", "maskfocus-hps").out
    assert styledrop("models", "remove", "meissonic", "--yes").code == 0  # of which there were parts alone
    assert hub.find("maskfocus-hps") is None and hub.find("maskfocus-hps+laion") is None


def test_an_index_that_claims_more_than_the_files(kin: Hub) -> None:
    files = {name: data for name, data in kin.others[MEISSONIC].items() if not name.startswith("vqvae/")}
    kin.others[MEISSONIC] = files
    with pytest.raises(ModelError, match=f"{MEISSONIC} does not have .*: it has no vqvae/config.json"):
        download.fetch("meissonic")
    assert kin.downloads() == []


@pytest.mark.parametrize(("name", "what"), [("WeiChow/EditMGT", "Gemma 2"), (MUDDIT, "several models")])
def test_repositories_that_are_refused_by_name(kin: Hub, name: str, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        download.fetch(name)
    assert kin.asked == []


def test_a_text_encoder_of_a_model_without_a_row(kin: Hub) -> None:
    kin.others["me/whole"] = kin.others[MEISSONIC]
    folder = download.fetch("me/whole")
    assert placed(folder).text_encoder == "bundled" and hub.find("me/whole+laion") is None
    download.fetch("me/whole+laion")
    assert hub.find("me/whole+laion") == folder
    kin.asked.clear()
    with pytest.raises(ModelError, match=f"{REPO} has no text encoder called laion"):
        download.fetch(f"{REPO}+laion")
    assert kin.downloads() == []


def test_a_repository_of_several_models_without_rows(kin: Hub) -> None:
    kin.others["me/both"] = kin.others[MUDDIT]
    with pytest.raises(ModelError, match="me/both holds several models, in 1024 and 512"):
        download.fetch("me/both")
    kin.others["me/one"] = {name: data for name, data in kin.others[MUDDIT].items() if name.startswith("512")}
    assert download.fetch("me/one") == hub.find("me/one") and download.fetch("me/one").name == "512"


def test_lenders_are_listed_as_such(kin: Hub, styledrop: Run) -> None:
    download.fetch("maskfocus-hps")
    listed = {row["name"]: row["state"] for row in json.loads(styledrop("models", "list", "--json").out)["models"]}
    assert listed["meissonic"] == "scheduler, tokenizer, vqvae for others"
    assert (listed[LAION], listed["maskfocus-hps"]) == ("text_encoder for others", "fetched")


def test_a_relative_under_another_name(kin: Hub) -> None:
    other = {"llm_encoder": ["transformers", "Gemma2ForCausalLM"]}
    index = json.loads(kin.others[MEISSONIC]["model_index.json"]) | other
    kin.others["me/editor"] = {**kin.others[MEISSONIC], "model_index.json": json.dumps(index).encode()}
    with pytest.raises(ModelError, match="me/editor has a part beside those of Pipeline: llm_encoder"):
        download.fetch("me/editor")
    assert kin.downloads() == []
    kin.others["me/copy"] = {**kin.others[MEISSONIC], "llm_encoder/config.json": b"{}"}
    with pytest.raises(ModelError, match="me/copy is EditMGT"):
        download.fetch("me/copy")
