"""From requests to pictures: one way for the base alone, one style, several styles, and an object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from styledrop_cli.adapters.examples import known_contents
from styledrop_cli.adapters.file import AdapterPair, open_adapter
from styledrop_cli.adapters.header import AdapterFile
from styledrop_cli.base.base import Base
from styledrop_cli.base.known_things import name_one
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.base.sample import AdapterShare
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.ground import without_ground
from styledrop_cli.generation.palette import coloured
from styledrop_cli.io.images import resampled, to_image
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 4096  # pixels of a side that a picture is enlarged to
GAMMA = 0.6  # StyleDrop, 3.4: 0.5 to 0.7


@dataclass(frozen=True)
class PictureRequest:
    """One picture: what it shows, and how it is drawn. Its seed is ``seed``, whatever ``settings`` say.

    ``style`` is put behind the prompt in place of the adapters' own style; an empty one leaves it out.
    """

    prompt: str
    seed: int
    settings: SampleSettings
    style: str | None = None


@dataclass(frozen=True)
class StyleMix:
    """The adapters that draw together: ``styles`` with their shares, which add up to 1, and perhaps an object's.

    All are mixed at the logits (StyleDrop, 3.4). ``gamma`` in [0,1] is the share of the object's adapter ``thing`` in
    the whole; that adapter reads the prompt without any style. Without ``styles`` the base draws.

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
        """The names of the styles, joined."""
        return " and ".join(dict.fromkeys(said for file, _ in self.styles if (said := file.header.style)))

    @property
    def learnt(self) -> str:
        """The words that the adapters were taught: their styles, and what the object is called."""
        return " ".join([self.style, *(self.thing.header.contents if self.thing else [])])

    @property
    def recommended(self) -> dict[str, Any]:
        """The mean, by shares, of the settings that all files of styles recommend; steps are rounded."""
        every = [(file.header.recommended, share) for file, share in self.styles]
        names = [name for name in (every[0][0] if every else ()) if all(name in one for one, _ in every)]
        mean = {name: sum(one[name] * share for one, share in every) for name in names}
        return {name: round(value) if name == "steps" else value for name, value in mean.items()}

    def cut(
        self, base: Base, prompt: str, style: str | None, on_message: Callable[[str], None] = lambda message: None
    ) -> str:
        """As much of a prompt as ``base`` can read with each of the styles behind it; see ``TextTokenizer.cut``."""
        for said in [file.header.style for file, _ in self.styles] or [""] if style is None else [style]:
            prompt = base.text_tokenizer.cut(prompt, said, on_message)
        return prompt

    def open(self, base: Base) -> LoadedStyleMix:
        """All adapters, ready for ``base``; raises ModelError for one that belongs to another base."""
        return LoadedStyleMix(
            [(open_adapter(base, file), share, file.header.style) for file, share in self.styles],
            open_adapter(base, self.thing) if self.thing is not None else None,
            self,
            base,
        )

    def unguarded(self, base: Base) -> list[AdapterFile]:
        """The styles whose references show nothing that ``SampleSettings.guard`` could keep out of pictures."""
        return [file for file, _ in self.styles if not shown_by(base, file)]


def shown_by(base: Base, file: AdapterFile) -> list[str]:
    """What the references of a style's adapter show, in words that ``base`` knows; nothing where nobody said it."""
    header = file.header
    return [] if header.is_object else known_contents(base, header.contents[: len(header.pictures)])


def asked_instead(
    base: Base, contents: Sequence[str], prompts: Sequence[str], styles: Sequence[str]
) -> list[list[str | None]]:
    """For each of ``contents`` the texts that ask for it in place of ``prompts``, in the style of each.

    None where the prompt asks for that very thing. It is what ``AdapterShare.contents`` takes.
    """

    def instead(content: str, prompt: str, style: str) -> str | None:
        if name_one(base.known, prompt, content):
            return None
        return with_style(base.text_tokenizer.cut(content, style), style)

    return [[instead(one, *asked) for asked in zip(prompts, styles, strict=True)] for one in contents]


