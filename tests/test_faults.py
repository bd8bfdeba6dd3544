"""Faults: servers that misbehave, damaged files, full disks, homes that are none, and kills.

Each row of a table is one fault. It must be detected and named, it never leaves a half file that is
taken for good, and once it is over, the same call succeeds.
"""

import errno
import gzip
import itertools
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import test_data
from filelock import FileLock
from test_checkpoint import assert_equal, epochs_in, forked
from test_checkpoint import run as train_with
from test_data import contents
from test_main import TINY, drawn, run

from cnnlib import __main__ as command
from cnnlib import weights
from cnnlib.data import _files, fashion_mnist
from cnnlib.measure.records import read_json, write_bytes, write_json

pwd, resource = map(pytest.importorskip, ("pwd", "resource"))  # not on Windows

folder = test_data.folder  # archives that take the place of the real ones


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Folders that take the place of this user's home and of the temporary one."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    monkeypatch.setattr(_files, "TEMPORARY", elsewhere / "temporary")
    return elsewhere


# A server that answers as it is told


class Server:
    """A server on this machine that hands each connection to a function.

    Args:
        archives: What a server should answer, by file name.
    """

    def __init__(self, archives):
        self.archives = archives
        self.answer = good
        self.asked = []
        self.closed = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as request:
            name = request.readline().split()[1].decode().lstrip("/")
            while request.readline() not in (b"\r\n", b""):
                pass
            self.asked.append(name)
            with suppress(OSError):  # the client has had enough
                self.answer(Reply(connection, self.closed), self.archives.get(name, b""))

    def close(self):
        self.closed.set()
        with suppress(OSError):  # this wakes what waits for a connection, on Linux
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Reply:
    """What a server sends over one connection, until it is closed."""

    def __init__(self, connection, closed):
        self.connection, self.closed = connection, closed

    def send(self, content):
        self.connection.sendall(content)

    def drip(self, content):
        """Send a byte now and then: never silent for long, and never done."""
        for byte in itertools.cycle(content):
            if self.closed.wait(0.05):
                return
            self.send(bytes([byte]))

    def flood(self):
        while not self.closed.is_set():
            self.send(bytes(10_000))

    def stall(self):
        self.closed.wait(60)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def head(length, status="200 OK", *lines):
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {length}", *lines, "", ""]).encode()


def good(reply, archive):
    reply.send(head(len(archive)) + archive)


def cut(keep, length=None):
    """Send a part of the archive, and say a length, by default that of the part."""

    def answer(reply, archive):
        part = archive[: int(keep * len(archive)) if isinstance(keep, float) else keep]
        reply.send(head(len(part) if length is None else len(archive) + length) + part)

    return answer


def status(code, *lines, body=b"<html>no</html>"):
    return lambda reply, archive: reply.send(head(len(body), code, *lines) + body)


def raw(content):
    return lambda reply, archive: reply.send(content)


def body(change):
    """Send a changed archive, with the right length of the change."""

    def answer(reply, archive):
        changed = change(archive)
        reply.send(head(len(changed)) + changed)

    return answer


def flipped(archive):
    middle = len(archive) // 2
    return archive[:middle] + bytes([archive[middle] ^ 1]) + archive[middle + 1 :]


def then(content, method):
    """Send something, and then do what is named, such as stall."""

    def answer(reply, archive):
        reply.send(content)
        getattr(reply, method)()

    return answer


