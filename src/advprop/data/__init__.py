"""Images and labels: embedded sets, folders, shards, and the batches made of them."""
