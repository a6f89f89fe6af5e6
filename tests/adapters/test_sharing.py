"""Adapters pushed to a hub on this machine and pulled from it: what leaves, what comes back, and what goes wrong."""

from __future__ import annotations

import base64
import getpass
import json
import sys
from collections import namedtuple
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import tiny
from conftest import Run, draw
from hub_server import NEWER, Hub, go_offline, noise, point_to, published, sha256
from styledrop_cli import StyleDrop, pull
from styledrop_cli.adapters import library, share
from styledrop_cli.adapters.header import KEY, AdapterFile, load_adapter, read_header
from styledrop_cli.adapters.merge import merge, read_parts
from styledrop_cli.base import base as base_module
from styledrop_cli.cli import console
from styledrop_cli.cli.push import Card
from styledrop_cli.errors import UsageError
from styledrop_cli.io.images import load_picture
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter

REPO, ME = "anna/ink", "zebulon"
MIT = ("--license", "mit")
BARE = (*MIT, "--no-sheet")


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A home folder of one whose name is in all its files' names, with an adapter of each origin."""
    home = tmp_path_factory.mktemp("home") / ME
    home.mkdir()
    base = base_module.load_base(str(tiny_model), tiny.CPU)
    draw().save(home / f"{ME}s-holiday.jpg", comment=ME.encode())
    made: dict[str, Path] = {"home": home}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "bottleneck": ("ink", {}),
        "lora": ("gold", {"kind": "lora", "width": 2}),
        "object": ("", {"learn": "object"}),
    }
    for kind, (style, given) in kinds.items():
        made[kind] = train_adapter(
            base,
            pictures=[home / f"{ME}s-holiday.jpg"],
            style=style,
            contents=["a cat"],
            settings=TrainSettings.of(**{"kind": "bottleneck", "steps": 2, "views": 2, "checkpoints": 0} | given),
            output=home / f"{ME}-{kind}.safetensors",
        ).path
    made["merged"] = home / f"{ME}-merged.safetensors"
    merge(base, read_parts([made["lora"], made["lora"]]), style=None, output=made["merged"])
    return made


