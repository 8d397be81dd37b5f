"""What others add: by --plugin, by a recipe that is trained on, by an entry point; never because a
run says so."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pseudohealthy import datasets, registry
from pseudohealthy.evaluation.protocols import PROTOCOLS
from pseudohealthy.formats import FORMATS
from pseudohealthy.metrics.table import METRICS
from pseudohealthy.restorers import REGISTRY

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")
TABLES = (REGISTRY, datasets.REGISTRY, PROTOCOLS, METRICS, FORMATS)
METHOD = '''
from torch import nn
from pseudohealthy.restorers.base import Restoration, Restorer, register

@register("plugged")
class Plugged(Restorer):
    """A convolution."""

    def __init__(self, *, size: int, channels: int):
        super().__init__(size=size, channels=channels)
        self.network = nn.Conv2d(channels, channels, 3, padding=1)

    def parts(self):
        return ("network",)

    def loss(self, batch, part):
        return (self.network(batch.images) - batch.images).float().square().flatten(1).mean(1)

    def restore(self, images, draw):
        return Restoration(healthy=self.network(images).float().clamp(-1, 1))

    def network_calls(self):
        return 1
'''
OTHERS = """
from pathlib import Path
import numpy as np
from pseudohealthy import datasets, formats
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.protocols import strict
from pseudohealthy.io.scan import Scan
from pseudohealthy.metrics.table import Metric, register

@datasets.register("squares")
def prepare(source: Path, out: Path, *, seed: int, side: int = 4) -> Manifest:
    manifest = Manifest([Case(f"s{side}", "p", "test", 0, "x.png")], out)
    manifest.save(Path(out) / "manifest.csv")
    return manifest

@protocols.register("plain", hides="everything else")
def plain(cases, setting):
    return strict(cases, setting)

@register(Metric("highest_score", "highest score", "case", "health"))
def highest(frame, cases):
    frame.mean("highest_score", cases, np.array([case.score for case in cases]), None)

def load(source, **how):
    values = np.frombuffer(source.paths[0].read_bytes(), np.uint8).reshape(1, 1, 16, 16)
    return Scan(values.astype(np.float32), None, source.paths[0].stem, "sixteen")

