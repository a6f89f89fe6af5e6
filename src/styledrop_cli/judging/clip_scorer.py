"""The CLIPs that look at pictures, by name; the one module that imports open_clip.

``clip`` and ``scorer`` are those of a model folder: the second one had no say in what was drawn. Others are open_clip's
models with their weights: ``ViT-B-16/openai``, or ``ViT-B-16/path/to/weights.safetensors``.
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.base.base import Base, load_judge
from styledrop_cli.base.cache import cache_folder
from styledrop_cli.base.folder import load_module, read_byte_pairs
from styledrop_cli.base.layout import PICKLES
from styledrop_cli.environment import expanded, read_by
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.io.files import read_metadata
from styledrop_cli.io.tensors import load_strictly, reading
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.head_clip import HeadClip

PARTS = ("clip", "scorer")  # of a model folder
PLACES = ("hf-hub:", "local-dir:")  # open_clip's own ways to name a folder that holds sizes and weights
_DECLARED: list[torch.library.Library] = []  # a declaration lives as long as its library


@dataclass(frozen=True)
class Scorer:
    """A CLIP in open_clip's hands, on one device."""

    name: str
    network: Any  # open_clip's CLIP, CustomTextCLIP or CoCa
    tokenizer: Callable[[list[str]], Tensor]
    size: tuple[int, int]  # pixels, height and width
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    device: torch.device

    @torch.no_grad()
    def picture_embeds(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,S,S]`` in [0,1], of any size, to embeddings ``[B,E]`` of length 1."""
        pictures = pictures.to(self.device)
        if pictures.shape[-2:] != self.size:
            pictures = F.interpolate(pictures, self.size, mode=self.interpolation, antialias=True).clamp(0, 1)
        mean, std = pictures.new_tensor(self.mean), pictures.new_tensor(self.std)
        embeds = self.network.encode_image((pictures - mean[:, None, None]) / std[:, None, None])
        return F.normalize(embeds.float(), dim=-1)

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """``B`` texts to embeddings ``[B,E]`` of length 1; what is too long is cut."""
        return F.normalize(self.network.encode_text(self.tokenizer(texts).to(self.device)).float(), dim=-1)

    def chances(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Which of ``texts`` ``[T,E]`` each of ``pictures`` ``[B,E]`` shows: probabilities ``[B,T]``."""
        scale: Tensor = self.network.logit_scale.exp()
        return (scale * pictures @ texts.T).softmax(-1)


def open_clip_config(config: ClipConfig) -> dict[str, Any]:
    """Our sizes as open_clip's model configuration: ``open_clip.CLIP(**open_clip_config(config))``."""
    return {
        "embed_dim": config.embed_dim,
        "quick_gelu": config.quick_gelu,
        "vision_cfg": {
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "width": config.image_width,
            "head_width": config.image_width // config.image_heads,
            "layers": config.image_layers,
        },
        "text_cfg": {
            "context_length": config.context_length,
            "vocab_size": config.vocab_size,
            "width": config.text_width,
            "heads": config.text_heads,
            "layers": config.text_layers,
        },
    }


def open_scorer(base: Base, name: str) -> Base | Scorer:
    """Who judges pictures of ``base``: its own CLIP, which is called ``clip``, or the scorer called ``name``.

    Raises as ``load_scorer`` does, and ModelError if the base's CLIP sees no pictures.
    """
    if name != "clip":
        return load_scorer(name, base.folder, base.device)
    if base.clip.visual is None:
        raise ModelError(f"the clip of {base.folder} has no picture tower", "name another judge with --scorer")
    return base


def open_second_scorer(base: Base, name: str | None = None) -> tuple[str, Base | Scorer]:
    """Who grades what the base's CLIP has chosen, and its name: the one called ``name``, or the base's second CLIP.

    A base without one is graded by its only CLIP. Raises as ``open_scorer`` does.
    """
    name = name or ("scorer" if (base.folder / "scorer.safetensors").exists() else "clip")
    return name, open_scorer(base, name)


def load_scorer(name: str, folder: Path, device: torch.device) -> Base | Scorer:
    """The scorer called ``name``: ``clip`` or ``scorer`` of the model ``folder``, or a model of open_clip's.

    Only weights that open_clip knows by name are ever downloaded, once. A file does not say which activation it was
    trained with: OpenAI's own need a model whose name ends in ``-quickgelu``. Raises UsageError for a name that nothing
    answers to, ModelError for a missing or broken part or file, and StyledropError if the weights cannot be had.
    """
    return _from_folder(name, folder, device) if name in PARTS else _published(name, device)


def _from_folder(part: str, folder: Path, device: torch.device) -> Base | Scorer:
    clip: Clip | HeadClip = load_module(folder, part)
    if isinstance(clip, HeadClip):
        return load_judge(folder, clip, device)
    if clip.visual is None:
        raise ModelError(f"the {part} of {folder} has no picture tower", "Name another scorer.")
    tokenizer = read_byte_pairs(folder, clip.config)
    network = open_clip().CLIP(**open_clip_config(clip.config))
    load_strictly(network, clip.state_dict(), f"the {part} of {folder}")
    side = clip.config.image_size
    network = network.requires_grad_(False).eval().to(device)
    # The preprocessing that it was trained with: see Clip.picture_embeds and Base.picture_embeds.
    return Scorer(part, network, tokenizer, (side, side), (0.5,) * 3, (0.5,) * 3, "bilinear", device)


