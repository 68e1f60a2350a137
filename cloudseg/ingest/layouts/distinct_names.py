"""Names of scenes that differ where the scenes do: the folders above a file tell apart what its name does not."""

from collections import defaultdict
from dataclasses import replace

from cloudseg.ingest.candidate import Candidate, UnmatchedFile


def with_distinct_names(items: list[Candidate | UnmatchedFile]) -> list[Candidate | UnmatchedFile]:
    """Return the items; scenes of the same name get the folders in front in which they differ.

    `2023-05-01/images/a.tif` and `2023-05-06/images/a.tif` become `2023-05-01_a` and `2023-05-06_a`. A name that only
    one scene has stays as it is. The result depends on the paths of this listing only: the same inbox gives the same
    names.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for item in items:
        if isinstance(item, Candidate):
            groups[item.name].append(item)
    taken = set(groups)
    names: dict[str, str] = {}
    for shared, group in groups.items():
        for item, name in zip(group, _names(group), strict=True):
            free = name == shared or name not in taken
            names[item.path] = name if free else f"{name}_{item.files[0].file.name}"
            taken.add(names[item.path])
    return [replace(item, name=names[item.path]) if isinstance(item, Candidate) else item for item in items]


def _names(group: list[Candidate]) -> list[str]:
    """Return a name for each scene: the nearest folders in which any two differ, then the name that they share.

    A scene without a folder above it keeps the name alone.
    """
    if len(group) == 1:
        return [group[0].name]
    folders = [item.files[0].file.folder.split("/")[::-1] for item in group]
    depth = max(len(parts) for parts in folders)
    padded = [[*parts, *[""] * (depth - len(parts))] for parts in folders]
    used: list[int] = []
    for level in range(depth):
        if len({parts[level] for parts in padded}) > 1:
            used.insert(0, level)
            if len({tuple(parts[level] for level in used) for parts in padded}) == len(group):
                break
    fronts = ["_".join(parts[level] for level in used if parts[level]) for parts in padded]
    names = [f"{front}_{item.name}" if front else item.name for front, item in zip(fronts, group, strict=True)]
    # Two files of one folder: only their suffixes differ.
    return [
        name if names.count(name) == 1 else f"{name}_{item.files[0].file.suffix}"
        for name, item in zip(names, group, strict=True)
    ]
