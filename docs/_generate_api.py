"""Write the generated pages of `docs/reference/`: the public names, the settings, the errors.

Run it from the repository after a change to a public name, a docstring, a setting or an error:
`python docs/_generate_api.py`. A test fails as long as a page is stale.

Signatures and docstrings are read from the source text, so that the pages are the same whatever
interpreter writes them; defaults of settings and codes of errors are those of the real classes.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

import attrs

from aiki_actors.engine import EngineLimits
from aiki_actors.queue import RedisSettings
from aiki_actors.server import KeeperSettings, TimerSettings
from aiki_actors.session import SessionLimits
from aiki_actors.storage import PostgresSettings, SqliteSettings
from aiki_actors.worker import WorkerSettings
from aiki_gateway import GatewaySettings
from aiki_sdk import AikiError
from aiki_sdk.http import HttpSettings
from aiki_trio import RuntimeSettings

ROOT: Final = Path(__file__).resolve().parents[1]
if str(ROOT / "docs") not in sys.path:
    sys.path.insert(0, str(ROOT / "docs"))

from _error_pages import error_pages  # noqa: E402  # found by the path above

REFERENCE: Final = ROOT / "docs" / "reference"
FOLDERS: Final = {"aiki_trio": "aiki_trio", "aiki_sdk": "sdk/aiki_sdk"}
GENERATED: Final = "<!-- Written by docs/_generate_api.py; do not edit it by hand. -->"

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign
Found = tuple[str, Definition, str]
"""Where a name is defined: the module, the statement, and the text that explains it."""

SETTINGS: Final[tuple[tuple[type, str, str], ...]] = (
    (RuntimeSettings, "aiki_trio", ""),
    (EngineLimits, "aiki_actors.engine", "limits"),
    (WorkerSettings, "aiki_actors.worker", "worker"),
    (KeeperSettings, "aiki_actors.server", "keeper"),
    (TimerSettings, "aiki_actors.server", "timers"),
    (SqliteSettings, "aiki_actors.storage", "sqlite"),
    (PostgresSettings, "aiki_actors.storage", "postgres"),
    (RedisSettings, "aiki_actors.queue", "redis"),
    (SessionLimits, "aiki_actors.session", "sessions"),
    (GatewaySettings, "aiki_gateway", ""),
    (HttpSettings, "aiki_sdk.http", ""),
)

# --- Reading the source ---------------------------------------------------------------------------


def path_of(module: str) -> Path:
    """Return the file of a module of this project."""
    package, _, rest = module.partition(".")
    path = ROOT / FOLDERS[package] / Path(*rest.split(".") if rest else ())
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.Module:
    """Parse a module, once."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def find(module: str, name: str) -> Found:
    """Follow re-exports to where a name is defined."""
    body = tree_of(module).body
    for number, node in enumerate(body):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.name == name and not is_overload(node):
                    return module, node, ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                return module, node, text_after(body, number)
            case ast.AnnAssign(target=ast.Name(id=target)) if target == name:
                return module, node, text_after(body, number)
            case ast.ImportFrom(module=source) if source or node.level:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return find(absolute(module, node), alias.name)
            case _:
                pass
    message = f"{name} is not defined in {module}"
    raise LookupError(message)


def absolute(module: str, node: ast.ImportFrom) -> str:
    """Name the module that an import in `module` is from."""
    if not node.level:
        return node.module or ""
    package = module if path_of(module).name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def text_after(body: list[ast.stmt], number: int) -> str:
    """Return the string that stands under an assignment and explains it."""
    match body[number + 1 : number + 2]:
        case [ast.Expr(value=ast.Constant(value=str(text)))]:
            return re.sub(r"\n\s+", "\n", text)
        case _:
            return ""


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Tell whether a definition is for type checkers only."""
    return any(ast.unparse(item).endswith("overload") for item in node.decorator_list)


def summary_of(module: str) -> str:
    """Return the first sentence of a module's docstring."""
    text = ast.get_docstring(tree_of(module)) or ""
    return text.split("\n\n")[0].replace("\n", " ")


# --- Writing Markdown -----------------------------------------------------------------------------


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    names = list(header)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def one_line(text: str) -> str:
    """Put a text on one line."""
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


