"""A base model of a few thousand weights, and what else the tests of the core share."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from amused_folder import save_published
from conftest import draw
from styledrop_cli.adapters.header import KEY, AdapterFile
from styledrop_cli.base import base as base_module
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.known_things import THINGS, Thing, write_things
from styledrop_cli.base.prompt_tokens import write_merges
from styledrop_cli.feedback import rounds
from styledrop_cli.generation import pipeline
from styledrop_cli.io.files import write_json
from styledrop_cli.io.tensors import read_tensors, save_part, save_tensors
from styledrop_cli.models.adapter import KINDS, Adapter
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.head_clip import HeadClip, HeadClipConfig
from styledrop_cli.models.meissonic import MeissonicConfig, MeissonicTransformer
from styledrop_cli.models.sentence_bert import SentenceBert, SentenceBertConfig
from styledrop_cli.models.superres import SuperResConfig, SuperResTransformer
from styledrop_cli.models.tokenizer import EnlargedConfig, EnlargedDecoder, ImageTokenizer, TokenizerConfig
from styledrop_cli.models.transformer import Condition, MaskedTransformer, TransformerConfig
from styledrop_cli.settings import RoundSettings, SampleSettings, seeds_from
from styledrop_cli.training.pretrain import clip as clip_part
from styledrop_cli.training.pretrain import text as text_part
from styledrop_cli.training.pretrain import tokenizer as tokenizer_part
from styledrop_cli.training.pretrain import transformers as transformer_part

CPU = torch.device("cpu")
torch.set_num_threads(1)  # tensors this small make more threads wait for each other
_KEPT: list[torch.library.Library] = []  # a schema lives as long as its library

# Pocket's shape with every addition on: 16 px are 4x4 ids, which the enlarged decoder shows at 32 px.
TOKENIZER = TokenizerConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    latent_channels=8,
    vq_embed_dim=3,
    num_vq_embeddings=24,
    norm_num_groups=4,
    patch_size=2,
    linear_path=True,
    levels=(4, 3, 2),
)
ENLARGED = EnlargedConfig(channels=8, blocks=1)
TRANSFORMER = TransformerConfig(
    codebook_size=24,
    vocab_size=25,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=48,
    in_channels=16,
    block_out_channels=24,
    num_res_blocks=1,
    block_num_heads=2,
    encoder_hidden_size=16,
    cond_embed_dim=16,
    micro_cond_encode_dim=4,
    micro_cond_embed_dim=20,
    sample_size=4,
    downsample=True,
    upsample=True,
    positions=2,
)
SUPERRES = SuperResConfig(
    **(asdict(TRANSFORMER) | {"sample_size": 8, "positions": 4}),
    low_res_codebook_size=24,
    low_res_size=4,
    low_res_layers=2,
    low_res_context=False,
)
MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>"), ("i", "n</w>")]
CLIP = ClipConfig(
    embed_dim=16,
    vocab_size=2 * 256 + len(MERGES) + 2,
    context_length=32,
    text_width=16,
    text_heads=2,
    text_layers=2,
    image_size=16,
    patch_size=8,
    image_width=16,
    image_heads=2,
    image_layers=1,
)
# Words that a text encoder knows, and letters to spell all others in.
PIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
    *"abcdefghijklmnopqrstuvwxyz,",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *("cat", "dog", "house", "corgi", "watercolor", "style", "in", "red", "blue"),
]
BERT = SentenceBertConfig(vocab_size=len(PIECES), context_length=16, width=16, heads=2, layers=2, inner=24)
HEAD = HeadClipConfig(
    text_width=16,
    embed_dim=8,
    head_width=8,
    head_layers=1,
    head_heads=2,
    image_size=16,
    stages=2,
    pooled=1,
    image_width=8,
)
# The published layout's: nothing that upstream does not have. 16 px are 8x8 ids.
PUBLISHED_TOKENIZER = replace(TOKENIZER, vq_embed_dim=8, patch_size=1, linear_path=False, levels=())
PUBLISHED_TRANSFORMER = replace(
    TRANSFORMER,
    vocab_size=32,
    hidden_size=128,
    intermediate_size=768,
    sample_size=8,
    downsample=False,
    upsample=False,
    positions=0,
)
_TEXT = ("embed_dim", "vocab_size", "context_length", "text_width", "text_heads", "text_layers")
PUBLISHED_CLIP = ClipConfig(**{name: getattr(CLIP, name) for name in _TEXT}, quick_gelu=True)
# Meissonic's, compressing; 16 px are 8x8 ids, of which attention sees 4x4.
MEISSONIC = MeissonicConfig(
    codebook_size=64,
    vocab_size=72,
    num_layers=2,
    num_single_layers=4,
    attention_head_dim=16,
    num_attention_heads=4,
    joint_attention_dim=24,
    pooled_projection_dim=64,
    axes_dims_rope=(4, 6, 6),
    sample_size=8,
)
PUBLISHED_MEISSONIC = replace(
    MEISSONIC,
    codebook_size=PUBLISHED_TOKENIZER.num_vq_embeddings,
    vocab_size=PUBLISHED_TOKENIZER.num_vq_embeddings + 8,
    joint_attention_dim=PUBLISHED_CLIP.text_width,
    pooled_projection_dim=PUBLISHED_CLIP.embed_dim,
    attention_head_dim=8,
    num_attention_heads=PUBLISHED_CLIP.embed_dim // 8,
    axes_dims_rope=(2, 2, 4),
)
WORDS = ("cat", "dog", "red", "watercolor")
CONTENTS = ("a cat", "a dog", "a house", "a red cat", "a teapot", "a tree")


@dataclass(frozen=True)
class QuickSampleSettings(SampleSettings):
    steps: int = 2


@dataclass(frozen=True)
class QuickRoundSettings(RoundSettings):
    per_prompt: int = 2
    steps: int = 2


def shrink_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps a picture, and few pictures to compare by: for tests of the way, not of the pictures."""
    monkeypatch.setattr(base_module, "SampleSettings", QuickSampleSettings)
    monkeypatch.setattr(rounds, "GRADED_EACH", 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Draw every weight that learns anew, so that all have a say: those too that start as ones and zeros."""
    draws = generator(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or name == "logit_scale":
                continue
            scale = 0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draws))
            if parameter.ndim < 2 and name.endswith("weight"):  # a norm's
                parameter.add_(1)


def transformer(config: TransformerConfig = TRANSFORMER, seed: int = 0) -> MaskedTransformer:
    made = MaskedTransformer(config)
    randomise(made, seed)
    return made.requires_grad_(False).eval()


def condition(network: MaskedTransformer, rows: int, seed: int = 0) -> Condition:
    """Made-up prompts."""
    draws, config = generator(seed), network.config
    text = torch.randn(rows, 7, config.encoder_hidden_size, generator=draws)
    pooled = torch.randn(rows, config.cond_embed_dim, generator=draws)
    return network.condition(text, pooled, torch.tensor([[256.0, 256, 0, 0, 6]]).expand(rows, 5))


def ids(config: TransformerConfig, rows: int, seed: int = 0, share: float = 0.5) -> torch.Tensor:
    """Grids ``[rows,S,S]`` of which about ``share`` is masked."""
    draws, side = generator(seed), config.sample_size
    known = torch.randint(config.codebook_size, (rows, side, side), generator=draws)
    return known.masked_fill(torch.rand(known.shape, generator=draws) < share, config.mask_id)


def fresh_adapter(kind: str = "bottleneck", **config: Any) -> Adapter:
    """An adapter as a training starts with it."""
    make, sizes = KINDS[kind]
    made = make(sizes(**config), transformer())
    made.initialise(generator(1))
    return made


def adapter(kind: str = "bottleneck", **config: Any) -> Adapter:
    """An adapter that does something."""
    made = fresh_adapter(kind, **config)
    randomise(made, 1)
    return made.requires_grad_(False)


def write_adapter(path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, Any], **more: str) -> None:
    """An adapter file whose header says just that, be it wrong; ``more`` is metadata beside it."""
    save_tensors(path, tensors, {"format": "pt", KEY: json.dumps(said, ensure_ascii=False), **more})


def superres_network(config: SuperResConfig = SUPERRES, seed: int = 0) -> SuperResTransformer:
    made = SuperResTransformer(config)
    randomise(made, seed)
    return made.requires_grad_(False).eval()


def write_base(folder: Path, *, decoder: bool = True, superres: bool = False, seed: int = 0) -> Path:
    """A whole model folder of random weights."""
    tokenizer = ImageTokenizer(TOKENIZER)
    enlarged = EnlargedDecoder(ENLARGED)
    clip = Clip(CLIP)
    for module in (tokenizer, enlarged, clip):
        randomise(module, seed)
    save_part(folder, "tokenizer", tokenizer, TOKENIZER)
    save_part(folder, "clip", clip, CLIP)
    save_part(folder, "transformer", transformer(seed=seed), TRANSFORMER)
    if superres:
        save_part(folder, "superres", superres_network(seed=seed), SUPERRES)
    if decoder:
        save_part(folder, "decoder", enlarged, ENLARGED)
    write_merges(folder / "merges.txt", MERGES)
    (folder / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (folder / "contents.txt").write_text("\n".join(CONTENTS), encoding="utf-8")
    return folder


def spoil(path: Path, name: str, value: float, dtype: torch.dtype | None = None) -> None:
    """Put a value into a tensor of a safetensors file that this project would not write there."""
    tensors, metadata = read_tensors(path)
    tensors[name] = tensors[name].to(dtype or tensors[name].dtype, copy=True)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata)


def sentence_bert(config: SentenceBertConfig = BERT, seed: int = 0) -> SentenceBert:
    made = SentenceBert(config)
    randomise(made, seed)
    return made.requires_grad_(False).eval()


def write_words(folder: Path, things: Sequence[Thing] = ()) -> Path:
    """A whole model folder that reads with a sentence encoder of random weights, and what it was taught."""
    write_base(folder)
    clip = HeadClip(HEAD)
    randomise(clip)
    save_part(folder, "text", sentence_bert(), BERT, eight_bits=True)
    save_part(folder, "clip", clip, HEAD)
    save_part(folder, "scorer", clip, HEAD)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (folder / "merges.txt").unlink()
    write_things(folder / THINGS, things)
    return folder


def write_published(folder: Path, *, half: bool = False, seed: int = 0) -> Path:
    """A folder of random weights as aMUSEd's are published; ``half`` in fp16."""
    tokenizer, clip = ImageTokenizer(PUBLISHED_TOKENIZER), Clip(PUBLISHED_CLIP)
    for module in (tokenizer, clip):
        randomise(module, seed)
    save_published(folder, transformer(PUBLISHED_TRANSFORMER, seed), tokenizer, clip, MERGES, half=half)
    return folder


def write_meissonic(folder: Path, library: str = "transformer", *, half: bool = False, **changed: Any) -> Path:
    """A folder of random weights as Meissonic's are published; ``half`` in fp16.

    ``changed`` is said by the transformer's config; of it, only what makes the grid is also so in the weights.
    """
    tokenizer, clip = ImageTokenizer(PUBLISHED_TOKENIZER), Clip(replace(PUBLISHED_CLIP, quick_gelu=False))
    shape = ("downsample", "upsample", "sample_size")
    network = MeissonicTransformer(
        replace(PUBLISHED_MEISSONIC, **{name: changed[name] for name in shape if name in changed})
    )
    for module in (tokenizer, clip, network):
        randomise(module)
    save_published(folder, network, tokenizer, clip, MERGES, half=half)
    config, index = folder / "transformer/config.json", folder / "model_index.json"
    write_json(config, json.loads(config.read_text()) | changed)
    write_json(index, json.loads(index.read_text()) | {"transformer": [library, "Transformer2DModel"]})
    return folder


# The published families, by name, each with what writes a tiny folder of it.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "amused": write_published,
    "meissonic": write_meissonic,
    "monetico": partial(write_meissonic, downsample=False, upsample=False),
}


