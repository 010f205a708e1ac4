"""The command: exit codes, one-sentence errors, examples in the help, a quick start."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.library.recipes import recipe
from bayesbinn_nb.repro import cli, suites
from bayesbinn_nb.repro.cli import main

VERBS = ("run", "batch", "confirm", "report", "site", "data", "inspect", "export")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    cell = new_code_cell(
        'rate: float = .1   # step size\nname: str = "a"\nlayers: list[int] = [1]\nseeds: list[int] = '
        '[0]\nout: str = "."',
        metadata={"tags": ["parameters"]},
    )
    code = new_code_cell("""from bayesbinn_nb.repro.records import pending_seeds, record_run
if name == "bad": raise RuntimeError("the network does not learn")
for seed in pending_seeds(out, seeds):
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [rate]}, parameters=dict(rate=rate, name=name))""")  # noqa: E501
    nbformat.write(new_notebook(cells=[cell, code]), tmp_path / "demo.ipynb")
    (tmp_path / "mine.yaml").write_text(
        "about: mine\ndefaults: {template: demo}\nrows: [{row: one, needs: digits}, {row: two, params: {name: bad}}]"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*argv):
    try:
        return main([str(a) for a in argv])
    except SystemExit as e:
        return e.code


def test_help_has_an_example(capsys):
    assert call("--help") == 0 and "first steps:" in capsys.readouterr().out
    for verb in VERBS:
        assert call(verb, "--help") == 0
        text = capsys.readouterr().out
        assert "example:\n  " in text and f"bayesbinn {verb}" in text.split("example:")[1]
        for dataset, method in re.findall(r"bayesbinn run benchmark -p dataset (\S+) -p method (\S+)", text):
            assert recipe(dataset, method)["dataset"] == dataset
    assert call() == 2
    assert call("--version") == 0


def test_the_example_of_inspect_is_what_its_run_leaves(capsys, monkeypatch):
    from bayesbinn_nb.repro import runner

    call("inspect", "--help")
    run, file = re.findall(r"bayesbinn (run .* --keep)\n +bayesbinn inspect (\S+)", capsys.readouterr().out)[0]
    seen = {}
    monkeypatch.setattr(
        runner,
        "run_suite",
        lambda suite, out, **kw: seen.update(row=suite.rows[0], out=out, **kw) or runner.Outcome("single", out),
    )
    assert call(*run.split()) == 0 and seen["keep"] is True
    assert Path(file).parts == ("_runs", "single", seen["row"].name, "_work", "seed0", "last.pt") and seen["out"].parts[
        -2:
    ] == ("_runs", "single")


def test_keep(folder, capsys):
    code = """import torch
