"""What every test gets: a folder of its own, no colours in the output, small pictures to play with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw


@pytest.fixture(autouse=True)
def _sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test inside an empty folder, in a plain terminal of a fixed width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "STYLEDROP_TRACEBACK", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def draw(width: int = 96, height: int = 64) -> Image.Image:
    """A red disc in the middle of a blue picture whose left quarter is green."""
    image = Image.new("RGB", (width, height), (20, 60, 200))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width // 4, height), fill=(30, 160, 60))
    radius = min(width, height) // 3
    pen.circle((width / 2, height / 2), radius, fill=(210, 40, 30))
    return image


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small ordinary PNG."""
    path = tmp_path / "ref.png"
    draw().save(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with every part, untrained and small enough for a test: 8x8 ids, 32 and 64 px."""
    from styledrop_cli.checkpoints import save_part
    from styledrop_cli.models.clip import Clip, ClipConfig
    from styledrop_cli.models.tokenizer import EnlargedDecoder, ImageTokenizer, TokenizerConfig
    from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig
    from styledrop_cli.text import TextTokenizer, write_merges

    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    merges = [("a", "t</w>"), ("c", "at</w>"), ("d", "o"), ("do", "g</w>")]
    write_merges(folder / "merges.txt", merges)
    (folder / "words.txt").write_text("cat\ndog\nwatercolor\n")
    (folder / "contents.txt").write_text("a cat\na dog\n")
    sizes = {"layers_per_block": 1, "norm_num_groups": 4, "vq_embed_dim": 3, "num_vq_embeddings": 64}
    extras = {"latent_channels": 8, "patch_size": 2, "linear_path": True, "levels": (4, 4, 4)}
    tokenizer = TokenizerConfig(block_out_channels=(8, 16), **sizes, **extras)
    decoder = TokenizerConfig(block_out_channels=(8, 8, 16), **sizes, **extras)
    clip = ClipConfig(
        embed_dim=16, vocab_size=TextTokenizer(merges, 16).size, context_length=16,
        text_width=16, text_heads=2, text_layers=1,
        image_size=32, patch_size=8, image_width=16, image_heads=2, image_layers=1,
    )  # fmt: skip
    transformer = TransformerConfig(
        codebook_size=64, vocab_size=65, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=512, in_channels=32, block_out_channels=64, num_res_blocks=1, block_num_heads=2,
        encoder_hidden_size=16, cond_embed_dim=16, micro_cond_encode_dim=4, micro_cond_embed_dim=20,
        sample_size=8, downsample=True, upsample=True, positions=4,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_part(folder, "tokenizer", ImageTokenizer(tokenizer), tokenizer)
        save_part(folder, "decoder", EnlargedDecoder(decoder), decoder)
        save_part(folder, "clip", Clip(clip), clip)
        save_part(folder, "transformer", MaskedTransformer(transformer), transformer)
    return folder