HARMLESS = {
    "the archive": good,
    "the archive, of a larger length": cut(10**9, length=10),
    "the archive, and zeros": body(lambda archive: archive + bytes(512)),
    "another archive of the same": body(lambda archive: gzip.compress(gzip.decompress(archive))),
    "the archive, of no length": lambda reply, archive: reply.send(
        b"HTTP/1.0 200 OK\r\n\r\n" + archive
    ),
}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DAMAGED = "the downloaded file is damaged"
CUT = "file ended before the end-of-stream marker"
ANSWERS = {
    "nothing": (body(lambda archive: b""), DAMAGED),
    "cut to 1 byte": (cut(1), "Not a gzipped file"),
    "cut in half": (cut(0.5), CUT),
    "cut before its last byte": (cut(-1), CUT),
    "cut, of the whole length": (cut(0.5, length=0), CUT),
    "whole, of a smaller length": (
        lambda reply, archive: reply.send(head(len(archive) - 9) + archive),
        CUT,
    ),
    "a wrong checksum": (body(flipped), "Error "),
    "an archive of something else": (body(lambda archive: gzip.compress(b"other")), DAMAGED),
    "more after the archive": (body(lambda archive: archive + b"more"), "Not a gzipped file"),
    "an archive that unpacks without end": (
        body(lambda archive: gzip.compress(bytes(10**7))),
        DAMAGED,
    ),
    "a login page": (status("200 OK"), "Not a gzipped file (b'<h')"),
    "204": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), DAMAGED),
    "403": (status("403 Forbidden"), "HTTP Error 403: Forbidden"),
    "404": (status("404 Not Found"), "HTTP Error 404: Not Found"),
    "500": (status("500 Oops"), "HTTP Error 500: Oops"),
    "503": (status("503 Slow Down"), "HTTP Error 503: Slow Down"),
    "a redirect to itself": (status("302 Found", "Location: /again"), "infinite loop"),
    "a redirect to nowhere": (status("302 Found"), "HTTP Error 302: Found"),
    "a redirect to a file": (
        status("302 Found", "Location: file:///etc/passwd"),
        "Redirection to url 'file:///etc/passwd' is not allowed",
    ),
    "a redirect to a closed port": (
        status("302 Found", "Location: http://127.0.0.1:9/"),
        "Connection refused",
    ),
    "a redirect to what is no address": (status("302 Found", "Location: http://[1"), "Invalid"),
    "no answer": (raw(b""), "closed connection without response"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "SSH-2.0-OpenSSH_9.9"),
    "garbage": (raw(bytes(range(128, 256)) * 9), "Error downloading"),
    "a status without a number": (raw(b"HTTP/1.1 fine\r\n\r\n"), "HTTP/1.1 fine"),
    "a line without end": (raw(b"HTTP/1.1 200 " + b"x" * 70_000), "status line"),
    "too many headers": (raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200), "more than 100 headers"),
    "a chunk of no size": (raw(CHUNKED + b"xyz\r\n"), "IncompleteRead"),
    "a chunk that ends early": (raw(CHUNKED + b"ff\r\nabc"), "IncompleteRead"),
    "a reset": (lambda reply, archive: reply.reset(), "reset by peer"),
    "a reset in the body": (then(head(99) + b"half", "reset"), "reset by peer"),
    "silence": (then(b"", "stall"), "timed out"),
    "silence in the head": (then(b"HTTP/1.1 200 OK\r\n", "stall"), "timed out"),
    "silence in the body": (then(head(99) + b"half", "stall"), "timed out"),
    "an answer without end": (then(b"HTTP/1.1 200 OK\r\n\r\n", "flood"), "200,000 bytes or more"),
    "a length beyond any": (then(head(10**18), "flood"), "200,000 bytes or more"),
    "a head in drips": (
        lambda reply, archive: reply.drip(b"HTTP/1.1 200 OK  "),
        "no end after 1 seconds",
    ),
    "a body in drips": (
        lambda reply, archive: (reply.send(head(10**5)), reply.drip(archive)),
        "no end after 1 seconds",
    ),
}


@pytest.fixture
def server(folder, monkeypatch):
    """A server of the archives, which lie nowhere else."""
    archives = contents(folder)
    server = Server({path.name: content for path, content in archives.items()})
    for path in archives:
        path.unlink()
    monkeypatch.setattr(_files, "SITE", server.address)
    monkeypatch.setattr(_files, "LARGEST", 200_000)
    yield server
    server.close()


