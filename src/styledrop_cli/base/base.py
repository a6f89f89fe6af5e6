"""A base model in memory: its parts, and the way from prompts to conditions and from ids to pictures."""

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

from styledrop_cli.base.amused import Published, is_published, read_published
from styledrop_cli.base.folder import (
    Parts,
    load_module,
    load_text,
    read_text_tokenizer,
    refuse_misfits,
    refuse_other_text,
    text_part,
)
from styledrop_cli.base.hub import BUNDLED, POCKET, locate, name_of
from styledrop_cli.base.known_things import THINGS, KnownThings, Thing, read_things
from styledrop_cli.base.prompt_tokens import TextTokenizer, quoted, words
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.devices import autocast, cast_once, fast_bfloat16, generator
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import file_hash, read_text
from styledrop_cli.io.images import square, to_image, to_tensor
from styledrop_cli.io.tensors import read_config
from styledrop_cli.models.adapter import Adapter, at_strength
from styledrop_cli.models.clip import Clip
from styledrop_cli.models.head_clip import HeadClip
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.superres import SuperResTransformer
from styledrop_cli.models.tokenizer import EnlargedDecoder, ImageTokenizer, psnr
from styledrop_cli.models.transformer import Condition, MaskedTransformer, TransformerConfig
from styledrop_cli.sampling.decoding import LogitsFn, correct, decode
from styledrop_cli.sampling.guidance import Branch, Scales, guided, plausibility_filter, top_k_top_p
from styledrop_cli.settings import PUBLISHED, SampleSettings, TrainSettings

if TYPE_CHECKING:
    from PIL.Image import Image

# What upstream calls its parts.
PUBLISHED_PARTS = {"transformer": "transformer", "tokenizer": "vqvae", "clip": "text_encoder"}
CAST = "transformer in bfloat16"  # a part beside the others: half as large, and not upstream's numbers
ANOTHER_STREAM = 0x5DEECE66D  # so that super-resolution does not draw the base's random numbers again
BATCH = 8  # pictures
MOST_LISTED = 20_000  # lines of words, and of contents


def is_grid(ids: Tensor, side: int, codes: int) -> bool:
    """Whether these are whole ids ``[N,side,side]`` below ``codes``."""
    whole = not ids.is_floating_point() and ids.dtype != torch.bool and ids.shape[1:] == (side, side)
    return whole and bool(((ids >= 0) & (ids < codes)).all())


def micro_conditions(config: TransformerConfig, rows: int, device: torch.device, factor: int = 16) -> Tensor:
    """The values ``[B,5]`` that stand for a whole, uncropped picture (upstream's default aesthetic score is 6).

    ``factor`` is how many pixels of a side an id counts for: a published tokenizer's own, and 16 (aMUSEd's) with ours.
    """
    side = float(config.sample_size * factor)
    return torch.tensor([[side, side, 0.0, 0.0, 6.0]], device=device).expand(rows, 5)


def scales_of(settings: SampleSettings, lambda_a: float, lambda_b: float) -> Scales:
    """Guidance with these scales, as the rest of ``settings`` has it."""
    return Scales(
        lambda_a,
        lambda_b,
        settings.ramp,
        settings.plausible,
        settings.guidance_every,
        settings.guidance_from,
        settings.guidance_to,
    )


@dataclass(frozen=True)
class AdapterShare:
    """One of several that draw together: what it is told of each picture, and its share of the logits.

    Without an adapter it is the base.
    """

    adapter: Adapter | None
    prompts: Sequence[str]
    share: float = 1.0


# Nobody beside the base, one adapter that is told what the base is, or several, whose shares add up to 1.
AdapterOrShares = Adapter | Sequence[AdapterShare] | None


@dataclass(frozen=True)
class Reconstruction:
    """A picture as the tokenizer sees it: the square cut from it, its ids ``[H,W]``, and what they show."""

    original: Image
    ids: Tensor
    shown: Image
    psnr: float  # dB