from pathlib import Path
from bayesbinn_nb.library.checkpoint import save_checkpoint
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    save_checkpoint({"model": {"w": torch.ones(3)}}, Path(work_dir)/f"seed{seed}"/"last.pt")
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.9]}, parameters={})"""  # noqa: E501
    cell = new_code_cell(
        'seeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"', metadata={"tags": ["parameters"]}
    )
    nbformat.write(new_notebook(cells=[cell, new_code_cell(code)]), folder / "nets.ipynb")
    (folder / "nets.yaml").write_text("rows: [{row: one, template: nets}]")
    for command in (("run", "nets.ipynb", "--out", "a"), ("batch", "nets.yaml", "--out", "b", "--no-pages")):
        assert call(*command, "--keep") == 0
        file = re.search(r"Look into one with: bayesbinn inspect (\S+)\n", capsys.readouterr().out)[1]
        assert call("inspect", file) == 0 and "3 binary values, 0 real ones" in capsys.readouterr().out
    assert call("batch", "nets.yaml", "--out", "b", "--list") == 0
    out = capsys.readouterr().out
    assert "whole" in out and "(networks kept)" in out and "0 of 1 rows to run" in out
    assert (
        call("run", "nets.ipynb", "--out", "c") == 0
        and "Networks" not in capsys.readouterr().out
        and not list((folder / "c").rglob("last.pt"))
    )


@pytest.mark.parametrize(
    "argv, code, message",
    [
        (("batch", "quik"), 2, "unknown suite 'quik'"),
        (("batch", "absent.yaml"), 2, "no suite file"),
        (("batch", "mine.yaml", "--seeds", "0"), 2, "ask for at least one"),
        (("run", "demo.ipynb", "--seeds", "2", "-p", "seeds", "[0]"), 2, "given twice"),
        (("batch", "mine.yaml", "--only", "three"), 2, "no row of suite mine matches 'three'"),
        (("batch", "mine.yaml", "--jobs", "0"), 2, "jobs is 0"),
        (("run", "demoo"), 2, "no run template 'demoo'"),
        (("run", "demo.ipynb", "-p", "rat", "1"), 2, "no parameter 'rat'; did you mean 'rate'"),
        (("run", "demo.ipynb", "-p", "rate", "fast"), 2, "'rate' of template demo must be float, not 'fast'"),
        (("run", "demo.ipynb", "-p", "layers", "3"), 2, "must be list"),
        (("run", "demo.ipynb", "-p", "rate", "1", "-p", "rate", "2"), 2, "given twice"),
        (("report", "--suite", "nowhere"), 2, "neither a suite nor a folder"),
        (("inspect", "nothing.pt"), 1, "no file nothing.pt"),
        (("data", "--fetch", "minst"), 1, "Unknown data set 'minst'"),
    ],
)
def test_errors_are_one_sentence(folder, capsys, argv, code, message):
    assert call(*argv) == code
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and err.strip().count("\n") == 0
    assert err.startswith(f"bayesbinn {argv[0]}: ")
    assert sorted(p.name for p in folder.iterdir()) == ["demo.ipynb", "mine.yaml"]


@pytest.mark.parametrize(
    "argv",
    [("launch",), ("batch", "mine.yaml", "--job", "x"), ("run", "demo", "-p", "rate"), ("site", "--use", "latex")],
)
def test_usage_errors(folder, capsys, argv):
    assert call(*argv) == 2
    assert "usage:" in capsys.readouterr().err


def test_debug_raises(folder):
    with pytest.raises(suites.SuiteError):
        main(["batch", "quik", "--debug"])
    with pytest.raises(suites.SuiteError):
        main(["--debug", "batch", "quik"])


def test_confirm_says_what_it_found(folder, capsys):
    assert call("confirm", "mine.yaml", "--out", "runs") == 0
    out = capsys.readouterr().out
    assert len(re.findall("unknown +not run; nothing to compare with", out)) == 2
    assert (
        call("confirm", "mine.yaml", "--only", "three") == 2
        and "no row of suite mine matches 'three'" in capsys.readouterr().err
    )


def test_unexpected_errors_name_their_kind(monkeypatch, capsys):
    def fail(args):
        raise KeyError("lost")

    monkeypatch.setitem(cli.VERBS, "report", replace(cli.VERBS["report"], run=fail))
    assert call("report") == 1
    assert "KeyError" in (err := capsys.readouterr().err) and "--debug" in err


def test_list_and_dry_run_start_nothing(folder, capsys):
    assert call("batch", "mine.yaml", "--list", "--out", "runs") == 0
    out = capsys.readouterr().out
    assert "one" in out and "not run" in out and "(needs digits)" in out and "2 of 2 rows to run" in out
    assert call("batch", "mine.yaml", "--dry-run", "--out", "runs", "--only", "two") == 0
    assert "-p name bad -p seeds [0]" in capsys.readouterr().out
    assert call("batch", "mine.yaml", "--dry-run", "--out", "runs", "--only", "two", "--only", "one") == 0
    assert "2 of 2 rows to run" in capsys.readouterr().out
    assert not (folder / "runs").exists()
    assert call("run", "demo.ipynb", "--show") == 0
    out = capsys.readouterr().out
    assert "rate" in out and "step size" in out and "float" in out and "out " not in out
    assert call("run") == 0 and call("batch") == 0


def test_seeds_asks_for_more_and_keeps_what_is_there(folder, capsys):
    arguments = ("batch", "mine.yaml", "--only", "one", "--out", "runs", "--no-pages")
    assert call(*arguments) == 0
    first = (folder / "runs" / "one" / "seed0.json").read_bytes()
    assert call(*arguments, "--seeds", "3") == 0
    assert sorted(p.name for p in (folder / "runs" / "one").glob("seed*.json")) == [
        "seed0.json",
        "seed1.json",
        "seed2.json",
    ]
    assert (folder / "runs" / "one" / "seed0.json").read_bytes() == first
    capsys.readouterr()
    assert call(*arguments) == 0 and "1 already whole" in capsys.readouterr().out
    assert call("run", "demo.ipynb", "--seeds", "2", "--out", "single") == 0
    assert len(list((folder / "single").rglob("seed*.json"))) == 2


def test_batch_run_and_report(folder, capsys):
    assert call("batch", "mine.yaml", "--out", "runs", "--jobs", "2") == 1
    out = capsys.readouterr().out
    assert "RuntimeError: the network does not learn" in out and "Results: runs" in out and "Traceback" not in out
    assert call("batch", "mine.yaml", "--out", "runs", "--only", "one") == 0
    assert "already whole" in capsys.readouterr().out
    assert (
        call("run", "demo.ipynb", "-p", "rate", "1e-3", "-p", "name", "1", "--out", "single") == 0
    )  # text for str, 1e-3 for float
    record = next((folder / "single").rglob("seed0.json"))
    assert json.loads(record.read_text())["parameters"] == {"rate": 1e-3, "name": "1"}
    capsys.readouterr()
    assert call("report", "--suite", "runs") == 0
    assert "published numbers" in capsys.readouterr().out
    record.write_text("{")
    assert call("report", "--suite", "single", "--markdown") == 0  # `single` is a suite's name before it is a folder
    assert call("report", "--suite", "./single") == 1
    assert "left unread" in capsys.readouterr().err


def test_ctrl_c(monkeypatch, capsys, folder):
    from bayesbinn_nb.repro import runner

    def interrupted(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_suite", interrupted)
    assert call("batch", "mine.yaml") == 130
    assert "stopped" in capsys.readouterr().err


def test_module_and_quick_start(folder):
    def run(*a):
        return subprocess.run(
            [sys.executable, *a],
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])},
        )

    done = run("-m", "bayesbinn_nb.repro.cli", "batch", "quik")
    assert done.returncode == 2 and done.stdout == "" and "unknown suite" in done.stderr
    done = run(
        "-c",
        "import sys; from bayesbinn_nb.repro.cli import main; main(['batch']); main(['batch', 'mine.yaml', "
        "'--list']); sys.exit('torch' in sys.modules)",
    )
    assert done.returncode == 0, done.stderr
    done = run(
        "-c",
        "import sys, subprocess; from bayesbinn_nb.repro.cli import main; sys.stdout = open('/dev/full', "
        "'w'); sys.exit(main(['report']))",
    )
    assert done.returncode == 1 and "No space left" in done.stderr


def test_inspect(folder, capsys):
    from bayesbinn_nb.library.checkpoint import save_model

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1, 1], [-1, 1, 1]]))
    save_model(model, folder / "m.safetensors")
    assert call("inspect", "m.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = {line.split()[0]: line.split()[-1] for line in lines[1:-1]}
    assert kinds == {"0.weight": "binary", "0.bias": "real", "1.weight": "real"}
    assert lines[-1] == "6 binary values, 4 real ones"


def test_data(folder, capsys, monkeypatch):
    monkeypatch.delenv("BAYESBINN_DATA", raising=False)
    assert call("data", "--root", folder / "nothing") == 0
    out = capsys.readouterr().out
    assert "mnist      missing" in out and "--fetch mnist" in out and "digits     built in" in out


def test_site_is_handed_over(folder, monkeypatch):
    from bayesbinn_nb import site
    from bayesbinn_nb.site.pages import SiteError

    seen = {}
    monkeypatch.setattr(site, "build_site", lambda **kw: seen.update(kw))
    assert call("site", "--out", "html", "--use", "nbconvert") == 0
    assert seen == dict(out=Path("html"), use="nbconvert")

    def fail(**kw):
        raise SiteError("2 faults:", ["a leads nowhere"])

    monkeypatch.setattr(site, "build_site", fail)
    assert call("site") == 1


# --- consoles of every kind -------------------------------------------------------------------------------------------


def started(*argv, shell="", **kwargs):
    "The command in a process of its own; `shell`: a redirection"
    env = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])} | kwargs.pop("env", {})
    command = [sys.executable, "-m", "bayesbinn_nb.repro.cli", *argv]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    kwargs = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) | kwargs
    return subprocess.Popen(command, env=env, **kwargs)


@pytest.mark.parametrize("row, code", [("one", 0), ("two", 1)])
def test_a_pipe_without_a_reader_ends_no_batch_and_hides_no_failure(folder, row, code):
    process = started("batch", "mine.yaml", "--only", row, "--out", "runs", "--no-pages")
    process.stdout.close()  # … | head, which has seen enough
    process.stdout = None
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == code
    assert (folder / "runs" / row / "seed0.json").exists() is (code == 0)
    assert "can no longer be shown" in said and "the work goes on" in said and said.count("\n") == 1


@pytest.mark.parametrize("shell, env", [(">&-", {}), (">&- 2>&-", {}), ("", {"PYTHONIOENCODING": "ascii"})])
def test_no_console_loses_a_batch(folder, shell, env):
    cell = new_code_cell('seeds: list[int] = [0]\nout: str = "."', metadata={"tags": ["parameters"]})
    code = """from bayesbinn_nb.repro.records import pending_seeds, record_run
