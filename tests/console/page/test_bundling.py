"""The page's modules as one script: what runs in which order, and which forms of import are refused."""

import re

import pytest

from groundfault.console.bundling import scripts


def bundled(modules):
    return scripts("main", modules.__getitem__, as_file="a.js", later="b.js")


def test_modules_run_once_in_the_order_in_which_they_need_each_other():
    first, later = bundled(
        {
            "main": 'import { one as uno } from "./left.js";\nimport * as right from "./right.js";\nuno(right.TWO);',
            "left": 'import { TWO } from "./right.js";\nexport function one(x) { return x + TWO; }',
            "right": "export const TWO = 2;\nexport async function three() {}\nexport class Four {}",
        }
    )
    assert re.findall(r"^const \$(\w+) =", first, re.MULTILINE) == ["right", "left", "main"]
    assert "const { one: uno } = $left;\nconst right = $right;" in first
    assert "return { TWO, three, Four };" in first
    assert not re.search(r"^import|^export (?!\{)", first, re.MULTILINE)
    assert first.endswith("export { $right, $left, $main };\n")
    assert later == 'import { $right, $left, $main } from "./a.js";\nexport {  };\n'


def test_what_is_asked_for_later_is_in_the_second_script_and_what_both_need_in_the_first():
    first, later = bundled(
        {
            "main": 'import { say } from "./dom.js";\nconst go = async () => (await import("./form.js")).open();',
            "dom": "export const say = console.log;",
            "form": 'import { say } from "./dom.js";\nimport { x } from "./field.js";\nexport const open = () => x;',
            "field": "export const x = 1;",
        }
    )
    assert '((await import("./b.js")).$form).open()' in first
    assert "$field" not in first
    assert re.findall(r"^const \$(\w+) =", later, re.MULTILINE) == ["field", "form"]
    assert later.startswith('import { $dom, $main } from "./a.js";\n')
    assert later.endswith("export { $form };\n")


@pytest.mark.parametrize(
    ("modules", "circle"),
    [
        ({"main": 'import { a } from "./main.js";'}, "main > main"),
        (
            {
                "main": 'import { a } from "./left.js";',
                "left": 'import { b } from "./right.js";\nexport const a = 1;',
                "right": 'import * as left from "./left.js";\nexport const b = 1;',
            },
            "main > left > right > left",
        ),
        (
            {
                "main": 'const open = async () => await import("./form.js");',
                "form": 'import { a } from "./field.js";\nexport const b = 1;',
                "field": 'import { b } from "./form.js";\nexport const a = 1;',
            },
            "form > field > form",
        ),
    ],
    ids=["itself", "of-two", "of-what-comes-later"],
)
def test_a_circle_of_modules_is_refused_and_named(modules, circle):
    with pytest.raises(ValueError, match=f"in a circle: {circle}$"):
        bundled(modules)


def test_what_comes_later_may_need_what_was_there_at_once_but_asks_for_nothing_later_itself():
    modules = {
        "main": 'const go = async () => await import("./form.js");\nexport const a = 1;',
        "form": 'import { a } from "./main.js";\nexport const b = a;',
    }
    assert "const { a } = $main;" in bundled(modules)[1]
    modules["form"] += '\nconst more = async () => await import("./field.js");'
    with pytest.raises(ValueError, match=r"form\.js: what comes later must ask for nothing later itself"):
        bundled(modules)


@pytest.mark.parametrize(
    "line",
    [
        'import main from "./dom.js";',
        'import "./dom.js";',
        "import { say } from './dom.js';",
        'import { say } from "https://elsewhere.example/dom.js";',
        'import { say } from "../dom.js";',
        'import {\n  say,\n} from "./dom.js"',
        "export default 1;",
        "export { say };",
        "export let count = 0;",
        'export * from "./dom.js";',
        'const later = import("./dom.js");',
        "const later = await import(name);",
        'const later = await import("../dom.js");',
    ],
)
def test_an_import_or_export_of_another_form_is_refused_with_the_module_and_the_line(line):
    with pytest.raises(ValueError, match=r"^main\.js: .*must be in one of the forms that are bundled$") as caught:
        bundled({"main": f"const a = 1;\n{line}\n", "dom": "export const say = 1;"})
    assert line.partition("\n")[0][-12:] in str(caught.value)
