"""The bases there are, as data: a row each of what is to be known of a base before its weights are read.

Code asks the row of a base for a value, and never which base it is. A new base is a network in ``models``, a table of
its weights beside ``base.amused``, and a row here. Standard library only: commands read names and defaults here before
torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

BATCH = 8  # pictures that are drawn at once


@dataclass(frozen=True)
class BaseSpec:
    """What is known of a base beside its weights. The defaults are those of the model folders made by ``pretrain``.

    ``name`` is what ``--model`` calls it, ``repository`` and the ``folder`` in it where it is on the hub; a row without
    them is for any model of its kind. ``pipelines`` and ``classes`` (part of the folder: library, class) are what a
    published folder's ``model_index.json`` says; without them it is a folder of ours, with a ``config.json``. ``sizes``
    are those of the transformer's that are not its class's defaults: they tell bases of one kind apart.

    ``companions`` (part: repository) are where the parts come from that a folder without a ``model_index.json`` lacks;
    its transformer is known by its class and by having the setting ``sign``. ``encoders`` (name: repository) are text
    encoders of other publishers that it can read with, beside ``OWN_TEXT``, and ``text_encoder`` is the one that suits.

    Pictures are as large as the tokenizer's own times one of ``scales``. The transformer is told a picture's sides, and
    an id stands for ``told_factor`` pixels of a side in them (None: as many as in the picture). ``told`` is how it is
    told the step, if it is (see ``sampling.masking.step_told``).

    ``sampling``, ``training`` and, by the kind of adapter, ``kinds`` are the settings that suit it where they are not
    the defaults; ``presets``, by their names, have what they say otherwise here. ``roughly`` has a sentence for each
    task (object, outpaint, kit) that it does only roughly: commands say it. ``own_inks``: it was taught letters in
    colours of their own, and not in a style's. ``edits_suit`` is whether edits are drawn with the scales that suit
    pocket. ``bfloat16``: it is drawn in bfloat16 on a graphics card always, and elsewhere when that is asked for.
    ``in_turn``: its parts are in memory one after the other, though they must be loaded anew for each picture, which
    takes much longer to draw. ``batch_on_cpu`` is how many pictures are drawn at once there. ``lora_modules`` is a
    pattern of how the modules of its LoRAs begin in other programs, with dots as underscores (empty: there are none),
    and ``family`` whose they are, in words. ``golden`` are the last 3x3 values of the blue channel of its upstream's
    picture of ``acceptance.PROMPT``.

    ``reach`` is, of the scales that people set, the largest value at which what they asked for is still there.
    ``guess_from`` is how sure its CLIP has to be of what a picture shows for its guess to be taken, None for never
    (``benchmarks/guesses.py``). ``style_layers`` are the layers that carry style, as ``TrainSettings.layers`` has them
    (``benchmarks/style_layers.py``). Without a measurement all three are left out.
    """

    name: str = ""
    repository: str = ""
    folder: str = ""
    pipelines: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    companions: Mapping[str, str] = field(default_factory=dict)
    sign: str = ""
    encoders: Mapping[str, str] = field(default_factory=dict)
    text_encoder: str = ""
    scales: tuple[int, ...] = (1, 2)
    told_factor: int | None = 16
    told: str = "left"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    roughly: Mapping[str, str] = field(default_factory=dict)
    own_inks: bool = False
    edits_suit: bool = True
    bfloat16: bool = False
    in_turn: bool = False
    batch_on_cpu: int = BATCH
    family: str = ""
    lora_modules: str = ""
    golden: tuple[float, ...] = ()
    reach: Mapping[str, float] = field(default_factory=dict)
    guess_from: float | None = None
    style_layers: str = ""


OWN_TEXT = "bundled"  # the name of the text encoder that comes with a base
BUNDLED = "pocket"
POCKET = Path(__file__).parents[1] / BUNDLED

OURS = BaseSpec()
# Scales and preset: docs/lab/tuning.md. StyleDrop's own ("paper") are made for a base 100 times larger, and draw noise.
# Its first layer alone brings hardly any style (docs/lab/tuning.md, "Which layers"), and is not missed by the others.
# What it does roughly was seen in pictures of it; larger bases are made for the same tasks, and were not tried on them.
POCKET_SPEC = replace(
    OURS,
    name=BUNDLED,
    reach={"lambda_a": 0.5, "lambda_b": 4.0, "strength": 1.5},
    presets={"paper": {"lambda_a": 0.25, "lambda_b": 3.0, "plausible": 0.03}},
    roughly={
        "object": "pocket draws the thing that it knows by that word, in your object's colours: the object's own "
        "shape takes a larger base, such as --model amused-256",
        "outpaint": "pocket continues plain grounds; around a photograph it draws a soft blur of the right colours: "
        "more takes a larger base, such as --model amused-256",
        "kit": "pocket now and then smears a ground or loses a thing: look at each picture before you use it",
    },
    own_inks=True,
    style_layers="2-6",
)


def row_of_ours(name: str) -> BaseSpec:
    """The row of a model folder of ours that calls itself ``name``."""
    return POCKET_SPEC if name == BUNDLED else OURS


# Drawing: upstream's defaults, where a guidance scale of 10 is our lambda_b of 9. Training: StyleDrop's recipe in
# upstream's example (LoRA of rank 16, lr 4e-4 at twice our alpha, one picture a step, 1,500 to 2,000 steps).
AMUSED = BaseSpec(
    pipelines=("AmusedPipeline", "AmusedImg2ImgPipeline", "AmusedInpaintPipeline"),
    classes={
        "transformer": ("diffusers", "UVit2DModel"),
        "vqvae": ("diffusers", "VQModel"),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "scheduler": ("diffusers", "AmusedScheduler"),
    },
    scales=(1,),
    told_factor=None,
    sampling={
        "steps": 12,
        "temperature": 2.0,
        "lambda_b": 9.0,
        "ramp": False,
        "plausible": 0.0,
        "noise": "token",
        "order": "confidence",
        "top_p": 1.0,
        "correct": 0.0,
        "guidance_every": 1,
    },
    training={"steps": 1500, "batch_size": 1, "views": 16, "checkpoints": 0, "lambda_b": 9.0},
    kinds={
        "bottleneck": {"width": 32, "lr": 3e-4},
        "lora": {"width": 16, "lr": 8e-4},
        "prompt": {"width": 16, "lr": 1e-3},
    },
    edits_suit=False,  # it draws by scales of its own, and hardly without any
    bfloat16=True,
    batch_on_cpu=1,  # beyond one, a large base gains nothing but waiting
    family="aMUSEd",
    lora_modules=r"transformer_layers_\d|(?:down|up)_block_",
)

# Meissonic and relatives (arXiv 2410.08261). Drawing: upstream's defaults, where a guidance scale of 9 is our lambda_b
# of 8. It keeps away from what upstream's scripts name, but for words that a drawing may well be: sketch, text, logo.
MEISSONIC = replace(
    AMUSED,
    pipelines=("Pipeline",),
    classes={
        "transformer": ("transformer", "Transformer2DModel"),
        "vqvae": ("diffusers", "VQModel"),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "scheduler": ("scheduler", "Scheduler"),
    },
    companions=dict.fromkeys(("vqvae", "text_encoder", "tokenizer", "scheduler"), "MeissonFlow/Meissonic"),
    sign="axes_dims_rope",
    encoders={"laion": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"},
    # What upstream's scripts for drawing give every transformer of this kind, for stable pictures they say, though one
    # was tuned with it and comes with it. A folder that has its own, and no row, is read with that.
    text_encoder="laion",
    sampling={
        **AMUSED.sampling,
        "steps": 48,
        "lambda_b": 8.0,
        "negative": "worst quality, low quality, low res, blurry, distortion, jpeg artifacts, duplicate, ugly",
    },
    presets={"fast": {"steps": 32, "guidance_every": 2}, "preview": {"steps": 12, "guidance_every": 3}},
    training={**AMUSED.training, "lambda_b": 8.0},
    in_turn=True,
    family="Meissonic",
    lora_modules=r"(?:single_)?transformer_blocks_\d",
)

# Muddit (arXiv 2505.23606) is Meissonic tuned to tell of pictures, too. Its repository has transformers alone, and its
# scripts take all else from Meissonic, the text encoder as well.
MUDDIT = replace(
    MEISSONIC,
    pipelines=("UnifiedPipeline", "Pipeline"),
    classes={**MEISSONIC.classes, "transformer": ("transformer", "SymmetricTransformer2DModel")},
    text_encoder=OWN_TEXT,
    told="share",
    sampling={**MEISSONIC.sampling, "steps": 64},
)

# MaskFocus (arXiv 2512.18766) is Meissonic's transformer tuned by reinforcement learning, alone at the root of its
# repositories. Its scripts take laion's text encoder; steps and scale are the paper's.
MASKFOCUS = replace(
    MEISSONIC,
    sampling={**MEISSONIC.sampling, "steps": 64, "lambda_b": 4.0},
    training={**MEISSONIC.training, "lambda_b": 4.0},
)

# A published folder is of the first kind whose class of pipeline and of transformer it names.
FAMILIES = (AMUSED, MEISSONIC, MUDDIT)
# Relatives whose files look alike and that draw otherwise: what they are, and a folder that they alone have, or "".
OTHERS = {
    "WeiChow/EditMGT": ("EditMGT, which edits pictures and reads with a second network, Gemma 2", "llm_encoder"),
    "Yuanzhi/DiMO": ("Di[M]O, which draws in one step from ids of which half are random", ""),
}
PUBLISHED = {
    spec.name: spec
    for spec in (
        # Golden values: diffusers, tests/pipelines/amused/test_amused.py, the slow tests.
        replace(
            AMUSED,
            name="amused-256",
            repository="amused/amused-256",
            golden=(0.4011, 0.3992, 0.379, 0.3856, 0.3772, 0.3711, 0.3919, 0.385, 0.3625),
        ),
        replace(
            AMUSED,
            name="amused-512",
            repository="amused/amused-512",
            sizes={"sample_size": 32, "downsample": True, "upsample": True},
            golden=(0.1199, 0.1171, 0.1229, 0.1188, 0.1210, 0.1147, 0.1260, 0.1346, 0.1152),
        ),
        replace(MEISSONIC, name="meissonic", repository="MeissonFlow/Meissonic"),
        replace(
            MEISSONIC,
            name="monetico",
            repository="Collov-Labs/Monetico",
            text_encoder=OWN_TEXT,  # tuned with it, and upstream says that it is the better one here
            sizes={"sample_size": 32, "downsample": False, "upsample": False},
        ),
        replace(MUDDIT, name="muddit-512", repository="MeissonFlow/Muddit", folder="512", sizes={"sample_size": 32}),
        replace(MUDDIT, name="muddit-1024", repository="MeissonFlow/Muddit", folder="1024"),
        replace(MASKFOCUS, name="maskfocus-geneval", repository="zghhui/Meissonic_MaskFocus_GenEval"),
        replace(MASKFOCUS, name="maskfocus-hps", repository="zghhui/Meissonic_MaskFocus_HPS"),
    )
}
# All text encoders of other publishers, by the names that --model takes behind a plus sign.
ENCODERS = {name: repository for family in FAMILIES for name, repository in family.encoders.items()}
# The repositories that others' parts come from.
LENDERS = {*ENCODERS.values(), *(repository for family in FAMILIES for repository in family.companions.values())}


def family_of(index: Mapping[str, Any]) -> BaseSpec | None:
    """The family whose pipeline and transformer a ``model_index.json`` names, else one whose pipeline it names."""
    alike = [family for family in FAMILIES if index.get("_class_name") in family.pipelines]
    own = (family for family in alike if is_class(index.get("transformer"), *family.classes["transformer"]))
    return next(own, alike[0] if alike else None)


def lone_family(config: Mapping[str, Any]) -> BaseSpec | None:
    """The family of a transformer without a pipeline around it, by what its ``config.json`` says."""
    alike = (family for family in FAMILIES if family.sign and family.sign in config)
    return next((one for one in alike if config.get("_class_name") == one.classes["transformer"][1]), None)


def row_at(repository: str, folder: str = "") -> BaseSpec | None:
    """The row of what lies in a ``folder`` of a ``repository``."""
    return next((row for row in PUBLISHED.values() if (row.repository, row.folder) == (repository, folder)), None)


def is_class(entry: object, library: str, name: str) -> bool:
    """Whether an entry of the index is that class; a repository's own code may lie in a folder, ``src.LIBRARY``."""
    return entry in ([library, name], [f"src.{library}", name])


def row_of(family: BaseSpec, sizes: Mapping[str, Any]) -> BaseSpec:
    """The first row of ``family`` whose transformer has these ``sizes``; the family's own for one that has none."""
    known = (spec for spec in PUBLISHED.values() if spec.classes == family.classes and spec.sizes == sizes)
    return next(known, family)