def prose(docstring: str) -> Iterator[str]:
    """Yield a docstring as Markdown: sections as lists, indented code as text blocks."""
    lines = docstring.replace("``", "`").splitlines()
    code: list[str] = []
    for line in [*lines, ""]:
        section = re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields|Invariants?):", line)
        item = re.match(r"    (?P<name>\*{0,2}[A-Za-z_][\w, *]*): (?P<text>.*)", line)
        if code and line.strip() and not line.startswith("    "):
            yield from ("```text", *trimmed(code), "```", "")
            code = []
        if code or line == "::":
            code.append(line)
        elif section:
            yield from ("", f"**{section[1]}**", "")
        elif item:
            yield f"* `{item['name']}`: {item['text']}"
        else:
            yield line.removeprefix("    ").removeprefix("    ")
    if code:
        yield from ("```text", *trimmed(code), "```", "")


def trimmed(code: list[str]) -> list[str]:
    """Return the lines of a code block without its mark, its indentation and empty ends."""
    text = "\n".join(line.removeprefix("    ") for line in code[1:])
    return text.strip("\n").splitlines()


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Write a function's head as its source does."""
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return re.sub(r"\bself, |\bself\b", "", f"{kind} {node.name}({ast.unparse(node.args)}){result}")


def described(node: Definition, name: str, text: str) -> Iterator[str]:
    """Yield what is said of one public name."""
    yield f"#### `{name}`"
    yield ""
    match node:
        case ast.ClassDef():
            yield from of_class(node, text)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from ("```text", signature(node), "```", "", *prose(text))
        case ast.Assign() | ast.AnnAssign():
            yield from (*prose(text or "A name for use in annotations."), "")


def of_class(node: ast.ClassDef, text: str) -> Iterator[str]:
    """Yield what is said of a class: its fields, its text, its public methods."""
    fields = [
        ast.unparse(item)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
    ]
    yield from ("```text", f"class {node.name}", *(f"    {item}" for item in fields), "```", "")
    yield from prose(text)
    for item in node.body:
        if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) or is_overload(item):
            continue
        if item.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in item.decorator_list}
        head = f"property {item.name}" if "property" in decorators else signature(item)
        yield from ("", f"**`{node.name}.{item.name}`**", "", "```text", head, "```", "")
        yield from prose(ast.get_docstring(item) or "")


def title_of(module: str) -> str:
    """Name a group of names by the module that defines them."""
    last = module.rpartition(".")[2].strip("_")
    part = module.split(".")[1] if module.count(".") > 1 else ""
    words = f"{part} {last}" if part and not part.startswith("_") else last
    return words.replace("_", " ").capitalize()


# --- The pages ------------------------------------------------------------------------------------


def public_names(package: str) -> list[str]:
    """List what a package exports, errors aside: these have a page of their own."""
    exported = importlib.import_module(package)
    names: list[str] = exported.__all__
    found = [(name, getattr(exported, name)) for name in names]
    return [n for n, it in found if not (isinstance(it, type) and issubclass(it, AikiError))]


def api_page() -> str:
    """Return the page of public names."""
    lines = [
        "# Public names",
        "",
        GENERATED,
        "",
        "Everything that `aiki_trio` and `aiki_sdk` export, grouped by the module that defines",
        "it. Import from the two packages only: modules whose name begins with `_` may move.",
        "`aiki_trio` exports all names of `aiki_sdk` too. [Errors](errors.md) have a page of",
        "their own, and so have [settings](settings.md). Signatures are as in the source.",
    ]
    sdk = set(public_names("aiki_sdk"))
    for package in ("aiki_trio", "aiki_sdk"):
        names = [n for n in public_names(package) if package == "aiki_sdk" or n not in sdk]
        lines += ["", f"## {package}"]
        groups: dict[str, list[tuple[str, Found]]] = {}
        for name in names:
            found = find(package, name)
            groups.setdefault(found[0], []).append((name, found))
        for module in sorted(groups):
            lines += ["", f"### {title_of(module)}", "", summary_of(module).replace("``", "`"), ""]
            for name, (_, node, text) in sorted(groups[module]):
                lines += [*described(node, name, text), ""]
    return tidy(lines)


