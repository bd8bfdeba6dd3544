"""The check of a machine before a lesson: what is fine, what is wrong, and what to type."""

import importlib.metadata
import json
import os
import shutil
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest
from test_main import run

from cnnlib.measure import doctor

CHECKS = doctor._CHECKS


def find(name):
    (finding,) = doctor.examine({name: CHECKS[name]})
    return finding


def test_a_machine_that_is_ready(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "fetch", lambda: "the cache")
    code, out, err = run(capsys, "doctor", "--json")
    assert code == 0 and "RuntimeWarning" not in err
    findings = json.loads(out)
    assert [finding["name"] for finding in findings] == list(CHECKS)
    assert all(finding["fine"] for finding in findings)
    assert "jupyterlab" in findings[1]["text"]
    assert "finds cnnlib" in findings[5]["text"]
    assert "2,000 images twice in" in findings[6]["text"]
    assert "the code of a lecture takes about" in findings[6]["text"]


def test_one_fault_hides_no_other(capsys, monkeypatch):
    def broken():
        raise doctor.Problem("the cable is out", "try the other end")

    monkeypatch.setattr(doctor, "_CHECKS", {"cable": broken, "lamp": lambda: "it is lit"})
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert out.splitlines() == [
        "WRONG cable     the cable is out",
        "                -> try the other end",
        "ok    lamp      it is lit",
    ]


def test_a_check_that_fails_itself_hides_no_other():
    def broken():
        raise RuntimeError("no memory")

    one, other = doctor.examine({"training": broken, "lamp": lambda: "it is lit"})
    assert (one.fine, one.text, other.fine) == (False, "RuntimeError: no memory", True)
    assert doctor.examine({}) == []


def test_a_machine_that_is_too_slow(monkeypatch):
    seconds = iter([0, 63])
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(seconds))
    last = SimpleNamespace(test_accuracy=0.8)
    monkeypatch.setattr(doctor, "fit", lambda *_, **__: SimpleNamespace(last=last, banner=""))
    finding = find("training")
    assert not finding.fine
    assert "takes about 21 minutes" in finding.text and "faster machine" in finding.remedy


def test_a_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", namedtuple("V", "major minor")(3, 10))
    assert not find("Python").fine
    assert "uv python install" in find("Python").remedy


def test_a_package_that_is_missing(monkeypatch):
    def version(name):
        if name == "timm":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert (find("packages").fine, find("packages").text) == (False, "timm is not installed")


def test_a_full_disk(monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=3e8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert find("disk").text == "only 0.3 GB are free"


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("root must be a folder")])
def test_data_that_cannot_be_had(monkeypatch, error):
    def fetch():
        raise error

    monkeypatch.setattr(doctor, "fetch", fetch)
    finding = find("data")
    assert not finding.fine and "synthetic stand-in" in finding.text and str(error) in finding.text
    assert "CNNLIB_DATA" in finding.remedy


def test_a_kernel_of_another_python(monkeypatch):
    monkeypatch.setattr(sys, "executable", os.path.join("elsewhere", "python"))
    finding = find("kernel")
    assert not finding.fine and "ipykernel install" in finding.remedy


def test_a_kernel_that_does_not_start(monkeypatch):
    def start_new_kernel(**options):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(doctor, "start_new_kernel", start_new_kernel)
    assert "no kernel starts: Kernel died" in find("kernel").text
