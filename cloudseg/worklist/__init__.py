"""What to label next: scenes and windows whose label would teach most, and a folder to label them in QGIS."""

from cloudseg.worklist.build import Worklist, build_worklist, list_requested
from cloudseg.worklist.folder import write_folder

__all__ = ["Worklist", "build_worklist", "list_requested", "write_folder"]
