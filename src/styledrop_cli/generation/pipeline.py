"""From prompts, a base and perhaps some adapters to pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from styledrop_cli.adapters.file import AdapterPair, open_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import TextTokenizer, with_style
from styledrop_cli.base.sample import AdapterShare
from styledrop_cli.errors import UsageError
from styledrop_cli.io.images import to_image
from styledrop_cli.io.tensors import AdapterFile
from styledrop_cli.settings import SampleSettings, seeds_from

if TYPE_CHECKING:
    from PIL.Image import Image

GAMMA = 0.6  # StyleDrop, 3.4: 0.5 to 0.7


@dataclass(frozen=True)
class PictureRequest:
    """One picture: what it shows, and how it is drawn. The seed is ``seed``, whatever ``settings`` say.

    ``style`` is said behind the prompt in place of what the adapters were taught; empty, nothing is.
    """

    prompt: str
    seed: int
    settings: SampleSettings
    style: str | None = None


@dataclass(frozen=True)
class StyleMix:
    """Whose styles are drawn in: ``styles`` by their shares, which add up to 1, and perhaps somebody's ``thing``.

    All are mixed at the logits (StyleDrop, 3.4). ``gamma`` in [0,1] is the thing's share of the whole: it reads the
    prompt without any style. Without ``styles`` the base draws, in a style that is only said.

    Raises UsageError for shares below zero or that do not add up to 1, and for a ``gamma`` out of range.
    """

    styles: tuple[tuple[AdapterFile, float], ...] = ()
    thing: AdapterFile | None = None
    gamma: float = GAMMA

    def __post_init__(self) -> None:
        shares = [share for _, share in self.styles]
        total = sum(shares)
        if shares and not (all(share >= 0 for share in shares) and math.isclose(total, 1, abs_tol=0.005)):
            fit = ", ".join(f"{share / total:.2f}" for share in shares) if total > 0 and min(shares) >= 0 else ""
            raise UsageError(
                f"the shares {', '.join(f'{share:g}' for share in shares)} add up to {total:g}, not to 1",
                f"In the same proportion: {fit}." if fit else "Each must be 0 or more.",
            )
        if not 0 <= self.gamma <= 1:
            raise UsageError(f"gamma must be between 0 and 1, not {self.gamma}")

    @classmethod
    def of(cls, adapter: AdapterFile | None) -> StyleMix:
        """One adapter, or none."""
        return cls(((adapter, 1.0),) if adapter is not None else ())

    @property
    def style(self) -> str:
        """What the styles are called, together."""
        return " and ".join(dict.fromkeys(said for file, _ in self.styles if (said := str(file.header["style"]))))

    @property
    def learnt(self) -> str:
        """The words that the adapters were taught: their styles, and what the thing is."""
        return " ".join([self.style, *(self.thing.header["contents"] if self.thing else [])])

    @property
    def recommended(self) -> dict[str, Any]:
        """What the styles' files recommend, by their shares; steps are whole, and what only some say is left out."""
        every = [(file.header.get("recommended", {}), share) for file, share in self.styles]
        names = [name for name in (every[0][0] if every else ()) if all(name in one for one, _ in every)]
        mean = {name: sum(one[name] * share for one, share in every) for name in names}
        return {name: round(value) if name == "steps" else value for name, value in mean.items()}

    def cut(
        self, base: Base, prompt: str, style: str | None, on_message: Callable[[str], None] = lambda message: None
    ) -> str:
        """As much of a prompt as ``base`` can read with each style behind it; see ``TextTokenizer.cut``."""
        for said in [str(file.header["style"]) for file, _ in self.styles] or [""] if style is None else [style]:
            prompt = base.text_tokenizer.cut(prompt, said, on_message)
        return prompt

    def open(self, base: Base) -> LoadedStyleMix:
        """All of them, ready for ``base``; raises ModelError for one that belongs to another base."""
        return LoadedStyleMix(
            [(open_adapter(base, file), share, str(file.header["style"])) for file, share in self.styles],
            open_adapter(base, self.thing) if self.thing is not None else None,
            self,
            base.text_tokenizer,
        )


