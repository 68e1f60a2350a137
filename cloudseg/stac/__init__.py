"""STAC: items of scenes, masks, models and snapshots, and the static catalog in the store that clients read."""
