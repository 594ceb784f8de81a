"""A profile as a workspace: parameters, lock, results and artifacts of its own, beside the project's.

    python -m pipeline.workspace smoke      makes it, or brings it up to date, and prints where it is

`profiles/NAME.yaml` holds only the values that differ from params.yaml. The workspace is a DVC project of its own
below the work root whose code is the project's, through links, so that DVC sees every parameter and every change of
the code, and results of a profile never stand where those of the default belong. Units are shared: their
fingerprint tells them apart.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline.unit import PROJECT, replace_file, work_root

DEFAULT = "default"
CODE = ("pipeline", "stages", "sweeps")
DVC_CONFIG = """[core]
    no_scm = true
    analytics = false
    check_update = false
[plots]
    html_template = plots/page.html
"""


def make_workspace(profile: str, project: Path = PROJECT, root: Path | None = None) -> Path:
    """The directory of the profile's workspace, brought up to date; `project` itself for the default.

    Raises:
        ValueError: the profile is unknown, or its file does not fit params.yaml.
    """
    if profile == DEFAULT:
        return project
    overlay = project / "profiles" / f"{profile}.yaml"
    if not overlay.exists():
        known = [DEFAULT, *sorted(path.stem for path in overlay.parent.glob("*.yaml"))]
        raise ValueError(f"the profile must be one of {', '.join(known)}, got {profile}")
    params = merged_params((project / "params.yaml").read_text(), overlay.read_text(), profile)
    workspace = (root or work_root()).absolute() / "profiles" / profile
    (workspace / ".dvc").mkdir(parents=True, exist_ok=True)
    (workspace / ".dvc" / "config").write_text(DVC_CONFIG)
    shutil.copytree(project / ".dvc" / "plots", workspace / ".dvc" / "plots", dirs_exist_ok=True)
    for name in CODE:
        link = workspace / name
        if link.is_symlink() and link.readlink() != project / name:  # the project was moved
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(project / name)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copyfile(project / name, workspace / name)
    replace_file(workspace / "params.yaml", params)
    return workspace


def merged_params(params: str, overlay: str, profile: str) -> str:
    """The text of params.yaml with the overlay's values and the profile's name, comments kept.

    What the overlay chooses by another `name` it gives whole.

    Raises:
        ValueError: a key of the overlay that the parameters lack.
    """
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()  # round trip
    yaml.preserve_quotes = True
    yaml.width = 4096
    values = yaml.load(params)
    changes = yaml.load(overlay) or {}
    if "profile" in changes:
        raise ValueError(f"profiles/{profile}.yaml must not set profile: it is named by its file")
    _merge(values, {**changes, "profile": profile}, where=f"profiles/{profile}.yaml", path="")
    text = StringIO()
    yaml.dump(values, text)
    return text.getvalue()


def _merge(values: Any, changes: Any, *, where: str, path: str) -> None:
    for key, change in changes.items():
        dotted = f"{path}{key}"
        if key not in values:
            raise ValueError(f"{where} may only set what params.yaml has: {dotted} is not there")
        if isinstance(change, dict) and isinstance(values[key], dict) and not _chooses_anew(values[key], change):
            _merge(values[key], change, where=where, path=f"{dotted}.")
        else:
            values[key] = change


def _chooses_anew(value: Any, change: Any) -> bool:
    """Whether a choice by name becomes another one, whose parameters are others."""
    return "name" in change and change["name"] != value.get("name")


def main(arguments: list[str]) -> int:
    try:
        (profile,) = arguments or [DEFAULT]
        print(make_workspace(profile))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