@dataclass(frozen=True)
class LoadedStyleMix:
    """The adapters of a ``StyleMix`` in memory."""

    styles: list[tuple[AdapterPair, float, str]]  # each with its share and its own style
    thing: AdapterPair | None
    mixture: StyleMix
    base: Base

    def texts(self, wanted: Sequence[PictureRequest]) -> list[str]:
        """What the base is told of each picture: all styles or, if they are too long together, the largest one."""
        return [self._text(one) for one in wanted]

    def _text(self, one: PictureRequest) -> str:
        if one.style is not None:
            return with_style(one.prompt, one.style)
        together = with_style(one.prompt, self.mixture.style)
        if len(self.styles) < 2 or self.base.text_tokenizer.fits(together):
            return together
        return with_style(one.prompt, max(self.styles, key=lambda style: style[1])[2])

    def shares(self, wanted: Sequence[PictureRequest], part: str = "base") -> list[AdapterShare]:
        """The adapters for one transformer, "base" or "superres", what each is told, and its share of the logits."""
        rest = 1 - self.mixture.gamma if self.thing is not None else 1.0
        prompts = [one.prompt for one in wanted]
        made = []
        for (opened, share, own), (file, _) in zip(self.styles, self.mixture.styles, strict=True):
            styles = [own if one.style is None else one.style for one in wanted]
            texts = [with_style(prompt, style) for prompt, style in zip(prompts, styles, strict=True)]
            contents = shown_by(self.base, file) if any(one.settings.guard for one in wanted) else []
            contents_asked = asked_instead(self.base, contents, prompts, styles)
            made.append(AdapterShare(getattr(opened, part), texts, share * rest, contents_asked))
        if self.thing is not None:
            made = made or [AdapterShare(None, self.texts(wanted), rest)]
            made.append(AdapterShare(getattr(self.thing, part), [one.prompt for one in wanted], self.mixture.gamma))
        return made


def drawn_size(base: Base, settings: SampleSettings) -> int:
    """The width and height in which the base draws what is wanted: a larger picture is resampled from its largest."""
    return base.sizes[-1] if base.sizes[-1] < settings.size <= LARGEST else settings.size


def finished(base: Base, image: Image, settings: SampleSettings) -> Image:
    """A picture as the base drew it, in its whole size, and without its ground if that is wanted.

    ``RGBA`` if the ground was taken out; it stays ``RGB`` where none was found. The same from the same, always.
    """
    if drawn_size(base, settings) != settings.size:
        image = resampled(image, settings.size)
    return (settings.transparent and without_ground(image, settings.holes)) or image


def check_size(base: Base, settings: SampleSettings) -> None:
    """Raise UsageError for a size that the base neither draws nor enlarges to, or not by super-resolution."""
    size, sizes = drawn_size(base, settings), base.sizes
    if size not in sizes:
        known = " or ".join(map(str, sizes))
        hint = f"Choose --size {sizes[-1]}, or a larger one up to {LARGEST:,}, to which that is resampled."
        raise UsageError(f"{base.name} draws {known} px, not {size}", hint)
    if settings.superres_steps and (base.superres is None or size != sizes[-1]):
        why = "has no super-resolution" if base.superres is None else f"draws {size} px without super-resolution"
        raise UsageError(f"{base.name} {why}", "Leave --superres-steps out.")


def draw(
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    on_step: Callable[[float], None] = lambda share: None,
    there: Callable[[int], bool] = lambda index: False,
) -> Iterator[tuple[int, Image]]:
    """Draw all that is ``wanted``, yielding ``(which of them, picture)`` as they are done.

    Pictures of equal settings are drawn together, in the order of the first of each; none depends on its neighbours.
    ``on_step`` is told after each step what share in [0,1] of all pictures' steps is taken. ``there`` is asked of each
    picture when its turn comes, and one that another process has drawn meanwhile is left out.

    Raises ModelError if an adapter is not this base's, UsageError as ``check_size`` does.
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

            def step_taken(step: int, ids: Tensor, taken: int = taken, number: int = len(turn)) -> None:
                on_step((taken + number * (step + 1)) / total)

            if missing := [index for index in turn if not there(index)]:
                pictures = [wanted[index] for index in missing]
                yield from zip(missing, _drawn_together(base, drawers, pictures, settings, step_taken), strict=True)
            taken += settings.steps * len(turn)


def _drawn_together(
    base: Base,
    drawers: LoadedStyleMix,
    pictures: Sequence[PictureRequest],
    settings: SampleSettings,
    on_step: Callable[[int, Tensor], None],
) -> Iterator[Image]:
    seeds, texts = [one.seed for one in pictures], drawers.texts(pictures)
    asked, settings = settings, replace(settings, size=drawn_size(base, settings))
    ids = base.sample(texts, seeds, settings, drawers.shares(pictures), on_step)
    if settings.superres_steps:
        ids = base.refine(ids, texts, seeds, settings, drawers.shares(pictures, "superres"))
    base.done_with("transformer")
    for row in ids:
        # One by one: a convolution over another batch size rounds differently, and the bytes should not change.
        yield finished(base, to_image(coloured(base.pictures(row[None], settings.size)[0].cpu(), settings)), asked)
    base.done_with("tokenizer")
