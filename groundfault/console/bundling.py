"""The page's modules as one script: compressed together they are a quarter smaller, and there is one to wait for.

No build step: the files in ``page/`` are what is read, edited and tested, and they work by themselves, too. Each module
becomes a function that runs once, in the order in which they need each other, and returns what it exports.
What a module asks for only later, by ``await import(...)``, is in a second script.
"""

import re
from collections.abc import Callable
from typing import Final

__all__ = ["scripts"]

_IMPORT: Final = re.compile(
    r'^import (?:\* as (?P<all>\w+)|\{ (?P<some>[^}]+) \}) from "\./(?P<module>\w+)\.js";$', re.MULTILINE
)
_LATER: Final = re.compile(r'await import\("\./(?P<module>\w+)\.js"\)')
_EXPORT: Final = re.compile(r"^export (?P<said>(?:async function|function|const|class) (?P<name>\w+))", re.MULTILINE)
_FOREIGN: Final = re.compile(r"^(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)


def scripts(first: str, read: Callable[[str], str], *, as_file: str, later: str) -> tuple[str, str]:
    """Return ``first``, a module, with all that it needs; and what it asks for later, with what that needs besides.

    ``read`` returns a module's text by its name; the two will be files called ``as_file`` and ``later``, side by side.
    Raises ValueError for imports and exports in another form than the page's modules have, and for a circle of them.
    """
    at_once: dict[str, str] = {}
    _take(first, read, at_once, ())
    asked = dict.fromkeys(found["module"] for name in at_once for found in _LATER.finditer(read(name)))
    all_of_it = dict(at_once)
    for name in asked:
        _take(name, read, all_of_it, ())
    for name in all_of_it.keys() - at_once.keys():
        if _LATER.search(read(name)):  # nothing would bundle it, and it would not be found
            raise ValueError(f"{name}.js: what comes later must ask for nothing later itself")
    known = ", ".join(f"${name}" for name in at_once)
    rest = "".join(text for name, text in all_of_it.items() if name not in at_once)
    wanted = ", ".join(f"${name}" for name in asked)
    return (
        _LATER.sub(lambda found: f'(await import("./{later}")).${found["module"]}', "".join(at_once.values()))
        + f"export {{ {known} }};\n",
        f'import {{ {known} }} from "./{as_file}";\n{rest}export {{ {wanted} }};\n',
    )


def _take(name: str, read: Callable[[str], str], done: dict[str, str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"modules import each other in a circle: {' > '.join((*above, name))}")
    if name in done:
        return
    text = read(name)
    for found in _IMPORT.finditer(text):
        _take(found["module"], read, done, (*above, name))
    done[name] = _wrapped(name, text)


def _wrapped(name: str, text: str) -> str:
    exported = ", ".join(found["name"] for found in _EXPORT.finditer(text))
    body = _IMPORT.sub(_taken, _EXPORT.sub(lambda found: found["said"], text))
    left = _FOREIGN.search(_LATER.sub("", body))
    if left is not None:
        raise ValueError(f"{name}.js: {left[0]!r} must be in one of the forms that are bundled")
    return f"const ${name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();\n"


def _taken(found: re.Match[str]) -> str:
    if found["all"]:
        return f"const {found['all']} = ${found['module']};"
    return f"const {{ {found['some'].replace(' as ', ': ')} }} = ${found['module']};"
