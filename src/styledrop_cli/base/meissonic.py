"""The transformer of the Meissonic family, as published: its sizes. Its tensors have our names.

Upstream: github.com/viiika/Meissonic, ``src/transformer.py``. Its image tokenizer, text encoder and scheduler are of
the same classes as aMUSEd's, or do the same.
"""

from __future__ import annotations

from pathlib import Path

from styledrop_cli.base.published_files import Network, read_settings
from styledrop_cli.io.tensors import build_config
from styledrop_cli.models.meissonic import MeissonicConfig, MeissonicTransformer

# What upstream may say beside our sizes: nothing is made of the first two, and no guidance is ever told to the network.
FIXED = {"in_channels": None, "patch_size": 1, "guidance_embeds": False}
# Upstream's defaults for what its file leaves out, where they are not ours.
DEFAULTS = {
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "downsample": False,
    "upsample": False,
}
SIDE = 32  # ids along a side that attention sees, in all published weights


def _transformer_config(place: Path) -> MeissonicConfig:
    path = place / "config.json"
    found = DEFAULTS | read_settings(path, FIXED)
    found.setdefault("sample_size", 2 * SIDE if found["downsample"] else SIDE)
    return build_config(MeissonicConfig, found, str(path))


# Class -> how a part of it is read.
NETWORKS = {"Transformer2DModel": Network(_transformer_config, MeissonicTransformer)}
