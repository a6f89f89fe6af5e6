"""Write down every package of an environment with its exact version, from what pip says that it would install.

    pip install --dry-run --ignore-installed --report report.json '.[dev,pocket,svg]'
    python tools/lock.py report.json requirements.lock

`make lock` does both. Each line says who asks for the package; those that only developers need stand apart.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN = "styledrop"
HEAD = """\
# Every package that styledrop needs, and every one that those need, in one version each that fits the others. Made by
# `make lock`, for Python {python} on {system}.
#
#     pip install -c requirements.lock styledrop-*.whl      exactly these, as far as they are needed
#     cyclonedx-py requirements requirements.lock           a bill of materials (pip install cyclonedx-bom)
#
# Without hashes, because PyTorch is built anew for each kind of machine: `torch=={torch}` is the release, and accepts
# its build for one kind (`{torch}+cpu`). On Linux, PyPI's build needs CUDA's libraries besides (nvidia-*, triton),
# which torch pins itself; the CPU's, which this was made with, needs none. Other systems and versions of Python may
# need a package more.
"""
SECTIONS = ("\n# ---- to run styledrop ----\n", "\n# ---- to develop it, and to draw pocket's corpus ----\n")


def lines_of(report: dict[str, Any]) -> list[str]:
    """The lines of the lock."""
    found = {canonicalize_name(one["metadata"]["name"]): one["metadata"] for one in report["install"]}
    environment = {name: str(value) for name, value in report["environment"].items()}
    users: dict[str, set[str]] = {name: set() for name in found}

    def closure(extras: Iterable[str]) -> set[str]:
        """The packages that styledrop with these extras needs; fills in who needs them."""
        todo, seen = [(canonicalize_name(OWN), frozenset(extras))], set()
        while todo:
            user, with_extras = todo.pop()
            if (user, with_extras) in seen:
                continue
            seen.add((user, with_extras))
            for asked in map(Requirement, found[user].get("requires_dist", ())):
                needed = any(
                    asked.marker is None or asked.marker.evaluate(environment | {"extra": extra})
                    for extra in with_extras or ("",)
                )
                if needed:
                    name = canonicalize_name(asked.name)
                    users[name].add(user)
                    todo.append((name, frozenset(asked.extras)))
        return {name for name, _ in seen}

    runs = closure(())
    every = closure(report_extras(report))
    if strangers := set(found) - every:
        raise SystemExit(f"nothing asks for {', '.join(sorted(strangers))}")
    version = {name: about["version"].partition("+")[0] for name, about in found.items()}
    system = f"{environment['sys_platform']} {environment['platform_machine']}"
    lines = [HEAD.format(python=environment["python_version"], system=system, torch=version["torch"])]
    for section, names in zip(SECTIONS, (runs, every - runs), strict=True):
        lines.append(section)
        for name in sorted(names - {OWN}):
            pin = f"{name}=={version[name]}"
            lines.append(f"{pin:<32}# {', '.join(sorted(users[name]))}\n")
    return lines


def report_extras(report: dict[str, Any]) -> list[str]:
    """The extras that pip was asked for."""
    asked = [one for one in report["install"] if canonicalize_name(one["metadata"]["name"]) == OWN]
    return list(asked[0].get("requested_extras", ()))


def main() -> None:
    """Write the lock, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path, help="what pip wrote")
    parser.add_argument("lock", type=Path)
    options = parser.parse_args()
    lines = lines_of(json.loads(options.report.read_text(encoding="utf-8")))
    part = options.lock.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    os.replace(part, options.lock)
    print(f"{options.lock}: {sum('==' in line for line in lines[1:])} packages")


if __name__ == "__main__":
    main()