def meanings_of(cls: type) -> Mapping[str, str]:
    """Read what a class's docstring says of each of its attributes."""
    section = (cls.__doc__ or "").partition("Attributes:")[2].partition("Raises:")[0]
    found: dict[str, str] = {}
    for names, text in re.findall(r"(?ms)^ {8}([\w, ]+): (.*?)(?=^ {8}\S|\Z)", dedented(section)):
        for name in names.split(", "):
            found[name] = one_line(text)
    return found


def dedented(section: str) -> str:
    """Indent a docstring's section as written, whether or not the interpreter stripped it."""
    lines = section.splitlines()
    first = next((line for line in lines if line.strip()), "")
    missing = " " * (8 - (len(first) - len(first.lstrip())))
    return "\n".join(f"{missing}{line}" if line.strip() else "" for line in lines)


def default_of(attribute: attrs.Attribute[object]) -> str:
    """Write a setting's default for people."""
    if attribute.default is attrs.NOTHING:
        return "to be given"
    value = attribute.default
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
        return "see below"
    if isinstance(value, int) and "Micros" in str(attribute.type):
        return f"{value:,} µs"
    match value:
        case timedelta():
            return f"{value / timedelta(seconds=1):,.10g} s"
        case bool() | str() | None:
            return f"`{value!r}`"
        case int():
            return f"{value:,}"
        case _:
            return f"`{value!r}`"


def settings_page() -> str:
    """Return the page of settings."""
    lines = [
        "# Settings",
        "",
        GENERATED,
        "",
        "Pass one `RuntimeSettings` to `open_runtime`; every part of it is an object of its own.",
        "`HttpSettings` are those of a client: `Client(url, http=HttpSettings(…))`.",
        "Names that end in `_s` are seconds, in `_bytes` bytes. The command",
        "line has [settings of its own](cli.md#settings).",
    ]
    for cls, module, part in SETTINGS:
        where = f" (`RuntimeSettings.{part}`)" if part else ""
        lines += ["", f"## {cls.__name__}", "", f"`from {module} import {cls.__name__}`{where}", ""]
        meanings = meanings_of(cls)
        assert attrs.has(cls), f"{cls} is no attrs class"
        missing = [a.name for a in attrs.fields(cls) if a.name not in meanings]
        assert not missing, f"the docstring of {cls.__name__} does not explain {missing}"
        rows = [(f"`{a.name}`", default_of(a), meanings[a.name]) for a in attrs.fields(cls)]
        lines += table(("setting", "default", "meaning"), rows)
    return tidy(lines)


def error_rows(cls: type[AikiError], depth: int = 0) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for an error and for all below it, the family's own module first."""
    code = f"[`{cls.code}`](errors/{cls.code}.md)" if "code" in cls.__dict__ else ""
    text = one_line((cls.__doc__ or "").split("\n\n")[0])
    yield f"{'· ' * depth}`{cls.__name__}`", code, "yes" if cls.retryable else "", text
    for child in sorted(cls.__subclasses__(), key=lambda sub: sub.__name__):
        if child.__module__.startswith("aiki_sdk."):
            yield from error_rows(child, depth + 1)


def errors_page() -> str:
    """Return the page of errors."""
    lines = [
        "# Errors",
        "",
        GENERATED,
        "",
        "One family under `AikiError`, all importable from `aiki_trio` and `aiki_sdk`. `code` is",
        "stable; `retryable` says whether the same thing, done again unchanged, may succeed;",
        "`message` says what happened, to what, and what to do; `details` is the same for",
        "programs. An error without a code of its own is a base class and is never raised itself.",
        "Dots show the parent. Each code has a page: when it is raised, and what to do.",
        "",
        *table(("error", "code", "retryable", "meaning"), error_rows(AikiError)),
        "",
        "A live stream may end with [`subscriber-too-slow`](errors/subscriber-too-slow.md).",
    ]
    return tidy(lines)


def tidy(lines: Iterable[str]) -> str:
    """Join lines, with one empty line at most between two others and no blanks at their ends."""
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def generated_pages() -> dict[Path, str]:
    """Return every generated page and its text."""
    return {
        REFERENCE / "api.md": api_page(),
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "errors.md": errors_page(),
        **{
            REFERENCE / "errors" / f"{code}.md": tidy(lines)
            for code, lines in error_pages(GENERATED).items()
        },
    }


if __name__ == "__main__":
    for path, text in generated_pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