@dataclass
class Base:
    """A base model, on one device. ``words``, ``contents`` and ``things`` are what it was taught, empty if unknown.

    ``schedule`` is that of its masks. A ``published`` base is large, and draws upstream's pictures: from the same seed
    the same noise, in upstream's order. On a CPU it keeps in memory what a step needs, and nothing else.
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
    published: Published | None = None

    @property
    def transformer(self) -> MaskedTransformer:
        network: MaskedTransformer = self.parts.get("transformer")
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
        return TextEncoder(self.parts.get("text" if "text" in self.parts.loaders else "clip"), self.text_tokenizer)

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
        rest = {name: load for name, load in self.parts.loaders.items() if name not in networks}
        return replace(self, parts=Parts(rest | Parts.of(**networks).loaders))

    def done_with(self, name: str) -> None:
        """Free the memory of a network that the next step does not need, where it can be had again for nothing."""
        if self.published is not None and self.device.type == "cpu" and self.published.is_mapped(PUBLISHED_PARTS[name]):
            self.parts.release(name)

    def arithmetic(self, precision: str = "fp32") -> AbstractContextManager[object]:
        """In what ``precision`` to draw a published base: on a card in bfloat16 always; all else is drawn in fp32."""
        small = precision == "bf16" or self.device.type != "cpu"
        return autocast(self.device, enabled=self.published is not None and small)

    @property
    def batch(self) -> int:
        """How many pictures to draw at once: beyond one, a large base on a CPU gains nothing but waiting."""
        return 1 if self.published is not None and self.device.type == "cpu" else BATCH

    def sampling(self, **given: Any) -> SampleSettings:
        """How this base draws best, at its smallest size, with what is ``given`` in its place.

        A ``temperature`` is given for the order in which it has a say, unless another ``order`` is given too.
        """
        suits = PUBLISHED["sampling"] if self.published is not None else {}
        if "temperature" in given:
            suits = suits | {"order": "confidence"}
        return SampleSettings(**(suits | {"size": self.sizes[0]} | given))

    def training(self, kind: str = TrainSettings.kind, **given: Any) -> TrainSettings:
        """How an adapter of this ``kind`` is trained best on this base, with what is ``given`` in its place."""
        suits = PUBLISHED["training"] | PUBLISHED.get(kind, {}) if self.published is not None else {}
        return TrainSettings.of(kind, **(suits | given))

    @cached_property
    def hash(self) -> str:
        """What an adapter was trained on: sha256 of the transformer's weights, or a published one's fingerprint."""
        if self.published is not None:
            return self.published.fingerprint()
        return file_hash(self.folder / "transformer.safetensors")

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
        return self._sizes("transformer").codebook_size

    @property
    def grid(self) -> int:
        """Ids along a side."""
        return self._sizes("transformer").sample_size

    def _sizes(self, part: str) -> TransformerConfig:
        if self.published is not None:
            return self.published.transformer
        sizes: TransformerConfig = self.parts.get(part).config
        return sizes

    @property
    def sizes(self) -> tuple[int, ...]:
        """The picture sides, in pixels, that this base draws: the tokenizer's own and, with ours, twice that."""
        if self.published is not None:
            return (self.published.transformer.sample_size * self.published.tokenizer.factor,)
        small = self.grid * self.tokenizer.config.factor
        return small, 2 * small

    @cached_property
    def known(self) -> KnownThings:
        """What the base was taught, and how it reads the names of other things."""

        def summarise(texts: list[str]) -> Tensor:
            return self.text.encode(texts)[1]

        return KnownThings(self.things, self.words, summarise)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the base was never taught, each once, in order."""
        return self.known.unknown(text)

    def remarks(self, texts: Sequence[str], learnt: str = "", so: str = "it may draw something else") -> list[str]:
        """What a person should know before the base draws ``texts``: the words it was never taught, and what it does.

        None of it is said of words that were ``learnt`` since; ``so`` says what follows from those it does not place.
        """
        said = set(words(learnt))
        unknown = [word for word in self.unknown_words(" ".join(texts)) if word not in said]
        if not unknown:
            return []
        made, placed = [], set()
        for reading in map(self.known.read, dict.fromkeys(texts)):
            for word, name in reading.instead.items():
                if word.lower() in unknown and word.lower() not in placed:
                    made.append(f"{self.name} was never taught '{word}'; it draws what is nearest: {name}")
                placed.add(word.lower())
            for word, names in reading.nearest.items():
                if word.lower() in unknown and word.lower() not in placed:
                    nearest = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
                    made.append(
                        f"{self.name} was never taught '{word}', and nothing that it knows is near; say {nearest}"
                    )
                placed.add(word.lower())
        if rest := [word for word in unknown if word not in placed]:
            made.append(f"{self.name} does not know {quoted(rest)}; {so}")
        return made

    @torch.no_grad()
    def text_states(
        self, prompts: list[str], network: MaskedTransformer | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``B`` prompts for ``network.condition``: text ``[B,T,E]``, summary ``[B,P]``, micro ``[B,5]``."""
        text, pooled = self.text.encode([self.known.read(prompt).text for prompt in prompts])
        sizes = (network or self.transformer).config
        factor = self.published.tokenizer.factor if self.published is not None else 16
        return text, pooled, micro_conditions(sizes, len(prompts), self.device, factor)

    @torch.no_grad()
    def condition(self, prompts: list[str], adapter: Adapter | None = None) -> Condition:
        """What ``B`` prompts contribute to every step."""
        with self.arithmetic():
            return self.transformer.condition(*self.text_states(prompts), adapter)

    @torch.no_grad()
    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        settings: SampleSettings,
        adapter: AdapterOrShares = None,
        on_step: Callable[[int, Tensor], None] | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Draw one grid of ids a prompt, ``[B,H,W]``; each depends on its own prompt and seed alone.

        Where ``ids`` ``[B,H,W]`` are given, only those that are ``mask_id`` are drawn. With ``settings.correct`` what
        was drawn is looked at once more, see ``sampling.decoding.correct``.
        """
        with self.arithmetic(settings.precision):
            made = self._decode("transformer", ids, self._guided(prompts, settings, adapter), seeds, settings, on_step)
            if not settings.correct:
                return made
            drawn = torch.ones_like(made, dtype=torch.bool) if ids is None else ids == self.mask_id
            anew = self._guided(prompts, replace(settings, guidance_every=1), adapter)  # what was held is of other ids
            return correct(made, drawn, anew, mask_id=self.mask_id, below=settings.correct)

    @property
    def mask_id(self) -> int:
        """The id of what is yet to be drawn."""
        return self._sizes("transformer").mask_id

    def guide(self, prompts: Sequence[str], settings: SampleSettings, adapter: AdapterOrShares = None) -> LogitsFn:
        """What ``sample`` asks at each step, good for one drawing of ``B`` prompts; see ``sampling.decoding``."""
        return _likeliest(self._guided(prompts, settings, adapter), settings)

    def _guided(self, prompts: Sequence[str], settings: SampleSettings, adapter: AdapterOrShares) -> LogitsFn:
        """``guide`` before tokens are left out by their rank."""
        scales = scales_of(settings, settings.lambda_a, settings.lambda_b)
        return self._guide("transformer", None, prompts, settings, scales, adapter)

    @torch.no_grad()
    def refine(
        self,
        ids: Tensor,
        prompts: list[str],
        seeds: list[int],
        settings: SampleSettings,
        adapter: AdapterOrShares = None,
    ) -> Tensor:
        """Ids ``[B,h,w]`` as ``sample`` draws them to those of the larger picture, ``[B,H,W]``, by super-resolution.

        ``adapter`` is the super-resolution transformer's own. Raises ValueError if the base has no such transformer.
        """
        if self.superres is None:
            raise ValueError(f"{self.name} has no super-resolution transformer")
        scales = scales_of(settings, settings.superres_lambda_a, settings.superres_lambda_b)
        # What is seen small is drawn surest first, and held to what is likely by `superres_plausible` alone.
        settings = replace(settings, steps=settings.superres_steps, order="confidence", top_k=0, top_p=1.0)
        with self.arithmetic():
            guide = self._guide("superres", ids, prompts, settings, scales, adapter)

            def sharp(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
                made = guide(ids, masked, progress)
                return plausibility_filter(made, [made], settings.superres_plausible)

            return self._decode("superres", None, sharp, [seed ^ ANOTHER_STREAM for seed in seeds], settings)

    def _guide(
        self,
        part: str,
        low_res: Tensor | None,
        prompts: Sequence[str],
        settings: SampleSettings,
        scales: Scales,
        adapter: AdapterOrShares,
    ) -> LogitsFn:
        network: MaskedTransformer = self.parts.get(part)

        def condition(
            texts: Sequence[str], adapter: Adapter | None = None, scaled: AdapterFn | None = None
        ) -> Condition:
            distinct = list(dict.fromkeys(texts))
            rows = torch.tensor([distinct.index(text) for text in texts], device=self.device)
            reader = scaled if adapter is not None and adapter.reads_text else None
            made = network.condition(*self.text_states(distinct, network), reader).select(rows)
            if low_res is None:
                return made
            assert isinstance(network, SuperResTransformer)
            return network.beside(made, low_res, scaled)

        prompt = condition(prompts)
        branches = []
        shares = [AdapterShare(adapter, prompts)] if isinstance(adapter, Adapter) else adapter or ()
        for one in shares:
            who = one.adapter
            scaled = at_strength(who, settings.strength) if who is not None else None
            # Where an adapter has no say in what is computed beforehand, it shares what the base has.
            apart = who is not None and scaled is not None and (who.reads_text or low_res is not None)
            own = apart or list(one.prompts) != list(prompts)
            heard = condition(one.prompts, who, scaled) if own else prompt
            branches.append(Branch(heard, scaled, one.share))
        if all(branch.adapter is None and branch.condition is prompt for branch in branches):
            branches = []  # at strength 0 the base is alone
        negative = condition([settings.negative] * len(prompts))
        # What only prompts need is read no more: in mapped files a seventh of the transformer, and all of the encoder.
        self.done_with("clip")
        self.done_with(part)
        del network, condition
        cast = settings.precision == "bf16" and CAST in self.parts.loaders and fast_bfloat16(self.device)
        network = self.parts.get(CAST if cast else part)
        return guided(network, prompt, negative, branches, scales)

    def _decode(
        self,
        part: str,
        ids: Tensor | None,
        guide: LogitsFn,
        seeds: Sequence[int],
        settings: SampleSettings,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Ids ``[B,H,W]``, drawn where ``ids`` are masked, or everywhere."""
        sizes = self._sizes(part)
        if ids is None:
            ids = torch.full((len(seeds), sizes.sample_size, sizes.sample_size), sizes.mask_id, device=self.device)
        return decode(
            ids,
            _likeliest(guide, settings),
            mask_id=sizes.mask_id,
            steps=settings.steps,
            temperature=settings.temperature,
            generator=[generator(seed) for seed in seeds],
            schedule=self.schedule,
            noise=settings.noise,
            order=settings.order,
            on_step=on_step,
        )

    @torch.no_grad()
    def reconstruct(self, image: Image) -> Reconstruction:
        """Turn the middle square of a picture into ids and back.

        The quality is measured at the tokenizer's own resolution; what is shown is as large as the base draws.
        """
        picture = to_tensor(square(image, self.sizes[0]))[None].to(self.device)
        ids = self.tokenizer.encode(picture)
        quality = psnr(self.tokenizer.decode(ids), picture)
        shown = to_image(self.pictures(ids, self.sizes[-1])[0].cpu())
        return Reconstruction(square(image, self.sizes[-1]), ids[0].cpu(), shown, quality)

    @torch.no_grad()
    def pictures(self, ids: Tensor, size: int) -> Tensor:
        """Ids ``[B,H,W]`` to pictures ``[B,3,size,size]`` in [0,1]; ``size`` is one of ``sizes``.

        The larger one is that of ``refine``'s ids; for ``sample``'s it is made by the enlarged decoder, or
        interpolated where the base has none.
        """
        if size == ids.shape[-1] * self.tokenizer.config.factor:
            return self.tokenizer.decode(ids)
        if self.decoder is not None:
            return self.decoder.decode(ids, self.tokenizer.quantize.embedding.weight)
        small = self.tokenizer.decode(ids)
        return F.interpolate(small, scale_factor=2, mode="bicubic", align_corners=False).clamp(0, 1)