def files(folder):
    """Return the names of all files below a folder but locks."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.mark.parametrize(("answer", "said"), ANSWERS.values(), ids=ANSWERS)
def test_a_server_that_answers(folder, server, monkeypatch, capsys, answer, said):
    """The stand-in takes the place of the data, the reason is said, and nothing is left behind."""
    server.answer = answer
    with monkeypatch.context() as patches:
        patches.setattr(_files, "PATIENCE", 0.3 if said == "timed out" else 10)
        patches.setattr(_files, "LONGEST", 1 if said == "no end after 1 seconds" else 60)
        assert fashion_mnist(train=10, test=10, root=folder).source == "synthetic stand-in"
    out = capsys.readouterr().out
    assert out.startswith("Fashion-MNIST could not be found or downloaded: Error downloading http")
    assert said in out
    assert out.count("\n") == 1
    assert files(folder) == []
    server.answer = good
    _files.UNREACHABLE.clear()  # as in a new process
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"


@pytest.mark.parametrize("answer", HARMLESS.values(), ids=HARMLESS)
def test_what_unpacks_to_the_right_bytes_is_taken(folder, server, answer):
    server.answer = answer
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert len(files(folder)) == 8


def test_a_download_cut_at_any_byte_is_never_taken(folder, server):
    archive = folder / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    whole = server.archives[archive.name]
    for keep in range(len(whole)):
        server.answer = cut(keep)
        _files.UNREACHABLE.clear()
        with pytest.raises(ConnectionError, match="Error downloading http"):
            _files._download(archive)
        assert not archive.exists()
    server.answer = good
    _files.UNREACHABLE.clear()
    assert _files._download(archive).read_bytes() == whole


# Files that are not what they should be

LABELS = "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_at_any_byte_is_never_taken(folder, packed):
    archive = folder / "FashionMNIST" / "raw" / f"{LABELS}.gz"
    whole = archive.read_bytes() if packed else gzip.decompress(archive.read_bytes())
    path = folder / (archive.name if packed else archive.stem)
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        assert _files._md5(path) != _files.MD5[LABELS]
    path.write_bytes(whole)
    assert _files._md5(path) == _files.MD5[LABELS]


def replaced(make):
    """Return what puts something else in the place of a file."""

    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGES = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"."),
    "altered": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "another": lambda path: path.write_bytes(path.with_name("t10k-images-idx3-ubyte").read_bytes()),
    "a dangling link": replaced(lambda path: path.symlink_to("nowhere")),
    "a folder": replaced(Path.mkdir),
    "a pipe": replaced(os.mkfifo),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_unpacked_file_that_is_not_whole(folder, elsewhere, damage):
    """The archive beside it repairs it, or fills the cache where it must not be replaced."""
    fashion_mnist(root=folder)
    path = folder / "FashionMNIST" / "raw" / LABELS
    whole = path.read_bytes()
    damage(path)
    data = fashion_mnist(root=folder)
    assert data.source == "Fashion-MNIST"
    assert data.test.labels.tolist() == list(range(10)) * 5
    assert path.is_file() != (LABELS in files(elsewhere))
    assert not path.is_file() or path.read_bytes() == whole
    assert [name for name in files(folder) if name.endswith(".part")] == []


# Folders


@contextmanager
def disk_full_after(count):
    """Let no file grow beyond some bytes: what is written stops in its middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_while_archives_are_unpacked(folder, elsewhere, capsys):
    before = files(folder)
    with disk_full_after(1000):
        data = fashion_mnist(train=10, test=10, root=folder)
    assert data.source == "synthetic stand-in"
    assert "] File too large: " in capsys.readouterr().out
    assert files(folder) == before
    assert files(elsewhere) == []
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert set(before) < set(files(folder))