formats.register("sixteen", formats.Format("sixteen", (".s16",), load))
"""
RECIPE = """
{head}
[canvas]
size = 16
foreground = "all"
[restorer]
name = "plugged"
[training]
steps = 2
batch = 2
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Whatever a test adds is gone after it."""
    before = [set(table.added) for table in TABLES]
    registry.LOADED.clear()
    yield
    for table, names in zip(TABLES, before, strict=True):
        for name in set(table.added) - names:
            if name not in table.built_in:
                table.remove(name)
        table.__dict__.pop("installed", None)
    for state in (registry.FILES, registry.LOADED, registry.GIVEN):
        state.clear()
    for name in [
        name for name in sys.modules if name.startswith(("pseudohealthy_plugin", "fake_"))
    ]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / "plugged.py"
    path.write_text(METHOD)
    return path


@pytest.fixture
def run(plugin, pictures, said, tmp_path) -> Path:
    """Trained by a recipe that names the plugin beside it."""
    recipe = tmp_path / "plugged.toml"
    recipe.write_text(RECIPE.format(head='plugin = "plugged.py"'))
    line = ("train", recipe, "--data", pictures, "--out", tmp_path / "run", "--quiet")
    code, _, errors = said(*line, "--device", "cpu")
    assert code == 0, errors
    return tmp_path / "run"


def test_a_run_names_its_plugin_with_the_hash_and_is_no_further_use_without(
    run, plugin, pictures, said, tmp_path
):
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    record = json.loads((run / "run.json").read_text())
    assert record["plugins"] == [{"name": "plugged.py", "sha256": sha256}]
    assert "plugin" not in (run / "recipe.toml").read_text()
    REGISTRY.remove("plugged")
    image = next((pictures / "test" / "good").iterdir())
    line = ("detect", run, image, "--out", tmp_path / "found", "--quiet", "--device", "cpu")
    code, _, errors = said(*line)
    assert code == 8 and "--plugin FILE.py" in errors and "plugged.py" in errors, errors
    registry.FILES.clear()
    assert said(*line, "--plugin", plugin)[0] == 0
    found = json.loads((tmp_path / "found" / "findings.json").read_text())
    assert found["made"]["plugins"][-1]["sha256"] == sha256


def test_another_file_than_the_run_was_made_with_is_said(run, plugin, said):
    REGISTRY.remove("plugged")
    registry.FILES.clear()
    plugin.write_text(METHOD + "\n# changed\n")
    code, _, errors = said("verify", run, "--plugin", plugin, "--device", "cpu")
    assert "plugged.py, which is not the file the run was made with" in errors and code == 0


@pytest.mark.parametrize("name", ["os.system", "../evil", ".evil", "evil.Evil", "evil:Evil"])
def test_a_hostile_run_imports_nothing(tiny_run, tmp_path, said, name, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(str(run))
    text = (run / "recipe.toml").read_text()
    head, _, rest = text.partition('\n[restorer]\nname = "')
    (run / "recipe.toml").write_text(
        f'{head}\n[restorer]\nname = "{name}{rest[rest.index(chr(34)) :]}'
    )
    code, _, errors = said("detect", run, tmp_path, "--out", tmp_path / "out")
    assert code == 8 and errors.startswith("error[PLUGIN]") and errors.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def test_a_run_whose_recipe_names_a_plugin_is_refused(tiny_run, tmp_path, said):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(f'plugin = "evil.py"\n{text}')
    code, _, errors = said("verify", run)
    assert code == 8 and "a run loads none" in errors and not (tmp_path / "ran").exists()


def test_only_train_runs_the_plugin_of_a_recipe(plugin, tmp_path, said):
    plugin.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(head='plugin = "plugged.py"'))
    code, _, errors = said("recipes", recipe)
    assert code == 8 and "--plugin" in errors and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "raised ZeroDivisionError: division by zero (line 1)"),
        ("import nowhere_to_be_found", "raised ModuleNotFoundError"),
        ("def f(:", "raised SyntaxError"),
        (METHOD.replace('"plugged"', '"ddpm"'), "there is a restorer 'ddpm' already"),
        (METHOD + METHOD, "there is a restorer 'plugged' already"),
        (None, "no file named"),
    ],
)
def test_a_plugin_that_does_not_load_is_one_line(tmp_path, said, text, message):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    code, _, errors = said("info", f"--plugin={path}")
    assert code == 2 and errors.startswith("error[PLUGIN]") and errors.count("\n") == 1
    assert message in errors


def test_data_sets_protocols_metrics_and_formats_are_known_everywhere(
    tmp_path, said, tiny_run, pictures
):
    path = tmp_path / "others.py"
    path.write_text(OTHERS)
    add = ("--plugin", path)
    out = tmp_path / "data"
    line = ("prepare", "squares", tmp_path, "--out", out, "--set", "side=7", "--quiet")
    assert said(*line, *add)[0] == 0 and "s7," in (out / "manifest.csv").read_text()
    (tmp_path / "a.s16").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    code, text, errors = said("inspect", tmp_path / "a.s16", *add)
    assert code == 0 and "sixteen" in text and "1 x 1 x 16 x 16" in text, text + errors
    line = ("evaluate", tiny_run, "--data", pictures, "--out", tmp_path / "scores", "--quiet")
    code, _, errors = said(*line, "--protocol", "plain", "--device", "cpu", *add)
    assert code == 0, errors
    figures = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert any(record["metric"] == "highest_score" for record in figures)
    assert "others.py" in (tmp_path / "scores" / "report.html").read_text()


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package with an entry point, as pip leaves it."""
    site = tmp_path / "site"
    info = site / "fake_method-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-method\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[pseudohealthy.restorers]\nplugged = fake_method\n")
    (site / "fake_method.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(site))
    REGISTRY.__dict__.pop("installed", None)
    return site / "fake_method.py"


def test_an_installed_package_is_found_by_its_entry_point_and_imported_when_used(package):
    assert "plugged" in REGISTRY and "plugged" in list(REGISTRY)
    assert "fake_method" not in sys.modules
    assert REGISTRY["plugged"].name == "plugged"
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    assert REGISTRY.origins["plugged"] == registry.Origin("fake-method 1.2", sha256)


def test_a_package_that_does_not_import_is_one_line(package, tmp_path, said, pictures):
    package.write_text("raise RuntimeError('not today')")
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(head=""))
    code, _, errors = said("train", recipe, "--data", pictures, "--out", tmp_path / "run")
    assert code == 2 and "RuntimeError: not today" in errors and errors.count("\n") == 1