def _likeliest(guide: LogitsFn, settings: SampleSettings) -> LogitsFn:
    """What ``guide`` says of the tokens that are drawn at all, by their rank."""

    def likeliest(ids: Tensor, masked: Tensor, progress: float) -> Tensor:
        return top_k_top_p(guide(ids, masked, progress), settings.top_k, settings.top_p)

    return likeliest


def load_base(model: str, device: torch.device) -> Base:
    """Load ``pocket``, the bundled base, a model folder made by ``styledrop pretrain``, or a published one.

    A published one is a folder, ``amused-256``, ``amused-512`` or ``owner/name`` on the hub, which is fetched if it is
    not here (see ``hub.locate``); its networks are loaded when they are first used. Raises ModelError if there is no
    such model or a part of it is missing or broken, StyledropError if it cannot be fetched.
    """
    folder = POCKET if model == BUNDLED else locate(model)
    return _published(folder, device) if is_published(folder) else _ours(folder, device)


def _ours(folder: Path, device: torch.device) -> Base:
    config, own = read_config(folder), text_part(folder)
    wanted = {own, "clip", "transformer", "tokenizer"} | ({"decoder", "superres"} & set(config["parts"]))
    networks = {part: load_module(folder, part).to(device) for part in sorted(wanted)}
    refuse_misfits(folder, **{part: network.config for part, network in networks.items()})
    return Base(
        name=str(config.get("name", folder.name)),
        folder=folder,
        parts=Parts.of(**networks),
        text_tokenizer=read_text_tokenizer(folder, networks[own].config),
        device=device,
        words=frozenset(_listed(folder / "words.txt")),
        contents=_listed(folder / "contents.txt"),
        things=read_things(folder / THINGS),
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
        words=frozenset(_listed(folder / "words.txt")),
        things=read_things(folder / THINGS),
    )


def _listed(path: Path) -> list[str]:
    """The lines of a file, none where there is none."""
    try:
        lines = read_text(path).splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if len(lines) > MOST_LISTED:
        raise ModelError(f"{path} has {len(lines):,} lines, and at most {MOST_LISTED:,} are read")
    return lines


def _published(folder: Path, device: torch.device) -> Base:
    read = read_published(folder)
    refuse_misfits(folder, read.transformer, read.tokenizer, read.clip)

    def load(part: str) -> nn.Module:
        network = read.load(part)
        if isinstance(network, MaskedTransformer) and device.type != "cpu":
            network = cast_once(network, device)  # the image tokenizer stays in fp32, as upstream has it
        return network.to(device)

    def load_cast() -> nn.Module:
        network = read.load("transformer")
        assert isinstance(network, MaskedTransformer)
        return cast_once(network, device).to(device)

    return Base(
        name=name_of(folder),
        folder=folder,
        parts=Parts({name: partial(load, part) for name, part in PUBLISHED_PARTS.items()} | {CAST: load_cast}),
        text_tokenizer=read.text_tokenizer,
        device=device,
        schedule=read.schedule,
        published=read,
    )
