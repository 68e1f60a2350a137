"""What a label says about itself: its scene, who made it, and the published mask that it was made from.

A raster says it in its tags, polygons in the metadata of their layer or in attributes of the same names (upper or lower
case). Runs in the sandboxed decoder process.
"""

from collections.abc import Mapping
from typing import Final

from cloudseg.errors import BadLabel
from cloudseg.ingest.job import LabelTags

_MAX_LENGTH: Final = 300
_NAMES: Final = {
    "scene": ("CLOUDSEG_SCENE_ID", "SCENE_ID"),
    "scene_name": ("CLOUDSEG_SCENE_NAME",),
    "product_id": ("PRODUCT_ID",),
    "acquired_at": ("ACQUIRED_AT",),
    "mask_id": ("CLOUDSEG_MASK_ID", "MASK_ID"),
    "source": ("LABEL_SOURCE",),
    "confirms": ("LABEL_CONFIRMS",),
}
"""Tags by field of `LabelTags`; the first one that the file has counts."""
_MASK_ID: Final = "mk-"
_CLEANED: Final = "CLOUDSEG_CLEANED"
"""Tag of the rasters that `cloudseg export masks` writes, and of published masks that are cleaned."""
TAG_NAMES: Final = frozenset(name for names in _NAMES.values() for name in names)


def label_tags(tags: Mapping[str, str], display_name: str) -> LabelTags:
    """Return the known ones among the tags of a file.

    Args:
        tags: Text by name, names in any case.
        display_name: The file's name, for messages.

    Raises:
        BadLabel: A tag is not one line of printable text, or the file is a mask that was cleaned.
    """
    _check_not_cleaned(tags, display_name)
    known = {name.upper(): text.strip() for name, text in tags.items() if name.upper() in TAG_NAMES and text.strip()}
    for name, text in known.items():
        if len(text) > _MAX_LENGTH or not text.isprintable():
            raise BadLabel(
                f"the tag {name} is not one line of text",
                subject=display_name,
                found=f"{len(text)} characters",
                expected=f"at most {_MAX_LENGTH} printable characters",
                next_step="Correct the tag, or remove it (GDAL: gdal_edit.py -unsetmd).",
            )
    found = {field: next((known[name] for name in names if name in known), None) for field, names in _NAMES.items()}
    if not (found["mask_id"] or "").startswith(_MASK_ID):  # another program's masks are not ours
        found["mask_id"] = None
    return LabelTags.model_validate(found)


def _check_not_cleaned(tags: Mapping[str, str], display_name: str) -> None:
    """Refuse a cleaned copy of a mask: it differs from the mask, but nobody has corrected it.

    Raises:
        BadLabel: It is one, and no person has confirmed it.
    """
    names = {name.upper() for name in tags}
    if _CLEANED in names and "LABEL_CONFIRMS" not in names:
        raise BadLabel(
            "this is a mask that cloudseg cleaned; the model would learn from itself",
            subject=display_name,
            found=f"tag {_CLEANED}",
            expected="a corrected mask",
            next_step="Correct the mask as the model draws it (`cloudseg predict SCENE --buffer-m 0` makes it). If a "
            "person has checked every pixel of this file, set the tag LABEL_CONFIRMS to the id of its mask (GDAL: "
            "gdal_edit.py -mo).",
        )
