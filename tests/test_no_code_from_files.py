"""Nothing that is read can run: no way to unpickle or evaluate is in the code, and files made to run something run nothing."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile_files import consistent, handed_over
from source_files import FILES, ROOT

from reconverge.envs.artifact import MANIFEST, Artifact, write_artifact
from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.episodes import EpisodeStore
from reconverge.envs.errors import ReconvergeError
from reconverge.envs.plain_json import parse_json
from reconverge.envs.plain_yaml import parse_yaml
from reconverge.eval.diagnostics_results import read_diagnostics
from reconverge.eval.run_results import read_run
from reconverge.eval.stored_rollouts import read_rollouts
from reconverge.launch.config_file import read_config
from reconverge.launch.job import stored_content
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.diffusion_policy import DiffusionPolicy

UNPICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "runpy", "code", "codeop"}
NETWORK = {"socket", "http", "urllib", "requests", "ftplib", "smtplib", "telnetlib", "xmlrpc", "aiohttp", "httpx", "httpx2", "huggingface_hub"}
EXCEPTIONS = {
    ("launch/run_lock.py", "socket"),
    ("launch/view_server.py", "http"),
    ("launch/view_server.py", "urllib"),
    ("launch/hub_client.py", "huggingface_hub"),
}
"""The name of the machine, `socket.gethostname`; the page that this machine alone is served; the Hub, for `push` and `pull` alone. Tests
below hold them to that."""
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"torch.load", "torch.save", "torch.jit.load", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "np.fromfile"}
PARSERS = {
    "yaml.load": "envs/plain_yaml.py", "yaml.safe_load": "envs/plain_yaml.py", "json.load": "envs/plain_json.py", "json.loads": "envs/plain_json.py",
}  # fmt: skip
"""The hardened readers are the only ones."""


def violations(source: str, place: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [module for alias in names if (module := alias.name.partition(".")[0]) in UNPICKLING | NETWORK]
            case ast.ImportFrom(module=str(module), names=names):
                found += [module.partition(".")[0]] if module.partition(".")[0] in UNPICKLING | NETWORK else []
                found += [f"{module}.{alias.name}" for alias in names if f"{module}.{alias.name}" in CALLS | {"yaml.load", "numpy.load"}]
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                found.append(name)
            case ast.Call(func=function, keywords=keywords):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                called = ast.unparse(function)
                found += [name for name in _imported_by_call(node) if name in UNPICKLING | NETWORK]
                found += [called] if called in CALLS else []
                found += ["shell=True"] if given.get("shell", "False") != "False" else []
                found += [called] if called in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False" else []
                found += [called] if called in PARSERS and place != PARSERS[called] else []
    return [name for name in found if (place, name) not in EXCEPTIONS]


def _imported_by_call(node: ast.Call) -> list[str]:
    """The package that `importlib.import_module("package.module")` brings."""
    if ast.unparse(node.func) not in ("importlib.import_module", "import_module") or not node.args:
        return []
    return [str(node.args[0].value).partition(".")[0]] if isinstance(node.args[0], ast.Constant) else []


OWN_CHILD = {"launch/doctor.py"}
"""Reads what its own child process says."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_can_come_from_a_file(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    found = violations(path.read_text(), place)
    assert [name for name in found if not (name.startswith("json.load") and place in OWN_CHILD)] == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from dill import loads", "import urllib.request", "torch.load(f)", "np.load(f, allow_pickle=True)",
     "np.load(f, allow_pickle=x)", "eval(x)", "exec(x)", "yaml.load(x, L)", "json.loads(x)", "subprocess.run(x, shell=True)",
     "os.system(x)", "from torch import load", "from yaml import load", "importlib.import_module('httpx.client')",
     "def pull(): import_module('huggingface_hub')"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert violations(source, "envs/x.py")


def test_the_sockets_are_for_the_machines_name_only() -> None:
    for place in [place for place, module in EXCEPTIONS if module == "socket"]:
        tree = ast.parse((ROOT / place).read_text())
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "socket"}
        assert used <= {"gethostname"}


