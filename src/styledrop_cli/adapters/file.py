"""An adapter and its file: making a fresh one, opening one, and what the file says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from styledrop_cli.adapters.examples import TrainingViews
from styledrop_cli.adapters.header import AdapterFile, AdapterHeader, made_now, save_adapter
from styledrop_cli.base.base import Base, is_grid
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import generator
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.images import load_picture, thumbnail_base64
from styledrop_cli.io.tensors import build_config, load_strictly, network_of
from styledrop_cli.models.adapter import (
    KINDS,
    Adapter,
    BottleneckAdapter,
    BottleneckConfig,
    LoraAdapter,
    LoraConfig,
    PromptAdapter,
    PromptConfig,
)
from styledrop_cli.models.transformer import TokenTransformer
from styledrop_cli.settings import ALL_LAYERS, TrainSettings

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SHARE = 0.01  # of the base's parameters


def new_adapter(network: TokenTransformer, settings: TrainSettings) -> Adapter:
    """A fresh adapter for ``network``; raises UsageError for impossible sizes, or 1 % of the network or more."""
    adapter: Adapter
    try:
        if settings.kind == "lora":
            config = LoraConfig(settings.width, float(settings.width), settings.targets, settings.layer_numbers)
            adapter = LoraAdapter(config, network)
        elif settings.kind == "prompt":
            adapter = PromptAdapter(PromptConfig(settings.width, settings.layer_numbers), network)
        else:
            sizes = BottleneckConfig(settings.width, settings.shared, settings.layer_numbers)
            adapter = BottleneckAdapter(sizes, network)
    except ValueError as error:
        raise UsageError(str(error)) from error
    adapter.initialise(generator(settings.seed))
    if share(adapter, network) >= LARGEST_SHARE:
        raise UsageError(
            f"an adapter of kind {settings.kind} and width {settings.width} is {share(adapter, network):.1%} of the "
            "base",
            "Choose a smaller --width, or fewer --targets or --layers; under 1 % is what keeps a style from copying "
            "its picture.",
        )
    return adapter


def new_superres_adapter(network: TokenTransformer, settings: TrainSettings) -> Adapter | None:
    """One for super-resolution: of the same kind, and as wide up to ``settings.width`` as stays under 1 % of it.

    It is in all layers: ``settings.layers`` are the base's.
    """
    for width in range(settings.width, 0, -1):
        try:
            return new_adapter(network, replace(settings, width=width, layers=ALL_LAYERS))
        except UsageError:
            continue
    return None


def widest(network: TokenTransformer, settings: TrainSettings) -> TrainSettings:
    """``settings`` with the largest width that keeps their adapter under 1 % of ``network``, or their own if wider."""

    def fits(width: int) -> bool:
        try:
            new_adapter(network, replace(settings, width=width))
        except UsageError:
            return False
        return True

    low, high = settings.width, settings.width + 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return replace(settings, width=low)


def share(adapter: Adapter, network: TokenTransformer) -> float:
    """How large an adapter is, as a share of its network's parameters."""
    own, whole = (sum(one.numel() for one in each) for each in (adapter.parameters(), network.parameters()))
    return own / whole


@dataclass(frozen=True)
class AdapterPair:
    """The adapters that a file holds: the base transformer's, and super-resolution's where it was trained too."""

    base: Adapter
    superres: Adapter | None


