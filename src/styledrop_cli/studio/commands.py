"""What the page asks for, as command lines: nothing is done here that a person could not type.

A request's body was checked by ``schema`` before it comes here. Names that it has are looked up, and none is a path.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from styledrop_cli.adapters import library
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import RECOMMENDABLE, UNKNOWN_CONTENT
from styledrop_cli.studio.missing import Missing
from styledrop_cli.studio.pictures import FOLDER as PICTURES
from styledrop_cli.studio.pictures import Pictures
from styledrop_cli.studio.references import References

PREVIEWS, ROUNDS, REPORTS, MASKS = "pictures-preview", "rounds", "reports", "masks"
MIX, NO_STYLE = "mix", "no-style"  # folders of pictures that were drawn with several styles, and with none

# The field of a body, and the option that it is; true stands for an option that takes no value.
LEARNING = {
    "steps": "--steps", "lr": "--lr", "kind": "--kind", "width": "--width", "checkpoints": "--checkpoints",
    "lambda_a": "--lambda-a", "lambda_b": "--lambda-b", "last": "--last", "superres": "--superres", "seed": "--seed",
    "layers": "--layers",
}  # fmt: skip
DRAWING = {
    "strength": "--strength", "lambda_a": "--lambda-a", "lambda_b": "--lambda-b", "steps": "--steps",
    "preset": "--preset", "negative": "--negative", "temperature": "--temperature", "top_p": "--top-p",
    "superres_steps": "--superres-steps", "guard": "--guard",
}  # fmt: skip
PICTURE = {
    "number": "-n", "seed": "--seed", "size": "--size", "transparent": "--transparent", "svg": "--svg",
    "palette": "--palette", "palette_strength": "--palette-strength",
}  # fmt: skip
VARYING = {"much": "--much", "number": "-n", "seed": "--seed"}
EDITING = {"number": "-n", "seed": "--seed"}
AGAIN = (
    "negative",
    "temperature",
    "top_p",
    "steps",
    "superres_steps",
)  # settings that another style is drawn with, too


@dataclass(frozen=True)
class Line:
    """A job to be: its ``kind``, its command line, what it is called, and what the page asked for."""

    kind: str
    argv: list[str]
    title: str
    about: dict[str, Any] = field(default_factory=dict)


def options(given: Mapping[str, Any], table: Mapping[str, str]) -> list[str]:
    """The options of a ``table`` for the values that are ``given`` and not null or false."""
    argv: list[str] = []
    for name, option in table.items():
        value = given.get(name)
        if value is None or value is False:
            continue
        text = "" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
        # What begins with a dash must not be taken for another option.
        argv += [option] if value is True else [f"{option}={text}"] if text.startswith("-") else [option, text]
    return argv


def behind(words: Sequence[str]) -> list[str]:
    """Arguments without an option, of which none is to be taken for one."""
    return ["--", *words] if any(word.startswith("-") for word in words) else list(words)


class Commands:
    """The command lines of a studio in ``folder`` that works with the base called ``model``."""

    def __init__(self, folder: Path, model: str, pictures: Pictures, references: References) -> None:
        self._folder, self._pictures, self._references = folder, pictures, references
        self._model = [] if model == "pocket" else ["--model", model]

    def look(self, key: str) -> Line:
        """What the base makes of a reference."""
        return Line("look", [*self._references.look(key), *self._model], "Look at the reference", {"reference": key})

    def learn(self, said: Mapping[str, Any]) -> Line:
        """Learn a style from references."""
        name, references = said["name"], said["references"]
        files, contents, weighed = [], [], any("weight" in one for one in references)
        for one in references:
            path = self._references.find(one["id"]).relative_to(self._folder).as_posix()
            files.append(f"{path}:{one.get('weight', 1):g}" if weighed else path)
            contents.append(one.get("content", "").strip())
        library.refuse_taken(name, said.get("overwrite", False))
        # Without any it is guessed where such guesses are known to be right.
        shown = [content or UNKNOWN_CONTENT for content in contents] if any(contents) else []
        argv = ["train", *files, *options(said, {"style": "--style"})]
        argv += [word for content in shown for word in options({"content": content}, {"content": "--content"})]
        argv += options(said, {"name": "--save-as", "overwrite": "--overwrite"})
        argv += [*options(said.get("options", {}), LEARNING), *self._model]
        return Line("learn", argv, f"Learn {name}", {"name": name, "reference": references[0]["id"]})

    def draw(self, said: Mapping[str, Any]) -> Line:
        """Draw prompts in a style, in several, or in none."""
        words, place = self._drawn_with(said)
        argv = ["generate", *options(said, PICTURE), *options(said.get("settings", {}), DRAWING)]
        argv += ["--no-sheet", "-o", f"{PICTURES}/{place}", *self._model, *words]
        return Line("draw", argv, f"Draw {_short(said['prompts'])}", _about(said, "style", "mix", "prompts"))

    def rough(self, said: Mapping[str, Any], size: int | None) -> Line:
        """A rough look at the first prompt, of the smallest ``size`` that the base draws."""
        one = {**said, "prompts": said["prompts"][:1], "number": 1, "size": size, "svg": False}
        words, _ = self._drawn_with(one)
        settings = {"preset": "preview"} | {
            name: value for name, value in said.get("settings", {}).items() if name not in ("preset", "steps")
        }
        path = f"{PREVIEWS}/{time.time_ns()}.png"
        argv = ["generate", *options(one, PICTURE), *options(settings, DRAWING), "-o", path, *self._model, *words]
        return Line("preview", argv, f"Preview {_short(one['prompts'])}", _about(said, "style", "mix", "prompts"))

    def vary(self, said: Mapping[str, Any]) -> Line:
        """Pictures near one that is there."""
        found, path = self._pictures.find(said["picture"])
        argv = ["vary", *options(said, VARYING), *self._adapter(found.style), "-o", f"{PICTURES}/{found.style}"]
        argv += [*self._model, *behind([self._near(path)])]
        return Line("vary", argv, f"Vary {found.id}", _about(said, "picture"))

    def again(self, said: Mapping[str, Any]) -> Line:
        """The prompt, the seed and the settings of a picture, in another style."""
        about = self._pictures.about(self._pictures.find(said["picture"])[0])
        if not about["prompt"] or type(about["seed"]) is not int:
            raise UsageError(f"{said['picture']} does not say how it was drawn")
        settings = {name: about["settings"][name] for name in AGAIN if name in about["settings"]}
        settings = _in_order(settings, about["settings"])
        asked = {"style": said["style"], "prompts": [about["prompt"]], "number": 1, "seed": about["seed"]}
        line = self.draw({**asked, "size": about["size"], "settings": settings})
        return Line("again", line.argv, f"{about['prompt'][:60]} in {said['style']}", _about(said, "style", "picture"))

    def masked(self, said: Mapping[str, Any], mask: str) -> Line:
        """Draw a part of a picture anew; ``mask`` is its file, seen from the folder."""
        found, path = self._pictures.find(said["picture"])
        argv = ["edit", *options(said, EDITING), "--mask", mask, *self._adapter(found.style)]
        argv += ["-o", f"{PICTURES}/{found.style}", *self._model, *behind([self._near(path), said["prompt"]])]
        return Line("edit", argv, f"Edit {found.id}: {said['prompt'][:60]}", _about(said, "picture", "prompt"))

    def improve(self, said: Mapping[str, Any]) -> Line:
        """A round from the hearts of a style."""
        style, name = self._style(said["style"]), said.get("name") or said["style"]
        if not (liked := self._pictures.liked(style)):
            raise UsageError(f"no picture of {style} has a heart", "give one to those that you like")
        library.file_of(name)
        if name != style:
            library.refuse_taken(name, overwrite=said.get("overwrite", False))
        number = 1 + max((int(path.name.rpartition("-")[2]) for path in self.rounds_of(style)), default=0)
        folder = f"{ROUNDS}/{style}-{number}"
        argv = ["iterate", *behind([style])]
        argv += [word for one in liked for word in ("--liked", f"{PICTURES}/{one}")]
        argv += [*options(said, {"steps": "--steps"}), "-o", folder, "--save-as", name, "--overwrite", *self._model]
        about = {"style": style, "name": name, "folder": folder, "pictures": liked}
        return Line("improve", argv, f"Improve {style} by {len(liked)} hearts", about)

    def rounds_of(self, style: str) -> list[Path]:
        """The folders of the rounds of a style, in their order."""
        found = [
            path
            for path in (self._folder / ROUNDS).glob("*")
            if path.name.rpartition("-")[0] == style and path.name.rpartition("-")[2].isdecimal()
            if path.is_dir() and not path.is_symlink()
        ]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))

    def mix(self, name: str, said: Mapping[str, Any]) -> Line:
        """One style made of two."""
        share, other, new = said["share"], self._style(said["with"]), said["name"]
        library.refuse_taken(new, said.get("overwrite", False))
        argv = ["merge", f"{self._style(name)}:{1 - share:g}", f"{other}:{share:g}"]
        argv += options(said, {"name": "--save-as", "overwrite": "--overwrite"})
        return Line("mix", [*argv, *self._model], f"Mix {name} and {other}", {"name": new, "style": name})

    def make_report(self, name: str, said: Mapping[str, Any]) -> Line:
        """The page that shows what was learnt."""
        argv = ["report", self._style(name), "-o", f"{REPORTS}/{name}.html", "--overwrite", *self._model]
        return Line("report", argv, f"Report of {name}", {"style": name})

    def redraw(self, about: Mapping[str, Any], usual: Mapping[str, Any]) -> str | None:
        """The command that draws a picture as its file says: ``about`` as the page has it, ``usual`` the base's values.

        None where no `generate` would: for an edit, whose command its job knows, and for a setting without an option.
        """
        said, prompt, seed = about["settings"], about["prompt"], about["seed"]
        drawn_by = [about["style"]] if said.get("adapter") else []
        known = about["made"] == "generate" and prompt and type(seed) is int and not {"mix", "object"} & said.keys()
        if not (known and usual) or (drawn_by and about["style"] not in library.names()):
            return None
        kept = {name: said[name] for name in said if name in RECOMMENDABLE or said[name] != usual.get(name, said[name])}
        kept = _in_order(kept, said)
        if kept.keys() - (PICTURE | DRAWING).keys():
            return None
        argv = options({**kept, "number": 1, "seed": seed}, PICTURE | DRAWING)
        argv += [*self._model, *([] if drawn_by else ["--base-only"]), *behind([*drawn_by, prompt])]
        return shlex.join(["styledrop", "generate", *argv])

    # ---- parts of them ----

    def _drawn_with(self, said: Mapping[str, Any]) -> tuple[list[str], str]:
        """The words of `generate` that say what to draw with and what to draw; the folder that this goes into."""
        prompts, style = said["prompts"], said.get("style")
        if mix := said.get("mix"):
            shares = [f"{self._style(one['name'])}:{one['share']:g}" for one in mix]
            return [*(word for share in shares for word in ("--mix", share)), *behind(prompts)], MIX
        if style is None:
            return ["--base-only", *behind(prompts)], NO_STYLE
        return behind([self._style(style), *prompts]), style

    def _style(self, name: str) -> str:
        """A name that is in the library; Missing for any other."""
        if name not in library.names():
            raise Missing(f"there is no style called '{name[:60]}'")
        return name

    def _adapter(self, style: str) -> list[str]:
        return ["--adapter", style] if style in library.names() else []

    def _near(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _in_order(kept: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the temperature only where it acts: to say it is to choose the order in which it does."""
    left_out = {"order", *(() if said.get("order") == "confidence" else ("temperature",))}
    return {name: value for name, value in kept.items() if name not in left_out}


def _short(prompts: Sequence[str]) -> str:
    return prompts[0][:60] + (f" and {len(prompts) - 1} more" if len(prompts) > 1 else "")


def _about(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: said[name] for name in names if said.get(name) is not None}
