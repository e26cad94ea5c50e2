"""Everything a run keeps on disk, written whole or not at all."""
