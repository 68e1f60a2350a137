"""Fixtures of tests/tiny_world.py."""

from tests.tiny_world import add_scene, snapshot_id

__all__ = ["add_scene", "snapshot_id"]