def open_adapter(base: Base, file: AdapterFile) -> AdapterPair:
    """The adapters that ``file`` holds, ready for ``base``.

    Raises ModelError if it belongs to another base, or holds what fits no base of its name.
    """
    header = file.header
    about, own = header.base, base.identity
    if not is_one_base(about, own):
        its, this = bases_apart(about, own)
        hint = "Choose its base with --model, or train it again on this one."
        if about.get("hash") == base.hash:
            hint = f"Say --model NAME+{about['text_encoder']}, leave --model out, or train it again."
        elif about.get("name") == base.name:
            made = " and ".join(
                f"{what} {said[:10]}"
                for what, said in (("made", header.created), ("by styledrop", header.styledrop))
                if said
            )
            hint = (
                f"They are two versions of {base.name}, of other weights. Train it again on this one, or choose with "
                f"--model the folder of the version that it was trained on{f' (it was {made})' * bool(made)}."
            )
        raise ModelError(f"{file.path} was trained on another base ({its}) than this one ({this})", hint)
    if header.kind not in KINDS:
        raise ModelError(f"{file.path} is an adapter of kind '{header.kind}', which is not known here")
    adapter = _open(file, header.config, "adapter.", base.transformer).to(base.device)
    _refuse_foreign_ids(base, file)
    config = header.superres
    if config is None or base.superres is None:
        return AdapterPair(adapter, None)
    return AdapterPair(adapter, _open(file, config, "superres.", base.superres).to(base.device))


