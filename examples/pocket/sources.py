"""Where pocket's art comes from, and how it is rendered: packages of npm and of Debian, as index.jsonl names them."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from styledrop_cli.corpus.cutouts import Cutout
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write, read_json, writing
from styledrop_cli.io.images import png_bytes

SIZE, MARGIN = 256, 12  # pixels of a cut-out, and of air around the drawing
LICENCES = ("public-domain", "MIT", "Apache-2.0", "CC-BY-4.0")
LETTERS = "letters"  # a family of our own, beside those
# How captions call each look, the plainest first.
LOOKS = {
    "fluent-emoji": ("3d rendering", "3d render", "glossy 3d"),
    "fluent-emoji-flat": ("flat design", "flat vector", "flat illustration"),
    "noto": ("cartoon", "cartoon illustration", "colorful cartoon"),
    "twemoji": ("flat icon", "simple icon", "emoji icon"),
    "openclipart": ("clip art", "vector clip art", "clip art illustration"),
    "streamline-emojis": ("outlined emoji", "emoji with thin outlines", "outlined colorful emoji"),
    "streamline-duotone": ("two-tone blue icon", "blue icon", "flat blue glyph"),
    "streamline-line": ("blue line icon", "blue outline icon"),
    "icon-park": ("bold black and blue icon", "bold blue icon", "thick line icon"),
    "glyphs-poly": ("simple two-colour icon", "soft two-colour glyph"),
    "streamline-kameleon-color": ("round badge icon", "icon in a circle", "flat round icon"),
    "streamline-cyber-color": ("angular line icon", "angular blue outline icon"),
    "streamline-ultimate-color": ("pale coloured line icon", "line icon with pale colours"),
    "streamline-stickies-color": ("chunky bright icon", "chunky icon with thick lines"),
    "streamline-freehand-color": ("doodle", "hand-drawn doodle"),
    "fluent-color": ("gradient icon", "smooth gradient icon"),
    "flat-ui": ("web icon", "rounded web icon"),
    "flat-color-icons": ("office icon", "plain office icon"),
    "tango": ("desktop icon", "old desktop icon"),
    LETTERS: ("flat design", "flat vector", "flat illustration"),
}

_STREAMLINE = "[Streamline](https://github.com/webalys-hq/streamline-vectors)"
# Who made what is in each set: its name, and its maker with the place it comes from.
MAKERS = {
    "fluent-emoji": ("Fluent Emoji", "[Microsoft Corporation](https://github.com/microsoft/fluentui-emoji)"),
    "fluent-emoji-flat": ("Fluent Emoji Flat", "[Microsoft Corporation](https://github.com/microsoft/fluentui-emoji)"),
    "noto": ("Noto Emoji", "[Google, Inc.](https://github.com/googlefonts/noto-emoji)"),
    "twemoji": ("Twemoji", "[Twitter, Inc. and other contributors](https://github.com/jdecked/twemoji)"),
    "streamline-emojis": ("Streamline Emojis", _STREAMLINE),
    "streamline-kameleon-color": ("Kameleon color icons", _STREAMLINE),
    "streamline-stickies-color": ("Stickies color icons", _STREAMLINE),
    "streamline-ultimate-color": ("Ultimate color icons", _STREAMLINE),
    "streamline-freehand-color": ("Freehand color icons", _STREAMLINE),
    "streamline-plump-color": ("Plump color icons", _STREAMLINE),
    "streamline-color": ("Streamline color", _STREAMLINE),
    "streamline-flex-color": ("Flex color icons", _STREAMLINE),
    "streamline-sharp-color": ("Sharp color icons", _STREAMLINE),
    "streamline-cyber-color": ("Cyber color icons", _STREAMLINE),
    "icon-park": ("IconPark", "[ByteDance](https://github.com/bytedance/IconPark)"),
    "glyphs-poly": ("Glyphs Poly", "[Goran Spasojevic](https://github.com/gorango/glyphs)"),
    "flat-ui": ("Flat UI Icons", "[Designmodo, Inc.](https://github.com/designmodo/Flat-UI)"),
    "flat-color-icons": ("Flat Color Icons", "[Icons8](https://github.com/icons8/flat-Color-icons)"),
    "fluent-color": (
        "Fluent UI System Color Icons",
        "[Microsoft Corporation](https://github.com/microsoft/fluentui-system-icons)",
    ),
    "tango": ("Tango icon theme", "[the Tango Desktop Project](http://tango.freedesktop.org/)"),
    "pysiogame": ("pictures of pySioGame", "[Ireneusz Imiolek](https://sourceforge.net/projects/pysiogame/) and OCAL"),
    "openclipart": ("Open Clip Art Library", "[{hands} artists](https://openclipart.org/), named in `index.jsonl`"),
}
_LINKS = {
    "MIT": "https://spdx.org/licenses/MIT.html",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}


def credit_table(cutouts: Sequence[Cutout]) -> str:
    """Who is to be credited for these cut-outs, a row a set, in Markdown."""
    rows = ["| art | by | licence | package | drawings |", "|---|---|---|---|---|"]
    by_set: dict[str, list[Cutout]] = {}
    for cutout in cutouts:
        by_set.setdefault(cutout.file.partition("/")[0], []).append(cutout)
    for name, drawings in by_set.items():
        work, by = MAKERS[name]
        by = by.format(hands=len({cutout.hand for cutout in drawings}))
        licences = sorted({cutout.licence for cutout in drawings})
        said = ", ".join(f"[{one}]({_LINKS[one]})" if one in _LINKS else one.replace("-", " ") for one in licences)
        packages = ", ".join(f"`{one}`" for one in sorted({cutout.source for cutout in drawings}))
        rows.append(f"| {work} | {by} | {said} | {packages} | {len(drawings)} |")
    return "\n".join(rows)


def take_art(tar: Path, cutouts: Sequence[Cutout], out: Path) -> list[str]:
    """Take ready cut-outs from a tar laid out like the index; what it lacks, named. UsageError for another file."""
    wanted = {cutout.file for cutout in cutouts}
    with _reading(tar), tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            name = "openclipart/" + name.removeprefix("oc/") if name.startswith("oc/") else name
            if name in wanted and member.isfile():
                path = out / name
                file = archive.extractfile(member)
                if file is not None and not (path.exists() and path.stat().st_size == member.size):
                    atomic_write(path, file.read())
                wanted.remove(name)
    return [f"{name} is not in {tar}" for name in sorted(wanted)]


@contextmanager
def _reading(tar: Path) -> Iterator[None]:
    """What is wrong with a tar that is read inside; it is a UsageError."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{tar} cannot be read: {error}", "Name another tar, or leave --art out.") from error