def test_a_disk_that_is_full_during_a_download(folder, server, capsys):
    with disk_full_after(1000):
        data = fashion_mnist(train=10, test=10, root=folder)
    assert data.source == "synthetic stand-in"
    assert "] File too large: " in capsys.readouterr().out
    assert files(folder) == []


def fill(monkeypatch, folder):
    """Let the disk of a folder be full."""
    write = _files.write

    def write_elsewhere(path, contents):
        if folder in path.parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, contents)

    monkeypatch.setattr(_files, "write", write_elsewhere)


def test_where_the_requested_disk_is_full_the_cache_is_used(folder, elsewhere, monkeypatch):
    fill(monkeypatch, folder)
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert files(elsewhere) == sorted(_files.MD5)


def test_where_the_cache_is_full_a_temporary_folder_takes_the_download(
    server, elsewhere, monkeypatch
):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    fill(monkeypatch, elsewhere / "home")
    assert fashion_mnist().source == "Fashion-MNIST"
    assert len(files(elsewhere / "temporary")) == 8
    assert files(elsewhere / "home") == []


def test_a_failed_download_is_not_tried_in_another_folder(server, elsewhere, monkeypatch):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    server.answer = ANSWERS["503"][0]
    assert fashion_mnist(train=10, test=10).source == "synthetic stand-in"
    assert len(server.asked) == 1
    assert files(elsewhere) == []