print("τ → 0")
for seed in pending_seeds(out, seeds):
    record_run(out, experiment="demo", arm="τ", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.5]}, parameters={})"""  # noqa: E501
    nbformat.write(new_notebook(cells=[cell, new_code_cell(code)]), folder / "greek.ipynb")
    (folder / "greek.yaml").write_text("rows: [{row: g, template: greek, trace: true}]")
    process = started("batch", "greek.yaml", "--out", "runs", "--no-pages", shell=shell, env=env)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and b"Traceback" not in out + err
    assert json.loads((folder / "runs" / "g" / "seed0.json").read_text())["arm"] == "τ"
    assert (folder / "runs" / "g" / "trace.json").exists()  # the rehearsal printed, too


def test_sigterm_says_how_to_go_on(folder):
    cell = new_code_cell('seeds: list[int] = [0]\nout: str = "."', metadata={"tags": ["parameters"]})
    code = "from pathlib import Path; import time\nPath('begun').touch()\ntime.sleep(300)"
    nbformat.write(new_notebook(cells=[cell, new_code_cell(code)]), folder / "slow.ipynb")
    (folder / "slow.yaml").write_text("rows: [{row: s, template: slow}]")
    process = started("batch", "slow.yaml", "--out", "runs", "--no-pages")
    end = time.time() + 100
    while not (folder / "runs" / "s" / "begun").exists() and time.time() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and b"Traceback" not in out + err
    assert "Stopped. Run the same command again to go on; what is whole is kept" in out.decode()
    assert (folder / "runs" / "s" / "_work" / "job.json").exists()


def test_text_from_files_does_nothing_to_the_terminal(folder, capsys):
    cell = new_code_cell(
        'seeds: list[int] = [0]  # first\x1b[2J\x07 seeds\nout: str = "."', metadata={"tags": ["parameters"]}
    )
    code = new_code_cell('raise RuntimeError("\\x1b]0;renamed\\x07 failed")')
    nbformat.write(new_notebook(cells=[cell, code]), folder / "rude.ipynb")
    (folder / "rude.yaml").write_text('about: "\\e[31mred"\nrows: [{row: r, template: rude}]')
    assert call("run", "rude.ipynb", "--show") == 0
    assert call("batch", "rude.yaml", "--out", "runs", "--no-pages") == 1
    said = "".join(capsys.readouterr())
    assert "first\\x1b[2J\\x07 seeds" in said and "renamed" in said
    assert not set(said) & {"\x1b", "\x07"}


def test_a_page_cannot_leave_the_output_folder(folder, capsys):
    (folder / "leaves.yaml").write_text("rows: [{row: one, template: demo}]\npages: [../../elsewhere]")
    assert call("batch", "leaves.yaml", "--out", "runs") == 2
    assert "page" in capsys.readouterr().err and not (folder / "runs").exists()
