"""A base model on a device: its networks, and the way from prompts to conditions and from ids to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.base import sample as drawing
from styledrop_cli.base.download import locate
from styledrop_cli.base.folder import Opened, Part, Parts, load_text, open_ours, refuse_other_text
from styledrop_cli.base.hub import split
from styledrop_cli.base.known_things import THINGS, KnownThings, Thing, read_lines, read_things
from styledrop_cli.base.prompt_tokens import TextTokenizer
from styledrop_cli.base.published import is_published, open_published
from styledrop_cli.base.registry import BATCH, BUNDLED, OURS, POCKET, BaseSpec
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.devices import autocast, cast_once, fast_bfloat16, is_large
from styledrop_cli.errors import UsageError
from styledrop_cli.io.images import square, to_image, to_tensor
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.models.clip import Clip
from styledrop_cli.models.head_clip import HeadClip
from styledrop_cli.models.superres import SuperResTransformer
from styledrop_cli.models.tokenizer import EnlargedDecoder, ImageTokenizer, edges_kept, enlarged, psnr
from styledrop_cli.models.transformer import Condition, TokenTransformer, TransformerConfig
from styledrop_cli.sampling.masking import step_told
from styledrop_cli.settings import STYLE_LAYERS, SampleSettings, TrainSettings, preset_values

if TYPE_CHECKING:
    from PIL.Image import Image

AESTHETIC = 6.0  # the score that all pictures are told to have: upstream's default


def is_grid(ids: Tensor, side: int, codes: int) -> bool:
    """Whether these are whole ids ``[N,side,side]`` below ``codes``."""
    whole = not ids.is_floating_point() and ids.dtype != torch.bool and ids.shape[1:] == (side, side)
    return whole and bool(((ids >= 0) & (ids < codes)).all())


def micro_conditions(config: TransformerConfig, rows: int, device: torch.device, factor: int | None = None) -> Tensor:
    """What ``B`` whole, uncropped pictures are told to be, ``[B,5]``: width, height, crop left and top, and score.

    ``factor`` is how many pixels of a side an id stands for in them, that of our own bases if it is not given.
    """
    side = float(config.sample_size * (factor or OURS.told_factor or 1))
    return torch.tensor([[side, side, 0.0, 0.0, AESTHETIC]], device=device).expand(rows, 5)


@dataclass(frozen=True)
class Reconstruction:
    """A picture as the tokenizer sees it: the square cut from it, its ids ``[H,W]``, and what they show.

    ``psnr`` in dB says how near the pixels are, ``edges`` how much of its edges is left (``tokenizer.edges_kept``).
    """

    original: Image
    ids: Tensor
    shown: Image
    psnr: float
    edges: float


@dataclass
class Base:
    """A base model, on one device. ``words``, ``contents`` and ``things`` are what it was taught, empty if unknown.

    ``schedule`` is that of its masks, ``spec`` its row in the registry, ``text_encoder`` the name of the one that it
    reads with where there is a choice. Of parts whose files are mapped, it keeps in
    memory what a step needs, and nothing else.
    """

    name: str
    folder: Path
    parts: Parts
    text_tokenizer: TextTokenizer
    device: torch.device
    words: frozenset[str] = frozenset()
    contents: list[str] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    schedule: str = "cosine"
    spec: BaseSpec = OURS
    fingerprint: Callable[[], str] = lambda: ""
    text_encoder: str = ""

    @property
    def transformer(self) -> TokenTransformer:
        network: TokenTransformer = self.parts.get("transformer")
        return network

    @property
    def tokenizer(self) -> ImageTokenizer:
        network: ImageTokenizer = self.parts.get("tokenizer")
        return network

    @property
    def clip(self) -> Clip | HeadClip:
        network: Clip | HeadClip = self.parts.get("clip")
        return network

    @property
    def text(self) -> TextEncoder:
        """What reads the prompts: a part of its own or, where there is none, the CLIP's text tower."""
        return TextEncoder(self.parts.get("text" if "text" in self.parts else "clip"), self.text_tokenizer)

    @property
    def decoder(self) -> EnlargedDecoder | None:
        network: EnlargedDecoder | None = self.parts.get("decoder")
        return network

    @property
    def superres(self) -> SuperResTransformer | None:
        network: SuperResTransformer | None = self.parts.get("superres")
        return network

    def having(self, **networks: nn.Module | None) -> Base:
        """The same base with other ``networks``, by name; None leaves one out."""
        rest = {name: part for name, part in self.parts.known.items() if name not in networks}
        return replace(self, parts=Parts(rest | Parts.of(**networks).known))

    def done_with(self, name: str) -> None:
        """Free the memory of a network that the next step does not need, where that pays."""
        self.parts.release(name)
        if name == "transformer":
            self.parts.release(drawing.CAST)

    def arithmetic(self, precision: str = "fp32") -> AbstractContextManager[object]:
        """In what ``precision`` to draw: a base with ``spec.bfloat16`` on a card always in that, any other in fp32."""
        small = precision == "bf16" or self.device.type != "cpu"
        return autocast(self.device, enabled=self.spec.bfloat16 and small)

    @property
    def batch(self) -> int:
        """How many pictures to draw at once: one, on a card where not even the parts of the base have room together."""
        if self.device.type == "cpu":
            return self.spec.batch_on_cpu
        return 1 if self.spec.in_turn and not is_large(self.device) else BATCH

    def sampling(self, **given: Any) -> SampleSettings:
        """How this base draws best, at its smallest size, with what is ``given`` in its place.

        A ``temperature`` is given for the order in which it has a say, unless another ``order`` is given too.
        """
        order = {"order": "confidence"} if "temperature" in given else {}
        return SampleSettings(**{**self.spec.sampling, **order, "size": self.sizes[0], **given})

    def preset(self, name: str | None) -> dict[str, Any]:
        """What a preset changes on this base, nothing without a ``name``; UsageError for an unknown one."""
        return {**preset_values(name), **self.spec.presets.get(name or "", {})}

    def training(self, kind: str = TrainSettings.kind, **given: Any) -> TrainSettings:
        """How an adapter of this ``kind`` is trained best on this base, with what is ``given`` in its place.

        Raises UsageError where the layers that carry style are asked for, and were not measured on this base.
        """
        made = TrainSettings.of(kind, **{**self.spec.training, **self.spec.kinds.get(kind, {}), **given})
        if made.layers != STYLE_LAYERS:
            return made
        if not self.spec.style_layers:
            raise UsageError(
                f"which layers of {self.name} carry style was not measured",
                f"Say their numbers: --layers 1-{max(site.layer for site in self.transformer.sites)} are all.",
            )
        return replace(made, layers=self.spec.style_layers)

    @cached_property
    def hash(self) -> str:
        """The fingerprint of the transformer's weights: what an adapter was trained on."""
        return self.fingerprint()

    @property
    def identity(self) -> dict[str, str]:
        """What an adapter's file says of the base that it was trained on."""
        said = {"name": self.name, "hash": self.hash}
        return said | ({"text_encoder": self.text_encoder} if self.text_encoder else {})

    @cached_property
    @torch.no_grad()
    def content_embeds(self) -> Tensor:
        """``text_embeds`` of the things the base was taught, ``[len(contents),E]``."""
        return self.text_embeds(self.contents)

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """CLIP's summaries ``[B,E]`` of ``B`` texts, of length 1."""
        states, summary = self.text.encode([self.known.read(text).text for text in texts])
        clip = self.clip
        return F.normalize((clip.text_embeds(states) if isinstance(clip, HeadClip) else summary).float(), dim=-1)

    @torch.no_grad()
    def picture_embeds(self, pictures: Tensor) -> Tensor:
        """CLIP's summaries ``[B,E]`` of pictures ``[B,3,S,S]`` in [0,1] of any size, of length 1."""
        side = self.clip.config.image_size
        if pictures.shape[-2:] != (side, side):
            pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
        return F.normalize(self.clip.picture_embeds(pictures).float(), dim=-1)

    def chances(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Which of ``texts`` ``[T,E]`` each of ``pictures`` ``[B,E]`` shows, by CLIP: probabilities ``[B,T]``."""
        return (self.clip.logit_scale.exp() * pictures @ texts.T).softmax(-1)

    @property
    def codes(self) -> int:
        """How many ids there are."""
        return int(self.parts.config("transformer").codebook_size)

    @property
    def grid(self) -> int:
        """Ids along a side."""
        return int(self.parts.config("transformer").sample_size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The picture sides, in pixels, that this base draws: the tokenizer's own, then those that are enlarged."""
        return tuple(scale * self.grid * self.parts.config("tokenizer").factor for scale in self.spec.scales)

    @cached_property
    def known(self) -> KnownThings:
        """What the base was taught, and how it reads the names of other things."""

        def summarise(texts: list[str]) -> Tensor:
            return self.text.encode(texts)[1]

        asked = summarise if self.text.knows_english else None
        return KnownThings(self.things, self.words, asked, self.contents)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the base was never taught, each once, in order."""
        return self.known.unknown(text)

    def remarks(self, texts: Sequence[str], learnt: str = "", so: str = "it may draw something else") -> list[str]:
        """What a person should know before the base draws ``texts``: the words it was never taught, and what it does.

        None of it is said of words that were ``learnt`` since; ``so`` says what follows from those it does not place.
        """
        return self.known.remarks(self.name, texts, learnt, so)

    @torch.no_grad()
    def text_states(self, prompts: list[str], network: TokenTransformer | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """``B`` prompts for ``network.condition``: text ``[B,T,E]``, summary ``[B,P]``, micro ``[B,5]``."""
        text, pooled = self.text.encode([self.known.read(prompt).text for prompt in prompts])
        sizes = (network or self.transformer).config
        factor = self.spec.told_factor or self.parts.config("tokenizer").factor
        return text, pooled, micro_conditions(sizes, len(prompts), self.device, factor)

    @torch.no_grad()
    def condition(self, prompts: list[str], adapter: Adapter | None = None) -> Condition:
        """What ``B`` prompts contribute to every step."""
        with self.arithmetic():
            made: Condition = self.transformer.condition(*self.text_states(prompts), adapter)
            return made

    def told(self, left: float | Tensor, steps: int) -> float | Tensor:
        """What the network is told, drawing and learning alike, where so many of ``steps`` are ``left`` after one."""
        return step_told(left, steps, self.spec.told, self.schedule)

    def all_told(self, steps: int) -> list[float]:
        """What the network is told at each of ``steps``, the last first."""
        return [float(self.told(float(left), steps)) for left in range(steps)]

    @property
    def mask_id(self) -> int:
        """The id of what is yet to be drawn."""
        return int(self.parts.config("transformer").mask_id)

    # How tokens are drawn.
    sample = drawing.sample
    guide = drawing.guide
    refine = drawing.refine

    @torch.no_grad()
    def reconstruct(self, image: Image) -> Reconstruction:
        """Turn the middle square of a picture into ids and back.

        The quality is measured at the tokenizer's own resolution; what is shown is as large as the base draws.
        """
        picture = to_tensor(square(image, self.sizes[0]))[None].to(self.device)
        ids = self.tokenizer.encode(picture)
        small = self.tokenizer.decode(ids)
        shown = to_image(self.pictures(ids, self.sizes[-1])[0].cpu())
        original = square(image, self.sizes[-1])
        return Reconstruction(original, ids[0].cpu(), shown, psnr(small, picture), edges_kept(small, picture))

    @torch.no_grad()
    def pictures(self, ids: Tensor, size: int) -> Tensor:
        """Ids ``[B,H,W]`` to pictures ``[B,3,size,size]`` in [0,1]; ``size`` is one of ``sizes``.

        The larger one is that of ``refine``'s ids; for ``sample``'s it is made by the enlarged decoder, or
        interpolated where the base has none.
        """
        if size == ids.shape[-1] * self.tokenizer.config.factor:
            return self.tokenizer.decode(ids)
        enlarge = self.decoder or enlarged
        return enlarge(self.tokenizer.decode(ids)).clamp(0, 1)


def open_folder(folder: Path, text_encoder: str | None = None) -> Opened:
    """Read a model folder, published or ours; raises ModelError if a part of it is missing, broken or does not fit.

    ``text_encoder`` is the name of the one that a published one is to read with.
    """
    return open_published(folder, text_encoder) if is_published(folder) else open_ours(folder)


def load_base(model: str, device: torch.device) -> Base:
    """Load ``pocket``, the bundled base, a model folder made by ``styledrop pretrain``, or a published one.

    A published one is a folder, a name of the registry's or ``owner/name`` on the hub, which is fetched if it is not
    here (see ``download.locate``), and may name its text encoder, ``meissonic+bundled``; its networks are loaded when
    they are first used. Raises ModelError if there is no such model or a part of it is missing or broken,
    StyledropError if it cannot be fetched.
    """
    folder = POCKET if model == BUNDLED else locate(model)
    opened = open_folder(folder, split(model)[1])
    on_cpu = device.type == "cpu"

    def load(part: Part, cast: bool) -> nn.Module:
        network: Any = part.load(halved=cast and fast_bfloat16(device))
        placed: nn.Module = (cast_once(network, device) if cast else network).to(device)
        return placed

    # Where there is room for all parts of a base, none needs to be loaded again for each picture.
    in_turn = opened.spec.in_turn and not is_large(device)

    parts = {
        # On a card the transformer is in bfloat16; the image tokenizer stays in fp32, as upstream has it.
        name: Part(
            part.config,
            partial(load, part, opened.spec.bfloat16 and not on_cpu and name == "transformer"),
            part.mapped and on_cpu,
            in_turn,
        )
        for name, part in opened.parts.items()
    }
    if opened.spec.bfloat16:
        part = opened.parts["transformer"]
        parts[drawing.CAST] = Part(part.config, partial(load, part, True), in_turn=in_turn)
    return Base(
        name=opened.name,
        folder=folder,
        parts=Parts(parts),
        text_tokenizer=opened.text_tokenizer,
        device=device,
        words=frozenset(read_lines(folder / "words.txt")),
        contents=read_lines(folder / "contents.txt"),
        things=read_things(folder / THINGS),
        schedule=opened.schedule,
        spec=opened.spec,
        fingerprint=opened.fingerprint,
        text_encoder=opened.text_encoder,
    )


def load_judge(folder: Path, clip: HeadClip, device: torch.device) -> Base:
    """A base of a model folder that only looks at pictures, with this ``clip`` and the folder's text encoder.

    Raises ModelError if the encoder is missing or broken, or the ``clip`` reads the states of another.
    """
    text = load_text(folder, device)
    refuse_other_text(folder, clip.config, text.width)
    return Base(
        name=folder.name,
        folder=folder,
        parts=Parts.of(clip=clip.to(device), text=text.network),
        text_tokenizer=text.tokenizer,
        device=device,
        words=frozenset(read_lines(folder / "words.txt")),
        things=read_things(folder / THINGS),
    )
