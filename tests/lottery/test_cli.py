"""The command line: what it prints where, its exit codes, and one clear line for everything that is wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lottery.bench import BENCHMARKS
from lottery.cli.app import run
from lottery.cli.choices.listing import kinds
from lottery.settings.recipes import recipe_names
from pruning.criteria import CRITERIA
from pruning.mask import Mask

TINY = ["prune", "--levels", "2", "--steps", "30", "--set", "tolerance=0.2"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def lottery(capsys, *arguments):
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_prune_prints_a_table_and_leaves_a_run(capsys):
    code, out, err = lottery(capsys, *TINY)
    assert (code, err) == (0, "")
    covered, *lines = out.splitlines()
    assert covered.startswith("masks cover 98.4 % of the parameters, 100 % of the multiply-adds")
    assert lines[0].split()[:2] == ["level", "density"]
    assert [line.split()[:2] for line in lines[1:4]] == [["0", "100.00%"], ["1", "80.00%"], ["2", "64.00%"]]
    assert "Winning ticket: level 2" in out
    (folder,) = Path("runs").glob("digits-mlp-gd-magnitude-*")
    assert {"config.json", "environment.json", "metrics.jsonl", "summary.json", "density.png", "seed-0"} <= {
        path.name for path in folder.iterdir()
    }
    ticket = folder / "seed-0" / "level-02"
    assert {p.name for p in ticket.iterdir()} >= {"config.json", "model.safetensors", "mask.safetensors", "README.md"}
    assert Mask.load(ticket / "mask.safetensors").kept == 4137
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["level"], row["step"]) for row in rows[-2:]] == [(2, 29), (2, 30)]


def test_json_is_one_object_on_standard_output_and_nothing_else(capsys):
    code, out, err = lottery(capsys, *TINY, "--json", "--replicates", "2")
    found = json.loads(out)
    assert code == 0 and "Winning ticket" in err
    assert {"run", "seconds", "device", "metric", "levels", "winning"} <= found.keys()
    level = found["levels"][2]
    assert {"level", "density", "sparsity", "kept", "prunable", "layers", "replicates"} <= level.keys()
    assert level["kept"] == 4137 and level["prunable"] == 6464
    assert level["layers"].keys() == {"fc1.weight", "fc2.weight", "fc3.weight"}
    assert [r["seed"] for r in level["replicates"]] == [0, 1]
    assert {"seed", "validation", "test", "steps"} <= level["replicates"][0].keys()
    assert found["winning"].keys() >= {"level", "density", "test", "dense_test", "ticket"}
    assert Path(found["winning"]["ticket"]).is_dir()
    code, shown, _ = lottery(capsys, "show", found["run"], "--json")
    again = json.loads(shown)
    assert code == 0 and again["levels"] == found["levels"] and again["winning"] == found["winning"]


def test_json_without_a_winner_has_null_and_a_reason(capsys):
    arguments = ["--set", "densities=[0.002]", "--set", "tolerance=0", "--steps", "60", "--json", "--quiet"]
    code, out, err = lottery(capsys, "prune", *arguments)
    found = json.loads(out)
    assert (code, found["winning"]) == (0, None)
    assert err.startswith("lottery: no winning ticket: no pruned level")
    assert "no pruned level" in found["reason"]


def test_quiet_prints_the_tickets_path_only(capsys):
    code, out, err = lottery(capsys, *TINY, "--quiet")
    assert (code, err) == (0, "")
    assert Path(out.strip()).is_dir() and len(out.splitlines()) == 1


def test_the_same_command_again_trains_nothing_and_force_starts_over(capsys):
    first = lottery(capsys, *TINY, "--json")[1]
    assert lottery(capsys, *TINY, "--json")[1] == first
    forced = json.loads(lottery(capsys, *TINY, "--json", "--force")[1])
    assert forced["seconds"] != json.loads(first)["seconds"]
    assert forced["levels"] == json.loads(first)["levels"]


def test_show_prints_layers_and_draws_figures(capsys):
    lottery(capsys, *TINY)
    (folder,) = Path("runs").glob("digits*")
    (folder / "density.png").unlink()
    code, out, _ = lottery(capsys, "show", str(folder), "--plot")
    assert code == 0 and "fc1.weight" in out
    assert (folder / "density.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "curves.png").stat().st_size > 5_000


def test_flags_beat_the_file_and_the_file_beats_the_recipe(capsys):
    Path("c.toml").write_text("levels = 1\nsteps = 31\nlr = 0.5\nreplicates = 1\n")
    arguments = ["--recipe", "frankle2019-lenet-quick", "--config", "c.toml", "--lr", "0.01", "--data", "digits"]
    code, _, _ = lottery(capsys, "prune", *arguments, "--set", "steps=32", "--set", "validation_size=100")
    (config,) = (json.loads((path / "config.json").read_text()) for path in Path("runs").iterdir() if path.is_dir())
    assert code == 0
    assert (config["model"], config["levels"], config["steps"], config["lr"]) == ("lenet-300-100", 1, 32, 0.01)


def test_a_users_model_criterion_and_data_by_path(capsys):
    Path("mine.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))\n"
        "def largest(trained, job):\n    return {n: trained.params[n] for n in job.mask}\n"
    )
    rng = np.random.Generator(np.random.PCG64(0))
    y = np.arange(90) % 3
    x = (rng.integers(0, 50, (90, 3, 4)) + 60 * y[:, None, None]).astype(np.uint8)
    np.savez("d.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    arguments = ["--model", "mine:net", "--criterion", "mine:largest", "--data", "d.npz"]
    code, out, err = lottery(capsys, *TINY, *arguments, "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["levels"][2]["kept"] == 154
    trained = json.loads(out)["levels"][0]["replicates"][0]["ticket"]
    from pruning.disk.files import read_tensors

    weights = read_tensors(Path(trained) / "trained.safetensors")[0]
    mask = Mask.load(Path(trained).parent / "level-01" / "mask.safetensors")
    kept = np.concatenate([weights[name][keep] for name, keep in mask.items()])
    assert kept.min() >= np.concatenate([weights[name][~keep] for name, keep in mask.items()]).max()


@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_every_criterion_runs_by_name(capsys, criterion):
    tiny = [*TINY, "--levels", "1", "--set", "score_steps=5", "--set", "eval_every=15"]
    assert lottery(capsys, *tiny, "--criterion", criterion, "--quiet")[0] == 0


@pytest.mark.parametrize("kind", dict(kinds()))
def test_list_shows_names_summaries_and_sources(capsys, kind):
    code, out, _ = lottery(capsys, "list", kind)
    items = json.loads(lottery(capsys, "list", kind, "--json")[1])["items"]
    assert code == 0 and items
    for item in items:
        assert item["name"] in out and item["summary"] in out and item["source"] in out
    assert kind != "recipes" or [item["name"] for item in items] == recipe_names()


def test_bench_es_prints_ratios(capsys, monkeypatch):
    import lottery.bench.es as bench

    assert BENCHMARKS["es"].value is bench.bench_es
    for name, small in (("POPULATION", 4), ("BATCH", 8), ("PIECE", 4), ("DENSITIES", (1.0, 0.05))):
        monkeypatch.setattr(bench, name, small)
    code, out, err = lottery(capsys, "bench", "es", "--data", "synthetic", "--repeats", "1", "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    baselines = [row["what"] for row in rows if row["speedup"] == 1]
    assert baselines == ["cnn-8-16, plain, dense", "lenet-300-100, plain, dense"]
    assert all(row["seconds_per_generation"] > 0 and row["population"] == 4 for row in rows)
    assert {"lenet-300-100, this trainer, density 5%", "cnn-8-16, this trainer, dense"} <= {row["what"] for row in rows}


def test_bench_search_prints_ratios(capsys, monkeypatch):
    import lottery.bench.search as bench
    from lottery.bench.loops import commands, images, lenet, replicates

    assert BENCHMARKS["search"].value is bench.bench_search
    lenet.synthetic.cache_clear()
    sizes = {(lenet, "EXAMPLES"): (256, 128), (commands, "LEVELS"): 3, (commands, "EPOCHS"): 1}
    sizes |= {(bench, "NETWORKS"): ("conv-2",), (bench, "COUNTS"): (2,), (replicates, "STEPS"): 10}
    sizes |= {(images, "EXAMPLES"): 80, (images, "BATCH"): 4, (images, "STEPS"): 2}
    for (module, name), small in sizes.items():
        monkeypatch.setattr(module, name, small)
    command = ["bench", "search", "--data", "synthetic", "--repeats", "1"]
    code, out, err = lottery(capsys, *command, "--json", "--out", "b.json")
    assert code == 0, err
    rows = {row["what"]: row for row in json.loads(out)["rows"]}
    assert json.loads(Path("b.json").read_text())["rows"] == list(rows.values())
    assert all(row["seconds_per_run"] > 0 and row["device"] == "cpu" and row["against"] for row in rows.values())
    baselines = [name for name, row in rows.items() if row["against"] == name]
    assert baselines == [
        "epoch, images one at a time, 20 %",
        "step of conv-2, plain loop",
        "2 replicates of the digits MLP, one after the other by PyTorch's operations",
        "start-up, importing PyTorch alone",
    ]
    assert {"epoch, this trainer, 5 %", "epoch, matrix products alone", "epoch, trainer optax, 20 %"} <= rows.keys()
    assert "ladder, lottery prune, 3 levels × 1 epochs" in rows
    assert 0 < rows["epoch, this trainer, 100 %"]["matrix_share"] < 1.5
    lenet.synthetic.cache_clear()


def test_bench_search_splits_a_step(capsys, monkeypatch):
    from lottery.bench.loops import lenet

    lenet.synthetic.cache_clear()
    monkeypatch.setattr(lenet, "EXAMPLES", (256, 128))
    command = ["bench", "search", "--data", "synthetic", "--repeats", "1", "--profile"]
    code, out, err = lottery(capsys, *command, "--json")
    assert code == 0, err
    found = json.loads(out)
    parts = ("gather", "forward", "loss", "backward", "wait", "update")
    assert all(abs(row["step"] - sum(row[part] for part in parts)) < 1e-6 * row["step"] for row in found["rows"])
    assert found["rates"]["dense"] > 0
    assert lottery(capsys, *command)[1].startswith("Rates of one core")
    code, _, err = lottery(capsys, "bench", "es", "--profile")
    assert (code, err) == (2, "lottery: --profile goes with lottery bench search, and draws nothing\n")
    lenet.synthetic.cache_clear()


def test_bench_methods_prints_ratios(capsys, monkeypatch):
    import lottery.bench.methods as bench

    assert BENCHMARKS["methods"].value is bench.bench_methods
    for name, small in (("SHAPES", {"a.weight": (64, 64), "b.weight": (8, 8)}), ("JOBS", 5), ("STEPS", 2)):
        monkeypatch.setattr(bench, name, small)
    code, out, err = lottery(capsys, "bench", "methods", "--data", "digits", "--repeats", "1", "--json")
    assert code == 0, err
    rows = {row["what"]: row for row in json.loads(out)["rows"]}
    assert [name for name, row in rows.items() if row["against"] == name] == [
        "torch.nn.utils.prune.global_unstructured",
        "a forward-backward pass",
        "5 controls of LeNet-300-100 one after the other",
        "5 controls of the digits MLP one after the other",
    ]
    assert {"SNIP", "SynFlow, one round", "GraSP"} <= rows.keys()
    assert all(row["seconds_per_run"] > 0 for row in rows.values())


def test_bench_stacks_compares_a_stack_with_one_network_after_the_other(capsys, monkeypatch):
    import lottery.bench.stacks as bench

    assert BENCHMARKS["stacks"].value is bench.bench_stacks
    shapes = {"mlp": (2, 3), "small-transformer": (1, 4, 4)}
    for name, small in (("MODELS", shapes), ("EXAMPLES", 20), ("BATCH", 4), ("STACKED", {"cpu": 2})):
        monkeypatch.setattr(bench, name, small)
    monkeypatch.setattr(bench, "STEPS", {"cpu": 2})
    code, out, err = lottery(capsys, "bench", "stacks", "--repeats", "1", "--device", "cpu", "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["what"] for row in rows] == [
        f"2 x {name}, {how}" for name in shapes for how in ("one after the other", "stacked")
    ]
    assert all(row["seconds_per_step"] > 0 for row in rows) and rows[0]["speedup"] == rows[2]["speedup"] == 1.0


def _images(count):
    return np.zeros((count, 1, 28, 28), np.float32), np.arange(count) % 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prun"], "unknown command 'prun': did you mean 'prune'?"),
        (["prune", "--modle", "mlp"], "--model"),
        (["prune", "--levels", "many"], "Invalid value for '--levels'"),
        (["prune", "--model", "lent-300-100"], "unknown model 'lent-300-100': did you mean 'lenet-300-100'"),
        (["prune", "--data", "digit"], "did you mean 'digits'"),
        (["prune", "--criterion", "magnitud"], "did you mean 'magnitude'"),
        (["prune", "--recipe", "frankle2019-lenets"], "did you mean 'frankle2019-lenet"),
        (["prune", "--trainer", "sgd"], "unknown trainer 'sgd': did you mean 'gd'"),
        (["prune", "--scope", "globl"], "did you mean 'global'"),
        (["prune", "--optimizer", "adma"], "did you mean 'adam'"),
        (["prune", "--set", "levls=3"], "did you mean 'levels'"),
        (["prune", "--set", "levels"], "--set takes KEY=VALUE"),
        (["prune", "--set", "init=kaiming"], "did you mean 'kaiming-normal'"),
        (["prune", "--sparsity", "90"], "write 0.9 for 90 %"),
        (["prune", "--prune-rate", "1.2"], "prune_rate must be more than 0 and less than 1"),
        (["prune", "--levels", "3", "--sparsity", "0.9"], "levels or sparsity, not both"),
        (["prune", "--levels", "60"], "less than one weight in each; use at most"),
        (["prune", "--scope", "layer", "--levels", "60"], "less than one weight in"),
        (["prune", "--rewind", "late"], "rewind must be 0, a step (500)"),
        (["prune", "--rewind", "1000"], "training ends at step 1,000"),
        (["prune", "--device", "cuda:7"], "device 'cuda:7'"),
        (["prune", "--config", "missing.toml"], "missing.toml: no such file"),
        (["prune", "--data", "missing.npz"], "missing.npz: no such file or folder"),
        (["prune", "--model", "nowhere:net"], "no module 'nowhere'"),
        (["prune", "--set", "skip=['conv*']"], "'conv*' matches no tensor"),
        (["prune", "--set", "validation_size=5000"], "validation_size 5000 leaves none of 1,437 examples"),
        (["prune", "--out", "file"], "--out file: cannot be written"),
        (["show", "nothing"], "nothing: not a run directory"),
        (["show"], "Missing argument 'run'"),
        (["list", "model"], "did you mean 'models'"),
        (["bench", "serach"], "did you mean 'search'"),
    ],
)
def test_every_wrong_command_is_one_line_and_exit_code_2(capsys, arguments, message):
    Path("file").touch()
    code, out, err = lottery(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_debug_shows_the_traceback(capsys):
    code, _, err = lottery(capsys, "--debug", "prune", "--data", "digit")
    assert code == 2 and "Traceback" in err


def test_a_diverging_run_is_exit_code_1(capsys):
    code, _, err = lottery(capsys, "prune", "--optimizer", "sgd", "--lr", "1e38", "--steps", "20")
    assert code == 1
    assert err.startswith("lottery: level 0: every replicate diverged")


def test_a_disk_that_fills_up_loses_nothing(capsys, monkeypatch, tmp_path):
    real = os.fsync

    def fill_up(descriptor):
        if Path("runs").is_dir() and len(list(Path("runs").glob("*/seed-0/level-*"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    code, out, err = lottery(capsys, *TINY, "--json", "--quiet")
    assert (code, out) == (1, "")
    assert "No space left on device" in err and len(err.splitlines()) == 1
    monkeypatch.setattr(os, "fsync", real)
    (folder,) = Path("runs").glob("digits*")
    finished = sorted(folder.glob("seed-0/level-*"))
    assert [path.name for path in finished] == ["level-00", "level-01"]
    resumed = json.loads(lottery(capsys, *TINY, "--json", "--quiet")[1])
    whole = json.loads(lottery(capsys, *TINY, "--json", "--quiet", "--force")[1])
    assert resumed["levels"] == whole["levels"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_bars_are_drawn_on_a_terminal_and_nowhere_else():
    import pty

    code = "import sys; from lottery.cli.app import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100"}
    drawn = {}
    for extra in ((), ("--quiet",)):
        leader, follower = pty.openpty()
        command = [sys.executable, "-c", code, *TINY, "--out", f"runs{len(extra)}", *extra]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=environment, text=True)
        os.close(follower)
        chunks = []
        while True:
            try:
                chunk = os.read(leader, 65_536)
            except OSError:  # the other end of the pseudo-terminal is closed
                break
            if not chunk:
                break
            chunks.append(chunk)
        out, _ = process.communicate(timeout=120)
        os.close(leader)
        assert process.returncode == 0
        drawn[extra] = b"".join(chunks).decode(), out
    assert "levels:" in drawn[()][0] and "level 2:" in drawn[()][0] and "step" in drawn[()][0]
    assert "Winning ticket" in drawn[()][1] and "levels:" not in drawn[()][1]
    assert drawn[("--quiet",)][0] == ""


def test_help_is_for_people_and_fast():
    """`lottery --help` loads neither torch nor jax; the import of the packages neither."""
    code = (
        "import sys, lottery, pruning, lottery.cli.app;"
        "print([name for name in ('torch', 'jax', 'scipy', 'matplotlib', 'rich') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_of_every_command(capsys):
    assert "prune" in lottery(capsys)[1]
    for command in ("prune", "show", "train", "ablate", "instability", "connect", "transfer", "list", "bench"):
        code, out, _ = lottery(capsys, command, "--help")
        assert code == 0 and f"Usage: lottery {command}" in out
