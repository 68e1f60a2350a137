"""A STAC API or a static STAC catalog as a source of ingest: docs/how-to/stac_source.md.

`find_items` lists items, `fetch_item` copies what is needed of one, `ingest_item` adds it to the catalog. All that a
server sends is untrusted: `hosts` says where requests may go, `http_client` bounds what comes back, and pixels are
decoded by the same sandboxed processes as those of an inbox.
"""