NAMES = {
    "spaces": "my course data",
    "unicode": "数据 für Übung",
    "newline": "two\nlines",
    "dash": "-rf",
    "quotes": "a'b\"c",
    "brackets": "[a]{b}*?",
    "percent": "%s%20$HOME~",
    "long": "x" * 200,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_of_a_folder_or_a_file_will_do(folder, tmp_path, monkeypatch, capsys, name):
    folder.joinpath("FashionMNIST").rename(tmp_path / "archives")
    place = tmp_path / name
    place.mkdir()
    for path in (tmp_path / "archives" / "raw").iterdir():
        path.rename(place / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "fashion_mnist", drawn)
    assert fashion_mnist(root=name).source == "Fashion-MNIST"
    net, log = Path(name, f"{name}.pt"), Path(name, f"{name}.json")
    argv = [*TINY, "--epochs", 1, f"--checkpoint={net}", f"--record={log}"]
    code, out, _ = run(capsys, *argv)
    assert code == 0
    assert f"are in {net}" in out
    assert list(weights.read(net)) and len(read_json(log)["rows"]) == 1


def no_passwd(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


@pytest.mark.parametrize("home", [None, "", "/dev/null", "/proc/nowhere", "relative"])
@pytest.mark.parametrize("variable", [False, True])
def test_a_home_that_is_none(folder, tmp_path_factory, monkeypatch, home, variable):
    """Of a user without an entry in passwd, as in a container: a temporary folder takes its place."""
    for name in "CNNLIB_DATA", "HOME":
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    if variable:
        monkeypatch.setenv("CNNLIB_DATA", str(folder))
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    monkeypatch.setattr(pwd, "getpwuid", no_passwd)
    monkeypatch.setattr(_files, "TEMPORARY", folder)
    assert fashion_mnist().source == "Fashion-MNIST"
    assert list(Path().iterdir()) == []


# Processes

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the processes are forked"
)


def load(folder, queue):
    queue.put(fashion_mnist(root=folder, device="cpu").source)


@needs_fork
@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_begin_at_once_download_once(folder, server, count):
    queue = multiprocessing.get_context("fork").Queue()
    processes = [forked(load, folder, queue) for _ in range(count)]
    assert [queue.get(timeout=60) for _ in processes] == ["Fashion-MNIST"] * count
    for process in processes:
        process.join()
    assert sorted(server.asked) == sorted(server.archives)


@needs_fork
def test_a_process_killed_in_a_download_leaves_no_lock_and_no_half_file(folder, server):
    server.answer = then(head(99) + b"half", "stall")
    process = forked(partial(fashion_mnist, root=folder))
    while not server.asked:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert files(folder) == []
    server.answer = good
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"


@needs_fork
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_process_killed_while_it_unpacks(folder, name):
    def be_killed():
        target = Path if name == "replace" else os
        setattr(target, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        fashion_mnist(root=folder)

    process = forked(be_killed)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [n for n in files(folder) if not n.endswith(".gz")] == ["train-images-idx3-ubyte.part"]
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert [name for name in files(folder) if name.endswith(".part")] == []


def test_a_process_that_waits_for_another_says_so_and_does_not_wait_for_ever(
    folder, monkeypatch, capsys
):
    monkeypatch.setattr(_files, "PATIENCE", 0.1)
    monkeypatch.setattr(_files, "LONGEST", 0.1)
    raw = folder / "FashionMNIST" / "raw"
    (raw / f"{LABELS}.gz").unlink()
    with FileLock(raw / "fashion_mnist.lock"):
        assert fashion_mnist(train=10, test=10, root=folder).source == "synthetic stand-in"
    out = capsys.readouterr().out
    assert f"Waiting for another process, which provides Fashion-MNIST in {raw}\n" in out
    assert "fashion_mnist.lock' could not be acquired" in out


# What is saved


@pytest.mark.parametrize("limit", [0, 100, 5_000])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, capsys, limit):
    path = tmp_path / "net.pt"
    train_with(path, epochs=2)
    before = path.read_bytes()
    assert len(before) > 5_000
    with disk_full_after(limit), pytest.raises(OSError, match="File too large: ") as stop:
        train_with(path)
    assert str(path) in str(stop.value)
    assert len(stop.value.history.rows) == 3
    assert path.read_bytes() == before
    assert files(tmp_path) == ["net.pt"]
    assert_equal(train_with(path), train_with())


def test_a_full_disk_is_one_line_and_the_record_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "fashion_mnist", drawn)
    net, log = tmp_path / "net.pt", tmp_path / "log.json"
    argv = [*TINY, "--checkpoint", net, "--record", log]
    run(capsys, *argv, "--epochs", 1)
    with disk_full_after(100_000):
        code, out, err = run(capsys, *argv)
    assert code == 1
    assert err == f"cnnlib: [Errno {errno.EFBIG}] File too large: '{net}'\n"
    assert "after epoch 2 of 2" in out
    assert len(read_json(log)["rows"]) == 2
    assert epochs_in(net) == 1
    assert files(tmp_path) == ["log.json", "net.pt"]


@pytest.mark.parametrize("torn", [False, True])
def test_a_full_disk_keeps_the_record_before(tmp_path, torn):
    path = tmp_path / "record.json"
    write_json(path, {"runs": 1})
    if torn:  # by a kill
        (tmp_path / "record.json.part").write_text('{"runs":')
    with disk_full_after(100), pytest.raises(OSError, match=r"File too large: '.*record\.json'"):
        write_json(path, list(range(1000)))
    assert read_json(path) == {"runs": 1}
    assert files(tmp_path) == ["record.json"]


def test_records_follow_links_and_keep_modes(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    write_json(link, 1)
    target.chmod(0o640)
    write_json(link, 2)
    assert link.is_symlink()
    assert read_json(target) == 2
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(os.devnull)])
def test_a_record_replaces_nothing_but_a_file(tmp_path, capsys, make):
    path = tmp_path / "record.json"
    make(path)
    with pytest.raises(OSError, match="is not a regular file, and is not replaced"):
        write_bytes(path, b"")
    code, _, err = run(capsys, "train", "lenet", "--record", path)
    assert code == 2
    assert "record.json' must be a file in a folder that exists" in err
    assert len(err.splitlines()) == 1
    assert path.exists() and not path.is_file()
    assert Path(os.devnull).is_char_device()
