"""Images and labels in arrays, as many tools write them."""