@pytest.fixture
def ink(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Path:
    """The adapter of a style, in the hands of its owner; the bundled base is the one that it was trained on."""
    monkeypatch.setenv("HF_TOKEN", "hf_anna")
    monkeypatch.setattr(base_module, "POCKET", tiny_model)
    for name, value in (("HOME", str(made["home"])), ("USER", ME), ("LOGNAME", ME)):
        monkeypatch.setenv(name, value)
    return made["bottleneck"]


def same_tensors(one: Path, other: Path) -> bool:
    ours, theirs = read_tensors(one)[0], read_tensors(other)[0]
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- what leaves, and what comes back ----


def test_what_is_pushed_is_pulled(remote: Hub, styledrop: Run, ink: Path) -> None:
    done = styledrop("push", ink, REPO, *MIT, "--prompt", "a dog", "--prompt", "a house", "--json")
    assert done.code == 0, done.err
    there = remote.others[REPO]
    assert set(there) == {".gitattributes", *share.FILES}
    assert json.loads(done.out)["commit"] == f"{remote.url}/{REPO}/commit/{remote.commit}"
    assert remote.commits == [(REPO, "ink: an adapter of styledrop")] and REPO not in remote.private
    pulled = styledrop("pull", REPO)
    path = library.file_of("ink")
    assert (pulled.code, pulled.out.strip()) == (0, str(path)), pulled.err
    assert path.read_bytes() == there[share.WEIGHTS]
    assert same_tensors(path, ink)
    ours, theirs = read_header(ink), read_header(path)
    for name in ("kind", "config", "base", "style", "contents", "settings", "recommended", "step", "loss", "created"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.pictures[0]["width"] == theirs.pictures[0]["width"] and "sha256" not in theirs.pictures[0]
    for adapter, folder in ((str(ink), "mine"), ("ink", "theirs")):
        drawn = styledrop("generate", adapter, "a dog", "-n", "1", "-o", folder)
        assert drawn.code == 0, drawn.err
    assert load_picture(Path("mine/a-dog-0.png")).tobytes() == load_picture(Path("theirs/a-dog-0.png")).tobytes()


@pytest.mark.parametrize("origin", ["bottleneck", "object", "merged", "stuffed", "elsewhere"])
def test_nothing_of_the_home_folder_leaves(
    remote: Hub, styledrop: Run, ink: Path, made: dict[str, Path], origin: str
) -> None:
    if origin in ("stuffed", "elsewhere"):
        tensors, metadata = read_tensors(ink)
        said = json.loads(metadata[KEY])
        said |= {"argv": ["styledrop", "train", str(ink)], "settings": said["settings"] | {"output": str(ink)}}
        said["pictures"][0]["path"] = str(made["home"] / "a.png")
        said |= {"picks": [{"prompt": "a dog", "seed": 1, "total": 2.0, "file": str(ink)}]}
        said["base"]["folder"] = str(made["home"])
        thumbnail = BytesIO()
        draw(96, 96).save(thumbnail, "JPEG", comment=ME.encode())  # as earlier versions took it over
        said["thumbnail"] = f"data:image/jpeg;base64,{base64.b64encode(thumbnail.getvalue()).decode()}"
        if origin == "elsewhere":
            said |= {"pictures": [], "source": {"name": ink.name, "sha256": "cc"}}
        file = made["home"] / "stuffed.safetensors"
        tiny.write_adapter(file, tensors, said, by=str(made["home"]))
        made = {**made, origin: file}
    assert ME.encode() in made[origin].read_bytes()
    assert getpass.getuser() == ME and Path.home() == made["home"]
    done = styledrop("push", made[origin], REPO, *MIT, "--prompt", "a dog")
    assert done.code == 0, done.err
    assert "none of your files' names" in done.err
    sent = b"\n".join([*remote.sent, *remote.others[REPO].values()])
    assert ME.encode() not in sent and str(made["home"]).encode() not in sent
    headers = " ".join(value for _, _, all_of_it in remote.asked for value in all_of_it.values())
    assert ME not in headers
    assert same_tensors(made[origin], Path(styledrop("pull", REPO, "-o", "back.safetensors").out.strip()))


def test_a_dry_run_writes_the_folder_and_asks_nobody(remote: Hub, styledrop: Run, ink: Path) -> None:
    go = ("push", ink, REPO, *MIT, "--dry-run")
    done = styledrop(*go)
    assert done.code == 0, done.err
    assert sorted(done.out.split()) == sorted(f"styledrop-push/{name}" for name in share.FILES)
    assert remote.asked == []
    again = styledrop(*go)
    assert again.code == 2 and "already there" in again.err
    assert styledrop(*go, "--no-references", "--no-sheet", "--overwrite").code == 0
    assert sorted(one.name for one in Path("styledrop-push").iterdir()) == [share.CARD, share.WEIGHTS]
    remote.others[REPO] = {one.name: one.read_bytes() for one in Path("styledrop-push").iterdir()}
    assert styledrop("pull", REPO).code == 0  # what is put there by other means is an adapter, too


def test_without_the_references_it_draws_the_same_and_is_not_trained_on(remote: Hub, styledrop: Run, ink: Path) -> None:
    assert styledrop("push", ink, REPO, *BARE).code == 0
    assert share.REFERENCE in remote.others[REPO]
    assert styledrop("push", ink, REPO, *BARE, "--no-references").code == 0
    assert set(remote.others[REPO]) == {".gitattributes", share.CARD, share.WEIGHTS}
    assert styledrop("pull", REPO).code == 0
    path = library.file_of("ink")
    held = load_adapter(path)
    assert not held.header.pictures and not held.header.thumbnail and not any("views" in name for name in held.tensors)
    assert styledrop("generate", "ink", "a dog", "-n", "1").code == 0
    refused = styledrop("iterate", path)
    assert refused.code == 1 and "without the pictures that it was trained on" in refused.err


def test_private(remote: Hub, styledrop: Run, ink: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert styledrop("push", ink, REPO, *BARE, "--private").code == 0
    assert remote.private == {REPO}
    monkeypatch.setenv("HF_TOKEN", "hf_bert")
    remote.users["hf_bert"] = "bert"
    refused = styledrop("pull", REPO)
    assert refused.code == 1 and f"there is no model {REPO} on the hub, or it is private" in refused.err
    assert "set HF_TOKEN" in refused.err


# ---- the card ----


def card_of(path: Path, **about: Any) -> tuple[dict[str, Any], str]:
    """The card of an adapter: what its YAML says, and its text."""
    said = share.Sharing(**{"repo": REPO, "license": "mit", **about})
    text = share.card(share.for_others(load_adapter(path), REPO).header, said)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_says_what_it_is(made: dict[str, Path], tiny_model: Path) -> None:
    front, body = card_of(made["bottleneck"], prompts=["a dog", "a {red|blue} house"], sheet=b"jpeg")
    assert front == {
        "license": "mit", "library_name": "styledrop", "pipeline_tag": "text-to-image",
        "tags": ["styledrop", "text-to-image", "style"],
    }  # fmt: skip
    header = read_header(made["bottleneck"])
    for said in (
        "# ink", "**ink**", tiny_model.name, header.base["hash"], f"styledrop pull {REPO}",
        'styledrop generate ink "a dog"', "a cat in ink style", "lambda_b 1.5", "- content: a cat", "96 x 64 px",
        f"]({share.SHEET})", f"]({share.REFERENCE})", "| steps | 2 |", r"a {red\|blue} house",
    ):  # fmt: skip
        assert said in body, said
    assert f"]({share.SHEET})" not in card_of(made["bottleneck"])[1]
    assert 'styledrop generate STYLE "a cat" --object ink' in card_of(made["object"])[1]
    assert "merged from the adapters of 2 styles: gold (weight 0.5), gold (weight 0.5)" in card_of(made["merged"])[1]


def test_the_card_names_a_published_base_and_any_licence(made: dict[str, Path]) -> None:
    header = replace(read_header(made["lora"]), base={"name": "amused-256", "hash": "ab"})
    front = yaml.safe_load(share.card(header, share.Sharing(REPO, "LicenseRef-Mine")).split("---\n")[1])
    assert front["base_model"] == "amused/amused-256" and front["base_model_relation"] == "adapter"
    assert (front["license"], front["license_name"]) == ("other", "LicenseRef-Mine")
    assert share.checked_license("CC-BY-4.0") == "cc-by-4.0"
    for wrong in ("", "cc by", "mit\nbase_model: x", "<b>", "x" * 70):
        with pytest.raises(UsageError, match="is no id of a licence"):
            share.checked_license(wrong)


def test_words_in_a_file_do_not_command_the_card(made: dict[str, Path]) -> None:
    words = "ink](http://evil) <script>\n---\nlicense: x\n```\n| a `b` $x$ **c**"
    header = replace(read_header(made["bottleneck"]), style=words, contents=[words])
    text = share.card(header, share.Sharing(REPO, "mit", prompts=[words], sheet=b"x"))
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "mit"
    assert text.count("---\n") == 2 and text.count("\n```") == 2  # the front matter, and the one block of code
    prose = "\n".join(
        line for line in text.splitlines() if "`a cat in" not in line and "styledrop generate" not in line
    )
    assert "](http" not in prose.replace("\\](", "") and "<script>" not in prose.replace("\\<", "")


# ---- the licence, and other wrong words ----


def test_the_licence_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    def typed(text: str) -> str:
        screen = console.Screen()
        screen.err = console.Plain(file=StringIO(), force_terminal=True, width=100)
        monkeypatch.setattr(sys, "stdin", Terminal(text))
        return Card().license(screen)

    assert typed("CC0-1.0\n") == "cc0-1.0"
    with pytest.raises(UsageError, match="nothing says under what licence"):
        typed("\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("push", "ink", REPO, "--no-sheet"), "nothing says under what licence"),
        (("push", "ink", REPO, *MIT, "--no-sheet", "--prompt", "a cat"), "--prompt is for the sheet"),
        (("push", "ink", REPO, *BARE, "-o", "folder"), "are for --dry-run"),
        (("push", "ink", REPO, "--license", "my own", "--no-sheet"), "'my own' is no id of a licence"),
        (("push", "ink", "ink", *BARE), "'ink' is no repository of the hub"),
        (("push", "ink", "https://huggingface.co/anna/ink", *BARE), "give it without the address: anna/ink"),
        (("pull", "ink"), "'ink' is no repository of the hub"),
        (("pull", "a/b/c"), "'a/b/c' is no repository of the hub"),
        (("pull", REPO, "--save-as", "a b"), "'a b' cannot be the name of a style"),
        (("pull", REPO, "--save-as", "a", "-o", "a.safetensors"), "--save-as and --output are two places"),
        (("pull", REPO, "-o", "a.png"), "does not end in .safetensors"),
        (("pull", "anna/con"), "no style can be called 'con'"),
    ],
)
def test_wrong_words_reach_nobody(
    remote: Hub, styledrop: Run, ink: Path, arguments: tuple[str, ...], words: str
) -> None:
    library.save(ink, "ink")
    code, out, err = styledrop(*arguments)
    assert (code, out) == (2, "") and words in err
    assert remote.asked == []


# ---- pushing goes wrong ----


def test_nobody_is_logged_in(remote: Hub, styledrop: Run, ink: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = styledrop("push", ink, REPO, *MIT)
    assert code == 2 and f"nobody is logged in to push to {REPO}" in err
    assert "hf auth login" in err and "HF_TOKEN" in err and remote.asked == []


@pytest.mark.parametrize("there", [True, False])
def test_a_repository_that_is_not_mine(remote: Hub, styledrop: Run, ink: Path, there: bool) -> None:
    if there:
        remote.others["bert/ink"] = {}
    code, _, err = styledrop("push", ink, "bert/ink", *BARE)
    assert code == 1 and "bert/ink may not be written to with the token that was sent" in err
    assert "if bert is you or an organisation of yours" in err
    assert remote.stored == {} and not remote.commits


@pytest.mark.parametrize(
    ("part", "status", "words"),
    [
        ("/create", 500, "the hub answers 500 when asked for anna/ink: not today"),
        ("/preupload/", 429, "the hub answers 429"),
        ("/store/", 403, "anna/ink cannot be pushed to http"),
        ("/commit/", 400, "the hub answers 400 when asked for anna/ink: not today"),
        ("/create", 401, "may not be written to with the token that was sent"),
    ],
)
def test_the_hub_refuses(
    remote: Hub, styledrop: Run, ink: Path, monkeypatch: pytest.MonkeyPatch, part: str, status: int, words: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    remote.refused[part] = status
    code, _, err = styledrop("push", ink, REPO, *BARE)
    assert code == 1 and words in err and "Hint:" in err, err
    assert not remote.commits and "unexpected" not in err
    remote.refused.clear()
    assert styledrop("push", ink, REPO, *BARE).code == 0


def test_push_without_a_network(remote: Hub, styledrop: Run, ink: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, "http://127.0.0.1:9")
    code, _, err = styledrop("push", ink, REPO, *BARE)
    assert code == 1 and f"{REPO} cannot be pushed to http://127.0.0.1:9" in err and "check the network" in err
    go_offline(monkeypatch)
    code, _, err = styledrop("push", ink, REPO, *BARE)
    assert code == 1 and f"HF_HUB_OFFLINE forbids to push to {REPO}" in err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    go_offline(monkeypatch)


def test_an_adapter_of_another_base_makes_no_repository(remote: Hub, styledrop: Run, ink: Path, tmp_path: Path) -> None:
    other = tiny.write_base(tmp_path / "other", seed=5)
    code, _, err = styledrop("push", ink, REPO, *MIT, "--model", other)
    assert code == 1 and "was trained on another base" in err
    assert REPO not in remote.others


# ---- pulling: names ----


@pytest.fixture
def shared(remote: Hub, ink: Path) -> Hub:
    """A hub with the adapter in a repository."""
    remote.others[REPO] = {share.WEIGHTS: ink.read_bytes(), share.CARD: b"# ink"}
    return remote


def test_names_that_are_taken(shared: Hub, styledrop: Run, made: dict[str, Path]) -> None:
    library.save(made["lora"], "ink")
    code, _, err = styledrop("pull", REPO)
    assert code == 2 and "there is a style called 'ink' already" in err
    assert not any(path.startswith("/cdn/") and "range" not in headers for _, path, headers in shared.asked)
    assert library.file_of("ink").read_bytes() == made["lora"].read_bytes()
    assert styledrop("pull", REPO, "--save-as", "ink-2").code == 0
    assert library.names() == ["ink", "ink-2"]
    assert styledrop("pull", REPO, "--overwrite").code == 0
    assert library.file_of("ink").read_bytes() == shared.others[REPO][share.WEIGHTS]
    shared.asked.clear()
    again = styledrop("pull", REPO)
    assert again.code == 0 and "ink is this adapter already" in again.err
    assert again.out.strip() == str(library.file_of("ink"))
    assert not any(path.startswith("/cdn/") and "range" not in headers for _, path, headers in shared.asked)


def test_into_a_file(shared: Hub, styledrop: Run, ink: Path) -> None:
    done = styledrop("pull", REPO, "-o", "there/mine.safetensors", "--json")
    assert done.code == 0 and Path("there/mine.safetensors").read_bytes() == ink.read_bytes()
    said = json.loads(done.out)
    assert (said["repository"], said["file"], said["style"]) == (REPO, share.WEIGHTS, "ink")
    assert library.names() == []
    assert styledrop("pull", REPO, "-o", "there/mine.safetensors").code == 2
    assert styledrop("pull", REPO, "-o", "there/mine.safetensors", "--overwrite").code == 0


def test_a_revision(shared: Hub, styledrop: Run, made: dict[str, Path]) -> None:
    shared.revisions[REPO] = {"v1": {share.WEIGHTS: made["lora"].read_bytes()}}
    shared.revisions[REPO][NEWER] = shared.revisions[REPO]["v1"]
    shared.commit = NEWER
    assert styledrop("pull", REPO, "--revision", "v1").code == 0
    assert library.file_of("ink").read_bytes() == made["lora"].read_bytes()
    code, _, err = styledrop("pull", REPO, "--revision", "v9", "--save-as", "other")
    assert code == 1 and f"{REPO} has no such revision" in err and "/commits/main" in err


# ---- pulling: which file ----


def test_several_adapters(shared: Hub, styledrop: Run, made: dict[str, Path]) -> None:
    shared.others[REPO] |= {"gold.safetensors": made["lora"].read_bytes(), "x/noise.safetensors": foreign("a.weight")}
    code, _, err = styledrop("pull", REPO)
    assert code == 2 and f"{REPO} holds 2 adapters: {share.WEIGHTS}, gold.safetensors" in err and "--file" in err
    assert styledrop("pull", REPO, "--file", "gold.safetensors").code == 0
    assert read_header(library.file_of("ink")).style == "gold"
    code, _, err = styledrop("pull", REPO, "--file", "silver.safetensors", "--save-as", "silver")
    assert code == 2 and "has no file silver.safetensors" in err
    del shared.others[REPO]["gold.safetensors"]
    assert styledrop("pull", REPO, "--save-as", "found").code == 0  # the one adapter among others' files


def foreign(name: str) -> bytes:
    save_tensors(Path("foreign.safetensors"), {name: torch.ones(40, 40)}, {"format": "pt"})
    return Path("foreign.safetensors").read_bytes()


Case = namedtuple("Case", "files words hint")
CASES = {
    "empty": Case({".gitattributes": b""}, "anna/ink is empty", "styledrop push"),
    "notes": Case({"README.md": b"# ink"}, "holds no adapter of styledrop", "styledrop push"),
    "base": Case(published(), "holds no adapter of styledrop: it is a model", "--model anna/ink"),
    "lora": Case({"pytorch_lora_weights.safetensors": "unet.down.to_q.lora_A.weight"}, "a LoRA of another program",
                 "styledrop convert"),
    "pickle": Case({"style.ckpt": b"x" * 5000}, "but style.ckpt, which can run code", "safetensors"),
    "noise": Case({"a.safetensors": noise("a", 5000)}, "a.safetensors of anna/ink is no safetensors file", "anew"),
    "small noise": Case({"a.safetensors": b"hm"}, "a.safetensors of anna/ink is no safetensors file", "anew"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_no_adapter(shared: Hub, styledrop: Run, case: Case) -> None:
    shared.others[REPO] = {
        name: foreign(data) if isinstance(data, str) else noisy(name, data) for name, data in case.files.items()
    }
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and case.words in err and case.hint in err, err
    assert library.names() == [] and not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))


def noisy(name: str, data: bytes) -> bytes:
    """Weights of the published layout as safetensors, where a file is to be one."""
    return foreign("a.weight") if "/" in name and name.endswith(".safetensors") else data


def test_a_hostile_adapter_is_not_kept(shared: Hub, styledrop: Run, ink: Path) -> None:
    tensors, metadata = read_tensors(ink)
    name = next(one for one in tensors if one.startswith("adapter."))
    bad = {**tensors, name: torch.full_like(tensors[name], torch.nan)}
    from safetensors.torch import save

    shared.others[REPO][share.WEIGHTS] = save(bad, metadata)
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and "not finite" in err
    tiny.write_adapter(Path("bad.safetensors"), tensors, json.loads(metadata[KEY]) | {"recommended": {"steps": -1}})
    shared.others[REPO][share.WEIGHTS] = Path("bad.safetensors").read_bytes()
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and "damaged: recommended" in err
    assert library.names() == []


def test_names_that_lead_out_of_the_cache_are_not_looked_at(shared: Hub, styledrop: Run, ink: Path) -> None:
    shared.others[REPO] = {"../../../x.safetensors": ink.read_bytes(), "README.md": b""}
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and "holds no adapter" in err
    assert not list(Path(constants.HF_HUB_CACHE).parent.rglob("x.safetensors"))


# ---- pulling goes wrong ----


def test_no_such_repository_and_gated(shared: Hub, styledrop: Run) -> None:
    code, _, err = styledrop("pull", "anna/pencil")
    assert code == 1 and "there is no model anna/pencil on the hub, or it is private" in err
    shared.locked = True
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and f"{REPO} is gated" in err and f"{shared.url}/{REPO}" in err


def test_what_comes_over_damaged_is_not_kept(shared: Hub, styledrop: Run) -> None:
    shared.spoilt.add(f"{REPO}:{share.WEIGHTS}")
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and "Hint:" in err and library.names() == []


def test_without_a_network_it_is_what_was_fetched_before(
    shared: Hub, styledrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = shared.url
    point_to(monkeypatch, "http://127.0.0.1:9")
    code, _, err = styledrop("pull", REPO)
    assert code == 1 and f"{REPO} cannot be fetched from http://127.0.0.1:9" in err
    point_to(monkeypatch, there)
    assert styledrop("pull", REPO).code == 0
    point_to(monkeypatch, "http://127.0.0.1:9")
    done = styledrop("pull", REPO, "--save-as", "again")
    assert done.code == 0 and "taking what was fetched before" in done.err
    assert sha256(library.file_of("again").read_bytes()) == sha256(library.file_of("ink").read_bytes())
    go_offline(monkeypatch)
    assert styledrop("pull", REPO, "--save-as", "third", "--revision", "main").code == 0
    code, _, err = styledrop("pull", "anna/pencil")
    assert code == 1 and "HF_HUB_OFFLINE forbids to fetch it" in err and "styledrop pull anna/pencil" in err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    go_offline(monkeypatch)


def test_a_file_for_others_is_still_an_adapter_file(ink: Path) -> None:
    given = share.for_others(load_adapter(ink), REPO)
    assert isinstance(given, AdapterFile) and given.header.to_json()["format"] == 1


def test_from_python(remote: Hub, ink: Path, tiny_model: Path) -> None:
    base = StyleDrop.load(str(tiny_model))
    assert base.push(ink, REPO, license_id="MIT", prompts=["a dog"]).startswith(f"{remote.url}/{REPO}/commit/")
    assert set(share.FILES) < set(remote.others[REPO])
    pulled = pull(REPO, "gold")
    assert pulled.path == library.file_of("gold") and same_tensors(pulled.path, ink)
    remote.others["anna/other"] = {"a.safetensors": ink.read_bytes()}
    with pytest.raises(UsageError, match="a style called 'gold' already"):
        pull("anna/other", "gold")
