"""How people and tools arrange images: names of splits, shards, class folders, tables of labels."""
