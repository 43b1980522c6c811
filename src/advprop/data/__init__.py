"""Images and labels: embedded sets, folders of image files, and the batches made of them."""
