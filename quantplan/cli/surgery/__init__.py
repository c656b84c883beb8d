"""`quantplan surgery`: cut, repeat, swap and blend the blocks of a model, search over it, score it, publish it."""
