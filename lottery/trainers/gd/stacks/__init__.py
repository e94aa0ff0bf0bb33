"""What stacked training is made of: work that is recorded and replayed, batches, masks, memory, attention."""