def lora_tensors(
    rank: int = 2,
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v"),
    network: MaskedTransformer | None = None,
    prefix: str = "transformer.",
) -> dict[str, torch.Tensor]:
    """A LoRA of a published base's ``network`` as diffusers' example writes it: `to_out.0` is a target too."""
    draws, made = generator(2), {}
    for name, module in (network or MaskedTransformer(PUBLISHED_TRANSFORMER)).named_modules():
        if isinstance(module, nn.Linear) and name.endswith(tuple(f".{target}" for target in targets)):
            made[f"{prefix}{name}.lora_A.weight"] = torch.randn(rank, module.in_features, generator=draws) / 8
            made[f"{prefix}{name}.lora_B.weight"] = torch.randn(module.out_features, rank, generator=draws) / 8
    return made


def base(folder: Path, *, decoder: bool = True, superres: bool = False, seed: int = 0) -> Base:
    return load_base(str(write_base(folder, decoder=decoder, superres=superres, seed=seed)), CPU)


def write_corpus(folder: Path, count: int = 8, held_out: int = 2) -> Path:
    """Captioned pictures of several sizes and shapes, the last ones held out."""
    folder.mkdir()
    lines = []
    for index in range(count):
        name = f"{index}.png"
        hue = (40 + 25 * index % 200, 200 - 20 * index % 180, 30 * index % 250)
        image = draw(64 + 24 * index, 64 + 8 * (index % 3))
        image.paste(hue, (0, 0, 20, 20))
        image.save(folder / name)
        what = ("cat", "dog", "house")[index % 3]
        entry = {"file_name": name, "text": [f"a {what}", f"a {what} in watercolor style"]}
        lines.append(json.dumps(entry | ({"split": "held-out"} if index >= count - held_out else {})))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_art(folder: Path) -> Path:
    """Cut-outs of one thing in one family, to draw a corpus from."""
    (folder / "flat").mkdir(parents=True)
    Image.new("RGBA", (32, 32), "#d0202080").save(folder / "flat" / "box.png")
    said = {"families": {"flat": ["flat design"]}, "outlines": ["flat"], "things": {"box": ["a box"]}}
    (folder / "art.json").write_text(json.dumps(said | {"styles": ["watercolor"]}), encoding="utf-8")
    return folder


