"""Which words name a kind of a taught thing: the hyponyms that WordNet lists, written to kinds.txt.

    python kinds.py wordnet/usr/share/wordnet > kinds.txt

``wordnet`` is the unpacked Debian package ``wordnet-base``. For each thing the synonyms and kinds of its first noun
sense are taken, the ones people use most first (WordNet's own counts), at most ``MOST``. Senses that are not what the
picture shows are left out below.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
MOST = 8
DEPTH = 3
# Things whose first sense is another thing than the picture's, or whose kinds do not look like it.
NOT_THESE = frozenset(
    """star;sun;fire;bell;ring;key;crown;mountain;bed;door;drum;egg;cloud;heart;gear;ghost;lock;shield;chair;letter;man;
    woman;girl;boy;castle;bear;snowflake;lemon;balloon;mouse;alien;bomb;envelope;camera;house;moon;rainbow;magnet;kite;
    light bulb;pencil;candle;book;mobile phone;globe;diamond;glasses;headphone;microphone;soccer ball;basketball;clover;
    maple leaf;trophy;whale;turtle;wrench;gift;taco;green apple;trumpet;palm tree;dragon;island;cactus;bread;
    delivery truck;french fries;banana;watermelon;top hat;peacock;flower;rose;tree;beer mug;wineglass;coffee;sock;dress;
    t-shirt;train;ship;bus;telephone;television;skull;robot;crab""".replace("\n    ", "").split(";")
)


# Offensive, or mostly said of something else.
NOT_WORDS = frozenset(
    """squaw_corn kamikaze hulk sinker mouser dun cur crowbait britt drone auto uke dinky dinkey plate mount charger
    poultry fowl stiletto cracker a_technical technical spawner bomber missile ballistic_missile guided_missile
    air-to-surface_missile interceptor eyra manul catarrhine platyrrhine platyrrhinian anuran batrachian salientian
    ranid chiropteran danaid pierid lycaenid leporide hound_dog taxi ambulance mammoth woolly_mammoth turkey
    quack-quack gee-gee moo-cow""".split()
)


class Nouns:
    """WordNet's nouns: synsets by lemma, and how often each sense was met in its counted texts."""

    def __init__(self, folder: Path) -> None:
        self.synsets: dict[str, tuple[list[str], list[str]]] = {}  # offset -> lemmas, offsets of its kinds
        self.senses: dict[str, list[str]] = {}
        for line in (folder / "data.noun").read_text().splitlines():
            if line.startswith(" "):
                continue
            fields = line.partition(" | ")[0].split()
            count = int(fields[3], 16)
            lemmas = fields[4 : 4 + 2 * count : 2]
            links = fields[5 + 2 * count :]
            kinds = [links[i + 1] for i, mark in enumerate(links) if mark == "~"]
            self.synsets[fields[0]] = (lemmas, kinds)
        for line in (folder / "index.noun").read_text().splitlines():
            if not line.startswith(" "):
                fields = line.split()
                self.senses[fields[0]] = fields[-int(fields[2]) :]
        self.met: dict[str, int] = {}
        for line in (folder / "cntlist.rev").read_text().splitlines():
            key, _, times = line.split()
            lemma, _, rest = key.partition("%")
            if rest.startswith("1:"):
                self.met[lemma] = self.met.get(lemma, 0) + int(times)

    def kinds(self, lemma: str) -> list[str]:
        """Other words for the first sense of ``lemma`` and its kinds, the commonest first."""
        found: dict[str, int] = {}
        level = self.senses[lemma][:1]
        for depth in range(DEPTH + 1):
            for offset in level:
                for word in self.synsets[offset][0]:
                    # A word that mostly means something else would teach the wrong thing.
                    own = offset in self.senses.get(word.lower(), [])[:1]
                    if own and word not in NOT_WORDS and word.islower() and word != lemma and word.count("_") < 2:
                        found.setdefault(word, depth)
            level = [kind for offset in level for kind in self.synsets[offset][1]]
        return sorted(found, key=lambda w: (-self.met.get(w, 0), "_" in w, found[w], len(w)))


def main() -> None:
    """Print ``name: a kind; another`` for every taught thing that WordNet knows."""
    nouns = Nouns(Path(sys.argv[1]))
    phrases = {}
    for line in (HERE / "words.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, words = line.partition(": ")
            phrases[name] = [w.strip() for w in words.split(";")]
    taught = {p.partition(" ")[2] or p for words in phrases.values() for p in words}
    print("# Kinds of the taught things, from WordNet 3.0 (Princeton University); made by kinds.py.")
    for thing, words in phrases.items():
        if thing in NOT_THESE:
            continue
        called = [p.removeprefix("a ").removeprefix("an ") for p in words]
        lemma = next((c.replace(" ", "_") for c in called if c.replace(" ", "_") in nouns.senses), None)
        if lemma is None:
            continue
        kinds = [k.replace("_", " ") for k in nouns.kinds(lemma)]
        kinds = [k for k in kinds if k not in taught and k not in called][:MOST]
        if kinds:
            print(f"{thing}: " + "; ".join(f"{'an' if k[0] in 'aeiou' else 'a'} {k}" for k in kinds))


if __name__ == "__main__":
    main()
