#!/usr/bin/env python3
"""junit.py FILE.xml: judges a JUnit file by the rules that its readers share (Jenkins' junit-10.xsd, GitLab, GitHub actions).

The document is well-formed XML 1.0; elements and attributes are known ones in their places; every test has a name and a
class name, no two of a suite the same; the counts are those of the elements. Prints failures, errors and tests.
"""
import sys, xml.etree.ElementTree as tree

ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"}, "error": {"message", "type"}, "skipped": {"message"},
    "system-out": set(), "system-err": set(),
}
CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase", "system-out", "system-err"},
            "testcase": {"failure", "error", "skipped", "system-out", "system-err"}}
COUNTED = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def judge(element):
    assert set(element.attrib) <= ATTRIBUTES[element.tag], (element.tag, element.attrib)
    assert {child.tag for child in element} <= CHILDREN.get(element.tag, set()), element.tag
    for child in element:
        judge(child)
    if element.tag in ("testsuites", "testsuite"):
        for attribute, tag in COUNTED.items():
            assert int(element.get(attribute)) == len(list(element.iter(tag))), (element.get("name"), attribute)
    if element.tag == "testsuite":
        names = [(case.get("classname"), case.get("name")) for case in element.iter("testcase")]
        assert all(all(name) for name in names) and len(set(names)) == len(names), names
    if element.tag == "testcase":
        assert sum(child.tag in ("failure", "error", "skipped") for child in element) <= 1


root = tree.fromstring(open(sys.argv[1], "rb").read())
assert root.tag == "testsuites"
judge(root)
print(root.get("failures"), root.get("errors"), root.get("tests"))
