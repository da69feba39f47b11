"""Commands that install missing extras, as they work in this environment."""

import importlib.metadata
import re
from pathlib import Path

import open_r1


def install_command(extra: str) -> str:
    """The command that installs an extra of this project: from the clone, or its packages by name."""
    clone = Path(open_r1.__file__).resolve().parents[2]
    if (clone / "pyproject.toml").is_file():
        where = "" if clone == Path.cwd() else f" (in {clone})"
        return f'pip install -e ".[{extra}]"{where}'
    return f"pip install {' '.join(packages_of(extra))}"


def packages_of(extra: str) -> list[str]:
    """The requirements of an extra, quoted for a shell, from the metadata of the installed package."""
    wanted = re.compile(rf"""extra == ['"]{re.escape(extra)}['"]""")
    requirements = [r for r in importlib.metadata.requires("open-r1") or [] if wanted.search(r)]
    return [f"'{r.partition(';')[0].strip()}'" for r in requirements]
