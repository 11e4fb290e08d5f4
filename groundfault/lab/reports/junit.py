"""The gate's word as JUnit XML, which every pipeline can show. Pure."""

from xml.etree import ElementTree as ET

from groundfault.lab.reports.judging import Judged
from groundfault.lab.reports.wording import line, missed, name_of_run, shown

__all__ = ["junit"]


def junit(found: Judged) -> str:
    """Return a test suite with a case for each figure; a void run has an error for each reason instead of failures."""
    checks = found.checks
    failed = 0 if found.void else sum(check.met is False for check in checks)
    counts = {
        "tests": str(len(checks) + len(found.void)),
        "failures": str(failed),
        "errors": str(len(found.void)),
        "skipped": str(sum(found.void != [] or check.met is None for check in checks)),
    }
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": name_of_run(found.run), **counts})
    for reason in found.void:
        case = ET.SubElement(suite, "testcase", {"classname": "groundfault.gate", "name": "the run counts"})
        ET.SubElement(case, "error", {"message": f"void: {shown(reason)}"})
    for check in checks:
        about = {"classname": "groundfault.gate", "name": f"{shown(check.measure, 80)}: {shown(check.title)}"}
        case = ET.SubElement(suite, "testcase", about)
        if found.void or check.met is None:
            ET.SubElement(case, "skipped", {"message": "the run is void" if found.void else "no bound"})
        elif not check.met:
            ET.SubElement(case, "failure", {"message": missed(check)})
        ET.SubElement(case, "system-out").text = line(check)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'