def test_the_page_of_runs_serves_and_asks_nobody() -> None:
    tree = ast.parse((ROOT / "launch/view_server.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module for module in imported if module and module.partition(".")[0] in NETWORK} == {"http", "http.server", "urllib.parse"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import) and {alias.name.partition(".")[0] for alias in node.names} & NETWORK]


def test_the_hub_is_reached_only_by_the_commands_that_name_it() -> None:
    """Whoever imports its client does so when `push` or `pull` runs, and the client imports the library when it is made."""
    client = ast.parse((ROOT / "launch" / "hub_client.py").read_text())
    assert "huggingface_hub" not in {name for node in client.body if not isinstance(node, ast.ClassDef) for name in _modules(node)}
    for path in FILES:
        place, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text())
        importing = {name for name in _modules(tree) if name.startswith("reconverge.launch.hub")}
        assert not importing or place in ("launch/hub.py", "launch/commands/share.py")
        if place == "launch/commands/share.py":
            at_once = {name for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for name in _modules(node)}
            assert importing and not importing & at_once


def _modules(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere in a tree, in any way."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case ast.Call():
                found |= set(_imported_by_call(node))
    return found


# The canary ----------------------------------------------------------------------------------------------------------------------


class Payload:
    """A pickle of it creates the canary when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.canary,)


def payloads(canary: Path) -> Iterator[bytes]:
    """Ways to run something: pickles of every protocol, archives that hold them, YAML tags, a header that lies."""
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        yield pickle.dumps(Payload(canary), protocol)
    box = canary.with_name("box.npz")
    np.savez(box, allow_pickle=True, a=np.array([Payload(canary)], dtype=object))
    yield box.read_bytes()
    box.unlink()
    array = canary.with_name("box.npy")
    np.save(array, np.array([Payload(canary)], dtype=object), allow_pickle=True)
    yield array.read_bytes()
    array.unlink()
    torch_file = canary.with_name("box.pt")
    import torch

    torch.save({"state": Payload(canary)}, torch_file)
    yield torch_file.read_bytes()
    torch_file.unlink()
    yield f"seed: !!python/object/apply:pathlib.Path.touch ['{canary}']\n".encode()
    yield f"# reconverge run: the resolved configuration\nseed: !!python/object/apply:os.system ['touch {canary}']\n".encode()
    inner = pickle.dumps(Payload(canary))
    yield len(inner).to_bytes(8, "little") + inner
    yield b'{"__reduce__": "os.system", "py/object": "os.system", "py/reduce": [{"py/type": "os.system"}, ["touch x"]]}'


def loaders(folder: Path) -> dict[str, list[Callable[[], object]]]:
    """Every public loader, by the folder that it reads."""
    run, policy, episodes = folder / "run", folder / "policy", folder / "episodes"
    of_run: list[Callable[[], object]] = [
        lambda: read_run(run),
        lambda: read_diagnostics(run),
        lambda: read_rollouts(run),
        lambda: read_config(run / "config.yaml"),
        lambda: load_curriculum(str(run / "curriculum.yaml")),
        lambda: RunFolder.open(run).config,
        lambda: stored_content(run),
        lambda: parse_json((run / "cost.json").read_bytes(), "cost.json"),
        lambda: parse_yaml((run / "config.yaml").read_bytes(), "config.yaml"),
    ]
    return {
        "run": of_run,
        "policy": [lambda: DiffusionPolicy.load(policy)],
        "episodes": [lambda: EpisodeStore(episodes).read()],
        "config.yaml": [lambda: read_config(folder / "config.yaml")],
        "mine.yaml": [lambda: load_curriculum(str(folder / "mine.yaml"))],
    }


def test_no_payload_runs_whatever_file_it_pretends_to_be(tmp_path: Path) -> None:
    canary, folder = tmp_path / "canary", handed_over(tmp_path / "handed over")
    (folder / "run" / "diagnostics").mkdir()
    for name in ("fisher_structure", "meta_gradient", "optima_distance", "replay_fidelity", "executed_starts", "window_strokes"):
        (folder / "run" / "diagnostics" / f"{name}.csv").write_text("")
    files = [path for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    loaded = 0
    for payload in payloads(canary):
        for path in files:
            consistent(path, payload)
            for load in loaders(folder)[path.relative_to(folder).parts[0]]:
                try:
                    load()
                except ReconvergeError:
                    loaded += 1
            assert not canary.exists(), f"{path.name} ran what it holds"
            for changed in {path, path.parent / MANIFEST} & before.keys():
                changed.write_bytes(before[changed])
    assert loaded > 100


def test_the_payloads_are_live(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(next(payloads(canary)))
    assert canary.exists()


def test_files_under_strange_names_are_not_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    write_artifact(tmp_path / "a", {f"weights{suffix}": pickle.dumps(Payload(canary)) for suffix in (".pt", ".npz", ".pkl", ".bin")})
    artifact = Artifact(tmp_path / "a")
    for name in artifact.names:
        for read in (artifact.arrays, artifact.json, artifact.text):
            with pytest.raises(ReconvergeError):
                read(name)
    assert not canary.exists()
