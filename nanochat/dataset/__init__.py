"""Text for pretraining: one shard format (shards.py) and the sources that fill it."""
