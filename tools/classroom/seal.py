"""Lock away what students must not see: ``seal`` packs it into one encrypted file, ``open`` brings it back.

The key is a file that the teacher keeps; GnuPG encrypts (AES-256, and it notices a changed byte). A repository that was
sealed can be public: what is left are the students' notebooks, the checks' numbers and the grader.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tools import ROOT
from xai_course.data.files import write_atomically

SEALED = "course.sealed"
SECRET = (
    "notebooks/assignments/*.ipynb",
    "tools/classroom/questions/[!_]*.py",
    "tools/classroom/mock_answers.py",
    "tests/test_checks_[!f]*.py",
)
"""Solutions, references, and right answers planted in tests, as patterns from the root of the repository."""
MEMBERS = ("notebooks/assignments/", "tools/classroom/", "tests/test_checks_")


def secret(root: Path = ROOT) -> list[Path]:
    """The files that a seal takes away."""
    return sorted(path for pattern in SECRET for path in root.glob(pattern))


def seal(key: Path, root: Path = ROOT) -> list[Path]:
    """Pack the `secret` files into ``course.sealed`` and remove them; ``key`` is made if it is missing.

    Raises:
        ValueError: there is nothing to seal, or the key lies inside the repository.
        RuntimeError: GnuPG is missing or fails; nothing is removed then.
    """
    found = secret(root)
    if not found:
        raise ValueError(f"nothing to seal in {root}: it is sealed already, or open it first")
    if key.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"the key {key} must lie outside the repository, or it is published with it")
    if not key.exists():
        with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for path in found:
            archive.add(path, path.relative_to(root).as_posix())
    locked = _gpg(key, "--symmetric", packed.getvalue())
    if _gpg(key, "--decrypt", locked) != packed.getvalue():
        raise RuntimeError("what was sealed does not open again: nothing was removed")
    write_atomically(root / SEALED, lambda file: file.write(locked))
    for path in found:
        path.unlink()
    return found


def unseal(key: Path, root: Path = ROOT) -> list[Path]:
    """Bring back what `seal` took away; files that are there already must not be.

    Raises:
        ValueError: there is no sealed file or no key, it is the wrong key, or a file would be overwritten.
        RuntimeError: GnuPG is missing.
    """
    if not (root / SEALED).exists():
        raise ValueError(f"no {SEALED} in {root}: nothing is sealed")
    if not key.exists():
        raise ValueError(f"no key at {key}: ask the teacher who sealed this course")
    if there := secret(root):
        raise ValueError(f"{there[0].relative_to(root)} would be overwritten: seal or remove it first")
    with tarfile.open(fileobj=io.BytesIO(_gpg(key, "--decrypt", (root / SEALED).read_bytes()))) as archive:
        names = archive.getnames()
        if strange := [name for name in names if not name.startswith(MEMBERS) or ".." in name]:
            raise ValueError(f"{SEALED} holds {strange[0]}, which no seal takes")
        archive.extractall(root, filter="data")
    (root / SEALED).unlink()
    return [root / name for name in names]


def _gpg(key: Path, action: str, data: bytes) -> bytes:
    """Encrypt or decrypt bytes with the key file, in a home of its own."""
    program = shutil.which("gpg")
    if program is None:
        raise RuntimeError("GnuPG (gpg) is not installed: apt-get install gnupg, or brew install gnupg")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        options = ["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase-file", str(key)]
        command = [program, "--homedir", home, *options, "--cipher-algo", "AES256", "-o", "-", action]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        stop = ["gpgconf", "--homedir", home, "--kill", "gpg-agent"]
        if shutil.which("gpgconf"):
            subprocess.run(stop, capture_output=True, check=False)
    if done.returncode:
        if action == "--decrypt":
            raise ValueError(
                f"{SEALED} does not open with the key {key}: it is another course's, or the file is damaged"
            )
        raise RuntimeError(f"gpg failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout
