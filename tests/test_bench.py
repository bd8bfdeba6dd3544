"""The comparison of loops: both do the same work, and the numbers are what they are said to be."""

import functools
import json
import mmap
import sys
import types
from pathlib import Path

import pytest
import torch
from test_main import drawn
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

import notebooks
from cnnlib import __main__ as command
from cnnlib.measure import bench as module
from cnnlib.measure import machine, records
from cnnlib.measure.bench import bench, line, write_images
from cnnlib.models import lenet
from cnnlib.train import evaluate, fit

JOB = module._Job("lenet", 28, 16, 0.5, epochs=2, train=80, test=40, seed=3, device="cpu")


@pytest.fixture
def loops(monkeypatch):
    """Drawn images, few of them, no worker processes, and a d2l of the same interface."""

    @functools.cache
    def few(size=28, batch_size=16, *, train, test, device, seed):
        return drawn(size, batch_size, train=min(train, 80), test=min(test, 20), seed=seed)

    calls = types.SimpleNamespace(folders=[], losses=[], sizes=[])

    def parts(batch_size):
        calls.folders.append(Path.cwd())
        steps = [transforms.ToTensor()]
        for train in (True, False):
            images = FashionMNIST("../data", train, transforms.Compose(steps), download=True)
            yield DataLoader(images, batch_size, shuffle=train)

    def train_ch6(net, train, test, epochs, lr, device):
        d2l.Animator(xlabel="epoch", xlim=[1, epochs], legend=["train loss"]).add(1, (0, None))
        net.apply(
            lambda m: (
                nn.init.xavier_uniform_(m.weight) if type(m) in (nn.Linear, nn.Conv2d) else None
            )
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        for _ in range(epochs):
            calls.sizes.append([len(y) for _, y in train])
            for images, labels in train:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(images), labels)
                loss.backward()
                optimizer.step()
                calls.losses.append(loss.item())

    def loaders(batch_size, resize=None):
        return tuple(parts(batch_size))

    d2l = types.SimpleNamespace(load_data_fashion_mnist=loaders, train_ch6=train_ch6)
    package = types.ModuleType("d2l")
    package.torch = d2l
    package.__spec__ = types.SimpleNamespace()  # find_spec asks a loaded module for it
    monkeypatch.setitem(sys.modules, "d2l", package)
    monkeypatch.setattr(module, "fashion_mnist", few)
    monkeypatch.setattr(module, "measure_matmul_flops", lambda device, dtype: 1e9)
    monkeypatch.setattr(module, "_WORKERS", 0)
    monkeypatch.setattr(machine, "gc", types.SimpleNamespace(collect=lambda: None))
    strong = module.DataLoader
    monkeypatch.setattr(
        module, "DataLoader", lambda *a, **k: strong(*a, **k | {"persistent_workers": False})
    )
    return calls


def test_written_images_are_what_torchvision_reads(tmp_path):
    data = drawn(train=30, test=20)
    for part in ("train", "test"):
        write_images(tmp_path, part, getattr(data, part))
    for part in ("train", "test"):
        read = FashionMNIST(tmp_path, train=part == "train", download=True)
        assert torch.equal(read.data, getattr(data, part).images[:, 0])
        assert torch.equal(read.targets, getattr(data, part).labels)


def test_both_loops_begin_with_the_same_weights_and_see_the_same_batch(loops, fp32, tmp_path):
    """Step alone, one batch again and again: the losses must agree to the precision."""
    net = lenet()
    ours, theirs, strong = (module._started(net, JOB) for _ in range(3))
    images, labels = drawn(train=80).train.take(torch.arange(16))
    for part in ("train", "test"):
        write_images(tmp_path / "data", part, getattr(drawn(), part))
    side = module.D2L(JOB, tmp_path)
    side.step(theirs, images, labels)
    module.Ours(JOB, tmp_path).step(ours, images, labels)
    assert len(loops.losses) == module._STEPS_ALONE
    assert loops.losses[-1] < loops.losses[0]
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    module.Strong(JOB, tmp_path).step(strong, images, labels)
    for a, b in zip(strong.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("against", ["d2l", "strong"])
def test_a_row_of_the_table(loops, monkeypatch, tmp_path, against):
    monkeypatch.setattr(records, "_commit", lambda: "abc")
    record, path = bench(["lenet"], against=against, rounds=2, batches=5, folder=tmp_path)
    (row,) = record["rows"]
    assert (row["model"], row["size"], row["batch_size"], row["lr"]) == ("lenet", 28, 256, 0.9)
    for side in (row["ours"], row["theirs"]):
        assert len(side["seconds"]) == 2
        slow, fast = sorted(row["train"] / seconds for seconds in side["seconds"])
        assert slow <= side["images_per_second"] <= fast
        assert side["cold_seconds"] > 0
        flops = 6 * 416_520 * side["step_images_per_second"]
        assert side["share_of_peak"] == pytest.approx(flops / 1e9)
        assert not {name for name in side if name.startswith("test")}  # so few steps teach nothing
    least, most = row["range"]
    assert least <= most
    rates = row["ours"]["images_per_second"], row["theirs"]["images_per_second"]
    assert row["ratio"] == pytest.approx(rates[0] / rates[1])
    assert row["commit"] == "abc"
    assert path == tmp_path / f"bench_{against}_cpu.json"
    assert json.loads(path.read_text())["rows"] == [row]
    assert set(record["versions"]) >= {"python", "torch", "torchvision"}
    assert record["hardware"]["cores"] > 0
    assert len(line(row)) == len(module.HEADER)


def test_rows_of_this_machine_stay_and_files_of_another_are_left_alone(loops, tmp_path):
    def again():
        record, path = bench(["lenet"], against="strong", rounds=1, batches=5, folder=tmp_path)
        return [row["model"] for row in record["rows"]], path.name

    path = tmp_path / "bench_strong_cpu.json"
    assert again() == (["lenet"], path.name)
    record = json.loads(path.read_text())
    record["rows"].insert(0, record["rows"][0] | {"model": "nin"})
    path.write_text(json.dumps(record))
    assert again() == (["nin", "lenet"], path.name)
    record["hardware"]["cpu"] = "an abacus"
    theirs = json.dumps(record)
    path.write_text(theirs)
    for _ in range(2):
        assert again() == (["lenet"], "bench_strong_cpu-2.json")
    assert path.read_text() == theirs
    record, beside = bench(
        ["lenet"], against="strong", rounds=1, batches=6, seed=7, folder=tmp_path
    )
    assert beside.name == "bench_strong_cpu-3.json"  # another budget


def test_a_row_stays_until_the_new_one_is_measured(loops, monkeypatch, tmp_path):
    _, path = bench(["lenet"], against="strong", rounds=1, batches=5, folder=tmp_path)
    before = path.read_text()
    monkeypatch.setattr(module, "_compare", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bench(["lenet"], against="strong", rounds=1, batches=5, folder=tmp_path)
    assert path.read_text() == before


@pytest.mark.parametrize("theirs", ["[]", "{}", '{"rows": []}', '{"hardware": {}}', "3"])
def test_a_file_of_something_else_is_left_alone(tmp_path, theirs):
    path = tmp_path / "x.json"
    path.write_text(theirs)
    assert records.load_previous(path, machine.environment_info("cpu")) == (
        tmp_path / "x-2.json",
        {},
    )
    assert path.read_text() == theirs


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"budget": 2}, False),
        ({"precision": "fp16"}, False),
        ({"versions": {"torch": "0.1"}}, False),
        ({"hardware": {}}, False),
    ],
)
def test_a_measurement_goes_on_in_a_file_of_its_own_kind_only(tmp_path, changed, same):
    about = machine.environment_info("cpu")
    old = about | {"budget": 1} | changed
    old["hardware"] = about["hardware"] | {"cores": about["hardware"]["cores"] + 1}
    if "hardware" not in changed:
        old["hardware"] = about["hardware"]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(old))
    (tmp_path / "x-2.json").write_text(json.dumps(old | {"budget": 3}))
    (tmp_path / "x-3.json").write_text(json.dumps(about | {"budget": 4}))
    old = json.loads(path.read_text())  # a tuple comes back as a list
    expected = (path, old) if same else (tmp_path / "x-4.json", {})
    assert records.load_previous(path, about, budget=1) == expected


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"rows": [')
    with pytest.raises(ValueError, match=r"x\.json must hold JSON, but it is broken: move it"):
        records.load_previous(path, {})


def test_without_d2l_the_bench_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"against='d2l' needs .*: try pip install --no-deps d2l"):
        bench(["lenet"], against="d2l", batches=5, folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["lenett"]}, r"names=\['lenett'\] must be names of models, in a list: try \['l"),
        ({"names": "lenet"}, "names='lenet' must be names of models, in a list"),
        ({"against": "torch"}, r"against='torch' must be one of \['d2l', 'strong'\]: try 'strong'"),
        ({"rounds": 0}, "rounds=0 must be a whole number from 1: try rounds=3"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(arguments, message, tmp_path):
    arguments = {"names": ["lenet"], "against": "strong", "folder": tmp_path} | arguments
    with pytest.raises(ValueError, match=message):
        bench(**arguments)


def test_d2l_runs_beside_the_written_images_and_we_stay_where_we_are(loops, tmp_path):
    here = Path.cwd()
    bench(["lenet"], against="d2l", rounds=1, batches=5, folder=tmp_path)
    assert {folder.name for folder in loops.folders} == {"work"}
    assert Path.cwd() == here
    assert [80] in loops.sizes


def test_networks_for_large_images_are_cut_on_a_cpu(monkeypatch):
    assert module._make_job("resnet18", 1, None, 0).train == 20 * 256
    assert module._make_job("lenet", 1, None, 0).train == 60_000
    job = module._make_job("nin", 2, 10, 0)
    assert (job.size, job.train, job.test, job.epochs) == (224, 1280, 213, 2)
    monkeypatch.setattr(module, "device_type", lambda: "cuda")
    assert module._make_job("resnet18", 1, None, 0).train == 60_000


def test_the_peak_is_that_of_a_matrix_product(monkeypatch):
    monkeypatch.setattr(machine, "timed", lambda device, action: (0.5, None))
    assert machine.measure_matmul_flops("cpu", torch.float32, seconds=0) == 2 * 1536**3 / 0.5


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_a_gpu_is_waited_for_by_whatever_name(monkeypatch, device):
    waits = []
    monkeypatch.setattr(machine, "check_device", torch.device)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    assert machine.timed(device, lambda: None)[1] == 7
    assert waits == [device]


def test_memory_at_the_worst_moment():
    _, before = machine.timed("cpu", lambda: None)
    # Fresh pages: an allocator may have some left from an earlier test.
    _, during = machine.timed("cpu", lambda: mmap.mmap(-1, 100_000_000).write(bytes(100_000_000)))
    if before is None:
        pytest.skip("this system does not say how much memory a process held")
    assert during - before > 80e6


def test_too_few_batches_are_refused(capsys):
    assert command.main(["bench", "--models", "lenet", "--batches", "4"]) == 2
    assert "batches=4 must be a whole number from 5 to 200" in capsys.readouterr().err


def test_the_command(loops, tmp_path, capsys):
    argv = ["bench", "--models", "lenet", "--batches", "5", "--rounds", "1", "--json"]
    assert command.main([*argv, "--against", "strong", "--folder", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["against"] == "strong"
    assert err.splitlines()[0] == module.HEADER
    assert err.splitlines()[1].startswith("lenet ")


def test_ctrl_c_in_our_loop_ends_the_bench(loops, monkeypatch, tmp_path):
    """fit keeps what is done and returns: the bench must not take that for a finished run."""
    monkeypatch.setattr(module, "fit", lambda *a, **k: types.SimpleNamespace(interrupted=True))
    argv = ["bench", "--models", "lenet", "--batches", "5", "--folder", str(tmp_path)]
    assert command.main(argv) == 130
    assert not list(tmp_path.iterdir())


def test_a_repeated_batch_trains_on_itself_and_tests_on_one_image():
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([1, 2, 3, 4])
    data = machine.repeated_batch(images, labels, 3)
    assert len(data.train) == 3
    assert all(a is images and b is labels for a, b in data.train)
    assert evaluate(lenet(), data.test).confusion.sum() == 1
    history = fit(lenet(), data, 2, 0.1, precision="fp32", plot=False)
    assert len(history.losses) == 6


def test_the_committed_records_are_what_the_bench_writes(loops, tmp_path):
    record, _ = bench(["lenet"], against="strong", rounds=1, batches=5, folder=tmp_path)
    paths = sorted((notebooks.ROOT / "results").glob("bench_*.json"))
    assert len(paths) == 4
    for path in paths:
        committed = records.read_json(path)
        assert record.keys() >= committed.keys() - {"precision"}
        for row in committed["rows"]:
            assert row.keys() == record["rows"][0].keys() - {"commit"}  # they are older than it
            assert len(line(row)) == len(module.HEADER)
