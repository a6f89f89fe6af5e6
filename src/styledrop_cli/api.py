"""styledrop from Python: training, drawing and editing as calls, for scripts and notebooks.

    from styledrop_cli import StyleDrop

    styledrop = StyleDrop.load()
    adapter = styledrop.train("ref.png", style="watercolor")
    for picture in styledrop.generate(["a cat", "a teapot"], adapter, number=4):
        picture.save("pictures")

Nothing is printed, and nothing is guessed from the surroundings: what a command takes from options is an argument
here. What goes wrong is a ``StyledropError``, whose ``hint`` says what to do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from styledrop_cli.adapters import library, share
from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.adapters.pull import find_adapter, keep
from styledrop_cli.base import upload
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.devices import pick_device
from styledrop_cli.errors import UsageError
from styledrop_cli.generation import examples
from styledrop_cli.generation.editing.edit import Sides, edit_of
from styledrop_cli.generation.editing.origin import Origin
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.generation.output_folder import Batch, about, about_mixture
from styledrop_cli.generation.pipeline import GAMMA, PictureRequest, StyleMix, check_size, draw
from styledrop_cli.generation.resolve import settings_of
from styledrop_cli.generation.svg import COLOURS, svg_beside, traced
from styledrop_cli.settings import VARIED, SampleSettings, seeds_from
from styledrop_cli.training.adapter import train_adapter

if TYPE_CHECKING:
    from PIL.Image import Image


AnAdapter = str | Path | AdapterFile
Adapters = AnAdapter | Mapping[str, float] | Mapping[Path, float] | None


class Drawing(TypedDict, total=False):
    """How pictures are drawn; what is left out is as the adapters recommend. See ``settings.SampleSettings``."""

    steps: int
    temperature: float
    strength: float
    lambda_a: float
    lambda_b: float
    guard: float
    ramp: bool
    plausible: float
    top_k: int
    top_p: float
    correct: float
    negative: str
    order: str
    precision: str
    guidance_every: int
    guidance_from: float
    guidance_to: float
    size: int
    superres_steps: int
    superres_lambda_a: float
    superres_lambda_b: float
    palette: str | Sequence[str]
    palette_strength: float
    transparent: bool
    holes: str


class Training(TypedDict, total=False):
    """How an adapter is trained; what is left out is what fits its kind. See ``settings.TrainSettings``."""

    learn: str
    steps: int
    lr: float
    batch_size: int
    width: int
    shared: bool
    targets: tuple[str, ...]
    layers: str
    views: int
    seed: int
    checkpoints: int
    superres_steps: int
    last: bool
    lambda_a: float
    lambda_b: float
    choose_scales: bool


@dataclass(frozen=True)
class Picture:
    """One picture, and everything it takes to draw it again in ``about``."""

    image: Image
    prompt: str
    seed: int
    about: dict[str, Any]

    def save(self, folder: str | Path = ".", name: str = "{prompt}-{seed}", svg: bool = False) -> Path:
        """Write it into ``folder`` as PNG, atomically, with ``about`` inside; the path.

        ``name`` is a pattern of {prompt}, {seed} and {style}. Another picture of that name is kept, and this one's
        says what is set otherwise (name-steps-9) or has a number (name-2). With ``svg`` an SVG file is written beside
        it. Raises StyledropError if it cannot be written, or vtracer is missing, which makes SVG files.
        """
        called = stem(name, prompt=self.prompt, seed=self.seed, index=1, style=str(self.about["style"]))
        path = Batch(Path(folder), [called], [self.about].__getitem__).save(0, self.image)
        if svg:
            svg_beside(path)
        return path

    def svg(self, colours: int = COLOURS, palette: Sequence[tuple[int, int, int]] = ()) -> str:
        """The picture as SVG with at most so many flat colours or, with a ``palette`` (RGB, 0 to 255), these alone.

        Raises StyledropError where vtracer is missing.
        """
        return traced(self.image, self.prompt, self.about, colours, palette).text


class StyleDrop:
    """A base model in memory, and what can be done with it."""

    def __init__(self, base: Base) -> None:
        self.base = base

    @classmethod
    def load(cls, model: str = "pocket", device: str = "auto") -> StyleDrop:
        """Load a base model: ``pocket``, a name that ``styledrop models list`` shows, a folder, or owner/name.

        ``device`` is auto, cpu, cuda or mps. Raises ModelError if there is no such model or it is broken, DeviceError
        if there is no such device, StyledropError if a published model is not here and cannot be fetched.
        """
        return cls(load_base(model, pick_device(device)))

    def train(
        self,
        pictures: str | Path | Sequence[str | Path] | Mapping[str, float] | Mapping[Path, float],
        style: str = "",
        *,
        contents: str | Sequence[str] | None = None,
        output: str | Path = "adapter.safetensors",
        kind: str = "bottleneck",
        fresh: bool = False,
        on_step: Callable[[int, int, float], None] = lambda step, total, loss: None,
        on_message: Callable[[str], None] = lambda message: None,
        **settings: Unpack[Training],
    ) -> AdapterFile:
        """Learn a ``style`` from one picture or several and write ``output``, which is replaced if it is there.

        Of several each may have a weight, 0.001 to 1000, ``{"a.png": 2, "b.png": 1}``: a is learnt from twice as often.
        ``contents`` says what each picture shows; left out, it is guessed where such guesses are known to be right, or
        else "a picture", of which ``on_message`` is told. With ``learn="object"`` the object is learnt that
        ``contents`` names, and no style. ``on_step`` is told step, steps and loss. Stopped at any moment, the same call
        goes on, unless ``fresh``.

        Raises PictureError for a picture that cannot be read, UsageError for settings and weights that do not fit.
        """
        paths = [Path(one) for one in _listed(pictures)]
        learnt = train_adapter(
            self.base,
            pictures=paths,
            style=style,
            contents=_listed(contents) if contents is not None else None,
            weights=list(pictures.values()) if isinstance(pictures, Mapping) else None,
            settings=self.base.training(kind, **settings),
            output=Path(output),
            fresh=fresh,
            on_step=on_step,
            on_message=on_message,
        )
        return load_adapter(learnt.path)

    def generate(
        self,
        prompts: str | Sequence[str],
        adapter: Adapters = None,
        *,
        thing: AnAdapter | None = None,
        gamma: float = GAMMA,
        number: int = 1,
        seed: int = 0,
        style: str | None = None,
        preset: str | None = None,
        on_step: Callable[[float], None] = lambda share: None,
        **settings: Unpack[Drawing],
    ) -> list[Picture]:
        """Draw ``number`` pictures of each prompt; see ``stream``."""
        return list(
            self.stream(
                prompts,
                adapter,
                thing=thing,
                gamma=gamma,
                number=number,
                seed=seed,
                style=style,
                preset=preset,
                on_step=on_step,
                **settings,
            )
        )

    def stream(
        self,
        prompts: str | Sequence[str],
        adapter: Adapters = None,
        *,
        thing: AnAdapter | None = None,
        gamma: float = GAMMA,
        number: int = 1,
        seed: int = 0,
        style: str | None = None,
        preset: str | None = None,
        on_step: Callable[[float], None] = lambda share: None,
        **settings: Unpack[Drawing],
    ) -> Iterator[Picture]:
        """Draw ``number`` pictures of each prompt, with seeds from ``seed`` on, and give each as soon as it is done.

        ``adapter`` is a file or the name of a style in the library, several of these with their shares
        (``{"ink.safetensors": 0.6, "gold": 0.4}``), or None for the base alone. ``thing`` is an object's adapter, whose
        share of the whole is ``gamma`` in [0,1]. ``style`` replaces the adapters' own words, empty it leaves them out.
        ``on_step`` is told what share in [0,1] of all steps is taken.

        Raises ModelError for a file that is no adapter or belongs to another base, UsageError for settings out of
        range, prompts that say nothing, and shares that do not add up to 1.
        """
        mixture = _mixture(adapter, thing, gamma)
        made = self._settings(mixture, preset, {}, settings)
        check_size(self.base, made)
        wanted = self._wanted(mixture, _listed(prompts), number, seed, made, style)
        return self._pictures(mixture, wanted, draw(self.base, mixture, wanted, on_step), {})

    def edit(
        self,
        picture: str | Path,
        prompt: str,
        adapter: Adapters = None,
        *,
        mask: str | Path | None = None,
        outpaint: Sides | None = None,
        restyle: float | None = None,
        mask_free: int | None = None,
        number: int = 1,
        seed: int = 0,
        style: str | None = None,
        preset: str | None = None,
        on_step: Callable[[float], None] = lambda share: None,
        **settings: Unpack[Drawing],
    ) -> list[Picture]:
        """Change a ``picture`` to show what the ``prompt`` says, ``number`` times; one change at a time.

        Drawn anew is what is white in ``mask``, whose black and transparent parts stay; so many pixels around it,
        ``outpaint=(left, top, right, bottom)``; a share of it, ``restyle`` in [0,1]; or bit after bit in ``mask_free``
        iterations. With none of these, what is transparent in it. All else is as in ``stream``.

        Raises UsageError for several changes or none, a mask that does not fit or selects nothing or all, and sides
        that do not fit, PictureError for pictures that cannot be read, and what ``stream`` raises.
        """
        ways = {"mask": mask, "outpaint": outpaint, "restyle": restyle, "mask_free": mask_free}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are {len(given)} changes", "Make them one after the other.")
        painted = Path(mask) if mask is not None else None
        change = edit_of(Path(picture), mask=painted, sides=outpaint, share=restyle, iterations=mask_free)
        if change is None:
            raise UsageError(f"nothing says what to change in {picture}", f"Give one of {', '.join(ways)}.")
        mixture = _mixture(adapter, None, GAMMA)
        made = self._settings(mixture, preset, change.suits(self.base), settings)
        if made.transparent:
            raise UsageError("an edited picture keeps its ground", "Leave transparent out.")
        wanted = self._wanted(mixture, [prompt], number, seed, made, style)
        return list(self._pictures(mixture, wanted, change.draw(self.base, mixture, wanted, on_step), change.about))

    def push(
        self,
        adapter: AnAdapter,
        repo: str,
        *,
        license_id: str,
        prompts: str | Sequence[str] = (),
        private: bool = False,
        references: bool = True,
        seed: int = 0,
        on_step: Callable[[float], None] = lambda share: None,
    ) -> str:
        """Put an adapter into ``repo``, owner/name, on the Hugging Face hub, with a model card; the commit's address.

        The card shows a picture of each of the ``prompts``, or of things that the base knows. Without ``references``
        their tokens and thumbnail stay here; names of files and folders always do.

        Raises UsageError if nobody is logged in, or for what is no repository or licence, ModelError if this user
        may not write to it, or the adapter belongs to another base, StyledropError if the hub cannot be reached.
        """
        upload.check_repository(repo)
        upload.refuse_no_access(repo)
        checked, file = share.checked_license(license_id), _read(adapter)
        made = share.for_others(file, repo, references)
        wanted = examples.example_requests(self.base, file, _listed(prompts), seed)
        mixture = examples.mixture_of(file)
        mixture.open(self.base)
        upload.open_repository(repo, private)
        drawn = [image for _, image in draw(self.base, mixture, wanted, on_step)]
        sheet = examples.example_sheet(drawn, wanted, file.header.name)
        shown = list(dict.fromkeys(one.prompt for one in wanted))
        with tempfile.TemporaryDirectory() as folder:
            paths = share.write_folder(Path(folder), made, share.Sharing(repo, checked, shown, sheet))
            return upload.upload(repo, paths, share.FILES, share.message_of(made))

    def vary(
        self,
        picture: str | Path,
        *,
        much: float = VARIED,
        prompt: str | None = None,
        adapter: Adapters = None,
        number: int = 1,
        seed: int | None = None,
        style: str | None = None,
        preset: str | None = None,
        on_step: Callable[[float], None] = lambda share: None,
        **settings: Unpack[Drawing],
    ) -> list[Picture]:
        """Draw ``number`` pictures near one: a share of it, ``much`` in [0,1], is drawn anew in soft patches.

        What its file says of how it was drawn, prompt, adapters and settings, holds where nothing else is said; the
        seeds come after its own. Of a picture that styledrop did not draw, ``prompt`` is needed. All else is as in
        ``stream``.

        Raises UsageError for a share out of range and a prompt that nobody said, ModelError if the adapter that drew it
        is not at hand, PictureError for a picture that cannot be read, and what ``stream`` raises.
        """
        origin = Origin.read(Path(picture))
        change = edit_of(Path(picture), much=much)
        assert change is not None
        mixture = origin.mixture() if adapter is None else _mixture(adapter, None, GAMMA)
        first = origin.next_seed(number) if seed is None else seed
        before = origin.settings_on(self.base) | self.base.preset(preset) | change.suits(self.base)
        made = settings_of(self.base, mixture, before, settings)
        check_size(self.base, made)
        if style is None and adapter is None:
            style = origin.style_beside(mixture)
        wanted = self._wanted(mixture, [prompt or origin.prompt], number, first, made, style)
        return list(self._pictures(mixture, wanted, change.draw(self.base, mixture, wanted, on_step), change.about))

    def _settings(
        self, mixture: StyleMix, preset: str | None, suits: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> SampleSettings:
        """What is said goes before what suits, that before a preset, that before what the adapters recommend."""
        return settings_of(self.base, mixture, self.base.preset(preset), suits, settings)

    def _wanted(
        self, mixture: StyleMix, texts: list[str], number: int, seed: int, made: SampleSettings, style: str | None
    ) -> list[PictureRequest]:
        """``number`` pictures of each text. Raises UsageError if that is none, or one says nothing."""
        if not texts or not all(text.strip() for text in texts) or number < 1:
            raise UsageError("there is nothing to draw", "Give prompts that say something, and a number of 1 or more.")
        return [
            PictureRequest(mixture.cut(self.base, text, style), one, made, style)
            for text in texts
            for one in seeds_from(seed, number)
        ]

    def _pictures(
        self,
        mixture: StyleMix,
        wanted: list[PictureRequest],
        drawn: Iterator[tuple[int, Image]],
        more: Mapping[str, Any],
    ) -> Iterator[Picture]:
        drawn_by = about_mixture(self.base, mixture)
        return (
            Picture(image, one.prompt, one.seed, about(self.base, one, mixture, drawn_by) | dict(more))
            for one, image in ((wanted[index], image) for index, image in drawn)
        )


def pull(
    repo: str, name: str | None = None, *, revision: str | None = None, file: str | None = None, overwrite: bool = False
) -> AdapterFile:
    """The adapter in ``repo``, owner/name, on the Hugging Face hub, which the library keeps as ``name``.

    Without a name it has the repository's. ``revision`` is a branch, a tag or a commit, ``file`` which of several.

    Raises UsageError for a name that is taken, unless ``overwrite``, and for several adapters, ModelError if there is
    no such repository, or no adapter in it, StyledropError if the hub cannot be reached.
    """
    found = find_adapter(upload.check_repository(repo), revision, file)
    return load_adapter(keep(found, name or repo.partition("/")[2], overwrite))


def _mixture(adapter: Adapters, thing: AnAdapter | None, gamma: float) -> StyleMix:
    shares = adapter.items() if isinstance(adapter, Mapping) else [(adapter, 1.0)] if adapter is not None else []
    return StyleMix(
        tuple((_read(file), share) for file, share in shares), _read(thing) if thing is not None else None, gamma
    )


def _read(adapter: AnAdapter) -> AdapterFile:
    if isinstance(adapter, AdapterFile):
        return adapter
    return load_adapter(library.find(adapter) if isinstance(adapter, str) else adapter)


# ---- the library of styles ----


def styles() -> list[str]:
    """The names of the styles in the library, in the order of the alphabet."""
    return library.names()


def load(adapter: str | Path) -> AdapterFile:
    """Read the style of that name in the library, or an adapter file; ModelError if it is neither, or is damaged."""
    return _read(adapter)


def save(adapter: AnAdapter, name: str, *, overwrite: bool = False) -> AdapterFile:
    """Keep an adapter in the library as ``name``, which then stands for its file everywhere; the one that is kept.

    Raises UsageError if the name is taken, unless ``overwrite``, or no style can have it; ModelError for what is no
    adapter, StyledropError if the library cannot be written.
    """
    return load_adapter(library.save(_read(adapter).path, name, overwrite))


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | Path) else list(given)