def fetch_art(
    cutouts: Sequence[Cutout], packages: Path, out: Path, workers: int, move: Callable[[float, str], None]
) -> list[str]:
    """Render the cut-outs that ``out`` lacks, from packages in ``packages``, which are fetched if need be.

    What is left out is named: a package that cannot be had, a drawing that it does not hold, one that does not render.
    """
    by_source: dict[str, list[Cutout]] = {}
    for cutout in cutouts:
        if not (out / cutout.file).exists():
            by_source.setdefault(cutout.source, []).append(cutout)
    problems: list[str] = []
    jobs: list[_Job] = []
    for number, (source, lacking) in enumerate(by_source.items()):
        move(0.3 * number / len(by_source), source)
        try:
            jobs += _jobs(source, lacking, packages, out, problems)
        except (UsageError, OSError, subprocess.CalledProcessError, tarfile.TarError) as error:
            said = getattr(error, "stderr", None) or error
            problems.append(f"{len(lacking)} drawings of {source}, which cannot be had: {said!s:.300}")
    with ProcessPoolExecutor(workers) as pool:
        for number, problem in enumerate(pool.map(_render, jobs, chunksize=16), 1):
            problems += [problem] if problem else []
            move(0.3 + 0.7 * number / len(jobs), f"{number}/{len(jobs)} rendered")
    return problems


# ---- packages ----


class _Job(NamedTuple):
    """A drawing to render: an SVG's text or a file; ``direct`` is rendered at its last size at once."""

    file: str
    out: Path
    svg: str = ""
    path: Path | None = None
    direct: bool = False


