"""Learn a style, draw in it and save the pictures, by requests to a studio: python examples/studio_client.py

Every request is described in docs/reference/openapi.json, and at api/openapi.json of a studio. Options that are given
go to `styledrop studio`, such as --model amused-256.
"""

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

PICTURE = Path(__file__).with_name("watercolor.png")
STUDIO = [
    sys.executable,
    "-m",
    "styledrop_cli",
    "studio",
    "studio-of-a-script",
    "--headless",
    "--port",
    "8765",
    "--quiet",
]
studio = subprocess.Popen([*STUDIO, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
url = studio.stdout.readline().strip()  # http://127.0.0.1:PORT/SECRET/
script = {"Authorization": f"Bearer {url.split('/')[3]}", "Content-Type": "application/json"}


def ask(path, said=None, **headers):
    """What is answered, as JSON or as a file."""
    data = said if said is None or isinstance(said, bytes) else json.dumps(said).encode()
    with urlopen(Request(url + path, data, script | headers)) as answer:
        return answer.read() if path.endswith("/file") else json.load(answer)


def run(path, said):
    """A job, once it is over."""
    job, state = ask(path, said)["job"], ask("api/state")
    while next(one for one in state["jobs"] if one["id"] == job)["state"] in ("waiting", "running"):
        state = ask(f"api/state?after={state['tag']}")  # waits for news
    return next(one for one in state["jobs"] if one["id"] == job)


try:
    reference = ask("api/references", PICTURE.read_bytes(), **{"Content-Type": "image/png", "X-Name": PICTURE.name})
    learnt = {"references": [{"id": reference["id"], "content": "a house"}], "style": "watercolor", "name": "by-script"}
    print(run("api/learn", {**learnt, "overwrite": True, "options": {"steps": 60}})["state"])
    for picture in run("api/draw", {"style": "by-script", "prompts": ["a cat", "a teapot"], "number": 2})["output"]:
        Path(Path(picture).name).write_bytes(ask(f"api/pictures/{picture}/file"))
        print(Path(picture).name)
finally:
    studio.terminate()
    studio.wait()
