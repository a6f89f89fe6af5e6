"""styledrop from Python: the commands' work as calls, for scripts and notebooks.

    from styledrop_cli import StyleDrop

    styledrop = StyleDrop.load()
    adapter = styledrop.train("ref.png", style="watercolor")
    for picture in styledrop.generate(["a cat", "a teapot"], adapter, number=4):
        picture.save("pictures")

Nothing is printed, and nothing is guessed from the surroundings: what a command takes from options is an argument
here. What goes wrong is a ``StyledropError``, whose ``hint`` says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from styledrop_cli.base import Base, load_base
from styledrop_cli.batches import Batch, about, about_mixture
from styledrop_cli.checkpoints import AdapterFile, load_adapter
from styledrop_cli.devices import pick_device
from styledrop_cli.errors import UsageError
from styledrop_cli.pipeline import GAMMA, Mixture, Wanted, check_size, draw
from styledrop_cli.prompts import stem
from styledrop_cli.settings import preset_values
from styledrop_cli.tuning import train_adapter

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
    ramp: bool
    plausible: float
    top_k: int
    top_p: float
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


class Training(TypedDict, total=False):
    """How an adapter is trained; what is left out is what fits its kind. See ``settings.TrainSettings``."""

    learn: str
    steps: int
    lr: float
    batch_size: int
    width: int
    shared: bool
    targets: tuple[str, ...]
    views: int
    seed: int
    checkpoints: int
    last: bool
    lambda_a: float
    lambda_b: float


@dataclass(frozen=True)
class Picture:
    """One picture, and everything it takes to draw it again in ``about``."""

    image: Image
    prompt: str
    seed: int
    about: dict[str, Any]

    def save(self, folder: str | Path = ".", name: str = "{prompt}-{seed}") -> Path:
        """Write it into ``folder`` as PNG, atomically, with ``about`` inside; the path.

        ``name`` is a pattern of {prompt}, {seed} and {style}. Another picture of that name is kept, and this one is
        called name-2. Raises StyledropError if it cannot be written.
        """
        called = stem(name, prompt=self.prompt, seed=self.seed, index=1, style=str(self.about["style"]))
        return Batch(Path(folder), [called], [self.about].__getitem__).save(0, self.image)


class StyleDrop:
    """A base model in memory, and what can be done with it."""

    def __init__(self, base: Base) -> None:
        self.base = base

    @classmethod
    def load(cls, model: str = "pocket", device: str = "auto") -> StyleDrop:
        """Load a base model: ``pocket``, ``amused-256``, ``amused-512``, a folder, or owner/name on the hub.

        ``device`` is auto, cpu, cuda or mps. Raises ModelError if there is no such model or it is broken, DeviceError
        if there is no such device, StyledropError if a published model is not here and cannot be fetched.
        """
        return cls(load_base(model, pick_device(device)))

    def train(
        self,
        pictures: str | Path | Sequence[str | Path],
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

        ``contents`` says what each picture shows; left out, it is guessed and told to ``on_message``. With
        ``learn="object"`` the object is learnt that ``contents`` names, and no style. ``on_step`` is told step, steps
        and loss. Stopped at any moment, the same call goes on, unless ``fresh``.

        Raises PictureError for a picture that cannot be read, UsageError for settings that do not fit.
        """
        paths = [Path(one) for one in _listed(pictures)]
        learnt = train_adapter(
            self.base,
            pictures=paths,
            style=style,
            contents=_listed(contents) if contents is not None else None,
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

        ``adapter`` is a file, several with their shares (``{"ink.safetensors": 0.6, "gold.safetensors": 0.4}``), or
        None for the base alone. ``thing`` is an object's adapter, whose share of the whole is ``gamma`` in [0,1].
        ``style`` replaces the adapters' own words, empty it leaves them out. ``on_step`` is told what share in [0,1] of
        all steps is taken.

        Raises ModelError for a file that is no adapter or belongs to another base, UsageError for settings out of
        range, prompts that say nothing, and shares that do not add up to 1.
        """
        mixture = _mixture(adapter, thing, gamma)
        texts = _listed(prompts)
        if not texts or not all(text.strip() for text in texts) or number < 1:
            raise UsageError("there is nothing to draw", "Give prompts that say something, and a number of 1 or more.")
        usual = {"size": self.base.sizes[-1]} | mixture.recommended | preset_values(preset)
        made = self.base.sampling(**(usual | dict(settings)))
        wanted = [
            Wanted(mixture.cut(self.base, text, style), seed + i, made, style) for text in texts for i in range(number)
        ]
        drawn_by = about_mixture(self.base, mixture)
        check_size(self.base, made)
        return (
            Picture(image, wanted[index].prompt, wanted[index].seed, about(wanted[index], mixture, drawn_by))
            for index, image in draw(self.base, mixture, wanted, on_step)
        )


def _mixture(adapter: Adapters, thing: AnAdapter | None, gamma: float) -> Mixture:
    shares = adapter.items() if isinstance(adapter, Mapping) else [(adapter, 1.0)] if adapter is not None else []
    return Mixture(
        tuple((_read(file), share) for file, share in shares), _read(thing) if thing is not None else None, gamma
    )


def _read(adapter: AnAdapter) -> AdapterFile:
    return adapter if isinstance(adapter, AdapterFile) else load_adapter(Path(adapter))


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | Path) else list(given)