def _jobs(source: str, cutouts: list[Cutout], packages: Path, out: Path, problems: list[str]) -> list[_Job]:
    """What there is to render of a package; what it does not hold is added to ``problems``."""
    jobs = []
    if source.startswith("debian:"):
        unpacked = _debian(source.removeprefix("debian:"), packages)
        for cutout in cutouts:
            path = unpacked / cutout.original
            if path.is_file():
                jobs.append(_Job(cutout.file, out, path=path, direct="openclipart" in source))
            else:
                problems.append(f"{cutout.file}: {source} holds no {cutout.original}")
        return jobs
    sets = list(dict.fromkeys(cutout.file.partition("/")[0] for cutout in cutouts))
    icons = {name: read_json(path, 200_000_000) for name, path in _npm(source, sets, packages).items()}
    for cutout in cutouts:
        name = cutout.original or PurePosixPath(cutout.file).stem
        svg = icon_svg(icons.get(cutout.file.partition("/")[0], {}), name)
        if svg:
            jobs.append(_Job(cutout.file, out, svg=svg))
        else:
            problems.append(f"{cutout.file}: {source} holds no {name}")
    return jobs


def _npm(source: str, sets: list[str], packages: Path) -> dict[str, Path]:
    """The icon files of a package ``@scope/name@version`` by set, fetched if they are not there."""
    name, _, version = source.rpartition("@")
    found = {of: packages / f"{of}-{version}.json" for of in sets}
    if all(path.exists() for path in found.values()):
        return found
    with (
        _fetched(packages, [_program("npm"), "pack", "--silent"], name, f"@{version}") as folder,
        tarfile.open(next(folder.glob("*.tgz"))) as archive,
    ):
        for of, path in found.items():
            inside = "package/icons.json" if name.startswith("@iconify-json/") else f"package/json/{of}.json"
            with suppress(KeyError):  # it holds the set no longer: its drawings are named one by one
                file = archive.extractfile(inside)
                assert file is not None
                atomic_write(path, file.read())
    return {of: path for of, path in found.items() if path.exists()}


def _debian(source: str, packages: Path) -> Path:
    """The unpacked folder of a package ``name=version``, fetched if it is not there."""
    name, _, version = source.partition("=")
    unpacked = packages / f"{name}-{re.sub('[^A-Za-z0-9.+-]', '_', version)}"
    if not unpacked.exists():
        with _fetched(packages, [_program("apt-get"), "download"], name, f"={version}") as folder:
            subprocess.run(
                [_program("dpkg-deb"), "-x", str(next(folder.glob("*.deb"))), str(folder / "unpacked")],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            (folder / "unpacked").replace(unpacked)
    return unpacked


@contextmanager
def _fetched(packages: Path, command: list[str], name: str, version: str) -> Iterator[Path]:
    """A passing folder beside the packages into which ``command`` has fetched one, or its newest version instead."""
    with writing(packages):
        packages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packages) as folder:
        for asked in (name + version, name):
            done = subprocess.run([*command, asked], cwd=folder, check=False, capture_output=True, text=True)
            if done.returncode == 0 and any(Path(folder).iterdir()):
                break
        else:
            done.check_returncode()
            raise OSError(f"{' '.join(command)} fetched nothing")
        yield Path(folder)


def _program(name: str) -> str:
    """Where a program is; UsageError if it is not."""
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"there is no {name} on this machine", "Install it, or choose other sets with --sets.")
    return found


# ---- rendering ----


def icon_svg(pack: dict[str, Any], name: str) -> str:
    """An icon of an Iconify file as an SVG with air around it; empty if there is none of that name."""
    icon, turns = pack.get("icons", {}).get(name), []
    seen = {name}
    while icon is None:  # an alias is another icon, perhaps turned
        alias = pack.get("aliases", {}).get(name)
        if alias is None or alias["parent"] in seen:
            return ""
        turns.append(alias)
        name = alias["parent"]
        seen.add(name)
        icon = pack.get("icons", {}).get(name)
    width, height = (icon.get(side, pack.get(side, 16)) for side in ("width", "height"))
    x, y = icon.get("left", 0) + width / 2, icon.get("top", 0) + height / 2
    body = icon["body"]
    for alias in turns:
        flip = (-1 if alias.get("hFlip") else 1, -1 if alias.get("vFlip") else 1)
        turned = f"translate({x:g} {y:g}) scale({flip[0]} {flip[1]}) rotate({90 * alias.get('rotate', 0)})"
        body = f'<g transform="{turned} translate({-x:g} {-y:g})">{body}</g>'
    side = max(width, height) * SIZE / (SIZE - 2 * MARGIN)
    box = (x - side / 2, y - side / 2, side, side)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" viewBox="{" ".join(f"{v:g}" for v in box)}">{body}</svg>'
    )