def _published(name: str, device: torch.device) -> Scorer:
    library = open_clip()
    if name.startswith(PLACES):
        _refuse_pickles(Path(expanded(name.removeprefix(PLACES[1]))))
        model, weights, known = name, None, name.startswith("hf-hub:")
        quick_gelu = False
    else:
        model, weights, known = _model_and_weights(library, name)
        # Weights of a known name say which activation they were trained with; the model's own may be another.
        quick_gelu = known and bool(library.get_pretrained_cfg(model, weights).get("quick_gelu"))
    if known:
        cache_folder()  # where they will be kept must be known
    try:
        with _quietly():
            how = {"device": device, "force_quick_gelu": quick_gelu, "require_pretrained": True}
            network = library.create_model(model, weights, **how)
            tokenizer = library.get_tokenizer(model)
    except Exception as error:  # whatever a download, an unpickler or a state dict may raise
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        if known:
            local = f"{model}/path/to/weights.safetensors" if weights else "local-dir:path/to/folder"
            raise StyledropError(
                f"cannot load '{name}': {cause}",
                "Its weights are downloaded once, for which this machine needs the internet. Or download them "
                f"elsewhere, and say where they are: {local}",
            ) from error
        raise ModelError(
            f"cannot load '{name}': {cause}", "Is the file whole, and does it hold the weights of that very model?"
        ) from error
    about = network.visual.preprocess_cfg
    size = (about["size"],) * 2 if isinstance(about["size"], int) else tuple(about["size"])
    mean, std, how = tuple(about["mean"]), tuple(about["std"]), about["interpolation"]
    interpolation = "bilinear" if how == "bilinear" else "bicubic"
    return Scorer(name, network.requires_grad_(False).eval(), tokenizer, size, mean, std, interpolation, device)


def _refuse_pickles(folder: Path) -> None:
    """Raise ModelError for a local folder from which open_clip might take weights that may run any code."""
    if pickles := sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES):
        raise ModelError(f"{folder} holds a pickle ({pickles[0]}), which may run any code", "Take it out of there.")


def _model_and_weights(library: Any, name: str) -> tuple[str, str, bool]:
    """A model's name, its weights, and whether open_clip knows these by name; raises UsageError if they are not."""
    model, _, weights = name.partition("/")
    models = library.list_models()
    if model not in models:
        raise UsageError(
            f"there is no scorer called '{model}'",
            f"{_nearest(model, [*PARTS, *models])}Choose {' or '.join(PARTS)}, or a model of open_clip's with its "
            "weights, as in ViT-B-16/openai.",
        )
    tags = library.list_pretrained_tags_by_model(model)
    if not weights:
        raise UsageError(
            f"'{model}' needs weights", f"Name them, or a file: {', '.join(f'{model}/{tag}' for tag in tags[:3])}, ..."
        )
    if library.is_pretrained_cfg(model, weights):
        return model, weights, True
    path = Path(expanded(weights))
    if not path.is_file():
        offered = f"Known weights of {model}: {', '.join(tags)}." if tags else "Name a file."
        raise UsageError(
            f"'{model}' has no weights called '{weights}', and there is no such file",
            _nearest(weights, tags) + offered,
        )
    with reading(path):
        read_metadata(path)
    if path.suffix != ".safetensors":  # by which open_clip goes: any other it unpickles
        raise ModelError(f"{path} is a safetensors file, and its name does not end so", "Rename it to .safetensors.")
    return model, str(path), False


def _nearest(name: str, names: Sequence[str]) -> str:
    spelled = {known.lower(): known for known in names}
    near = [f"'{spelled[match]}'" for match in difflib.get_close_matches(name.lower(), list(spelled))]
    return f"Did you mean {' or '.join(near)}? " if near else ""


def open_clip() -> Any:
    """The library, imported only here: it brings torchvision with it, and takes seconds.

    PyPI's torchvision is built for CUDA's torch. Beside the CPU build it cannot load its compiled operators and fails
    because they are undeclared. CLIP uses none of them, so declaring them is enough.
    """
    with _quietly():
        try:
            try:
                with read_by("open_clip", "HF_"):
                    import open_clip as library
            except RuntimeError as error:
                if "operator torchvision::" not in str(error):
                    raise
                for operator in ("nms", "qnms"):
                    if not hasattr(torch.ops.torchvision, operator):
                        _DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
                        _DECLARED[-1].define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
                import open_clip as library
        except (ImportError, RuntimeError) as error:
            raise StyledropError(
                f"open_clip cannot be imported: {error}",
                "Install it with 'pip install open_clip_torch', and the torchvision made for your torch.",
            ) from error
    return library


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings and log lines of libraries: what matters of them is said in an error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
