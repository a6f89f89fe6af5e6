"""Coverage-guided fuzzing of the targets: ``make fuzz``, or ``python tests/hostile/fuzz.py TARGET --executions N``.

Each target runs in a process of its own under atheris, from its sound files and what earlier runs found worth keeping
on. What it lets through, or does that no reader may, is kept with the bytes that did it, once for each place, and the
run goes on. The table at the end has the executions as libFuzzer counts them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "src"
LONGEST = 16_000  # bytes of an input, or twice the longest sound file
INSTRUMENTED = ["styledrop_cli", "PIL", "safetensors"]
COUNTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
COVERED = re.compile(r"cov: (\d+)")


def fuzz(name: str, corpus: Path, findings: Path, executions: int, seed: int) -> None:
    """In a process of its own: run one target so many times. Does not return."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from hostile import mutating, targets, watching
    target = targets.TARGETS[name]
    seeds = target.seeds()
    for index, sound in enumerate(seeds):
        (corpus / f"seed-{index:02d}").write_bytes(sound)
    most = [0.0, 0.0]  # seconds and MB that one file took

    def once(data: bytes) -> None:
        try:
            took = watching.executed(target.run, data, targets.place())
            if any(now > 1.05 * before for now, before in zip(took, most, strict=True)):
                most[:] = map(max, took, most)
                (findings / f"{name}.most").write_text(json.dumps(most), encoding="utf-8")
        except (Exception, watching.BrokenPromise) as error:
            places = [f"{place.filename}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)]
            own = [place for place in places if "styledrop_cli" in place]
            where = hashlib.sha256(f"{type(error).__name__} {(own or places)[-1]}".encode()).hexdigest()[:12]
            if not (findings / f"{name}-{where}.txt").exists():
                (findings / f"{name}-{where}.bin").write_bytes(data)
                (findings / f"{name}-{where}.txt").write_text(traceback.format_exc(), encoding="utf-8")

    def changed(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        made = atheris.Mutate(data, most) if rng.random() < 0.4 else mutating.spoiled(data, rng, seeds)
        return bytes(made[:most])

    longest = max(LONGEST, 2 * max(map(len, seeds)))
    limits = [
        f"-runs={executions}",
        f"-max_len={longest}",
        "-rss_limit_mb=4000",
        "-timeout=3600",
        f"-artifact_prefix={findings}/{name}-",
    ]
    arguments = [sys.argv[0], *limits, f"-seed={seed}", "-len_control=0", "-print_final_stats=1", str(corpus)]
    atheris.Setup(arguments, once, custom_mutator=changed)
    atheris.Fuzz()


def run(name: str, executions: int, findings: Path, seed: int) -> dict[str, float | int | str]:
    """Fuzz one target in a process of its own, and what came of it."""
    memory = Path("/dev/shm")
    corpus = findings / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        search = os.pathsep.join(map(str, (SOURCES, HERE.parent, HERE.parent.parent / "benchmarks")))
        environment = os.environ | {"TMPDIR": folder, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--child", name, str(corpus), str(findings), str(executions), str(seed)]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
        seconds = time.monotonic() - started
    (findings / f"{name}.log").write_text(done.stderr, encoding="utf-8")
    most = findings / f"{name}.most"
    slowest, largest = json.loads(most.read_text(encoding="utf-8")) if most.exists() else (0.0, 0.0)
    counted, covered = COUNTED.search(done.stderr), COVERED.findall(done.stderr)
    return {
        "target": name,
        "executions": int(counted[1]) if counted else 0,
        "seconds": round(seconds),
        "edges": int(covered[-1]) if covered else 0,
        "slowest": round(slowest, 2),
        "MB": round(largest),
        "findings": len(list(findings.glob(f"{name}-*.bin"))) + (done.returncode != 0),
    }


def main() -> None:
    """Fuzz what is named, or all of it, and print the table."""
    if sys.argv[1:2] == ["--child"]:
        name, corpus, findings, executions, seed = sys.argv[2:]
        fuzz(name, Path(corpus), Path(findings), int(executions), int(seed))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help="NAME, or NAME:EXECUTIONS; all, if none is named")
    parser.add_argument("--executions", type=int, default=2000, help="of each target")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where logs and findings go")
    given = parser.parse_args()
    sys.path[:0] = [str(SOURCES), str(HERE.parent)]
    from hostile.targets import TARGETS

    wanted = [name.partition(":") for name in given.targets or TARGETS]
    given.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        rows = []
        findings = given.out.resolve()
        for row in pool.map(
            lambda one: run(one[0], int(one[2] or given.executions), findings, given.seed),
            wanted,
        ):
            rows.append(row)
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
    total = sum(int(row["executions"]) for row in rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    sys.stdout.write("\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n{total:,} in all\n")
    (given.out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    sys.exit(any(row["findings"] for row in rows))


if __name__ == "__main__":
    main()