def _render(job: _Job) -> str | None:
    """Write one cut-out; why it cannot be rendered, if it cannot. A disk that is full is a StyledropError."""
    try:
        image = _rendered(job)
    except Exception as error:  # one bad drawing must not stop the other thousands
        return f"{job.file}: it does not render: {error!s:.200}"
    buffer = io.BytesIO()
    if job.file.endswith(".png"):
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=False)
    atomic_write(job.out / job.file, buffer.getvalue())
    return None


def _rendered(job: _Job) -> Image.Image:
    """The cut-out ``[SIZE,SIZE]``; ValueError for nothing to be seen."""
    import resvg_py

    def svg(**size: int) -> Image.Image:
        said = {"svg_string": job.svg} if job.path is None else {"svg_path": str(job.path), "dpi": 90.0}
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(**said, **size)))).convert("RGBA")

    if job.path is None:
        image = svg(width=SIZE, height=SIZE)
        if image.getbbox() is None:
            raise ValueError("there is nothing to be seen")
        return image
    if job.path.suffix == ".png":
        with Image.open(job.path) as opened:
            return _centred(opened.convert("RGBA"))
    # A page of any size: look where the drawing is, and render it so large that it fills the cut-out.
    image = svg(width=2 * SIZE)
    if job.direct:
        left, top, right, bottom = _seen(image)
        scale = (SIZE - 2 * MARGIN) / max(right - left, bottom - top)
        image = svg(width=max(1, round(image.width * scale)))
    return _centred(image)


def _seen(image: Image.Image) -> tuple[int, int, int, int]:
    """The box around what is not all but transparent; ValueError if nothing is."""
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if box is None:
        raise ValueError("there is nothing to be seen")
    return box


def _centred(image: Image.Image) -> Image.Image:
    """What is to be seen, as large as the margin lets it be, in the middle."""
    image = image.crop(_seen(image))
    scale = (SIZE - 2 * MARGIN) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    centred = Image.new("RGBA", (SIZE, SIZE))
    centred.paste(image, ((SIZE - width) // 2, (SIZE - height) // 2))
    return centred


def write_letters(out: Path) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """A-Z and 0-9 as cut-outs, in the typeface that comes with Pillow (Aileron, CC0); their words and index lines."""
    ink = ("#e74856", "#0078d7", "#00a65a", "#f7630c", "#8e562e", "#744da9")
    words, lines = {}, []
    for i, sign in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"):
        kind = "number" if sign.isdigit() else "letter"
        thing, file = f"{kind} {sign}", f"{kind}-{sign.lower()}.png"
        words[thing] = [f"the {thing}", f"a {sign}" if sign.isdigit() else f"a {thing}"]
        chinese = f"数字{sign}" if sign.isdigit() else f"字母{sign}"
        about = {"thing": thing, "kind": "letter", "zh": chinese, "licence": "CC0-1.0", "outline": True}
        lines.append({"file": f"{LETTERS}/{file}"} | about)
        if (out / file).exists():
            continue
        image = Image.new("RGBA", (SIZE, SIZE))
        ImageDraw.Draw(image).text(
            (SIZE / 2, SIZE / 2), sign, fill=ink[i % len(ink)], font=ImageFont.load_default(250), anchor="mm",
            stroke_width=6, stroke_fill=ink[i % len(ink)],
        )  # fmt: skip
        drawn = image.crop(image.getbbox() or (0, 0, SIZE, SIZE))
        centred = Image.new("RGBA", (SIZE, SIZE))
        centred.paste(drawn, ((SIZE - drawn.width) // 2, (SIZE - drawn.height) // 2))
        atomic_write(out / file, png_bytes(centred))
    return words, lines