def shrink_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `pretrain` make parts of these sizes."""
    monkeypatch.setattr(tokenizer_part, "TOKENIZER", TOKENIZER)
    monkeypatch.setattr(tokenizer_part, "ENLARGED", ENLARGED)
    for part, size in (("clip", 128), ("scorer", 64)):
        sizes = replace(CLIP, vocab_size=0, image_size=size, patch_size=size // 4)
        monkeypatch.setitem(clip_part.RECIPES, part, replace(clip_part.RECIPES[part], sizes=sizes))
    monkeypatch.setattr(clip_part, "FIRST_MERGES", 50)
    monkeypatch.setattr(transformer_part, "BASE", TRANSFORMER)
    monkeypatch.setattr(transformer_part, "SUPERRES", SUPERRES)
    shrink_text(monkeypatch)


def shrink_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be a package of the text encoder, of tiny weights, whether the real one is installed or not."""
    spec = importlib.machinery.ModuleSpec(text_part.PACKAGE, None, origin=f"{_text_package().name}/__init__.py")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one, *rest: spec if one == text_part.PACKAGE else found(one, *rest)
    )
    monkeypatch.setattr(text_part, "SIZES", BERT)
    for part in ("clip", "scorer"):
        monkeypatch.setitem(clip_part.HEADS, part, HEAD)
    monkeypatch.setattr(clip_part, "published_features", lambda *stages: HeadClip(HEAD).visual.network)


