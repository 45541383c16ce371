"""Downloads against a server that breaks off, lies, stumbles and forgets; and against full and read-only disks."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from xai_course.data import DataError
from xai_course.data import fetch as module
from xai_course.data.fetch import Source, checksum, fetch, find, registry, source

CONTENT = np.random.default_rng(0).bytes(70_000)


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every path; ``faults`` is what the next answers do wrong, in order."""

    daemon_threads = True
    content, ranges, faults = CONTENT, True, ()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults, self.asked = [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        fault = server.faults.pop(0) if server.faults else None
        if fault in (404, 500, 503):
            return self.send_error(fault)
        body, start = server.content, 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if isinstance(fault, int):
            body = body[:fault]  # the connection closes early
        self.wfile.write(bytes(len(body)) if fault == "zeros" else body)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def item(*urls: str, **changes) -> Source:
    facts = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "instruction": "Ask the owner."}
    return Source("set/file.bin", urls, **{**facts, **changes})


def quick(what: Source, cache: Path, **options) -> Path:
    return fetch(what, cache=cache, **{"wait": 0.0, "attempts": 4, "timeout": 5.0, **options})


def parts(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_a_download_is_verified_kept_and_not_repeated(server, tmp_path):
    what = item(server.url)
    path = quick(what, tmp_path)
    assert path == tmp_path / "set" / "file.bin" and path.read_bytes() == CONTENT
    assert quick(what, tmp_path) == path and server.asked == [None]
    assert parts(tmp_path) == [path]


def test_md5_is_enough_where_the_owner_gives_no_more(server, tmp_path):
    assert quick(item(server.url, sha256="", md5=hashlib.md5(CONTENT).hexdigest()), tmp_path).is_file()


def test_a_broken_connection_is_continued_where_it_stopped(server, tmp_path):
    server.faults = [10_000, 503, 20_000]
    assert quick(item(server.url), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=10000-", "bytes=10000-", "bytes=30000-"]


def test_a_killed_download_is_continued_by_the_next_run(server, tmp_path):
    part = tmp_path / "set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:30_000])
    assert quick(item(server.url), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=30000-"] and not part.exists()


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.faults = False, [10_000]
    assert quick(item(server.url), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=10000-"]


@pytest.mark.parametrize("stale", [b"x" * 30_000, b"x" * 70_000, b"x" * 90_000])
def test_a_stale_unfinished_file_is_not_trusted(server, tmp_path, stale):
    part = tmp_path / "set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(stale)
    assert quick(item(server.url), tmp_path).read_bytes() == CONTENT
    assert parts(tmp_path) == [tmp_path / "set" / "file.bin"]


def test_wrong_bytes_name_file_expected_and_got_and_leave_nothing(server, tmp_path):
    server.content = b"an error page"
    with pytest.raises(DataError) as told:
        quick(item(server.url), tmp_path)
    message = str(told.value)
    assert "set/file.bin" in message and "Ask the owner." in message
    assert hashlib.sha256(CONTENT).hexdigest() in message and hashlib.sha256(b"an error page").hexdigest() in message
    assert parts(tmp_path) == [] and len(server.asked) == 1


def test_the_next_address_is_asked(server, tmp_path):
    server.faults = [404, "zeros"]
    assert quick(item(server.url, server.url + "2", server.url + "3"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None, None]


def test_a_server_that_only_fails_is_left_after_the_attempts(server, tmp_path):
    server.faults = [500] * 9
    with pytest.raises(DataError, match="could not be downloaded"):
        quick(item(server.url), tmp_path, attempts=3)
    assert len(server.asked) == 3 and parts(tmp_path) == []


def test_waiting_times_double(server, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.faults = [500, 500, 500]
    quick(item(server.url), tmp_path, wait=2.0)
    assert [wait for wait in waits if wait] == [2.0, 4.0, 8.0]


def test_an_interrupted_file_stays_under_another_name(server, tmp_path):
    server.faults = [10_000, 404]
    with pytest.raises(DataError, match="continues where it stopped"):
        quick(item(server.url), tmp_path)
    assert [path.name for path in parts(tmp_path)] == ["file.bin.part"]


def test_no_network(tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="Check the network and run again"):
        quick(item(server.url), tmp_path, attempts=1, timeout=1.0)
    assert parts(tmp_path) == []


def test_a_damaged_cached_file_is_neither_used_nor_deleted(server, tmp_path):
    path = quick(item(server.url), tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"file\.bin is damaged.*expected sha256.*got.*Delete the file"):
        quick(item(server.url), tmp_path)
    assert path.read_bytes() == CONTENT[:-1]


def test_a_cache_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot write set/file\.bin to the cache folder .* Set XAI_COURSE_CACHE"):
        quick(item(server.url), tmp_path / "cache")


@pytest.mark.parametrize(("number", "message"), [(errno.EROFS, "cannot write"), (errno.EACCES, "cannot write")])
def test_a_read_only_cache_folder(server, tmp_path, monkeypatch, number, message):
    def refuse(*args, **kwargs):
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=message):
        quick(item(server.url), tmp_path)


def test_a_server_that_sends_without_end_is_left_at_the_registered_size(server, tmp_path, monkeypatch):
    server.content = bytes(3_000_000)
    monkeypatch.setattr(module, "BLOCK", 10_000)
    with pytest.raises(DataError, match=r"got [0-9a-f]{64} \(.* bytes of 70,000 at most\)") as told:
        quick(item(server.url, size=len(CONTENT)), tmp_path)
    size = int(str(told.value).split("(")[1].split(" bytes")[0].replace(",", ""))
    assert 70_000 < size <= 80_000 and parts(tmp_path) == [] and len(server.asked) == 1
    server.content = CONTENT
    assert quick(item(server.url, size=len(CONTENT)), tmp_path).read_bytes() == CONTENT


def test_a_length_that_is_no_number_is_ignored(server, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Answer,
        "send_header",
        lambda self, key, value: BaseHTTPRequestHandler.send_header(
            self, key, "abc" if key == "Content-Length" else value
        ),
    )
    assert quick(item(server.url), tmp_path).read_bytes() == CONTENT


def test_a_full_disk(server, tmp_path, monkeypatch):
    def full(answer, file, name, have, total):
        file.write(answer.read(5000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy", full)
        with pytest.raises(DataError, match=r"the disk of .* is full: set/file\.bin needs 70 MB"):
            quick(item(server.url, size=70_000_000), tmp_path)
    assert [path.name for path in parts(tmp_path)] == ["file.bin.part"]
    assert quick(item(server.url), tmp_path).read_bytes() == CONTENT  # and continues once there is room


def test_several_at_once_download_once(server, tmp_path):
    what, found = item(server.url), []
    threads = [threading.Thread(target=lambda: found.append(quick(what, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.asked) == 1
    assert parts(tmp_path) == [tmp_path / "set" / "file.bin"]


def test_the_users_own_copy_is_used_in_place(tmp_path, server):
    for name in ("mine/set/file.bin", "flat/file.bin"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(CONTENT)
        folder = tmp_path / name.split("/")[0]
        assert quick(item(server.url), tmp_path / "cache", folders=[tmp_path / "none", folder]) == tmp_path / name
    assert server.asked == [] and not (tmp_path / "cache").exists()
    assert find(item(), [tmp_path / "none"]) is None


def test_the_users_damaged_copy_is_not_passed_over_in_silence(tmp_path, server):
    (tmp_path / "file.bin").write_bytes(b"half")
    with pytest.raises(DataError, match="is damaged or another version"):
        quick(item(server.url), tmp_path / "cache", folders=[tmp_path])


def test_a_file_behind_a_form_says_where_to_ask(tmp_path):
    with pytest.raises(DataError, match="cannot be downloaded by a program. Ask the owner."):
        fetch(item(), cache=tmp_path)


def test_a_remote_file_without_checksum_is_refused(tmp_path, server):
    with pytest.raises(ValueError, match="needs a sha256 or md5"):
        quick(item(server.url, sha256=""), tmp_path)


def test_the_cache_folder_follows_the_environment(tmp_path, server, monkeypatch):
    monkeypatch.setenv("XAI_COURSE_CACHE", str(tmp_path / "elsewhere"))
    assert fetch(item(server.url)) == tmp_path / "elsewhere" / "set" / "file.bin"


def test_the_registry_is_complete():
    assert len(registry()) >= 20
    for entry in registry().values():
        assert entry.licence.endswith(".") and entry.instruction.endswith("."), entry.name
        assert not entry.urls or len(entry.md5) == 32 or len(entry.sha256) == 64, entry.name
        assert all(url.startswith(("https://", "http://")) for url in entry.urls)
        assert not entry.name.endswith("ubyte.gz") or len(entry.unpacked_md5) == 32
    with pytest.raises(ValueError, match=r"nearest: cifar-10.*got 'cifar-10'"):
        source("cifar-10")


def test_checksum_reads_in_blocks(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(CONTENT)
    monkeypatch.setattr(module, "BLOCK", 1000)
    assert checksum(tmp_path / "x") == hashlib.sha256(CONTENT).hexdigest()
