"""Ingest of one STAC item: recognize what is known, fetch the rest, and treat the copies like files of an inbox."""

from dataclasses import dataclass, replace

from cloudseg import keys
from cloudseg.catalog.removal_rows import list_of_scene
from cloudseg.catalog.scene_rows import find_scene, list_scenes_named
from cloudseg.errors import BadScene, InputError, SettingsError
from cloudseg.ingest.candidate import Candidate
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox_file import NotRead, escape_name, hash_file
from cloudseg.ingest.ingest_scene import ingest_scene, pass_over_removed, source_hash
from cloudseg.ingest.quarantine import is_quarantined, quarantine, quarantine_id, release_known_file
from cloudseg.ingest.stac_source.fetch_item import (
    Plan,
    fetch_item,
    item_folder,
    make_plan,
    remember_known,
    remembered,
)
from cloudseg.ingest.stac_source.find_items import FoundItem
from cloudseg.ingest.stac_source.http_client import HttpClient
from cloudseg.ingest.stac_source.item_inbox import ItemInbox
from cloudseg.ingest.stac_source.options import StacOptions
from cloudseg.ingest.stac_source.signing import Signer
from cloudseg.records import Removal, Scene
from cloudseg.scratch import check_room

FINGERPRINT_TAG = "stac_fingerprint"


@dataclass(frozen=True)
class StacContext:
    """What every item of one ingest shares. Safe to use from several threads."""

    ingest: IngestContext
    """Its inbox is replaced by that of each item."""
    client: HttpClient
    signer: Signer
    options: StacOptions
    bands: tuple[str | None, ...] | None

    @property
    def policy_id(self) -> str:
        """What, besides an item, decides whether it is refused: with other settings it is tried again."""
        policy = self.client.policy
        return keys.sha256_of(
            keys.canonical_json([policy.allowed, policy.private, self.options.max_item_bytes, self.bands])
        )


def ingest_item(context: StacContext, found: FoundItem) -> Outcome:
    """Add one item to the catalog, or quarantine it. Running it again fetches nothing.

    Raises:
        StoreError: The store is not available; this concerns every item.
        CatalogUnreachable: The catalog is not available; this concerns every item.
        SettingsError: Unfinished copies cannot be kept.
    """
    outcome = Outcome(escape_name(str(found.values.get("id"))[:200]))
    version = keys.sha256_of(f"unread:{found.uri}".encode())
    try:
        version = _stated(found)
        inbox = ItemInbox(found)
        scene = inbox.candidate(context.bands)
        plan = make_plan(context.signer, inbox, scene, context.options)
        version = plan.fingerprint
        if known := _known(context, scene, plan):
            outcome.scene, outcome.scene_id = "known", known.scene_id
            release_known_file(context.ingest, found.uri)
        elif (removal := _removed(context, plan)) is not None:
            pass_over_removed(removal, outcome)
        elif is_quarantined(context.ingest, _entry(context, found.uri, version)):
            outcome.still_quarantined += 1
        elif context.ingest.dry_run:
            outcome.notes.append(_announcement(outcome.name, plan, inbox))
        else:
            _fetch_and_ingest(context, inbox, scene, plan, outcome)
    except SettingsError:
        raise
    except InputError as error:
        check_room(context.ingest.folder, error)
        if isinstance(error, NotRead):
            version = keys.sha256_of(f"unread:{found.uri}".encode())
        quarantine(
            context.ingest, _entry(context, found.uri, version), outcome.name, found.uri, version, error, outcome
        )
    return outcome


def _fetch_and_ingest(context: StacContext, inbox: ItemInbox, scene: Candidate, plan: Plan, outcome: Outcome) -> None:
    """Fetch the files and ingest them. The copies are removed unless fetching failed or was interrupted."""
    refused: InputError | None = None
    with item_folder(context.options.folder, plan.fingerprint) as folder:
        if folder is None:
            outcome.notes.append(f"{outcome.name}: another ingest fetches it now")
            return
        try:
            fetched = fetch_item(context.client, context.signer, inbox, scene, plan, folder, context.options)
            ingest = replace(context.ingest, inbox=inbox)
            tags = (*scene.tags, *_tags(inbox, plan, fetched, outcome.name))
            scene = replace(scene, tags=tags)
            hashes = {
                file.path: hash_file(inbox, file, max_bytes=ingest.limits.max_bytes) for file in scene.pixel_files()
            }
            ingest_scene(ingest, scene, hashes, source_hash(scene, hashes), outcome)
            if outcome.scene in ("known", "removed") and outcome.scene_id:
                remember_known(context.options.folder, plan.fingerprint, outcome.scene_id)
        except NotRead:
            raise  # keeps the folder
        except BadScene as error:
            refused = error  # raised below, after the folder is removed
    if refused is not None:
        raise refused


def _known(context: StacContext, scene: Candidate, plan: Plan) -> Scene | None:
    """Return the scene that was made of exactly these files; names are indexed, tags are not."""
    with context.ingest.catalog.read() as db:
        named = list_scenes_named(db, scene.name)
        noted = remembered(context.options.folder, plan.fingerprint)
        same_pixels = find_scene(db, noted) if noted else None
    return next((each for each in named if each.tags.get(FINGERPRINT_TAG) == plan.fingerprint), same_pixels)


def _removed(context: StacContext, plan: Plan) -> Removal | None:
    """Return the removal of the scene that an earlier fetch of these files made, so that they are not fetched again."""
    noted = remembered(context.options.folder, plan.fingerprint)
    with context.ingest.catalog.read() as db:
        removals = list_of_scene(db, noted) if noted else []
    return next((removal for removal in removals if removal.lifted_at is None), None)


def _entry(context: StacContext, uri: str, version: str) -> str:
    return quarantine_id(uri, version, "stac", context.policy_id)


def _stated(found: FoundItem) -> str:
    """Return a hash of the item, for one that is refused before a file is asked for."""
    try:
        return keys.sha256_of(keys.canonical_json([found.uri, found.values]))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadScene("not a STAC item", subject=found.uri, found=str(error)[:200]) from error


def _tags(inbox: ItemInbox, plan: Plan, fetched: str, name: str) -> tuple[tuple[str, str], ...]:
    return (
        ("stac_item", inbox.uri),
        ("stac_id", name),
        ("stac_fetched", fetched),
        (FINGERPRINT_TAG, plan.fingerprint),
    )


def _announcement(name: str, plan: Plan, inbox: ItemInbox) -> str:
    megabytes = sum(remote.size for remote in plan.remotes.values()) >> 20
    size = f"files of {megabytes} MB, or parts of them" if plan.remotes else "its size was not asked for"
    return f"{name} would be fetched from {inbox.uri}: {size}"