def is_one_base(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether headers name one base: the same weights, read with the same text encoder as far as both say so."""
    encoders = {base["text_encoder"] for base in (one, other) if base.get("text_encoder")}
    return one.get("hash") == other.get("hash") and len(encoders) < 2


def bases_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str]:
    """What two bases, as headers name them, are called beside each other, with what differs if the names are one."""
    its, own = (str(base.get("name", "unnamed")) for base in (one, other))
    if one.get("hash") == other.get("hash"):
        return f"{its} with the text encoder {one['text_encoder']}", f"{own} with {other['text_encoder']}"
    if its != own:
        return its, own
    a, b = (f"hash {str(base['hash'])[:12]}..." if base.get("hash") else "no hash" for base in (one, other))
    return f"{its}, {a}", f"{own}, {b}"


def _open(file: AdapterFile, config: Mapping[str, Any], prefix: str, network: TokenTransformer) -> Adapter:
    make, sizes = KINDS[file.header.kind]
    built = build_config(sizes, config, str(file.path))
    adapter = network_of(lambda: make(built, network), str(file.path))
    load_strictly(adapter, own_tensors(file.tensors, prefix), str(file.path))
    return adapter.requires_grad_(False).eval()


def _refuse_foreign_ids(base: Base, file: AdapterFile) -> None:
    """Raise ModelError for views that are no grids of ``base``'s ids: they would be looked up where there are none."""
    for name, side in (("views.ids", base.grid), ("views.superres", 2 * base.grid)):
        ids = file.tensors.get(name)
        if ids is not None and not is_grid(ids, side, base.codes):
            raise ModelError(
                f"{file.path} is damaged: its {name} are no {side} x {side} ids of {base.name}", "Train it again."
            )


def own_tensors(tensors: dict[str, Tensor], prefix: str = "adapter.") -> dict[str, Tensor]:
    """An adapter's own among the tensors of its file, by their names in it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def tensors_of(adapter: Adapter, prefix: str = "adapter.") -> dict[str, Tensor]:
    """The tensors of an adapter by their names in a file."""
    return {f"{prefix}{n}": t for n, t in adapter.state_dict().items()}


def write_adapter(path: Path, adapter: Adapter, header: AdapterHeader, beside: dict[str, Tensor]) -> None:
    """Write ``adapter`` with its header and what stands ``beside`` it: super-resolution's, the views it learnt from."""
    save_adapter(path, tensors_of(adapter) | beside, header, modelspec(header))


def describe(base: Base, adapter: Adapter, contents: list[str], style: str, settings: TrainSettings) -> AdapterHeader:
    """The header of an adapter file, but for its pictures: everything needed to use it, and to train it again."""
    return AdapterHeader.new(
        kind=adapter.kind,
        config=adapter.stored_config,
        base=base.identity,
        learns=settings.learn,
        style=" ".join(style.split()),
        contents=contents,
        settings=asdict(settings),
        recommended={"lambda_a": settings.lambda_a, "lambda_b": settings.lambda_b},
        seed=settings.seed,
        **made_now(),
    )


def of_pictures(
    paths: list[Path], images: list[Image], quality: list[float], weights: Sequence[float] = ()
) -> dict[str, Any]:
    """What the header says of the reference pictures; ``quality`` is the PSNR in dB at which their ids show them."""
    return {
        **weights_said(weights),
        "pictures": [
            {
                "name": path.name.encode("utf-8", "replace").decode(),  # which may be of any bytes
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "width": image.width,
                "height": image.height,
                "psnr": round(psnr, 2),
            }
            for path, image, psnr in zip(paths, images, quality, strict=True)
        ],
        "thumbnail": thumbnail_base64(images[0]),
    }


def weights_said(weights: Sequence[float]) -> dict[str, list[float]]:
    """What a header says of the references' ``weights``: nothing where all count alike."""
    return {"weights": list(weights)} if weights else {}


def examples_of(file: AdapterFile) -> TrainingViews:
    """What the adapter in ``file`` was trained on; raises ModelError if the file does not hold it."""
    views = {name: file.tensors.get(name) for name in ("views.ids", "views.picture")}
    pictures, contents = file.header.pictures, file.header.contents
    ids, owners = views.values()
    whole = (
        ids is not None
        and owners is not None
        and ids.ndim == 3
        and owners.shape == ids.shape[:1]
        and owners.dtype == torch.int64
        and owners.unique().tolist() == list(range(len(contents)))
        and 0 < len(pictures) <= len(contents)
    )
    if not whole and file.header.source:
        raise ModelError(
            f"{file.path} was brought from elsewhere, without the pictures that it was trained on",
            "Draw with it; what needs its pictures takes adapters made by 'styledrop train'.",
        )
    if not whole:
        raise ModelError(
            f"{file.path} does not hold the pictures that it was trained on", "Train it again with 'styledrop train'."
        )
    found = {n: t for n, t in views.items() if t is not None}
    return TrainingViews(found, list(contents), len(pictures), tuple(file.header.weights))


def references_of(file: AdapterFile) -> TrainingViews:
    """``examples_of`` an adapter that learnt a style; raises UsageError for one that learnt an object."""
    if file.header.is_object:
        raise UsageError(
            f"{file.path} learnt an object, {file.header.name}, and no style that its pictures could be judged by",
            f"Draw it in a style, and go by that style's adapter: --object {file.path} is an option of generate.",
        )
    return examples_of(file)


def original_of(about: Mapping[str, Any], folders: Iterable[Path]) -> Image | None:
    """The file of a reference that a header is ``about`` (its name and sha256), upright and without transparency.

    It is looked for in the working folder, in ``folders``, and one level below these; None where it is in none.
    """
    name = str(about.get("name", ""))
    if not name or Path(name).name != name or name in (".", ".."):
        return None
    for folder in dict.fromkeys((Path(), *folders)):
        with suppress(OSError):
            for path in (folder / name, *(below / name for below in sorted(folder.iterdir()) if below.is_dir())):
                with suppress(OSError, ValueError, PictureError):
                    if path.is_file() and file_hash(path) == about.get("sha256"):
                        return load_picture(path)
    return None


def modelspec(header: AdapterHeader) -> dict[str, str]:
    """The flat keys of the Stability AI model metadata standard, which other tools show."""
    pictures, name = header.pictures, header.name
    if header.merged:
        source = "merged from " + ", ".join(f"{one['name']} ({one['weight']:g})" for one in header.merged)
    else:
        source = f"learnt from {len(pictures)} picture(s)" if pictures else f"brought from {header.source['name']}"
    hint = f'FILE "{with_style("a cat", name)}"'
    if header.is_object:
        hint = f'STYLE.safetensors "{name}" --object FILE'
    made = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"styledrop-{header.base.get('name', 'unnamed')}/{header.kind}",
        "modelspec.implementation": "styledrop",
        "modelspec.title": name,
        "modelspec.description": f"StyleDrop adapter for '{name}', {source}",
        "modelspec.usage_hint": f"styledrop generate {hint}",
        "modelspec.date": header.created,
        "modelspec.resolution": "256x256",
    }
    return made | ({"modelspec.thumbnail": header.thumbnail} if pictures else {})
