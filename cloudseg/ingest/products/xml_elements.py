"""Read chosen elements of an XML metadata file. The file is untrusted: no entities, no external files, bounded memory.

The parser streams: it keeps the chosen elements only, so memory does not grow with the file.
"""

from dataclasses import dataclass
from typing import Any, Final

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

_MAX_ELEMENTS: Final = 2_000
"""Chosen elements of one file; a Sentinel-2 product has about 60."""
_MAX_TEXT: Final = 1_000
"""Characters of one element."""
_MAX_DEPTH: Final = 100
"""Nested elements; Sentinel-2 metadata has about 10."""


@dataclass(frozen=True)
class XmlElement:
    """One element: its name without namespace, its attributes and its text."""

    tag: str
    attributes: dict[str, str]
    text: str


def read_elements(content: bytes, wanted: frozenset[str]) -> tuple[str, list[XmlElement]]:
    """Return the name of the root element, and the elements of the wanted names in document order.

    Args:
        content: The file.
        wanted: Names without namespace.

    Raises:
        ValueError: The file is not well-formed XML, or declares a document type or entities.
    """
    target = _Target(wanted)
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        parser.feed(content)
        parser.close()
    except DefusedXmlException as error:
        raise ValueError(f"the XML declares a document type or entities ({type(error).__name__})") from error
    except (ParseError, LookupError) as error:  # LookupError: an encoding that Python does not know
        raise ValueError(f"not well-formed XML: {error}") from error
    return target.root, target.found


class _Target:
    """Receives the parser's events; see `xml.etree.ElementTree.XMLParser`."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self.root = ""
        self.found: list[XmlElement] = []
        self._wanted = wanted
        self._open: list[tuple[str, dict[str, str], list[str]] | None] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        self.root = self.root or name
        if len(self._open) >= _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} nested elements")
        self._open.append((name, dict(attributes), []) if name in self._wanted else None)

    def data(self, text: str) -> None:
        if self._open and (element := self._open[-1]) and sum(map(len, element[2])) < _MAX_TEXT:
            element[2].append(text[:_MAX_TEXT])

    def end(self, _tag: str) -> None:
        if element := self._open.pop():
            if len(self.found) >= _MAX_ELEMENTS:
                raise ValueError(f"more than {_MAX_ELEMENTS} elements of interest")
            self.found.append(XmlElement(element[0], element[1], "".join(element[2]).strip()))

    def close(self) -> Any:
        return None