@cache
def _text_package() -> tempfile.TemporaryDirectory[str]:
    """The folder of a package as the weights are published in, removed at the end."""
    made = tempfile.TemporaryDirectory()
    folder = Path(made.name) / "model"
    folder.mkdir()
    state = sentence_bert().state_dict()
    places = torch.cat([state[text_part.PLACES], torch.ones(4, 16)])  # it reads longer texts than are read here
    extra = {
        text_part.PLACES: places,
        "pooler.dense.weight": torch.zeros(2, 2),
        "embeddings.position_ids": torch.arange(20)[None],
    }
    save_tensors(folder / "model.safetensors", state | extra)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return made


def generate(
    base: Base,
    adapter: AdapterFile | None,
    *,
    prompts: Sequence[str],
    count: int,
    settings: SampleSettings,
    style: str | None = None,
) -> Iterator[tuple[str, int, Image.Image]]:
    """Draw `count` pictures of each prompt, with seeds from `settings.seed` on: `(prompt, seed, picture)`."""
    seeds = seeds_from(settings.seed, count)
    wanted = [pipeline.PictureRequest(prompt, seed, settings, style) for prompt in prompts for seed in seeds]
    for index, image in pipeline.draw(base, pipeline.StyleMix.of(adapter), wanted):
        yield wanted[index].prompt, wanted[index].seed, image


def beside_torchvision(name: str, *attributes: str) -> ModuleType:
    """Import a library that imports torchvision, and check that it has what is wanted of it.

    PyPI's torchvision is built for CUDA's torch: beside the CPU build it finds two operators undeclared, and fails.
    """
    for operator in ("nms", "qnms"):
        try:
            getattr(torch.ops.torchvision, operator)
        except AttributeError:
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(library)
    module = importlib.import_module(name)
    for attribute in attributes:
        getattr(module, attribute)
    return module


def stock_parts(*names: str) -> ModuleType:
    """diffusers, with ``names`` and the parts that Meissonic is put together from; the test is skipped without them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = beside_torchvision("diffusers", *names)
            beside_torchvision("diffusers.models.transformers.transformer_flux", "FluxTransformerBlock")
            beside_torchvision("diffusers.models.unets.uvit_2d", "UVit2DConvEmbed")
            return module
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"diffusers cannot be imported: {error}")
