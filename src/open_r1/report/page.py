"""The base of all pages: one style, one set of scripts, and no way for a model's output to become code.

A page is a template of `assets/` with its styles and scripts inline; it loads nothing. Its content security policy has
the digests of those scripts, so a browser runs no others.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from open_r1.report.environment import package_versions
from open_r1.report.figures import duration, finite


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return resources.files("open_r1.report").joinpath("assets", name).read_text("utf-8")


def render_page(
    template: str,
    *,
    scripts: Sequence[str],
    styles: Sequence[str] = (),
    data: Any = None,
    pieces: Mapping[str, str] | None = None,
    live: bool = False,
    **fields: Any,
) -> str:
    """The page as HTML: `template` with the shared files, and of `assets/` also `scripts` and `styles`.

    `data` is the JSON that the scripts begin with, `pieces` what they unpack later (see `packed`). A page that is
    `live` may talk to the server that it came from, and to no other.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(asset)
    )
    environment.filters["duration"] = duration
    script = '"use strict";\n' + "\n".join(asset(name) for name in ("common.js", *scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return environment.get_template(template).render(
        policy=Markup(policy + ("; connect-src 'self'" if live else "")),
        style=Markup("\n".join(asset(name) for name in ("base.css", *styles))),
        script=Markup(script),
        data=script_json(data),
        pieces={name: Markup(text) for name, text in (pieces or {}).items()},
        versions=package_versions(),
        **fields,
    )


def script_json(value: Any) -> Markup:
    """JSON that cannot end the `<script>` element that contains it, whatever a model wrote."""
    text = to_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def packed(value: Any) -> str:
    """`value` as base64 of zlib of JSON, which `unpack` of `common.js` reads."""
    return base64.b64encode(zlib.compress(to_json(value).encode(), 6)).decode()


def to_json(value: Any) -> str:
    """Compact JSON, as browsers read it: halves of surrogate pairs, which have no UTF-8, become question marks, and
    numbers that are not finite become null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()
