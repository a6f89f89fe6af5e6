"""How a picture was drawn, by what its file says: its prompt, its adapters and its settings, to draw others like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.base.registry import BUNDLED, PUBLISHED
from styledrop_cli.errors import ModelError, PictureError, StyledropError, UsageError
from styledrop_cli.generation.pipeline import GAMMA, StyleMix
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.io.tensors import build_config
from styledrop_cli.io.text_files import plain
from styledrop_cli.judging.found import adapter_at_hand
from styledrop_cli.settings import LARGEST_SEED, SampleSettings

DEFAULTS = {name: value for name, value in SampleSettings.defaults().items() if name != "seed"}


@dataclass(frozen=True)
class Origin:
    """What the file of a picture says of how it was drawn: ``said`` is empty if styledrop did not draw it."""

    path: Path
    said: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Origin:
        """Read it. Raises PictureError for a file that is no picture or says what cannot be, UsageError for a sheet."""
        said = read_png_settings(path) or {}
        if "sheet_of" in said:
            raise UsageError(f"{path} is a sheet of several pictures", "Name one of the pictures that are on it.")
        origin = cls(path, said)
        try:
            build_config(SampleSettings, origin.settings, "they")
        except StyledropError as error:
            raise PictureError(f"the settings inside {path} cannot be drawn with: {error.message}") from error
        return origin

    def text(self, name: str) -> str:
        """One of the texts in it, in one line; empty if it is none."""
        value = self.said.get(name)
        return plain(value) if isinstance(value, str) else ""

    @property
    def prompt(self) -> str:
        """What it was to show. Raises UsageError if that is not known."""
        if said := self.text("prompt"):
            return said
        raise UsageError(
            f"{self.path} does not say what it shows: styledrop did not draw it, or another program has saved it since",
            'Say it: --prompt "a cat".',
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it was drawn with; what is newer than the picture has the value that changes nothing."""
        return {name: self.said.get(name, usual) for name, usual in DEFAULTS.items()} if "steps" in self.said else {}

    def settings_on(self, base: Base) -> dict[str, Any]:
        """``settings``, without the size and the super-resolution of another base where ``base`` has not these."""
        given = self.settings
        if given and (given["size"] not in base.sizes or (given["superres_steps"] and base.superres is None)):
            del given["size"], given["superres_steps"]
        return given

    @property
    def model(self) -> str | None:
        """The base model that drew it, as --model takes it; None if that is not said.

        Raises UsageError for one that a person has by another name, as a folder.
        """
        name, encoder = self.text("model"), self.text("text_encoder")
        if name and name != BUNDLED and name not in PUBLISHED:
            raise UsageError(
                f"{self.path} was drawn by the base model {name}, which is none that is known by its name",
                "Name its folder: --model FOLDER.",
            )
        return f"{name}{f'+{encoder}' * bool(encoder)}" or None

    def next_seed(self, number: int) -> int:
        """The first of ``number`` seeds that come after its own, so that none draws the very same numbers again."""
        own = self.said.get("seed")
        after = own + 1 if type(own) is int and own >= 0 else 0
        return after if after + number <= LARGEST_SEED else 0

    def style_beside(self, mixture: StyleMix) -> str | None:
        """The words of style that it was drawn with in place of the adapters' own, or None."""
        said = "style" in self.said and self.text("style") != plain(mixture.style)
        return self.text("style") if said else None

    def mixture(self) -> StyleMix:
        """The adapters that drew it, found by their hashes.

        They are looked for as ``adapter_at_hand`` does. Raises ModelError for one that is not there, UsageError where
        the file does not say which they are.
        """
        if not self.said:
            return StyleMix()
        adapter, mix, shares, thing = (self.said.get(name) for name in ("adapter", "mix", "shares", "object"))
        names = list(mix) if isinstance(mix, dict) else [adapter] if isinstance(adapter, str) else []
        hashes = [part for part in self.text("adapter_hash").split("+") if part] or [""] * len(names)
        number = len(hashes) - isinstance(thing, str)
        if shares is None:  # one adapter or none, or several of before the shares had a list
            shares = list(mix.values()) if isinstance(mix, dict) else [1.0] * len(names)
        gamma = self.said.get("gamma", GAMMA)
        sound = isinstance(shares, list) and len(shares) == number
        sound = sound and all(isinstance(one, int | float) and 0 <= one <= 1 for one in [*shares, gamma])
        sound &= (0 < len(names) <= number or names == [] == hashes[:number]) and isinstance(thing, str | None)
        if "adapter" not in self.said or not sound:
            raise UsageError(
                f"{self.path} does not say which adapter drew it", "Name it: --adapter adapter.safetensors."
            )
        names += names[-1:] * (number - len(names))  # files of one name stand there once
        found = [self._found(*one) for one in zip(names, hashes[:number], strict=True)]
        return StyleMix(
            tuple(zip(found, map(float, shares), strict=True)),
            self._found(thing, hashes[-1]) if isinstance(thing, str) else None,
            float(gamma),
        )

    def _found(self, name: str, wanted: str) -> AdapterFile:
        # Where several have one name, a folder may stand before it.
        called = Path(name).name
        path = adapter_at_hand(called, wanted, self.path.resolve().parent)
        if path is None:
            raise ModelError(
                f"the adapter that drew {self.path}, {called}{f' (sha256 {wanted}...)' * bool(wanted)}, is not here",
                "Put it beside the picture or into this folder, or name another one with --adapter.",
            )
        return load_adapter(path)
