"""Images that came from registries and archives, kept in the data folder.

    cache/blobs/sha256/HEX     layers, manifests and configurations, by what they hash to (`blobs.py`)
    cache/blobs/parts/HEX      downloads that were interrupted, to be resumed
    cache/references/…         which manifest a name means here (`records.py`)
    cache/rootfs/…             root file systems made of layers (`image/rootfs.py`)

Nothing is believed because it is there: documents are hashed whenever they are read, layers when they are merged, and
what is missing or damaged is fetched anew. Everything gets its name in one step when it is whole. What is in use is
leased (`leases.py`), so that a removal (`collect.py`) never takes away what a pull or a sandbox stands on.
"""