def test_a_metric_that_raises_is_the_fault_of_its_plugin(tmp_path, said, tiny_run, pictures):
    path = tmp_path / "others.py"
    path.write_text(OTHERS.replace("case.score for", "case.skore for"))
    line = ("evaluate", tiny_run, "--data", pictures, "--out", tmp_path / "scores", "--quiet")
    code, _, errors = said(*line, "--device", "cpu", "--plugin", path)
    assert code == 2 and errors.count("\n") == 1
    assert "others.py raised AttributeError" in errors, errors


@pytest.mark.parametrize(
    ("old", "new", "command"),
    [
        ("batch.images) -", "batch.pictures) -", "train"),
        ("Restoration(healthy=", "Restoration(helthy=", "train"),
    ],
)
def test_a_method_that_raises_is_the_fault_of_its_plugin(
    plugin, pictures, said, tmp_path, old, new, command
):
    plugin.write_text(METHOD.replace(old, new))
    recipe = tmp_path / "plugged.toml"
    recipe.write_text(RECIPE.format(head='plugin = "plugged.py"'))
    line = ("train", recipe, "--data", pictures, "--out", tmp_path / "run", "--quiet")
    code, _, errors = said(*line, "--device", "cpu")
    assert code == 2 and errors.count("\n") == 1, errors
    assert errors.startswith("error[PLUGIN]: plugged.py raised ") and "(line " in errors


def test_a_case_on_which_a_plugin_raises_is_a_row_that_says_so(
    run, plugin, pictures, said, tmp_path
):
    REGISTRY.remove("plugged")
    registry.FILES.clear()
    plugin.write_text(
        METHOD.replace(
            "def restore(self, images, draw):", "def restore(self, images, draw):\n        1 / 0"
        )
    )
    image = next((pictures / "test" / "good").iterdir())
    line = ("detect", run, image, "--out", tmp_path / "found", "--quiet", "--device", "cpu")
    code, _, errors = said(*line, "--plugin", plugin)
    assert code in (2, 3, 4), errors
    assert "plugged.py raised ZeroDivisionError" in errors and "a bug" not in errors


def test_a_plugin_is_the_one_word_behind_its_flag(plugin, tmp_path, said, tiny_run, pictures):
    """Inputs and runs after it are never run as code."""
    other = tmp_path / "input.py"
    other.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    image = next((pictures / "test" / "good").iterdir())
    line = ("detect", "--plugin", plugin, tiny_run, image, other, "--out", tmp_path / "found")
    said(*line, "--device", "cpu")
    assert not (tmp_path / "ran").exists() and (tmp_path / "found" / "findings.csv").is_file()


def test_a_cell_that_is_run_again_replaces_its_method_and_nobody_elses():
    def cell(value: int) -> type:
        made = type("Cell", (), {"value": value})
        made.__module__ = "__main__"
        return REGISTRY.add("cell", made)

    cell(1)
    assert cell(2).value == 2 and REGISTRY["cell"].value == 2
    with pytest.raises(ValueError, match="already"):
        REGISTRY.add("cell", type("Other", (), {}))