@dataclass(frozen=True)
class LoadedStyleMix:
    """The adapters of a ``StyleMix`` in memory."""

    styles: list[tuple[AdapterPair, float, str]]  # each with its share and its own style
    thing: AdapterPair | None
    mixture: StyleMix
    tokenizer: TextTokenizer

    def texts(self, wanted: Sequence[PictureRequest]) -> list[str]:
        """What the base is told of each picture: all styles or, where they are too long together, the largest share."""
        return [self._text(one) for one in wanted]

    def _text(self, one: PictureRequest) -> str:
        if one.style is not None:
            return with_style(one.prompt, one.style)
        together = with_style(one.prompt, self.mixture.style)
        if len(self.styles) < 2 or self.tokenizer.fits(together):
            return together
        return with_style(one.prompt, max(self.styles, key=lambda style: style[1])[2])

    def shares(self, wanted: Sequence[PictureRequest], part: str = "base") -> list[AdapterShare]:
        """Who draws the pictures, of the ``base`` transformer or of ``superres``, and what each is told."""
        rest = 1 - self.mixture.gamma if self.thing is not None else 1.0
        made = [
            AdapterShare(
                getattr(opened, part),
                [with_style(one.prompt, style if one.style is None else one.style) for one in wanted],
                share * rest,
            )
            for opened, share, style in self.styles
        ]
        if self.thing is not None:
            made = made or [AdapterShare(None, self.texts(wanted), rest)]
            made.append(AdapterShare(getattr(self.thing, part), [one.prompt for one in wanted], self.mixture.gamma))
        return made


def check_size(base: Base, settings: SampleSettings) -> None:
    """Raise UsageError for a size that the base does not draw, or not by super-resolution."""
    if settings.size not in base.sizes:
        known = " or ".join(str(s) for s in base.sizes)
        raise UsageError(f"{base.name} draws {known} px, not {settings.size}", f"Choose --size {base.sizes[-1]}.")
    if settings.superres_steps and (base.superres is None or settings.size != base.sizes[-1]):
        why = (
            "has no super-resolution" if base.superres is None else f"draws {settings.size} px without super-resolution"
        )
        raise UsageError(f"{base.name} {why}", "Leave --superres-steps out.")


def draw(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    on_step: Callable[[float], None] = lambda share: None,
    there: Callable[[int], bool] = lambda index: False,
) -> Iterator[tuple[int, Image]]:
    """Draw all that is ``wanted``, yielding ``(which of them, picture)`` as they are done.

    Pictures of equal settings are drawn together, those of the first ones first; none depends on its neighbours.
    ``on_step`` is told after each step what share in [0,1] of all pictures' steps is taken. ``there`` is asked of each
    when its turn comes, and one that has come from elsewhere is left out. Raises ModelError if an adapter is not this
    base's, UsageError for a size that the base does not draw, or not by super-resolution.
    """
    groups: dict[SampleSettings, list[int]] = {}
    for index, one in enumerate(wanted):
        groups.setdefault(replace(one.settings, seed=0), []).append(index)
    for settings in groups:
        check_size(base, settings)
    drawers = mixture.open(base)
    total = sum(settings.steps * len(members) for settings, members in groups.items())
    taken = 0
    for settings, members in groups.items():
        for start in range(0, len(members), base.batch):
            turn = members[start : start + base.batch]
            chunk = [index for index in turn if not there(index)]
            if not chunk:
                taken += settings.steps * len(turn)
                continue
            pictures = [wanted[index] for index in chunk]
            seeds, texts = [one.seed for one in pictures], drawers.texts(pictures)

            def step_taken(step: int, ids: Tensor, taken: int = taken, number: int = len(turn)) -> None:
                on_step((taken + number * (step + 1)) / total)

            ids = base.sample(texts, seeds, settings, drawers.shares(pictures), step_taken)
            if settings.superres_steps:
                ids = base.refine(ids, texts, seeds, settings, drawers.shares(pictures, "superres"))
            base.done_with("transformer")
            for index, row in zip(chunk, ids, strict=True):
                # One by one: a convolution over another batch size rounds differently, and the bytes should not change.
                yield index, to_image(base.pictures(row[None], settings.size)[0].cpu())
            base.done_with("tokenizer")
            taken += settings.steps * len(turn)


def generate(
    base: Base,
    adapter: AdapterFile | StyleMix | None,
    *,
    prompts: Sequence[str],
    count: int,
    settings: SampleSettings,
    style: str | None = None,
    on_step: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, int, Image]]:
    """Draw ``count`` pictures of each prompt, yielding ``(prompt, seed, picture)`` as they are done.

    The adapter's own style text is appended to each prompt; ``style`` replaces it, empty leaves it out. The i-th
    picture of every prompt has seed ``settings.seed + i``. Raises as ``draw`` does.
    """
    mixture = adapter if isinstance(adapter, StyleMix) else StyleMix.of(adapter)
    wanted = [
        PictureRequest(prompt, seed, settings, style) for prompt in prompts for seed in seeds_from(settings.seed, count)
    ]
    for index, image in draw(base, mixture, wanted, on_step):
        yield wanted[index].prompt, wanted[index].seed, image
